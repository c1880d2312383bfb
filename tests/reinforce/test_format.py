"""A reinforced sample survives its members, in every dtype and from the public release; a damaged one is named."""

import dataclasses
import gzip
import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcliplib.data import write_shard
from mcliplib.errors import UserError
from mcliplib.reinforce import ReinforcedSample, augment, from_members, split_teachers, to_members
from mcliplib.reinforce.sample import Embeddings, unpack

DIMS = (24, 40)
DTYPES = ("float32", "bfloat16", "int8", "int4")
MEMBER = {"float32": "npz", "bfloat16": "pth.gz", "int8": "npz", "int4": "npz"}


def units(rows: int, seed: int, dims: tuple[int, ...] = DIMS) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(rows, dim, generator=generator) for dim in dims]
    return torch.cat([part / part.norm(dim=1, keepdim=True) for part in parts], 1)


def reinforced(views: int = 4, captions: int = 5, seed: int = 0, **changes: Any) -> ReinforcedSample:
    generator = torch.Generator().manual_seed(seed)
    whole: dict[str, Any] = {
        "key": "dog-17",
        "augmentations": tuple(augment.sample((200, 160), generator) for _ in range(views)),
        "synthetic_captions": tuple(f"a drawing of dog {number}" for number in range(captions)),
        "image_emb": units(views, seed),
        "text_emb": units(1 + captions, seed + 1),
        "caption": "ein Hund – 犬",
        "url": "https://example.org/dog.webp",
        "uid": "0a1b",
        "image": b"RIFF....WEBP",
        "meta": {"licence": "CC0", "keywords": ["dog"]},
    }
    return ReinforcedSample(**{**whole, **changes})


def read(members: dict[str, Any], **options: Any) -> ReinforcedSample:
    return from_members("dog-17", members, teacher_dims=DIMS, **options)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def pth_gz(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return gzip.compress(buffer.getvalue())


# Round trips


@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip(dtype: str) -> None:
    sample = reinforced()
    members = to_members(sample, dtype, teacher_dims=DIMS)
    assert set(members) == {"webp", "txt", "url.txt", "syn.json", "paug.json", "json", MEMBER[dtype]}
    again = read(members)
    for name in ("key", "augmentations", "synthetic_captions", "caption", "url", "uid", "image", "meta"):
        assert getattr(again, name) == getattr(sample, name), name
    assert again.image_extension == "webp"
    assert again.sha256 == hashlib.sha256(sample.image).hexdigest()
    assert again.image_emb.dtype == again.text_emb.dtype == torch.float32
    assert dtype.startswith("int") or to_members(again, dtype) == members


@settings(max_examples=40, deadline=None)
@given(
    views=st.integers(1, 6),
    captions=st.integers(0, 4),
    seed=st.integers(0, 2**32),
    dims=st.lists(st.integers(1, 80), min_size=1, max_size=3),
    dtype=st.sampled_from(DTYPES),
    spikes=st.booleans(),
)
def test_fidelity_of_each_dtype(
    views: int, captions: int, seed: int, dims: list[int], dtype: str, spikes: bool
) -> None:
    image, text = units(views, seed, tuple(dims)), units(1 + captions, seed + 1, tuple(dims))
    if spikes:  # as CLIP has them: one direction that outweighs all others
        image[:, 0] *= 20
        image = torch.cat([part / part.norm(dim=1, keepdim=True) for part in split_teachers(image, dims)], 1)
    sample = reinforced(views, captions, image_emb=image, text_emb=text)
    if dtype == "int4" and sum(dims) % 2:
        with pytest.raises(UserError, match="even number of dimensions"):
            to_members(sample, dtype)
        return
    members = to_members(sample, dtype, teacher_dims=dims)
    assert to_members(sample, dtype) == members
    again = from_members("dog-17", members)
    for stored, rows in ((again.image_emb, image), (again.text_emb, text)):
        error = (stored - rows).abs()
        if dtype == "float32":
            assert torch.equal(stored, rows)
        elif dtype == "bfloat16":
            assert (error <= rows.abs() * 2**-8).all()
            assert torch.equal(stored, rows.bfloat16().float())
        elif dtype == "int8":
            step = rows.abs().amax(1, keepdim=True) / 127
            assert (error <= step * 0.501).all()
        else:  # half a step, and what keeps the row's length
            assert (error <= rows.abs().amax(1, keepdim=True) / 7).all()
            torch.testing.assert_close(stored.norm(dim=1), rows.norm(dim=1), rtol=2e-3, atol=0)


def test_int8_at_the_papers_size_keeps_directions_and_norms() -> None:
    dims = (768, 768)
    image = units(30, 0, dims)
    image[:, [5, 900]] *= 12
    image = torch.cat([part / part.norm(dim=1, keepdim=True) for part in split_teachers(image, dims)], 1)
    sample = reinforced(30, 5, image_emb=image, text_emb=units(6, 1, dims))
    members = to_members(sample, "int8", teacher_dims=dims)
    again = from_members("dog-17", members, teacher_dims=dims)
    for stored, rows in zip(split_teachers(again.image_emb, dims), split_teachers(image, dims), strict=True):
        assert torch.cosine_similarity(stored, rows).min() > 0.998
        assert (stored.norm(dim=1) - 1).abs().max() < 0.01
    sizes = [len(to_members(sample, dtype)[MEMBER[dtype]]) for dtype in ("int8", "bfloat16", "float32")]
    assert sizes[0] < 0.27 * sizes[2]
    assert sizes[1] < 0.51 * sizes[2]


def test_int4_at_the_papers_size_keeps_directions() -> None:
    dims = (768, 768)
    image, text = units(30, 0, dims), units(6, 1, dims)
    members = to_members(reinforced(30, 5, image_emb=image, text_emb=text), "int4", teacher_dims=dims)
    again = from_members("dog-17", members, teacher_dims=dims)
    for stored, rows in zip(split_teachers(again.image_emb, dims), split_teachers(image, dims), strict=True):
        assert torch.cosine_similarity(stored, rows).min() > 0.98
        assert (stored.norm(dim=1) - 1).abs().max() < 0.02
    assert len(members["npz"]) < 0.14 * image.numel() * 4 * 36 / 30


@settings(max_examples=30, deadline=None)
@given(caption=st.text(), synthetic=st.lists(st.text(), max_size=3), url=st.text(max_size=9), uid=st.text(max_size=9))
def test_any_text_survives(caption: str, synthetic: list[str], url: str, uid: str) -> None:
    sample = reinforced(
        1, len(synthetic), caption=caption.strip(), synthetic_captions=tuple(synthetic), url=url.strip(), uid=uid
    )
    again = read(to_members(sample))
    assert (again.caption, again.url, again.uid) == (sample.caption, sample.url, uid or sample.key)
    assert again.synthetic_captions == sample.synthetic_captions


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_sample_gives_the_same_bytes(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    members = to_members(reinforced(), dtype)
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    wide = torch.cat([units(4, 0), units(4, 9)], 1)[:, : sum(DIMS)]  # a view into more, not contiguous
    assert to_members(reinforced(image_emb=wide), dtype) == members


def test_through_a_shard_and_webdatasets_own_reader(tmp_path: Path) -> None:
    sample = reinforced()
    shard = write_shard(tmp_path / "shard.tar", [(sample.key, to_members(sample, "float32"))])
    (raw,) = webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False)
    assert torch.equal(read(raw).image_emb, sample.image_emb)
    (decoded,) = webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False).decode(only=["npz", "json"])
    again = read({name: value for name, value in decoded.items() if name != "webp"})
    assert torch.equal(again.image_emb, sample.image_emb)
    assert again.augmentations == sample.augmentations


# The public releases


def released(dtype: str) -> dict[str, Any]:
    members = to_members(reinforced(image=None, caption=None, sha256="f" * 64, meta={}), dtype)
    params = json.loads(members["paug.json"])["param_aug"]
    return {**members, "paug.json": json.dumps({"param_aug": json.dumps(params)}).encode()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_public_release(dtype: str) -> None:
    members = released(dtype)
    assert set(members) == {"url.txt", "syn.json", "paug.json", "json", MEMBER[dtype]}
    sample = read(members)
    assert (sample.image, sample.caption, sample.sha256) == (None, None, "f" * 64)
    assert sample.augmentations == reinforced().augmentations
    assert torch.allclose(sample.image_emb, reinforced().image_emb, atol=2**-8)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, torch.tensor, list])
def test_as_hugging_faces_reader_gives_it(kind: Any) -> None:
    members = released("float32")
    named = {}
    for name, rows in (("image_emb", units(4, 0)), ("text_emb", units(6, 1))):
        named[name] = rows if kind is torch.tensor else rows.tolist() if kind is list else kind(rows.numpy())
    parsed = {name: json.loads(members[name]) for name in ("json", "syn.json", "paug.json")}
    sample = read({**members, **parsed, "npz": named, "url.txt": "https://example.org"})
    assert torch.allclose(sample.image_emb, units(4, 0), atol=1e-3)
    assert sample.url == "https://example.org"
    lists = npz(image_emb=units(4, 0).tolist(), text_emb=units(6, 1).tolist())
    assert torch.equal(read({**members, "npz": lists}).image_emb, units(4, 0))


def test_teachers_are_split() -> None:
    first, second = split_teachers(units(3, 0), DIMS)
    assert (first.shape, second.shape) == ((3, 24), (3, 40))
    assert torch.equal(torch.cat([first, second], 1), units(3, 0))
    for dims in ((24, 41), (64, 0), (), (-1, 65)):
        with pytest.raises(UserError, match="do not fill 64"):
            split_teachers(units(3, 0), dims)


# Faults


class Bomb:
    """Says so when something unpickles it."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("a member ran code",)


GOOD_EMB = {"image_emb": units(4, 0).numpy(), "text_emb": units(6, 1).numpy()}
AS_TENSORS = {name: torch.tensor(rows) for name, rows in GOOD_EMB.items()}
LEVELS = {name: np.zeros(rows.shape, np.int8) for name, rows in GOOD_EMB.items()}
NAN = np.where(np.arange(64) == 3, np.nan, GOOD_EMB["image_emb"])
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no captions": ({"syn.json": None}, r"dog-17\.syn\.json: is missing"),
    "no parameters": ({"paug.json": None}, r"dog-17\.paug\.json: is missing"),
    "no metadata": ({"json": None}, r"dog-17\.json: is missing"),
    "no embeddings": ({"npz": None}, r"dog-17: .*npz or pth\.gz, and has neither"),
    "two embeddings": ({"pth.gz": pth_gz(AS_TENSORS)}, r"dog-17: .*\['npz', 'pth\.gz'\]"),
    "broken captions": ({"syn.json": b'{"syn_text": ["a'}, r"dog-17\.syn\.json: is not JSON"),
    "endless brackets": ({"syn.json": b"[" * 100_000}, r"dog-17\.syn\.json: is not JSON"),
    "not UTF-8": ({"syn.json": b'{"syn_text": ["\xff"]}'}, r"dog-17\.syn\.json: is not JSON"),
    "captions in a list": ({"syn.json": b'["a"]'}, r"dog-17\.syn\.json: must be a JSON object"),
    "numbers as captions": ({"syn.json": b'{"syn_text": [1]}'}, r"dog-17\.syn\.json: syn_text"),
    "one caption too few": ({"syn.json": b'{"syn_text": ["a"]}'}, r"dog-17\.npz: 6 text.*dog-17\.syn\.json has 1 "),
    "broken parameters": ({"paug.json": b"{"}, r"dog-17\.paug\.json: is not JSON"),
    "broken inner JSON": ({"paug.json": b'{"param_aug": "[["}'}, r"dog-17\.paug\.json: is not JSON"),
    "parameters missing": ({"paug.json": b"{}"}, r"dog-17\.paug\.json: param_aug must be a list"),
    "a bad augmentation": ({"paug.json": b'{"param_aug": [[null, null], [null, 3]]}'}, r"dog-17\.paug\.json, number 1"),
    "too few augmentations": ({"paug.json": b'{"param_aug": [[null, null]]}'}, r"dog-17\.npz: 4 image.*has 1 augm"),
    "a numeric uid": ({"json": b'{"uid": 3}'}, r"dog-17\.json: uid must be a string"),
    "no archive": ({"npz": b"hello"}, r"dog-17\.npz: damaged"),
    "an empty member": ({"npz": b""}, r"dog-17\.npz: damaged"),
    "no text": ({"npz": npz(image_emb=GOOD_EMB["image_emb"])}, r"dog-17\.npz: holds no text_emb"),
    "objects": ({"npz": npz(**{**GOOD_EMB, "image_emb": np.array([Bomb()])})}, r"dog-17\.npz: damaged"),
    "a pickle": ({"npz": pickle.dumps(Bomb())}, r"dog-17\.npz: damaged"),
    "flat": (
        {"npz": npz(**{**GOOD_EMB, "image_emb": np.ones(4, np.float32)})},
        r"dog-17\.npz: image_emb must be \[rows",
    ),
    "no rows": ({"npz": npz(**{**GOOD_EMB, "image_emb": np.ones((0, 64))})}, r"dog-17\.npz: image_emb must be \[rows"),
    "integers": (
        {"npz": npz(**{**GOOD_EMB, "text_emb": np.ones((6, 64), int)})},
        r"dog-17\.npz: text_emb must hold fl",
    ),
    "int8 alone": ({"npz": npz(**LEVELS)}, r"dog-17\.npz: image_emb is int8 or int4 and needs image_scale"),
    "nan": ({"npz": npz(**{**GOOD_EMB, "image_emb": NAN})}, r"dog-17\.npz: image_emb holds .* not finite"),
    "too large": (
        {"npz": npz(**{**GOOD_EMB, "text_emb": np.full((6, 64), 1e300)})},
        r"dog-17\.npz: text_emb .* not fin",
    ),
    "not unit": (
        {"npz": npz(**{**GOOD_EMB, "text_emb": GOOD_EMB["text_emb"] * 1.1})},
        r"dog-17\.npz: text_emb .*norm 1\.1",
    ),
    "another width": (
        {"npz": npz(**{**GOOD_EMB, "text_emb": units(6, 0, (24, 8)).numpy()})},
        r"dog-17\.npz: text_emb has 32",
    ),
    "decoded pixels": ({"webp": np.zeros((2, 2, 3))}, r"dog-17\.webp: must be the image's bytes"),
    "a zip bomb": ({"npz": npz(**GOOD_EMB, more=np.zeros(20 << 20, np.float32))}, r"dog-17\.npz: .*64 MiB"),
    "ragged lists": ({"npz": {**GOOD_EMB, "image_emb": [[1.0], [1.0, 2.0]]}}, r"dog-17\.npz: damaged"),
    "lists of objects": ({"npz": {**GOOD_EMB, "image_emb": [[{}]]}}, r"dog-17\.npz: damaged"),
}


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS)
def test_damage_names_key_and_member(change: dict[str, Any], message: str) -> None:
    members = {**to_members(reinforced(), "float32"), **change}
    with pytest.raises(UserError, match=message):
        read({name: content for name, content in members.items() if content is not None})


TORCH_FAULTS = {
    "a list": (pth_gz([1]), "no dictionary"),
    "code": (pth_gz({"image_emb": Bomb()}), "damaged"),
    "sparse": (pth_gz({**AS_TENSORS, "image_emb": units(4, 0).to_sparse()}), "damaged"),
    "strides that pretend": (pth_gz({**AS_TENSORS, "image_emb": torch.ones(1).expand(1 << 20, 1 << 20)}), "damaged"),
    "integers": (pth_gz({**AS_TENSORS, "image_emb": torch.ones(4, 64, dtype=torch.int64)}), "floating-point"),
    "no gzip": (gzip.decompress(pth_gz(AS_TENSORS)), "damaged"),
    "no torch file": (gzip.compress(b"hello"), "damaged"),
    "a gzip bomb": (gzip.compress(bytes(65 << 20)), "damaged|64 MiB"),
}


@pytest.mark.parametrize(("content", "message"), TORCH_FAULTS.values(), ids=TORCH_FAULTS)
def test_damaged_torch_members(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=rf"^dog-17\.pth\.gz: .*({message})"):
        read({**to_members(reinforced()), "pth.gz": content})


def test_a_deflated_torch_member_cannot_grow_without_bound() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(70 << 20))
    with pytest.raises(UserError, match="64 MiB"):
        unpack("pth.gz", gzip.compress(buffer.getvalue()), "dog-17.pth.gz")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(dtype=st.sampled_from(DTYPES), share=st.floats(0, 0.999))
def test_a_truncated_member_is_refused(dtype: str, share: float) -> None:
    members = to_members(reinforced(), dtype)
    name = MEMBER[dtype]
    with pytest.raises(UserError, match=rf"^dog-17\.{name}: "):
        read({**members, name: members[name][: int(share * len(members[name]))]})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(dtype=st.sampled_from(DTYPES), share=st.floats(0, 0.999), mask=st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_harmless(dtype: str, share: float, mask: int) -> None:
    members = to_members(reinforced(), dtype)
    name = MEMBER[dtype]
    content = bytearray(members[name])
    content[int(share * len(content))] ^= mask
    try:
        again = read({**members, name: bytes(content)})
    except UserError:
        return
    assert torch.equal(again.image_emb, read(members).image_emb)
    assert torch.equal(again.text_emb, read(members).text_emb)


def test_without_teachers_a_row_must_still_be_of_unit_vectors() -> None:
    members = to_members(reinforced(), "float32")
    assert from_members("dog-17", members).image_emb.shape == (4, 64)
    half = npz(**{**GOOD_EMB, "image_emb": GOOD_EMB["image_emb"] * 0.9})
    with pytest.raises(UserError, match="unit vectors"):
        from_members("dog-17", {**members, "npz": half})
    with pytest.raises(UserError, match="unit vectors"):
        from_members("dog-17", {**members, "npz": npz(**{**GOOD_EMB, "image_emb": np.zeros((4, 64))})})
    with pytest.raises(UserError, match="image_emb has 64 dimensions, text_emb 32"):
        from_members("dog-17", {**members, "npz": npz(**{**GOOD_EMB, "text_emb": units(6, 0, (24, 8)).numpy()})})


@pytest.mark.parametrize(
    "change",
    [
        {"image_emb": units(3, 0)},
        {"text_emb": units(5, 0)},
        {"text_emb": units(6, 0) * 1.5},
        {"image_emb": torch.full((4, 64), torch.nan)},
        {"synthetic_captions": ()},
        {"augmentations": ()},
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sample_that_contradicts_itself_is_not_written(change: dict[str, Any], dtype: str) -> None:
    with pytest.raises(UserError, match=r"^dog-17\."):
        to_members(dataclasses.replace(reinforced(), **change), dtype, teacher_dims=DIMS)


def test_misuse() -> None:
    with pytest.raises((ValueError, TypeError), match=r"float32.*bfloat16.*int8"):
        to_members(reinforced(), "float64")
    with pytest.raises(ValueError, match="gif"):
        to_members(reinforced(image_extension="gif"))


def test_unpack_gives_named_fields() -> None:
    found = unpack("npz", npz(**GOOD_EMB), "dog-17.npz")
    assert isinstance(found, Embeddings)
    assert torch.equal(found.text, units(6, 1))
