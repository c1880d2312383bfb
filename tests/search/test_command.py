"""`mcliplib search`: what it takes, what it prints, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mcliplib.cli import main
from mcliplib.cli.search import parsed
from mcliplib.search import Index


def run(*arguments: object) -> int:
    return main(["search", *map(str, arguments)])


def test_a_table_of_what_fits(photos, capsys):
    assert run(photos, "a penguin", "-k", 3) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    hits = Index.open(photos).query("a penguin", k=3)
    assert [line.split() for line in lines] == [
        [str(rank), f"{one.score:.3f}", str(one.path)] for rank, one in enumerate(hits, 1)
    ]
    assert "12 pictures (12 new, 0 changed, 0 removed)" in err


def test_options_may_stand_anywhere(photos, capsys):
    assert run(photos, "-k", 3, "horse", "-", "snow", "--paths", "+", "stripes") == 0
    found = capsys.readouterr().out.splitlines()
    hits = Index.open(photos).query([("horse", 1.0), ("snow", -1.0), ("stripes", 1.0)], k=3)
    assert found == [str(one.path) for one in hits]


def test_the_parts_of_a_query(photos):
    picture = str(photos / "00.webp")
    assert parsed(["horse", "+", "stripes", "-", "snow"]) == [("horse", 1.0), ("stripes", 1.0), ("snow", -1.0)]
    assert parsed(["-0.5", "snow", "+2", "a cat", ".webp"]) == [("snow", -0.5), ("a cat", 2.0), (".webp", 1.0)]
    assert parsed([picture, "-", picture]) == [(Path(picture), 1.0), (Path(picture), -1.0)]
    assert parsed([], ["-", picture], [picture], ["-x"]) == [
        ("-", 1.0), (picture, 1.0), (Path(picture), 1.0), ("-x", -1.0)
    ]  # fmt: skip
    assert parsed(["+", "+"]) == [("+", 1.0)], "a sign after a sign is a text"


def test_paths_for_pipes(tmp_path, contents, put):
    """Bytes as they are on the disk, whatever the locale."""
    folder = tmp_path / "photos"
    raw = [b"two\nlines.webp", b"\xff\xfe.webp", b" b.webp"]
    for name, content in zip(raw, contents, strict=False):
        put(Path(os.fsdecode(bytes(folder) + b"/" + name)), content)
    command = [sys.executable, "-m", "mcliplib", "search", ".", "a bird"]
    done = subprocess.run(
        [*command, "--null"], cwd=folder, capture_output=True, check=True, env={**os.environ, "LC_ALL": "C"}
    )
    assert sorted(done.stdout.split(b"\0")) == sorted([*raw, b""])
    table = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout.decode()
    assert len(table.splitlines()) == 3, "one line each"
    assert "two\\nlines.webp" in table
    as_json = json.loads(subprocess.run([*command, "--json"], cwd=folder, capture_output=True, check=True).stdout)
    assert sorted(os.fsencode(one["path"]) for one in as_json["results"]) == sorted(raw)


def test_json_says_all(photos, put, capsys):
    put(photos / "bad.png", b"no picture")
    assert run(photos, "a bird", "-0.5", photos / "00.webp", "-k", 2, "--json", "--dtype", "int8") == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert said["query"] == [
        {"query": "a bird", "weight": 1.0}, {"query": str(photos / "00.webp"), "weight": -0.5}
    ]  # fmt: skip
    assert said["broken"] == [["bad.png", "corrupt image"]]
    assert said["pictures"] == 12
    assert [set(one) for one in said["results"]] == [{"path", "score"}] * 2
    assert "1 cannot be read: bad.png (corrupt image)" in err


@pytest.mark.parametrize("name", ["sheet.png", "sheet.html", "sheet.JPG"])
def test_a_contact_sheet(photos, tmp_path, name, put, contents, capsys):
    put(photos / "<b>&.webp", contents[13])
    assert run(photos, "a bird", "-k", 13, "--show", tmp_path / name) == 0
    if name.endswith("html"):
        page = (tmp_path / name).read_text()
        assert page.count("<img src=") == page.count(" alt=") == 13
        assert "&lt;b&gt;&amp;.webp" in page
        assert "<b>" not in page
        assert "http" not in page, "it holds its pictures"
    else:
        assert Image.open(tmp_path / name).width > 500
    assert [one.name for one in tmp_path.glob(".unfinished*")] == []


def test_a_picture_that_goes_before_the_sheet_is_drawn_is_left_out(photos, tmp_path, capsys):
    run(photos, "a bird")
    (photos / "00.webp").unlink()
    assert run(photos, "a bird", "--no-update", "--show", tmp_path / "sheet.html") == 0
    assert "not on the sheet" in capsys.readouterr().err
    assert (tmp_path / "sheet.html").read_text().count("<img") == 11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/gone", "x"], "gone: no such folder"),
        (["{photos}"], "no query"),
        (["{photos}", "x", "-"], "'-' stands before no query"),
        (["{photos}", "x", "-k", "0"], "search: -k must be at least 1"),
        (["{photos}", "x", "--no-update", "--rebuild"], "--rebuild changes the index, and --no-update"),
        (["{photos}", "x", "--no-update", "--dtype", "int8"], "--dtype changes the index, and --no-update"),
        (["{photos}", "x", "--model", "mobileclip_s0"], "--random-weights"),
        (["{photos}", "x", "--random-weights"], "goes with --model"),
        (["{photos}", "x", "--model", "{tmp}/gone.safetensors"], "no such file"),
        (["{photos}", "x", "--random-weights", "--model", "student"], "unknown model 'student'"),
        (["{photos}", "--image", "{photos}/gone.webp"], "gone.webp: no such file"),
        (["{photos}", "--image", "{photos}/bad.png"], "not a whole picture"),
        (["{photos}", "x", "--no-update"], "holds no index"),
        (["{photos}", "x", "--show", "{tmp}/sheet.gif"], "a contact sheet is a .png"),
        (["{photos}", "x", "--show", "{photos}/00.webp/sheet.png"], "cannot be written"),
        (["{photos}", "x", "--index", "{photos}/00.webp"], "--index PATH"),
        (["{tmp}/empty", "x"], "holds no picture that can be read"),
    ],
)
def test_bad_input_is_one_line_and_a_failure(arguments, message, photos, tmp_path, put, capsys):
    put(photos / "bad.png", b"no picture")
    (tmp_path / "empty").mkdir()
    assert run(*(one.format(tmp=tmp_path, photos=photos) for one in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]


def test_the_index_remembers_its_model(photos, tmp_path, capsys):
    where = ["--index", tmp_path / "index"]
    assert run(photos, "x", "--model", "mobileclip_nano", "--random-weights", *where) == 0
    capsys.readouterr()
    assert run(photos, "x", *where, "--json") == 0
    assert json.loads(capsys.readouterr().out)["model"].startswith("mobileclip_nano from random:mobileclip_nano")
    assert run(photos, "x", "--model", "student", *where) == 2
    assert "was made by mobileclip_nano from random:mobileclip_nano" in capsys.readouterr().err
    assert run(photos, "x", "--model", "student", *where, "--rebuild") == 0
    assert not (photos / ".mcliplib-search").exists()


def test_help_names_the_hub_and_the_forms_of_a_query(capsys):
    with pytest.raises(SystemExit) as exit:
        run("--help")
    assert exit.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in ("hf-hub:apple/MobileCLIP-S0", "horse + stripes -0.5 snow", "--text=TEXT", "usage: mcliplib search"):
        assert part in shown


def test_an_index_of_another_folder_is_refused_as_it_is(photos, tmp_path, put, contents, capsys):
    """Else the paths would name files that do not exist."""
    other = tmp_path / "other"
    put(other / "a.webp", contents[0])
    asked = ["x", "--index", tmp_path / "index"]
    assert run(photos, *asked) == 0
    assert run(other, *asked, "--no-update") == 2
    assert f"is the index of {photos}, not of {other}" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(photos)
    assert run(tmp_path / "link", *asked, "--no-update", "--paths", "-k", 1) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()
    photos.rename(tmp_path / "unplugged")
    assert run(photos, *asked, "--no-update") == 0, "its disk may be away"


def test_a_picture_that_does_not_exist_is_told(photos, capsys):
    assert run(photos, "beach.jpg", "-", "snow") == 0
    assert "beach.jpg: no such file, so it is taken as a text" in capsys.readouterr().err
    assert run(photos, "a jpg", "--text", "beach.jpg") == 0
    assert "no such file" not in capsys.readouterr().err
