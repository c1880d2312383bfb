"""Result records: written whole, read with helpful errors, and every shipped one well-formed."""

import datetime
import json
import math
from pathlib import Path

import pytest

from mcliplab import quotes
from mcliplib import results
from mcliplib.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    values = {"retrieval": {"r1": 0.1873, "r5": 0.44}, "steps": 1200, "model": "tiny"}
    results.record(
        "tiny-clip", values, unit="fraction", n=1336, seeds=[0], command="run", seconds=1.234, directory=tmp_path
    )
    return tmp_path


def test_a_record_holds_what_it_needs_to_be_repeated(folder: Path) -> None:
    content = results.load("tiny-clip", folder)
    assert tuple(content) == results.MEMBERS
    assert content["n"] == 1336
    assert content["seeds"] == [0]
    assert "cores" in content["hardware"]
    assert "torch" in content["hardware"]
    assert content["commit"]
    datetime.date.fromisoformat(content["date"])


@pytest.mark.parametrize(
    ("reference", "shown"),
    [
        ("tiny-clip.retrieval.r1|.3f", "0.187"),
        ("tiny-clip.retrieval.r1|%", "18.7%"),
        ("tiny-clip.retrieval.r1|.0%", "19%"),
        ("tiny-clip.steps|,", "1,200"),
        ("tiny-clip.model", "tiny"),
        ("tiny-clip.n|,", "1,336"),
    ],
)
def test_references_render(folder: Path, reference: str, shown: str) -> None:
    assert quotes.render(reference, folder) == shown


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("tiny-clop.steps", "there is tiny-clip"),
        ("tiny-clip.retrieval.r2", "there is r"),
        ("tiny-clip.steps.r1", "has no 'steps.r1'"),
        ("tiny-clip", "not of the form"),
        ("tiny-clip.retrieval|.1f", "not a single value"),
        ("tiny-clip.model|.1f", "tiny-clip.model"),
    ],
)
def test_bad_references_name_what_is_near(folder: Path, reference: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        quotes.render(reference, folder)


def test_a_failed_write_leaves_the_old_record(folder: Path) -> None:
    old = (folder / "tiny-clip.json").read_bytes()
    with pytest.raises(UserError, match="JSON"):
        results.record("tiny-clip", {"x": math.nan}, unit="", n=1, seeds=[], command="", seconds=0.0, directory=folder)
    assert (folder / "tiny-clip.json").read_bytes() == old
    assert [path.name for path in folder.iterdir()] == ["tiny-clip.json"]


@pytest.mark.parametrize("name", ["", "Upper", "a.b", "../up"])
def test_names_stay_inside_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="result name"):
        results.record(name, {}, unit="", n=1, seeds=[], command="", seconds=0.0, directory=tmp_path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"values": ')
    (tmp_path / "short.json").write_text('{"values": {}}')
    with pytest.raises(UserError, match=r"cut\.json: is not JSON"):
        results.load("cut", tmp_path)
    with pytest.raises(UserError, match=r"short\.json lacks unit"):
        results.load("short", tmp_path)


@pytest.mark.parametrize("name", results.names(results.RESULTS))
def test_shipped_records(name: str) -> None:
    content = results.load(name, results.RESULTS)
    assert content["values"], "no value"
    assert set(content) == set(results.MEMBERS)
    assert content["command"].strip()
    assert content["commit"] != "unknown"
    assert content["seconds"] >= 0
    assert all(isinstance(seed, int) for seed in content["seeds"])
    assert "/root" not in json.dumps(content), "a path of one machine"
    assert "/tmp" not in json.dumps(content), "a path of one machine"
    datetime.date.fromisoformat(content["date"])


def test_a_place_that_cannot_be_written_to_is_found_before_the_work(tmp_path: Path) -> None:
    results.check_writable("new", tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        results.check_writable("new", tmp_path / "file")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match=r"folder\.json: cannot be written"):
        results.check_writable("folder", tmp_path)
    for name in ("../x", "", "a" * 300, "A"):
        with pytest.raises(UserError, match="use lower-case letters"):
            results.check_writable(name, tmp_path)


@pytest.mark.parametrize("text", ["[" * 10**5, "{", "7", '{"values": 1, "values": 2}', "\udcff"])
def test_records_that_are_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=r"bad\.json"):
        results.load("bad", tmp_path)
