"""Names to shards, and the `mcliplib data` command."""

from pathlib import Path

import pytest

from mcliplib.cli import main
from mcliplib.data import data_root, get_card, list_datasets, load_samples, shard_paths, write_shard
from mcliplib.errors import UserError
from tests.data.test_reader import good


def test_roles_partition_the_sets() -> None:
    assert sorted(list_datasets("train") + list_datasets("eval")) == list_datasets()
    with pytest.raises(UserError, match="unknown role"):
        list_datasets("test")


def test_names_stand_for_shards(tmp_path: Path) -> None:
    assert shard_paths("emoji-noto") == [data_root() / "emoji-noto" / "shard-000000.tar.gz"]
    assert set(shard_paths("emoji-noto")) < set(shard_paths("train"))
    assert not set(shard_paths("train")) & set(shard_paths("eval"))
    for number in range(3):
        write_shard(tmp_path / f"part-{number}.tar", [good(number)])
    files = [tmp_path / f"part-{number}.tar" for number in range(3)]
    assert shard_paths(tmp_path) == files
    assert shard_paths(str(files[1])) == [files[1]]
    assert shard_paths(f"{tmp_path}/part-{{0..2}}.tar") == files
    assert [sample.key for sample in load_samples([str(files[2]), str(files[0])])] == ["s002", "s000"]


def test_unknown_names_tell_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="emoji-noto"):
        get_card("emoji-unknown")
    with pytest.raises(UserError, match=r"no \.tar"):
        shard_paths(tmp_path)


def test_data_root_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCLIPLIB_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert list_datasets() == []
    monkeypatch.setenv("MCLIPLIB_DATA", str(tmp_path / "absent"))
    with pytest.raises(UserError, match="correct MCLIPLIB_DATA"):
        data_root()


def test_list_prints_every_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in list_datasets())
    assert main(["data", "list", "--role", "eval"]) == 0
    assert "emoji-noto" not in capsys.readouterr().out


def test_show_prints_the_card_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheets" / "animals.png"
    assert main(["data", "show", "gcompris-animals", "--output", str(sheet), "--count", "12"]) == 0
    out = capsys.readouterr().out
    assert "# GCompris animal photographs" in out
    assert str(sheet) in out
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_show_of_an_unknown_set_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "nothing"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no data set 'nothing'" in error
