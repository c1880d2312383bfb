"""Whatever holds pictures and captions is read; a fault in a sample is told, too many of them are an error."""

import dataclasses
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mcliplib.data import write_shard
from mcliplib.errors import UserError
from mcliplib.reinforce.sources import find_sources, safe_key
from tests.reinforce.reinforce_run import SETTINGS, go, manifest, picture, read_output, sample, write_input


def write_images(folder: Path, count: int = 4) -> Path:
    (folder / "images/more").mkdir(parents=True)
    for number in range(count):
        (folder / f"images/more/p{number}.png").write_bytes(picture(number))
    return folder


def keys_and_captions(output: Path) -> list[tuple[str, str | None]]:
    return [(key, one.caption) for key, one in read_output(output).items()]


EXPECTED = [(f"images%2Fmore%2Fp{number}", f"a picture, {number}") for number in range(4)]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("list.csv", ["Image,Caption,licence", *[f'images/more/p{n}.png,"a picture, {n}",CC0' for n in range(4)]]),
        ("list.csv", ["file name;text", *[f"images/more/p{n}.png;a picture, {n}" for n in range(4)]]),
        ("list.csv", ["\ufefffilename,caption", *[f'images/more/p{n}.png,"a picture, {n}"' for n in range(4)], ""]),
        ("list.tsv", ["path\tcaption", *[f"images/more/p{n}.png\ta picture, {n}" for n in range(4)]]),
        ("list.tsv", [f"images/more/p{n}.png\ta picture, {n}" for n in range(4)]),
        ("list.txt", [f"images/more/p{n}.png\ta picture, {n} " for n in range(4)]),
        ("LIST.CSV", ["image,caption", *[f'images\\more\\p{n}.png,"a picture, {n}"' for n in range(4)]]),
        ("list.jsonl", [json.dumps({"image": f"images/more/p{n}.png", "text": f"a picture, {n}"}) for n in range(4)]),
        ("list.jsonl", [f"images/more/p{n}.png\ta picture, {n}" for n in range(4)]),
    ],
)
def test_lists(tmp_path: Path, name: str, lines: list[str]) -> None:
    write_images(tmp_path)
    (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
    go(tmp_path / name, tmp_path / "set")
    assert keys_and_captions(tmp_path / "set") == EXPECTED
    assert read_output(tmp_path / "set")[EXPECTED[0][0]].image == picture(0)


def test_a_folder_with_a_csv(tmp_path: Path) -> None:
    write_images(tmp_path / "in")
    rows = [f'images/more/p{n}.png,"a picture, {n}",http://x/{n},{n}' for n in range(4)]
    (tmp_path / "in/captions.csv").write_text("\n".join(["image,caption,url,licence", *rows]))
    go(str(tmp_path / "in"), tmp_path / "set")
    one = read_output(tmp_path / "set")[EXPECTED[3][0]]
    assert (one.url, one.meta) == ("http://x/3", {"licence": "3", "url": "http://x/3"})
    (tmp_path / "in/other.csv").write_text("image,caption\n")
    with pytest.raises(UserError, match="several lists"):
        go(tmp_path / "in", tmp_path / "other")


def test_lists_are_cut_into_shards(tmp_path: Path) -> None:
    write_images(tmp_path, 7)
    (tmp_path / "list.tsv").write_text("".join(f"images/more/p{n}.png\ttext {n}\n" for n in range(7)))
    go(tmp_path / "list.tsv", tmp_path / "set", settings=dataclasses.replace(SETTINGS, shard_size=3))
    assert [one["samples"] for one in manifest(tmp_path / "set")["shards"]] == [3, 3, 1]
    assert [one["name"] for one in manifest(tmp_path / "set")["inputs"]] == [
        "list.tsv[0:]",
        "list.tsv[3:]",
        "list.tsv[6:]",
    ]


def test_a_list_in_memory_with_urls(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/lists/in/a.png", picture(0))
    (tmp_path / "b").write_bytes(picture(1, "JPEG"))
    memory.pipe_file(
        "/lists/in/list.jsonl",
        f'{{"image":"a.png","caption":"x"}}\n{{"image":"file://{tmp_path}/b","caption":"y"}}'.encode(),
    )
    go("memory://lists/in/list.jsonl", tmp_path / "set")
    found = read_output(tmp_path / "set")
    assert {key: one.image_extension for key, one in found.items()} == {"a": "png", "b": "jpg"}


def test_one_image_with_several_captions_is_several_samples(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "list.tsv").write_text("images/more/p0.png\tone\nimages/more/p0.png\ttwo\nimages/more/p0.png\ttwo\n")
    go(tmp_path / "list.tsv", tmp_path / "set", max_skipped=0.5)
    assert keys_and_captions(tmp_path / "set") == [("images%2Fmore%2Fp0", "one"), ("images%2Fmore%2Fp0~2", "two")]
    assert [skip["reason"] for skip in manifest(tmp_path / "set")["skipped"]] == ["duplicate sample"]


@pytest.mark.parametrize("named", ["in-*.tar", "in-{0..2}.tar", "", ["in-0.tar", "in-1.tar", "in-2.tar"]])
def test_names_of_shards(tmp_path: Path, named: str | list[str]) -> None:
    write_input(tmp_path / "in", shards=3, size=2)
    folder = tmp_path / "in"
    input = [f"{folder}/{one}" for one in named] if isinstance(named, list) else f"{folder}/{named}"
    go(input, tmp_path / "set")
    assert list(read_output(tmp_path / "set")) == [f"s{number:04d}" for number in range(6)]


def test_a_data_sets_name() -> None:
    assert [source.name for source in find_sources("openclipart", 10)] == [
        f"openclipart/shard-00000{number}.tar.gz" for number in range(2)
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.tar", None, "no such file"),
        ("nothing-*.tar", None, "nothing matches"),
        ("no-such-set", None, "no such file or folder, and no data set 'no-such-set'"),
        ("nope://x/a.tar", None, "cannot read nope://"),
        ("a.zip", b"PK", "a shard ends in .tar"),
        ("a.tar", b"hello" * 500, "not a readable tar shard"),
        ("a.csv", b"x,y\n1,2\n", "must name an image column.*names x, y"),
        ("a.csv", b"", "names no images"),
        ("a.tsv", b"\xff\xfe\x00", "is not UTF-8.*save it as UTF-8"),
        (
            "a.csv",
            b"image,caption\nx.png,x\ny.png,y\n",
            r"a.csv: no image at \S*/x.png; paths are absolute or relative",
        ),
    ],
)
def test_input_that_is_none(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = name if (content is None and "/" not in name and "." not in name) or "://" in name else str(tmp_path / name)
    if content is not None:
        Path(path).write_bytes(content)
    with pytest.raises(UserError, match=message):
        go(path, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_an_empty_folder_and_an_empty_list(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither shards nor a list"):
        go(tmp_path, tmp_path / "set")
    with pytest.raises(UserError, match="no shards and no list"):
        go([], tmp_path / "set")
    write_shard(tmp_path / "empty.tar", [])
    with pytest.raises(UserError, match="holds no samples"):
        go(tmp_path / "empty.tar", tmp_path / "set")


# Faults


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"webp": None}, "missing image"),
    "empty image": ({"webp": b""}, "missing image"),
    "no caption": ({"txt": None}, "missing caption"),
    "blank caption": ({"txt": b" \n"}, "missing caption"),
    "no picture": ({"webp": b"not an image"}, "corrupt image"),
    "half a picture": ({"webp": picture(99, "WEBP")[:200]}, "corrupt image"),
    "bad json": ({"json": b"{"}, "bad metadata"),
    "json without names": ({"json": b"[1]"}, "bad metadata"),
    "half a surrogate pair": ({"json": b'{"a": "\\ud800"}'}, "bad metadata"),
    "giant": ({"webp": picture(98, size=(200, 100))}, "giant image"),
}


def test_every_fault_is_skipped_and_listed(tmp_path: Path) -> None:
    bad = [
        (f"bad{number}", {**sample(50 + number)[1], **changes}) for number, (changes, _) in enumerate(FAULTS.values())
    ]
    bad = [(key, {name: content for name, content in members.items() if content is not None}) for key, members in bad]
    repeated = [("s0001", sample(60)[1]), ("copy", sample(2)[1])]
    write_shard(tmp_path / "in.tar", [*[sample(number) for number in range(20)], *bad, sample(20), *repeated])
    settings = dataclasses.replace(SETTINGS, max_pixels=10_000)
    result = go(tmp_path / "in.tar", tmp_path / "set", settings=settings, max_skipped=0.5)
    assert list(read_output(tmp_path / "set")) == [f"s{number:04d}" for number in range(21)]
    told = manifest(tmp_path / "set")
    found = {skip["key"]: skip["reason"] for skip in told["skipped"]}
    wanted = {f"bad{number}": reason for number, (_, reason) in enumerate(FAULTS.values())}
    assert found == {**wanted, "s0001": "duplicate key", "copy": "duplicate sample"}
    assert result.skipped == told["counts"]["reasons"]
    assert told["counts"]["skipped"] == len(FAULTS) + 2


def test_duplicates_are_found_across_shards(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "a.tar", [sample(number) for number in range(5)])
    second = write_shard(tmp_path / "b.tar", [sample(4), ("other", sample(3)[1]), sample(5), sample(5)])
    go([first, second], tmp_path / "set", max_skipped=0.5)
    assert list(read_output(tmp_path / "set")) == [f"s{number:04d}" for number in range(6)]
    assert [(skip["key"], skip["reason"]) for skip in manifest(tmp_path / "set")["skipped"]] == [
        ("s0004", "duplicate key"),
        ("other", "duplicate sample"),
        ("s0005", "duplicate key"),
    ]


def test_faults_of_lists(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "text.gif").write_bytes(b"GIF89a")
    lines = [
        '{"image": "images/more/p0.png", "caption": "fine"}',
        '{"image": "images/more/none.png", "caption": "x"}',
        '{"image": "images/more/p1.png"}',
        '{"image": "images/more/p1.png", "caption": ["x"]}',
        '{"image": "text.gif", "caption": "x"}',
        "{",
        '{"caption": "x"}',
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    go(tmp_path / "list.jsonl", tmp_path / "set", max_skipped=1.0)
    assert manifest(tmp_path / "set")["counts"] == {
        "samples": 2,
        "skipped": 5,
        "reasons": {
            "bad list line": 2,
            "image neither JPEG, PNG nor WebP": 1,
            "missing caption": 1,
            "missing image": 1,
        },
    }


def test_a_shard_that_breaks_off_is_used_and_told(tmp_path: Path) -> None:
    path = write_input(tmp_path / "in", shards=1, size=10)[0]
    path.write_bytes(path.read_bytes()[:20_000])
    go(path, tmp_path / "set")
    told = manifest(tmp_path / "set")
    assert 0 < told["counts"]["samples"] < 10
    assert "breaks off" in told["shards"][0]["input_broken"]


def test_too_many_faults_known_beforehand(tmp_path: Path) -> None:
    write_shard(tmp_path / "in.tar", [sample(number, **({"txt": None} if number < 3 else {})) for number in range(20)])
    with pytest.raises(UserError, match=r"15% .* 10% allowed: 3 missing caption \(first: s0000 in .*in\.tar\)"):
        go(tmp_path / "in.tar", tmp_path / "set")
    told = manifest(tmp_path / "set")
    assert (told["status"], len(told["skipped"])) == ("incomplete", 3)
    go(tmp_path / "in.tar", tmp_path / "set", resume=True, max_skipped=0.2)
    assert len(read_output(tmp_path / "set")) == 17


def test_too_many_faults_keep_what_is_done(tmp_path: Path) -> None:
    write_input(tmp_path / "in", shards=2)
    broken = {"webp": b"nothing"}
    write_shard(
        tmp_path / "in/in-1.tar", [sample(10 + n, **(broken if n < 5 else {}), txt=b"%d" % n) for n in range(10)]
    )
    write_shard(tmp_path / "in/in-2.tar", [sample(20 + n) for n in range(10)])
    with pytest.raises(UserError, match=r"17% .* 5 corrupt image"):
        go(tmp_path / "in", tmp_path / "set")
    assert len(list((tmp_path / "set").glob("*.tar"))) == 2
    result = go(tmp_path / "in", tmp_path / "set", resume=True, max_skipped=0.2)
    assert (result.made, result.samples, result.skipped) == (10, 25, {"corrupt image": 5})


def test_keys_with_dots_slashes_and_great_length(tmp_path: Path) -> None:
    names = ["a/b", "a%2Fb", "deep.folder/c", "é" * 45, "x" * 300, "x" * 301]
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        for number, name in enumerate(names):
            for extension, content in (("png", picture(number)), ("txt", b"words")):
                info = tarfile.TarInfo(f"{name}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    go(tmp_path / "in.tar", tmp_path / "set")
    found = read_output(tmp_path / "set")
    assert len(found) == len(names)
    assert list(found)[:3] == ["a%2Fb", "a%252Fb", "deep%2Efolder%2Fc"]
    assert all(len(f"{key}.paug.json".encode()) <= 100 for key in found)
    assert safe_key("plain-name_1") == "plain-name_1"


def test_a_key_that_comes_twice_in_a_row(tmp_path: Path) -> None:
    write_shard(tmp_path / "in.tar", [sample(0), sample(0), sample(1)])
    go(tmp_path / "in.tar", tmp_path / "set", max_skipped=0.5)
    assert list(read_output(tmp_path / "set")) == ["s0000", "s0001"]
