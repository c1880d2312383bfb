"""Evaluation sets in CLIP_benchmark's WebDataset layout, local or at a URL, encoded as they stream by.

A folder `wds_NAME` holds

- `test/nshards.txt`, `0.tar`, `1.tar`, ...: members of a sample are `KEY.webp` (or `.jpg`, `.png`) and `KEY.cls`, the
  class from 0 on; perhaps `KEY.npy`, numbers about the picture;
- `classnames.txt`, a name a line;
- `zeroshot_classification_templates.txt`, a prompt a line, with `{c}` in the class's place;
- for retrieval, `dataset_type.txt` with the word "retrieval", and instead of classes `KEY.txt`, a caption a line.

WinoGAViL, which CLIP_benchmark does not have in this layout, is "association": each candidate picture is a sample with
KEY.json, `{"instance": ..., "cue": ..., "associated": true}`.
"""

import contextlib
import hashlib
import io
import re
import tempfile
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple, TypedDict

import numpy as np
import torch
from fsspec.implementations.local import LocalFileSystem
from PIL import Image
from torch import Tensor

from mcliplib.data.reader import Members, ReadReport, Skip, image_extension, raw_samples
from mcliplib.data.shards import MAX_TEXT, url_to_fs
from mcliplib.errors import UserError
from mcliplib.evaluate.features import BATCH, Encoder, FeatureCache
from mcliplib.evaluate.scores import class_features
from mcliplib.files import Range, blaming, fitted, read_json
from mcliplib.images import PictureError, read_picture

_MOST_SHARDS = 100_000
_MOST_PIXELS = 32_000_000  # of decoded pictures in memory at a time
_MOST_SKIPPED = 0.01
_WEB_PAGE = re.compile(r"^(https://huggingface\.co/datasets/.+)/tree/")  # of a set's files; shown to people only
_CLASSES, _TEMPLATES = "classnames.txt", "zeroshot_classification_templates.txt"


class EvalSet(NamedTuple):
    """A set that is there: what kind it is, its class names and prompts, and its shards."""

    fs: Any
    kind: str  # "classification", "retrieval" or "association"
    classes: list[str]
    templates: list[str]
    shards: list[str]


class Encoded(NamedTuple):
    """A set's features.

    Attributes:
        images: [N, D].
        texts: [M, D], of classes, captions, or cues.
        labels: classification: [N], each picture's class. Retrieval: [M], each caption's picture. Association: [N],
            each picture's cue.
        groups: [N], the first number about each picture, or whether it is associated with its cue; else zeros.
        skipped: pictures that were left out.
    """

    images: Tensor
    texts: Tensor
    labels: Tensor
    groups: Tensor
    skipped: int


def open_set(root: str, folders: list[str]) -> EvalSet | None:
    """The first of these folders that is there; None if none is.

    Args:
        root: a folder or URL with the sets' folders in it. `{name}` stands for the folder where it is not at the end,
            as in `https://huggingface.co/datasets/clip-benchmark/{name}/resolve/main`. CLIP_benchmark's own way to
            write this address, `.../wds_{dataset_cleaned}/tree/main`, is understood too.
        folders: names that the set may have.

    Raises:
        UserError: a file in it is missing, damaged or too large; names it.
    """
    root = _WEB_PAGE.sub(r"\1/resolve/", root.replace("wds_{dataset_cleaned}", "{name}"))
    for folder in folders:
        where = root.replace("{name}", folder) if "{name}" in root else f"{root.rstrip('/')}/{folder}"
        with blaming(f"{where}: cannot be opened"):
            fs, path = url_to_fs(where)
        if (count := _text(fs, f"{path}/test/nshards.txt")) is None:
            if isinstance(fs, LocalFileSystem) and fs.isdir(path):
                raise UserError(
                    f"{path}/test/nshards.txt: is missing; it holds the number of shards: fetch the set again"
                )
            continue
        return _described(fs, path, count.strip())
    return None


def _described(fs: Any, path: str, count: str) -> EvalSet:
    if not (count.isascii() and count.isdigit() and 0 < int(count[:9]) <= _MOST_SHARDS):
        raise UserError(
            f"{path}/test/nshards.txt: must hold a number of shards, 1 to {_MOST_SHARDS:,}, got {count[:20]!r}"
        )
    kind = (_text(fs, f"{path}/dataset_type.txt") or "classification").strip().lower()
    if kind not in ("classification", "retrieval", "association"):
        raise UserError(f"{path}/dataset_type.txt: {kind[:40]!r} is not classification, retrieval or association")
    texts: dict[str, list[str]] = {_CLASSES: [], _TEMPLATES: []}
    for name in texts if kind == "classification" else ():
        lines = [line.strip() for line in (_text(fs, f"{path}/{name}") or "").rstrip().splitlines()]
        if not lines or "" in lines:
            raise UserError(
                f"{path}/{name}: is missing, empty or has an empty line; fetch it, or write a line for each"
            )
        texts[name] = lines
    if faulty := [line for line in texts[_TEMPLATES] if "{c}" not in line]:
        raise UserError(f"{path}/{_TEMPLATES}: {faulty[0][:60]!r} has no {{c}}, the place of the class's name")
    shards = [f"{path}/test/{at}.tar" for at in range(int(count))]
    with blaming(f"{path}/test: cannot be listed"):
        missing = [shard for shard in shards if not fs.isfile(shard)]
    if missing:
        raise UserError(f"{missing[0]}: is missing ({len(missing)} of the {count} shards of nshards.txt); fetch it")
    return EvalSet(fs, kind, texts[_CLASSES], texts[_TEMPLATES], shards)


def encode(found: EvalSet, encoder: Encoder, *, grouped: bool = False, cache: FeatureCache | None = None) -> Encoded:
    """The set's features, streamed in bounded memory, or from the cache.

    Args:
        found: the set.
        encoder: of its pictures and texts.
        grouped: whether each picture must say its group, as the first number in its .npy.
        cache: where to look for the features, and to keep them.

    Raises:
        UserError: a shard is damaged, more than one picture in a hundred is, or a label fits no class; names the file.
    """
    path = None
    if cache is not None:
        prints = [_fingerprint(found.fs, shard) for shard in found.shards]
        path = cache.path(encoder, found.kind, found.classes, found.templates, prints, grouped)
        if (kept := cache.get(path)) is not None and {*kept} == {*Encoded._fields}:
            return Encoded(**{**kept, "skipped": int(kept["skipped"])})  # type: ignore[arg-type]
    encoded = _encode(found, encoder, grouped)
    if cache is not None and path is not None:
        cache.put(path, {**encoded._asdict(), "skipped": torch.tensor(encoded.skipped)})
    return encoded


class _About(TypedDict):
    instance: str | int
    cue: Annotated[str, Range(1, 1000)]
    associated: bool


class _Answers:
    """The labels, groups and texts of a set's pictures, gathered as they stream by."""

    def __init__(self, found: EvalSet, grouped: bool) -> None:
        self.found, self.grouped = found, grouped
        self.labels: list[int] = []
        self.groups: list[int] = []
        self.texts: list[str] = []
        self._cues: dict[str | int, int] = {}

    def add(self, picture: int, members: Members, where: str) -> None:
        """Read what a sample's members say about its picture."""
        if self.found.kind == "retrieval":
            captions = [line for line in _decoded(members.get("txt", b""), f"{where}.txt").splitlines() if line.strip()]
            if not captions:
                raise UserError(f"{where}.txt: is missing or empty; each picture of a retrieval set needs a caption")
            self.labels += [picture] * len(captions)
            self.texts += captions
        elif self.found.kind == "association":
            about = fitted(read_json(members.get("json", b""), f"{where}.json", MAX_TEXT), _About, f"{where}.json")
            cue = about["cue"].lower()
            self.labels.append(self._cues.setdefault(about["instance"], len(self._cues)))
            if len(self.texts) < len(self._cues):
                self.texts.append(f"{'An' if cue[0] in 'aeiou' else 'A'} {cue}")
            self.groups.append(int(about["associated"]))
        else:
            text = _decoded(members.get("cls", b""), f"{where}.cls").strip()
            if not (text.isascii() and text.isdigit() and int(text[:9]) < len(self.found.classes)):
                raise UserError(f"{where}.cls: {text[:20]!r} is not one of the {len(self.found.classes)} classes of "
                                f"{_CLASSES}, from 0 on; fetch both from one place")  # fmt: skip
            self.labels.append(int(text))
            if self.grouped:
                self.groups.append(_first_number(members.get("npy", b""), f"{where}.npy"))

    def features(self, encoder: Encoder) -> Tensor:
        """Of the classes, captions or cues."""
        if self.found.kind == "classification":
            return class_features(encoder, self.found.classes, self.found.templates)
        return encoder.encode_texts(self.texts)


def _encode(found: EvalSet, encoder: Encoder, grouped: bool) -> Encoded:
    report, answers, parts = ReadReport(cure="Fetch the set again"), _Answers(found, grouped), []
    waiting: list[Image.Image] = []
    for shard, key, members in _samples(found):
        try:
            if (extension := image_extension(members)) is None:
                raise PictureError(members.fault or "missing image", "")
            image = read_picture(members[extension]).image
        except PictureError as error:
            report.skip(Skip(shard, key, error.reason), _MOST_SKIPPED)
            continue
        answers.add(report.read, members, f"{shard}: {key}")
        report.read += 1
        waiting.append(image)
        if len(waiting) == BATCH or sum(one.width * one.height for one in waiting) > _MOST_PIXELS:
            parts.append(encoder.encode_images(waiting))
            waiting = []
    report.check_share(_MOST_SKIPPED)
    if waiting:
        parts.append(encoder.encode_images(waiting))
    if not parts:
        raise UserError(f"{found.shards[0]}: holds no picture; fetch the set again")
    groups = torch.tensor(answers.groups or [0] * report.read)
    return Encoded(
        torch.cat(parts), answers.features(encoder), torch.tensor(answers.labels), groups, len(report.skipped)
    )


def _samples(found: EvalSet) -> Iterator[tuple[str, str, Members]]:
    """Shard, key and members of each sample; a shard at a URL is on this disk only while it is read."""
    for shard in found.shards:
        with contextlib.ExitStack() as stack:
            path = shard
            if not isinstance(found.fs, LocalFileSystem):
                path = f"{stack.enter_context(tempfile.TemporaryDirectory())}/shard.tar"
                with blaming(f"{shard}: cannot be fetched", "; try again"):
                    found.fs.get_file(shard, path)
            broken: dict[str, str] = {}
            for key, members in raw_samples(path, broken, name=shard):
                if not broken:  # else the sample in which the shard breaks off
                    yield shard, key, members
            if broken:
                raise UserError(f"{shard}: {broken[shard]}; fetch it again")


def _text(fs: Any, path: str) -> str | None:
    """A small text file; None where there is none."""
    with blaming(f"{path}: cannot be read"):
        try:
            with fs.open(path, "rb") as file:
                content = file.read(MAX_TEXT + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
    if len(content) > MAX_TEXT:
        raise UserError(f"{path}: has more than the {MAX_TEXT:,} bytes that are read; fetch it again")
    return _decoded(content, path)


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def _first_number(content: bytes, where: str) -> int:
    with blaming(f"{where}: holds no numbers about the picture", "; this set's score needs them: fetch the set again"):
        array = np.load(io.BytesIO(content), allow_pickle=False)
        return int(array.reshape(-1)[0])


def _fingerprint(fs: Any, shard: str) -> str:
    """A hash of a local shard's bytes; what the server says about one at a URL."""
    with blaming(f"{shard}: cannot be read"):
        if not isinstance(fs, LocalFileSystem):
            return str(fs.checksum(shard))
        with open(shard, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
