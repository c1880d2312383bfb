"""The teachers' embeddings of one sample: their checks, and the four ways in which they are stored.

- float32: `npz` with `image_emb` and `text_emb`; exact.
- bfloat16: `pth.gz`, gzip of a torch file with a dict of both; each number is within 2^-8 of itself.
- int8: `npz` with both and with `image_scale` and `text_scale`, one step for each row, which is the row's largest
  absolute value / 127; each number is within half a step.
- int4: the same with two numbers in each byte (the lower half first) and 7 steps to the largest value.

The first two are the public releases' forms (DataCompDR, 2311.17049). The others are our own, for sets that must be
small. Nothing is deflated: it would save a fifth at most, and be undone in every epoch.
"""

import gzip
import io
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mcliplib.errors import UserError
from mcliplib.reinforce.npy_files import load_npy
from mcliplib.reinforce.torch_files import load_torch
from mcliplib.reinforce.zip_members import read_member

EmbeddingDType = Literal["float32", "bfloat16", "int8", "int4"]
MEMBER_OF: dict[EmbeddingDType, str] = {"float32": "npz", "bfloat16": "pth.gz", "int8": "npz", "int4": "npz"}

_MAX_BYTES = 64 << 20  # decompressed; the public release's samples need 0.2 MB
_LEVELS = {"int8": 127, "int4": 7}  # to either side of zero
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
    embeddings: Embeddings,
    where: str,
    teacher_dims: Sequence[int] | None = None,
    *,
    tolerance: float = _UNIT_TOLERANCE,
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
    if embeddings.image.shape[1] != embeddings.text.shape[1]:
        raise UserError(
            f"{where}: image_emb has {embeddings.image.shape[1]} dimensions, text_emb {embeddings.text.shape[1]}"
        )


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
    try:
        named = content if isinstance(content, Mapping) else _read(extension, content, where)
        image, text = (_rows(named, f"{name}_emb", f"{name}_scale", where) for name in ("image", "text"))
    except UserError:
        raise
    except Exception as error:  # on damage, zipfile, zlib, numpy and torch raise nearly anything
        raise UserError(
            f"{where}: damaged or not such a file ({_first_line(error)}); fetch or make it again"
        ) from error
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


def _quantized(rows: NDArray[np.float32], most: int = _LEVELS["int8"]) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Levels from -most to most, and a float16 step for each row; rounded with the step as stored."""
    step = (np.abs(rows).max(axis=1) / most).astype(np.float16)
    levels = np.round(rows / np.maximum(step.astype(np.float32), 1e-8)[:, None])
    levels = np.clip(levels, -most, most).astype(np.int8)
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
    """An array; ValueError where that cannot be. bfloat16, which numpy lacks, is the upper half of a float32."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise ValueError("not a plain tensor")
        if value.numel() * 4 > _MAX_BYTES:  # strides can pretend to any size
            raise ValueError(f"a tensor of {value.numel():,} numbers")
        if value.dtype == torch.bfloat16:
            return (value.view(torch.int16).numpy().astype(np.uint32) << 16).view(np.float32)
        return value.numpy()
    try:
        return value if isinstance(value, np.ndarray) else np.array(value, dtype=np.float32)
    except TypeError as error:
        raise ValueError(str(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
