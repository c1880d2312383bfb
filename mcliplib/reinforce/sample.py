"""One sample of a reinforced data set, and the WebDataset members that hold it, as the public DataCompDR has them.

- `KEY.webp` (or jpg, jpeg, png): the image's own bytes; the public release ships none.
- `KEY.txt`, `KEY.url.txt`: the real caption; where the image comes from.
- `KEY.syn.json`: `{"syn_text": [M strings]}`.
- `KEY.paug.json`: `{"param_aug": [N augmentations], "upright": true}`, as in `mcliplib.reinforce.augment`. The mark
  says that they are of the picture turned upright by its EXIF data; without it (the public release), as it is stored.
- `KEY.npz` or `KEY.pth.gz`: `image_emb` [N, D], `text_emb` [1 + M, D].
- `KEY.json`: `{"uid": str, "sha256": str}`, sha256 of the image, and what else the source said of it.

The embeddings are stored in one of four ways:

- float32: `npz` with `image_emb` and `text_emb`; exact.
- bfloat16: `pth.gz`, gzip of a torch file with a dict of both; each number is within 2^-8 of itself.
- int8: `npz` with both and with `image_scale` and `text_scale`, one step for each row, which is the row's largest
  absolute value / 127; each number is within half a step.
- int4: the same with two numbers in each byte (the lower half first) and 7 steps to the largest value.

The first two are the public releases' forms (DataCompDR, 2311.17049). The others are our own, for sets that must be
small. Nothing is deflated: it would save a fifth at most, and be undone in every epoch.

Writing and reading::

    members = to_members(sample, dtype="bfloat16")
    write_shard("shard-000000.tar", [(sample.key, members)])
    again = from_members(sample.key, members, teacher_dims=(768, 768))
"""

import gzip
import hashlib
import io
import json
import math
import reprlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mcliplib.checkpoints.int8 import LEVELS, quantize_rows
from mcliplib.data.reader import IMAGE_EXTENSIONS, image_extension
from mcliplib.errors import UserError
from mcliplib.files import blaming, fitted, read_json
from mcliplib.reinforce.archives import load_npy, load_torch, read_member
from mcliplib.reinforce.augment import PAPER, Augmentation, AugmentSettings, decode, encode

EmbeddingDType = Literal["float32", "bfloat16", "int8", "int4"]
MEMBER_OF: dict[EmbeddingDType, str] = {"float32": "npz", "bfloat16": "pth.gz", "int8": "npz", "int4": "npz"}
_MAX_BYTES = 64 << 20  # decompressed; the public release's samples need 0.2 MB
_LEVELS = {"int8": LEVELS, "int4": 7}  # to either side of zero
_UNIT_TOLERANCE = 0.02  # of a norm; what int8 leaves of 768 numbers stays within a tenth of it
_COARSE_TOLERANCE = 0.3  # what int4 does to the norm of one teacher with few dimensions; all together keep theirs


class Embeddings(NamedTuple):
    """Embeddings of one sample, float32; the teachers' unit vectors lie side by side in each row."""

    image: Float[Tensor, "views dim"]
    text: Float[Tensor, "texts dim"]  # row 0 the real caption, then the synthetic ones


def split_teachers(
    embeddings: Float[Tensor, "*rows dim"], teacher_dims: Sequence[int]
) -> tuple[Float[Tensor, "*rows _"], ...]:
    """The embeddings of each teacher, as views.

    Raises:
        UserError: the teachers' dimensions do not add up to the last axis.
    """
    if min(teacher_dims, default=0) < 1 or sum(teacher_dims) != embeddings.shape[-1]:
        raise UserError(f"teachers of {list(teacher_dims)} dimensions do not fill {embeddings.shape[-1]}")
    return embeddings.split(list(teacher_dims), dim=-1)


def check(
    embeddings: Embeddings, where: str, teacher_dims: Sequence[int] | None = None, *, tolerance: float = _UNIT_TOLERANCE
) -> None:
    """Refuse embeddings that no teacher can have made.

    Args:
        embeddings: of one sample.
        where: key and member, for the message.
        teacher_dims: size of each teacher's embedding. Without it, a row's squared norm must be a whole number, that
            of its teachers: weaker, but it needs no knowledge.
        tolerance: of a norm.

    Raises:
        UserError: two dimensions, equal widths, finite numbers or unit norms are missing.
    """
    for name, rows in (("image_emb", embeddings.image), ("text_emb", embeddings.text)):
        if rows.ndim != 2 or not rows.numel():
            raise UserError(f"{where}: {name} must be [rows, dimensions], got {list(rows.shape)}")
        if teacher_dims is not None and sum(teacher_dims) != rows.shape[1]:
            raise UserError(f"{where}: {name} has {rows.shape[1]} dimensions, the teachers have {list(teacher_dims)}")
        norms = _norms(rows, teacher_dims)
        if not np.isfinite(norms).all():
            raise UserError(f"{where}: {name} holds numbers that are not finite")
        worst = norms.flat[np.abs(norms - 1).argmax()]
        if abs(worst - 1) > tolerance:
            raise UserError(f"{where}: {name} must be unit vectors, one for each teacher; one has norm {worst:.3g}")
    image, text = embeddings.image.shape[1], embeddings.text.shape[1]
    if image != text:
        raise UserError(f"{where}: image_emb has {image} dimensions, text_emb {text}")


def pack(embeddings: Embeddings, dtype: EmbeddingDType) -> bytes:
    """The content of the member `KEY.` + `MEMBER_OF[dtype]`.

    Equal embeddings give equal bytes, with equal versions of the libraries.
    """
    buffer = io.BytesIO()
    if dtype == "bfloat16":
        named = {f"{name}_emb": rows.detach().cpu().bfloat16() for name, rows in embeddings._asdict().items()}
        torch.save({name: rows.clone() for name, rows in named.items()}, buffer)  # a view would save all it views
        return gzip.compress(buffer.getvalue(), compresslevel=0, mtime=0)  # as the form has it, but only wrapped
    plain = {name: rows.detach().cpu().float().numpy() for name, rows in embeddings._asdict().items()}
    if dtype == "float32":
        np.savez(buffer, **{f"{name}_emb": rows for name, rows in plain.items()})
        return buffer.getvalue()
    arrays: dict[str, Any] = {}
    for name, rows in plain.items():
        levels, arrays[f"{name}_scale"] = _quantized(rows, _LEVELS[dtype])
        arrays[f"{name}_emb"] = levels if dtype == "int8" else _halves(levels)
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack(extension: str, content: Any, where: str, teacher_dims: Sequence[int] | None = None) -> Embeddings:
    """Embeddings from the bytes of a member, or from what webdataset's and Hugging Face's readers make, checked.

    Args:
        extension: "npz" or "pth.gz".
        content: bytes, or a mapping of names to arrays, tensors or lists of lists.
        where: key and member, for the message.
        teacher_dims: as in `check`.

    Returns:
        float32, whatever was stored.

    Raises:
        UserError: damaged, absurdly large, running code when opened, without the two arrays, or what `check` refuses.
    """
    with blaming(f"{where}: damaged or not such a file", "; fetch or make it again"):
        named = content if isinstance(content, Mapping) else _read(extension, content, where)
        image, text = (_rows(named, f"{name}_emb", f"{name}_scale", where) for name in ("image", "text"))
    coarse = any(getattr(named[f"{name}_emb"], "dtype", None) == np.uint8 for name in ("image", "text"))
    found = Embeddings(image, text)
    check(found, where, teacher_dims, tolerance=_COARSE_TOLERANCE if coarse else _UNIT_TOLERANCE)
    return found


def _norms(rows: Tensor, teacher_dims: Sequence[int] | None) -> NDArray[np.float32]:
    """Each teacher's norms [rows, teachers], or without their sizes one [rows] that is 1 where they all are.

    In numpy: torch would wake its threads for a task this small, which on a busy machine takes tens of milliseconds.
    """
    parts = (rows,) if teacher_dims is None else split_teachers(rows, teacher_dims)
    arrays = [part.detach().cpu().float().numpy() for part in parts]
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.stack([np.einsum("nd,nd->n", array, array) for array in arrays], axis=-1)
        return np.sqrt(squares if teacher_dims is not None else squares / np.maximum(np.round(squares), 1))


def _quantized(rows: NDArray[np.float32], most: int) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Levels from -most to most, and a float16 step for each row."""
    levels, step = quantize_rows(rows, most, np.float16)
    if most > _LEVELS["int4"]:
        return levels, step
    # So coarse, rounding changes a row's length; the step that keeps it.
    lengths = np.linalg.norm(levels.astype(np.float32), axis=1)
    return levels, (np.linalg.norm(rows, axis=1) / np.maximum(lengths, 1)).astype(np.float16)


def _halves(levels: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two levels in each byte."""
    if levels.shape[1] % 2:
        raise UserError(f"int4 needs an even number of dimensions, got {levels.shape[1]}; store int8")
    shifted = (levels + 8).astype(np.uint8)
    return np.bitwise_or(shifted[:, 0::2], np.left_shift(shifted[:, 1::2], np.uint8(4)))


def _levels(halves: NDArray[np.uint8]) -> NDArray[np.int8]:
    return (np.stack([halves & 15, halves >> 4], axis=2).astype(np.int8) - 8).reshape(len(halves), -1)


def _read(extension: str, content: bytes, where: str) -> Mapping[str, Any]:
    """Both forms are zip archives, which say how large they will be."""
    raw = content if extension == "npz" else _gunzipped(content)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        size = max(len(raw), sum(member.file_size for member in archive.infolist()))
        if size > _MAX_BYTES:
            raise UserError(f"{where}: would need more than {_MAX_BYTES >> 20} MiB")
        if extension == "npz":
            wanted = [name for name in archive.namelist() if name.endswith(("_emb.npy", "_scale.npy"))]
            return {name.removesuffix(".npy"): load_npy(read_member(raw, archive, name)) for name in wanted}
        loaded = load_torch(raw, archive)
    if not isinstance(loaded, Mapping):
        raise UserError(f"{where}: holds no dictionary of image_emb and text_emb")
    return loaded


def _gunzipped(content: bytes) -> bytes:
    """At most a little more than what is accepted. In one call: `gzip` copies small parts, which takes longer."""
    stream = zlib.decompressobj(wbits=31)
    raw = stream.decompress(content, _MAX_BYTES + 1)
    if len(raw) <= _MAX_BYTES and not stream.eof:
        raise EOFError("it breaks off")
    return raw


def _rows(named: Mapping[str, Any], name: str, scale_name: str, where: str) -> Float[Tensor, "rows dim"]:
    if name not in named:
        raise UserError(f"{where}: holds no {name}")
    rows = _array(named[name])
    shape = list(rows.shape)
    if rows.ndim != 2 or math.prod(shape) * 4 > _MAX_BYTES:
        raise UserError(f"{where}: {name} must be [rows, dimensions], got {shape}")
    if rows.dtype == np.uint8:
        rows = _levels(rows)
    if rows.dtype == np.int8:
        if scale_name not in named or list((scale := _array(named[scale_name])).shape) != shape[:1]:
            raise UserError(f"{where}: {name} is int8 or int4 and needs {scale_name}, one number for each row")
        return torch.from_numpy(rows * scale.astype(np.float32)[:, None])
    if rows.dtype.kind != "f":
        raise UserError(f"{where}: {name} must hold floating-point numbers, int8 or int4, not {rows.dtype}")
    with np.errstate(over="ignore"):  # a float64 that becomes infinite is refused by `check`
        return torch.from_numpy(np.require(rows, np.float32, ["C", "W"]))


def _array(value: Any) -> NDArray[Any]:
    """An array; an error where that cannot be. bfloat16, which numpy lacks, is the upper half of a float32."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ValueError("not a plain tensor")
        if value.numel() * 4 > _MAX_BYTES:  # strides can pretend to any size
            raise ValueError(f"a tensor of {value.numel():,} numbers")
        if value.dtype == torch.bfloat16:
            return (value.view(torch.int16).numpy().astype(np.uint32) << 16).view(np.float32)
        return value.numpy()
    return value if isinstance(value, np.ndarray) else np.array(value, dtype=np.float32)


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
        upright: whether the augmentations were drawn for the picture as its EXIF orientation turns it.
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
    upright: bool = False
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
        "paug.json": _dumped(
            {"param_aug": [encode(params, settings) for params in sample.augmentations]}
            | ({"upright": True} if sample.upright else {})
        ),
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
    key: str, members: Mapping[str, Any], settings: AugmentSettings = PAPER, teacher_dims: Sequence[int] | None = None
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
    meta, drawn = _object(key, "json", members), _object(key, "paug.json", members)
    sample = ReinforcedSample(
        key=key,
        augmentations=_augmentations(key, drawn, settings),
        synthetic_captions=_synthetic_captions(key, members),
        image_emb=embeddings.image,
        text_emb=embeddings.text,
        caption=_text(members["txt"]) if "txt" in members else None,
        url=_text(members.get("url.txt", b"")),
        uid=_string(meta, "uid", key),
        sha256=_string(meta, "sha256", key),
        image=image,
        image_extension=extension or "webp",
        upright=drawn.get("upright") is True,
        meta={name: value for name, value in meta.items() if name not in ("uid", "sha256")},
    )
    _check_counts(sample, stored[0])
    return sample


def _check_counts(sample: ReinforcedSample, extension: str) -> None:
    where = f"{sample.key}.{extension}"
    parts = (  # of the texts, one is the real caption
        ("image", sample.image_emb, len(sample.augmentations), 0, "paug.json", "augmentations"),
        ("text", sample.text_emb, len(sample.synthetic_captions), 1, "syn.json", "captions beside the real one"),
    )
    for name, rows, count, more, file, what in parts:
        if len(rows) != count + more:
            raise UserError(f"{where}: {len(rows)} {name} embeddings, but {sample.key}.{file} has {count} {what}")


def _augmentations(key: str, drawn: Mapping[str, Any], settings: AugmentSettings) -> tuple[Augmentation, ...]:
    where = f"{key}.paug.json"
    values = drawn.get("param_aug")
    if isinstance(values, str):  # the public release: JSON inside JSON
        values = read_json(values, where)
    if not isinstance(values, list):
        raise UserError(f"{where}: param_aug must be a list of augmentations, got {reprlib.repr(values)}")
    return tuple(decode(value, settings, key=f"{where}, number {index}") for index, value in enumerate(values))


def _synthetic_captions(key: str, members: Mapping[str, Any]) -> tuple[str, ...]:
    captions = fitted(_object(key, "syn.json", members).get("syn_text"), list[str], f"{key}.syn.json: syn_text")
    if any(caption.encode(errors="replace").decode() != caption for caption in captions):
        raise UserError(f"{key}.syn.json: syn_text holds half of a surrogate pair")
    return tuple(captions)


def _object(key: str, extension: str, members: Mapping[str, Any]) -> Mapping[str, Any]:
    where = f"{key}.{extension}"
    if extension not in members:
        raise UserError(f"{where}: is missing")
    value = members[extension]
    parsed = read_json(value, where) if isinstance(value, str | bytes) else value
    if not isinstance(parsed, Mapping):
        raise UserError(f"{where}: must be a JSON object, got {reprlib.repr(parsed)}")
    return parsed


def _dumped(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def _text(content: str | bytes) -> str:
    return (content if isinstance(content, str) else content.decode("utf-8", errors="replace")).strip()


def _string(meta: Mapping[str, Any], name: str, key: str) -> str:
    value = meta.get(name, "")
    if not isinstance(value, str):
        raise UserError(f"{key}.json: {name} must be a string, got {reprlib.repr(value)}")
    return value
