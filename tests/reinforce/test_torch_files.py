"""Torch files of one structure are unpickled once, and give what `torch.load` gives."""

import io
import zipfile

import pytest
import torch

from mcliplib.reinforce import archives


def saved(value):
    torch.save(value, buffer := io.BytesIO())
    return buffer.getvalue()


def load_torch(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archives.load_torch(content, archive)


def members(seed, rows=4, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(seed)
    return {
        "image_emb": torch.randn(rows, 6, generator=generator).to(dtype),
        "text_emb": torch.randn(3, 6, generator=generator).to(dtype),
    }


@pytest.fixture(autouse=True)
def loads(monkeypatch):
    """How often a file was unpickled."""
    monkeypatch.setattr(archives, "_layouts", {})
    calls = []
    monkeypatch.setattr(archives, "_load", lambda one, f=archives._load: calls.append(1) or f(one))
    return calls


def same(one, other):
    assert list(one) == list(other)
    return all(torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)


def test_a_structure_is_unpickled_once(loads):
    for seed in range(5):
        assert same(load_torch(saved(members(seed))), members(seed))
    assert len(loads) == 1
    assert same(load_torch(saved(members(0, rows=2))), members(0, rows=2))  # another structure
    assert same(load_torch(saved(members(0, dtype=torch.float32))), members(0, dtype=torch.float32))
    assert len(loads) == 3


@pytest.mark.parametrize(
    "value",
    [
        {"image_emb": torch.arange(12.0).view(3, 4).T, "text_emb": torch.ones(2, 3)},  # strides
        {"image_emb": torch.arange(12.0)[2:6], "text_emb": torch.ones(2)},  # a view of more
        {"image_emb": torch.ones(2, 2), "text_emb": torch.ones(2, 2)},  # whose numbers are whose?
        {"image_emb": [1.0, 2.0], "text_emb": torch.ones(2, 2)},
        {"image_emb": torch.zeros(0, 3), "text_emb": torch.ones(2, 2)},
    ],
)
def test_what_is_not_plain_is_unpickled_each_time(value, loads):
    for number in (1, 2):
        found = load_torch(saved(value))
        for name, one in value.items():
            assert torch.equal(found[name], one) if isinstance(one, torch.Tensor) else found[name] == one
        assert len(loads) == number


def test_shared_storage_is_not_mixed_up(loads):
    both = torch.arange(6.0)
    for scale in (1.0, 2.0):
        value = {"image_emb": (both * scale).view(2, 3), "text_emb": torch.arange(6.0).view(2, 3) + scale}
        assert same(load_torch(saved(value)), value)


def test_a_known_structure_with_numbers_cut_off_is_an_error():
    load_torch(saved(members(0)))
    rewritten = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(members(1)))) as old, zipfile.ZipFile(rewritten, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content[:-4] if name.endswith("data/0") else content)
    with pytest.raises((RuntimeError, ValueError)):
        load_torch(rewritten.getvalue())
