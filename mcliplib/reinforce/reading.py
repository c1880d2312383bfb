"""From reinforced shards to samples, ours and the public release's.

The public release (DataCompDR, 2311.17049) ships no images: `images` names the shards that hold them, and samples of
equal key are joined. Both are read once, side by side; in whatever order they come, what is still without its other
half is kept in memory, so that shards in the same order cost nothing.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence

from mcliplib.data.reader import Members, Paths, ReadReport, Skip, existing, image_extension, raw_samples
from mcliplib.data.shards import safe_key
from mcliplib.errors import UserError
from mcliplib.images import is_picture
from mcliplib.reinforce.augment import PAPER, AugmentSettings
from mcliplib.reinforce.sample import ReinforcedSample, from_members

_CURE = "make it with `mcliplib reinforce`"


def read_reinforced(
    paths: Paths,
    *,
    images: Paths | None = None,
    settings: AugmentSettings = PAPER,
    teacher_dims: Sequence[int] | None = None,
    report: ReadReport | None = None,
    max_skipped: float = 0.1,
) -> Iterator[ReinforcedSample]:
    """The samples of reinforced shards, in order, with their images' bytes and real captions.

    Args:
        paths: one reinforced shard or several (`.tar`, `.tar.gz`).
        images: shards that hold the images (and captions) where the reinforced ones do not, joined by key.
        settings: those the augmentations were drawn with.
        teacher_dims: size of each teacher's embedding, for a stronger check.
        report: filled while reading; without one, skips are summed up in a warning at the end.
        max_skipped: largest share (0 to 1) of skipped samples that is still accepted.

    Raises:
        UserError: a shard does not exist or is no tar archive, or more than `max_skipped` was skipped.
    """
    own = ReadReport() if report is None else report
    pictures = _Pictures(existing(images, cure=_CURE), own) if images is not None else None
    for path in existing(paths, cure=_CURE):
        broken: dict[str, str] = {}
        for key, members in raw_samples(path, broken):
            try:
                if members.fault:
                    raise UserError(f"{key}: {members.fault}")
                sample = from_members(key, members, settings, teacher_dims)
                sample = _with_picture(sample, pictures.find(key) if pictures else Members())
            except UserError as error:
                if broken:
                    continue  # the sample the shard breaks off in: counted once, as the broken shard
                own.skip(Skip(path, key, _reason(key, error)), max_skipped)
                continue
            own.read += 1
            yield sample
        own.broken_shards.update(broken)
    own.check_share(max_skipped)
    if report is None and (own.skipped or own.broken_shards):
        warnings.warn(str(own), stacklevel=2)


class _Pictures:
    """The members of image shards by key, read as far as they are asked for."""

    def __init__(self, paths: Sequence[str], report: ReadReport) -> None:
        self._read = (one for path in paths for one in raw_samples(path, report.broken_shards))
        self._waiting: dict[str, Members] = {}
        self._other_names: dict[str, str] = {}

    def find(self, key: str) -> Members:
        """The members of this key, once; nothing where there are none.

        `mcliplib reinforce` gives a key with dots or slashes another form; the pictures may have either.
        """
        if (known := self._other_names.pop(key, key)) in self._waiting:
            return self._waiting.pop(known)
        for met, members in self._read:
            if met == key or (name := safe_key(met)) == key:
                return members
            self._waiting[met] = members
            if name != met:
                self._other_names[name] = met
        return Members()


def _with_picture(sample: ReinforcedSample, picture: Members) -> ReinforcedSample:
    """The sample with the image and the caption that it lacks; neither may be blank or no picture at all."""
    changes: dict[str, object] = {}
    if sample.image is None:
        extension = image_extension(picture)
        if extension is None:
            raise UserError(f"{sample.key}: {picture.fault or 'missing image'}")
        changes = {"image": picture[extension], "image_extension": extension}
    if sample.caption is None:
        changes["caption"] = picture.get("txt", b"").decode("utf-8", errors="replace").strip()
    whole = dataclasses.replace(sample, **changes) if changes else sample  # type: ignore[arg-type]
    if not whole.caption:
        raise UserError(f"{sample.key}: missing caption")
    optional = whole.image_extension in ("heic", "heif")  # its decoder may be missing
    if not optional and not is_picture(whole.image or b""):
        raise UserError(f"{sample.key}: corrupt image")
    return whole


def _reason(key: str, error: UserError) -> str:
    """The message without the key and the particulars, so that equal faults count as one reason."""
    return str(error).removeprefix(key).lstrip(".: ").partition(" (")[0].partition(", ")[0]
