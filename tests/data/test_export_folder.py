"""A set as a folder of pictures is read as the set itself is."""

import hashlib

import pytest

import mcliplib.data.export_folder as module
from mcliplib.cli import main
from mcliplib.data import data_root, list_datasets
from mcliplib.data.export_folder import LIST, export_folder
from mcliplib.data.reader import ReadReport
from mcliplib.errors import UserError
from mcliplib.reinforce.sources import find_sources, usable

SETS = list_datasets()


def read(name: str) -> dict:
    report = ReadReport()
    found = [one for source in find_sources(name, 1000) for one in usable(source, report, max_skipped=0.0)]
    assert not report.skipped
    assert not report.broken_shards
    return {
        one.key: (hashlib.sha256(one.image).hexdigest(), one.image_extension, one.caption, one.uid, dict(one.meta))
        for one in found
    }


@pytest.mark.parametrize("name", SETS)
def test_it_is_read_as_the_set_is(name, tmp_path):
    folder = export_folder(name, tmp_path)
    assert folder == tmp_path / name
    assert read(str(folder)) == read(name)
    for theirs, ours in (("LICENSE", "LICENSE"), ("ATTRIBUTION.tsv", "ATTRIBUTION.txt")):
        assert (folder / ours).read_text() == (data_root() / name / theirs).read_text()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_what_was_killed_is_finished_and_what_is_finished_is_left(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(path, text):
        if path.name == LIST:
            raise Killed
        real(path, text)

    real = module.write_text
    monkeypatch.setattr(module, "write_text", killed)
    with pytest.raises(Killed):
        export_folder("gcompris-animals", tmp_path)
    assert not (tmp_path / "gcompris-animals" / LIST).exists()
    monkeypatch.setattr(module, "write_text", real)
    folder = export_folder("gcompris-animals", tmp_path)
    assert read(str(folder)) == read("gcompris-animals")
    with pytest.raises(UserError, match="is there already"):
        export_folder("gcompris-animals", tmp_path)
    with pytest.raises(UserError, match="no data set 'x'"):
        export_folder("x", tmp_path)


def test_the_command_writes_the_sets_that_it_is_told(tmp_path, capsys):
    arguments = ["data", "export", "--layout", "folder", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--set", "gcompris-animals", "--set", "gcompris-activities"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [str(tmp_path / "out" / name) for name in ("gcompris-animals", "gcompris-activities")]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"gcompris-animals", "gcompris-activities"}
    assert main([*arguments, "--set", "no-such-set"]) == 2
    assert "no data set 'no-such-set'" in capsys.readouterr().err
    assert main(["evaluate", "--model", "student", "--data", out[0]]) == 0
    assert "retrieval" in capsys.readouterr().out
