"""One sample of a reinforced data set, and the WebDataset members that hold it, as the public DataCompDR has them.

- `KEY.webp` (or jpg, jpeg, png): the image's own bytes; the public release ships none.
- `KEY.txt`, `KEY.url.txt`: the real caption; where the image comes from.
- `KEY.syn.json`: `{"syn_text": [M strings]}`.
- `KEY.paug.json`: `{"param_aug": [N augmentations]}`, as in `mcliplib.reinforce.params`.
- `KEY.npz` or `KEY.pth.gz`: `image_emb` [N, D], `text_emb` [1 + M, D], as in `mcliplib.reinforce.embeddings`.
- `KEY.json`: `{"uid": str, "sha256": str}`, sha256 of the image, and what else the source said of it.

Writing and reading::

    members = to_members(sample, dtype="bfloat16")
    write_shard("shard-000000.tar", [(sample.key, members)])
    again = from_members(sample.key, members, teacher_dims=(768, 768))
"""

import hashlib
import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mcliplib.data.reader import IMAGE_EXTENSIONS, image_extension
from mcliplib.errors import UserError
from mcliplib.reinforce.embeddings import MEMBER_OF, EmbeddingDType, Embeddings, check, pack, unpack
from mcliplib.reinforce.params import PAPER, Augmentation, AugmentSettings, decode, encode


@dataclass(frozen=True, eq=False)
class ReinforcedSample:
    """An image-caption pair with all that its teachers said of it.

    Attributes:
        key: name of the sample inside its set.
        augmentations: parameters of the N augmented views.
        synthetic_captions: M captions by a captioner.
        image_emb: of the augmented views; K teachers' unit vectors side by side, D their sizes' sum.
        text_emb: of the real caption (row 0) and the synthetic ones.
        caption: the real one; None where the shard leaves it to another (the public release).
        url: where the image comes from; may be empty.
        uid: name of the sample in its source; the key if empty.
        sha256: of the image, in hexadecimal; computed when writing if empty and the image is here.
        image: the encoded bytes, untouched; None where the shard has no image.
        image_extension: theirs, without a dot.
        meta: what else `KEY.json` holds.
    """

    key: str
    augmentations: tuple[Augmentation, ...]
    synthetic_captions: tuple[str, ...]
    image_emb: Float[Tensor, "views dim"]
    text_emb: Float[Tensor, "texts dim"]
    caption: str | None = None
    url: str = ""
    uid: str = ""
    sha256: str = ""
    image: bytes | None = None
    image_extension: str = "webp"
    meta: Mapping[str, Any] = field(default_factory=dict)


def to_members(
    sample: ReinforcedSample,
    dtype: EmbeddingDType = "bfloat16",
    settings: AugmentSettings = PAPER,
    teacher_dims: Sequence[int] | None = None,
) -> dict[str, bytes]:
    """The sample as members for `mcliplib.data.write_shard`; the same sample gives the same bytes.

    Args:
        sample: to write.
        dtype: of the stored embeddings: "float32", "bfloat16", "int8" or "int4".
        settings: those the augmentations were drawn with.
        teacher_dims: size of each teacher's embedding, for a stronger check.

    Returns:
        Extension without the first dot -> content.

    Raises:
        UserError: the parts of the sample contradict each other.
        ValueError: no such dtype or image extension, or augmentations that the settings do not describe.
    """
    if dtype not in MEMBER_OF:
        raise ValueError(f"embeddings are stored as {', '.join(MEMBER_OF)}, not {dtype!r}")
    embeddings = Embeddings(sample.image_emb, sample.text_emb)
    check(embeddings, f"{sample.key}.{MEMBER_OF[dtype]}", teacher_dims)
    _check_counts(sample, MEMBER_OF[dtype])
    digest = sample.sha256 or (hashlib.sha256(sample.image).hexdigest() if sample.image else "")
    members = {
        MEMBER_OF[dtype]: pack(embeddings, dtype),
        "syn.json": _dumped({"syn_text": list(sample.synthetic_captions)}),
        "paug.json": _dumped({"param_aug": [encode(params, settings) for params in sample.augmentations]}),
        "json": _dumped({**sample.meta, "uid": sample.uid or sample.key, "sha256": digest}),
    }
    if sample.image is not None:
        if sample.image_extension not in IMAGE_EXTENSIONS:
            raise ValueError(f"images end in {', '.join(IMAGE_EXTENSIONS)}, not {sample.image_extension!r}")
        members[sample.image_extension] = sample.image
    if sample.caption is not None:
        members["txt"] = sample.caption.encode()
    if sample.url:
        members["url.txt"] = sample.url.encode()
    return members


def from_members(
    key: str,
    members: Mapping[str, Any],
    settings: AugmentSettings = PAPER,
    teacher_dims: Sequence[int] | None = None,
) -> ReinforcedSample:
    """The sample from its members, also as the public releases and their readers give them.

    Args:
        key: the sample's name.
        members: extension -> bytes, or the decoded value (JSON, a mapping of arrays). `param_aug` may be a JSON string
            inside the JSON. Other members are ignored.
        settings: those the augmentations were drawn with.
        teacher_dims: size of each teacher's embedding, for a stronger check.

    Returns:
        Embeddings are float32, whatever was stored; the image is not decoded.

    Raises:
        UserError: a member is missing, damaged, or contradicts another; names both (`KEY.paug.json`).
    """
    extension = image_extension(members)
    image = members[extension] if extension else None
    if not (image is None or isinstance(image, bytes)):
        raise UserError(f"{key}.{extension}: must be the image's bytes: read the shard without decoding images")
    stored = [extension for extension in sorted({*MEMBER_OF.values()}) if extension in members]
    if len(stored) != 1:
        raise UserError(f"{key}: needs its embeddings in one member, npz or pth.gz, and has {stored or 'neither'}")
    embeddings = unpack(stored[0], members[stored[0]], f"{key}.{stored[0]}", teacher_dims)
    meta = _object(key, "json", members)
    sample = ReinforcedSample(
        key=key,
        augmentations=_augmentations(key, members, settings),
        synthetic_captions=_synthetic_captions(key, members),
        image_emb=embeddings.image,
        text_emb=embeddings.text,
        caption=_text(members["txt"]) if "txt" in members else None,
        url=_text(members.get("url.txt", b"")),
        uid=_string(meta, "uid", key),
        sha256=_string(meta, "sha256", key),
        image=image,
        image_extension=extension or "webp",
        meta={name: value for name, value in meta.items() if name not in ("uid", "sha256")},
    )
    _check_counts(sample, stored[0])
    return sample


def _check_counts(sample: ReinforcedSample, extension: str) -> None:
    where = f"{sample.key}.{extension}"
    views, augmentations = sample.image_emb.shape[0], len(sample.augmentations)
    if views != augmentations:
        raise UserError(
            f"{where}: {views} image embeddings, but {sample.key}.paug.json has {augmentations} augmentations"
        )
    texts, captions = sample.text_emb.shape[0], len(sample.synthetic_captions)
    if texts != 1 + captions:
        raise UserError(
            f"{where}: {texts} text embeddings, but {sample.key}.syn.json has {captions} captions, "
            f"which with the real one makes {1 + captions}"
        )


def _augmentations(key: str, members: Mapping[str, Any], settings: AugmentSettings) -> tuple[Augmentation, ...]:
    where = f"{key}.paug.json"
    values = _object(key, "paug.json", members).get("param_aug")
    if isinstance(values, str):  # the public release: JSON inside JSON
        values = _parsed(values, where)
    if not isinstance(values, list):
        raise UserError(f"{where}: param_aug must be a list of augmentations, got {reprlib.repr(values)}")
    return tuple(decode(value, settings, key=f"{where}, number {index}") for index, value in enumerate(values))


def _synthetic_captions(key: str, members: Mapping[str, Any]) -> tuple[str, ...]:
    captions = _object(key, "syn.json", members).get("syn_text")
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise UserError(f"{key}.syn.json: syn_text must be a list of strings, got {reprlib.repr(captions)}")
    return tuple(captions)


def _object(key: str, extension: str, members: Mapping[str, Any]) -> Mapping[str, Any]:
    where = f"{key}.{extension}"
    if extension not in members:
        raise UserError(f"{where}: is missing")
    value = members[extension]
    parsed = _parsed(value, where) if isinstance(value, str | bytes) else value
    if not isinstance(parsed, Mapping):
        raise UserError(f"{where}: must be a JSON object, got {reprlib.repr(parsed)}")
    return parsed


def _parsed(text: str | bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from error


def _dumped(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _text(content: str | bytes) -> str:
    return (content if isinstance(content, str) else content.decode("utf-8", errors="replace")).strip()


def _string(meta: Mapping[str, Any], name: str, key: str) -> str:
    value = meta.get(name, "")
    if not isinstance(value, str):
        raise UserError(f"{key}.json: {name} must be a string, got {reprlib.repr(value)}")
    return value
