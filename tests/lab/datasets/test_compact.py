"""A small form of a set never harms another set, and is there whole or not at all."""

from pathlib import Path

import pytest

from mcliplab.datasets import compact as module
from mcliplab.datasets.compact import compact
from mcliplib.errors import UserError
from mcliplib.train.data import load_reinforced
from tests.reinforce.reinforce_run import contents, go, write_input


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compact")
    write_input(folder / "in", shards=2, size=12)
    go(folder / "in", folder / "set")
    return folder


def test_only_an_empty_folder_is_written_to(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    for output in (folder / "set", folder / "in", folder):
        with pytest.raises(UserError, match="name a new or empty folder"):
            compact(folder / "set", output, dims=8)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file"):
        compact(folder / "set", tmp_path / "file", dims=8)
    assert contents(folder) == before


def test_nothing_is_left_of_an_interrupted_compaction(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def failing(*arguments: object) -> dict[str, bytes]:
        nonlocal calls
        calls += 1
        if calls > 15:
            raise KeyboardInterrupt
        return made(*arguments)

    made = module.to_members
    monkeypatch.setattr(module, "to_members", failing)
    with pytest.raises(KeyboardInterrupt):
        compact(folder / "set", tmp_path / "small", dims=8)
    assert not contents(tmp_path / "small")
    monkeypatch.undo()
    assert compact(folder / "set", tmp_path / "small", dims=8).samples == 24


def test_images_are_found_from_another_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    compact(Path("set"), tmp_path / "small", dims=8, images=["in", "in/in-0.tar"])
    monkeypatch.chdir(tmp_path)
    assert len(load_reinforced("small").samples) == 24
    with pytest.raises(UserError, match="in"):
        compact(folder / "set", tmp_path / "other", dims=8, images=["in/none.tar"])
    assert not (tmp_path / "other").exists()
