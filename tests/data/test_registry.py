"""Names to shards, and the `mcliplib data` command."""

import json
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


@pytest.fixture
def one_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with the set "one" of two shards."""
    folder = tmp_path / "one"
    shards = [write_shard(folder / f"shard-{number}.tar", [good(number)]) for number in range(2)]
    listed = [{"file": path.name, "bytes": path.stat().st_size} for path in shards]
    (folder / "card.json").write_text(json.dumps({"role": "train", "shards": listed}))
    monkeypatch.setenv("MCLIPLIB_DATA", str(tmp_path))
    assert shard_paths("one") == shards
    return folder


def test_a_set_that_is_not_as_its_card_says_is_not_read(one_set: Path) -> None:
    extra = write_shard(one_set / "extra.tar", [good(7)])
    with pytest.raises(UserError, match=r"holds extra\.tar, which its card\.json does not list"):
        shard_paths("one")
    extra.unlink()
    (one_set / "shard-1.tar").write_bytes(b"0" * 7)
    with pytest.raises(UserError, match=r"shard-1\.tar: has 7 bytes, [\d,]+ in card\.json"):
        shard_paths("one")
    (one_set / "shard-1.tar").unlink()
    with pytest.raises(UserError, match=r"shard-1\.tar is missing"):
        shard_paths("one")


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (DEEP, "nested too deeply"),
        ('{"role": "train", "role": "eval", "shards": []}', "'role' twice"),
        ('{"role": "train", "shards": [], "count": NaN}', "not finite"),
        ('{"role": "train", "shards": [], "count": 1e999}', "not finite"),
        ('{"role": "train", "shards": [], "count": -1}', r"count: must be from 0"),
        ('{"role": "train", "shards": [], "count": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"role": "train", "shards": [], "count": true}', "count: must be int"),
        ("\udcff", "is not JSON"),
        ("[]", "must be names with values"),
        ("", "is not JSON"),
        ('{"role": "boss", "shards": []}', r"role: must be Literal\['train', 'eval'\], got 'boss'"),
        ('{"role": "train"}', "lacks shards"),
        ('{"role": "train", "shards": [{"file": 7}]}', r"shards\[0\]: file: must be str, got 7"),
        ('{"role": "train", "shards": [{"file": "../one/shard-0.tar"}]}', "is no name of a file"),
        ('{"role": "train", "shards": [{"file": "/etc/passwd"}]}', "is no name of a file"),
        ('{"role": "train", "shards": [], "tasks": {"x": {"kind": "magic"}}}', "kind: must be"),
    ],
)
def test_cards_that_are_none_are_named_with_the_field(one_set: Path, card: str, message: str) -> None:
    (one_set / "card.json").write_text(card, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=rf"card\.json.*{message}"):
        shard_paths("one")


@pytest.mark.parametrize("name", ["../one", "..", "", "a" * 5000, "x\0y"])
def test_names_of_sets_that_lead_elsewhere(one_set: Path, name: str) -> None:
    with pytest.raises(UserError):
        get_card(name)


def test_a_sheet_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "x.png", tmp_path / f"{'n' * 300}.png"):
        assert main(["data", "show", "gcompris-animals", "--output", str(output), "--count", "2"]) == 2
        assert "cannot be written" in capsys.readouterr().err.strip().splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
