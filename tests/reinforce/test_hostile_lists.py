"""Lists, folders and addresses as strangers have them: read rightly, or counted and named; never cut, glued or hung."""

import http.server
import json
import os
import subprocess
import sys
import threading
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcliplib.data import write_shard
from mcliplib.data.shards import expand_braces
from mcliplib.errors import MissingFileError, UserError
from mcliplib.reinforce import sources
from mcliplib.reinforce.sources import RawSample, find_sources, make_sample
from tests.reinforce.reinforce_run import picture

BAD = "bad list line"


def read(*inputs: str | Path) -> list[RawSample]:
    return [sample for source in find_sources(inputs, 1000) for sample in source.read({})]


def told(*inputs: str | Path) -> list[tuple[str, str]]:
    """Key, and the caption or the fault, of each sample."""
    return [(one.key, one.fault or one.caption) for one in read(*inputs)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for number, name in enumerate("abcd"):
        (tmp_path / f"in/{name}.png").write_bytes(picture(number))
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["a.png,a dog, a cat", "b.png,x"], [("line-00000002", BAD), ("b", "x")]),
        (["a.png", "b.png,x"], [("line-00000002", BAD), ("b", "x")]),
        (["a.png,x,,", "b.png,y"], [("a", "x"), ("b", "y")]),
        (['a.png,"x', "b.png,y", 'c.png,"z"'], [("line-00000002", BAD), ("b", "y"), ("c", "z")]),
        (['a.png,"x', *["b.png,y"] * 3], [("line-00000002", BAD), ("b", "y"), ("b~2", "y"), ("b~3", "y")]),
        (['a.png,"one\ntwo\r\nthree, four"', "b.png,y"], [("a", "one\ntwo\r\nthree, four"), ("b", "y")]),
        (['a.png,"x "big" y"', "b.png,y"], [("line-00000002", BAD), ("b", "y")]),
        (['a.png, "x, y"', "b.png,y"], [("a", "x, y"), ("b", "y")]),
        (["a.png,x\u2028y\x0bz\x1c\x85w", "b.png,y"], [("a", "x\u2028y\x0bz\x1c\x85w"), ("b", "y")]),
        (["a.png,x\0y", "b.png,y"], [("line-00000002", BAD), ("b", "y")]),
        (["a.png,x\ry", "b.png,y"], [("line-00000002", BAD), ("b", "y")]),
    ],
)
def test_lines_of_tables(folder: Path, rows: list[str], expected: list[tuple[str, str]]) -> None:
    path = folder / "list.csv"
    path.write_bytes("\n".join(["image,caption", *rows]).encode())
    assert told(path) == expected


def test_a_column_without_a_name_is_no_key(folder: Path) -> None:
    (folder / "list.csv").write_text(",image,caption\n0,a.png,x\n1,b.png,y\n")  # as pandas writes it
    assert told(folder / "list.csv") == [("a", "x"), ("b", "y")]
    assert [one.meta for one in read(folder / "list.csv")] == [{"": "0"}, {"": "1"}]


def test_lines_of_old_and_new_systems(folder: Path) -> None:
    for end in ("\r\n", "\r", "\n"):
        (folder / "list.csv").write_bytes(f"\ufeffimage,caption{end}a.png,x{end}b.png,y{end}".encode())
        assert told(folder / "list.csv") == [("a", "x"), ("b", "y")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30), min_size=1, max_size=6))
def test_whatever_csv_writes_is_read(folder: Path, captions: list[str]) -> None:
    import csv

    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("image", "caption"), *(("a.png", caption) for caption in captions)])
    assert [one.caption for one in read(folder / "list.csv")] == [caption.strip() for caption in captions]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["list.csv", "list.tsv", "list.txt", "list.jsonl"]),
    st.lists(
        st.sampled_from(["a.png", ",", '"', "\t", "\n", "\r", "x", "[", '{"image":', "}", "\0", "\u2028"]), max_size=40
    ),
)
def test_any_list_is_read_or_refused(folder: Path, name: str, parts: list[str]) -> None:
    start = "image,caption\n" if name == "list.csv" else ""
    (folder / name).write_bytes((start + "".join(parts)).encode())
    try:
        told = ""
        read(folder / name)
    except UserError as error:
        told = str(error)
    assert not told or str(folder / name) in told


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["a.png\tx\ty", "b.png\ty"], [("line-00000001", BAD), ("b", "y")]),
        (["a.png", "b.png\ty"], [("line-00000001", BAD), ("b", "y")]),
        (["a.png#0\tx", "a.png#1\ty"], [("a", "x"), ("a~2", "y")]),
        (["image,caption", "a.png,x , y", 'b.png,"y, z"'], [("a", "x , y"), ("b", "y, z")]),
    ],
)
@pytest.mark.parametrize("name", ["captions.txt", "Flickr8k.token"])
def test_lists_with_tabs_and_flickrs(folder: Path, name: str, rows: list[str], expected: list[tuple[str, str]]) -> None:
    (folder / name).write_text("\n".join(rows))
    assert told(folder / name) == expected
    assert told(folder) == expected


def test_json_lines(folder: Path) -> None:
    lines = [
        '{"image": "a.png", "caption": ["one", "two"]}',
        "[1]",
        "5",
        "[" * 100_000,
        '{"image": "b.png", "image": "c.png", "caption": "x"}',
        '{"image": "b.png", "Image": "c.png", "caption": "x"}',
        '{"image": 5, "caption": "x"}',
        '{"image": "b.png", "caption": "x", "n": NaN}',
        '{"image": "b.png", "caption": "\\ud800"}',
        '{"image": "b.png", "caption": {"en": "x"}, "id": "d"}',
        '{"image": "c.png", "caption": "y\u2028z", "id": "d"}',
    ]
    (folder / "list.jsonl").write_text("\n".join(lines))
    found = told(folder / "list.jsonl")
    assert found[:2] == [("a", "one"), ("a~2", "two")]
    assert found[2:8] == [(f"line-{number:08d}", BAD) for number in range(2, 8)]
    assert found[-2:] == [("d", "missing caption"), ("d~2", "y\u2028z")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "image,caption\n".encode("utf-16"), "not UTF-8 text"),
        ("a.csv", "image,caption\n".encode("utf-16-le"), "not UTF-8 text .*UTF-16"),
        ("a.csv", b"image,caption,Caption\na.png,x,y\n", "two columns are named 'caption'"),
        ("a.jsonl", b'[\n{"image": "a.png"},\n{}]', "a line is .*caption"),
        ("a.txt", b"a.png\nb.png\n", "a line is `a.png`, a tab"),
    ],
)
def test_lists_that_are_none(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        find_sources(folder / name, 10)


def test_which_of_two_captions_is_taken_is_told(folder: Path) -> None:
    (folder / "a.csv").write_text("image,title,caption\na.png,x,y\n")
    with pytest.warns(UserWarning, match="captions are taken from column 'caption', not 'title'"):
        assert told(folder / "a.csv") == [("a", "y")]


# Names


def test_equal_names_of_two_inputs_are_both_kept(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.png").write_bytes(picture(9))
    for place in (folder, other):
        (place / "list.csv").write_text(f"image,caption\na.png,{place.name}\na~2.png,z\n")
    (folder / "a~2.png").write_bytes(picture(10))
    assert told(folder, other) == [("a", "in"), ("a~2", "z"), ("a~3", "other"), ("a~2~2", "missing image")]
    repeated = read(folder, other)
    assert (repeated[0].image, repeated[2].image) == (picture(0), picture(9))


@pytest.mark.parametrize(("listed", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_either_form_of_unicode_are_found(tmp_path: Path, listed: str, stored: str) -> None:
    place = tmp_path / unicodedata.normalize(stored, "Bücher")
    place.mkdir()
    (place / unicodedata.normalize(stored, "café.png")).write_bytes(picture(0))
    (place / "list.csv").write_text(f"image,caption\n{unicodedata.normalize(listed, 'café.png')},x\n")
    assert [one.caption for one in read(tmp_path / unicodedata.normalize(listed, "Bücher") / "list.csv")] == ["x"]


@pytest.mark.parametrize("name", ["a{b}c", "a{1..3}", "a{b,c}", "{", "a[1]"])
def test_a_path_as_it_is_written_wins(tmp_path: Path, name: str) -> None:
    write_shard(tmp_path / name / "x.tar", [("k", {"png": picture(0), "txt": b"x"})])
    assert told(tmp_path / name) == told(tmp_path / name / "x.tar") == [("k", "x")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x/a{b}c", "no such file"),
        ("x/{a..", "braces cannot be read"),
        ("x/}{", "braces cannot be read|no such file"),
        ("x/" + "{" * 5000 + "}" * 5000, "braces cannot be read"),
        ("x/{0..999999999}.tar", "more than 200,000 names"),
        ("x/{0..9}{0..9}{0..9}{0..9}{0..9}{0..9}{0..9}.tar", "more than 200,000 names"),
        ("x/{0.." + "9" * 5000 + "}.tar", "braces cannot be read"),
    ],
)
def test_braces(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_sources(name, 10)
    assert expand_braces("s-{00..10..5}.tar") == ["s-00.tar", "s-05.tar", "s-10.tar"]


def test_fields_of_odd_types() -> None:
    def made(meta: object) -> RawSample:
        return make_sample("k", picture(0), "png", "", json.dumps(meta).encode())

    assert made({"caption": {"en": "x"}}).fault == made({"caption": ["x"]}).fault == "missing caption"
    odd = made({"caption": "x", "url": ["u"], "uid": {"a": 1}, "Keywords": "a, b"})
    assert (odd.caption, odd.url, odd.uid, odd.fault) == ("x", "", "", "")
    assert odd.meta["source_uid"] == {"a": 1}
    assert made({"caption": "x", "uid": 5}).uid == "5"


# Layouts


def test_a_text_beside_each_picture(tmp_path: Path) -> None:
    for number, name in enumerate(["a", "sub/b", "sub/deep.er/c", "d"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.png").write_bytes(picture(number))
        if name != "d":
            (tmp_path / f"{name}.txt").write_text(f"picture {name}\n")
    (tmp_path / "._a.png").write_bytes(b"mac")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX/a.png").write_bytes(b"mac")
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert told(tmp_path) == [
        ("a", "picture a"),
        ("d", "missing caption"),
        ("sub%2Fb", "picture sub/b"),
        ("sub%2Fdeep%2Eer%2Fc", "picture sub/deep.er/c"),
    ]


def test_the_one_folder_beside_the_list_that_has_the_pictures(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("image,caption\na.png,x\nnone.png,y\n")
    assert told(tmp_path) == [("a", "x"), ("none", "missing image")]


def test_pictures_alone_tell_how_to_make_a_list(folder: Path) -> None:
    with pytest.raises(UserError, match=r'`image,caption`.*as `a\.png,"a red flag"`'):
        find_sources(folder, 10)


# Impossible files


def test_impossible_lines_are_counted(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "huge.png").write_bytes(b"")
    os.truncate(folder / "huge.png", 1 << 40)
    names = ["a.png/b.png", "x" * 5000 + ".png", "foo://x/y.png", "zip://x::foo://y.png", "/dev/zero", "pipe.png"]
    names += [
        "loop.png",
        ".",
        f"file://{folder}/none.png",
        "huge.png",
        "http://[bad/x.png",
        "s3://b/x.png",
        "~nobody/x",
    ]
    lines = [
        json.dumps({"image": name, "caption": "x"}) for name in [*names, "a\0.png", "a.png", f"file://{folder}/b.png"]
    ]
    (folder / "list.jsonl").write_text("\n".join(lines))
    code = (
        "import sys; from mcliplib.reinforce.sources import find_sources\n"
        "for one in find_sources(sys.argv[1], 9)[0].read({}): pass\n"
        "print([one.fault for source in find_sources(sys.argv[1], 99) for one in source.read({})])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "list.jsonl")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    faults = eval(done.stdout)
    assert all(faults[:-2])
    assert faults[-2:] == ["", ""]


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.tar"])
def test_lists_and_shards_that_are_no_files(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="device or a pipe"):
        read(tmp_path / name)
    (tmp_path / f"zero-{name}").symlink_to("/dev/zero")
    with pytest.raises(UserError, match="device or a pipe"):
        read(tmp_path / f"zero-{name}")
    for impossible in (f"a\0{name}", "y" * 5000 + name, f"{__file__}/{name}"):
        with pytest.raises(MissingFileError):
            read(impossible)


def test_a_list_of_ten_gigabytes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"image,caption\n")
    os.truncate(tmp_path / "a.csv", 10 << 30)
    with pytest.raises(UserError, match=r"a\.csv: has 10,737,418,240 bytes"):
        find_sources(tmp_path / "a.csv", 10)


# The web


class Server(http.server.BaseHTTPRequestHandler):
    asked: dict[str, int] = {}  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked[self.path] = self.asked.get(self.path, 0) + 1
        kind = self.path.strip("/").removesuffix(".png")
        if kind.isdigit():
            self.send_error(int(kind))
        elif kind == "then" and self.asked[self.path] < 3:
            self.send_error(500)
        elif kind == "closed":
            self.close_connection = True
        else:
            content = b"<html>no picture</html>" if kind == "html" else picture(0)
            self.send_response(200)
            if kind != "endless":
                self.send_header("Content-Length", str(len(content) + (kind == "short")))
            self.end_headers()
            self.wfile.write(content)
            for _ in range(1 << 20 if kind == "endless" else 0):
                try:
                    self.wfile.write(bytes(1 << 16))
                except OSError:
                    break

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(sources, "_WAITS", (0.01, 0.01, 0.0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Server.asked = {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_address[1]}"
        one.shutdown()


def test_pictures_of_the_web(tmp_path: Path, server: str) -> None:
    names = ["ok", "403", "404", "500", "429", "then", "closed", "short", "html", "endless"]
    urls = [f"{server}/{name}.png" for name in names] + ["http://127.0.0.1:1/refused.png"]
    (tmp_path / "list.csv").write_text("image,caption\n" + "".join(f"{url},x\n" for url in urls))
    found = read(tmp_path / "list.csv")
    assert {one.key: one.fault for one in found} == {
        "ok": "",
        "403": "web server says 403",
        "404": "missing image",
        "500": "web server says 500",
        "429": "web server says 429",
        "then": "",
        "closed": "web server does not answer",
        "short": "web server's answer breaks off",
        "html": "",  # which no decoder takes: counted as a corrupt image
        "endless": "file of more than 256 MiB",
        "refused": "web server does not answer",
    }
    assert found[0].image == found[5].image == picture(0)
    assert [Server.asked[f"/{name}.png"] for name in ("403", "404", "500", "then", "endless")] == [1, 1, 3, 3, 1]
