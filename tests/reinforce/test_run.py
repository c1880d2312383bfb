"""A reinforced set is what its input, settings and models say: whatever the workers, and whenever the run is killed."""

import contextlib
import dataclasses
import multiprocessing
import os
import random
import shutil
import signal
import tarfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import fsspec
import pytest
import torch

from mcliplib.data import decode_image, read_shards, write_shard
from mcliplib.errors import UserError
from mcliplib.reinforce import AugmentSettings, ReinforcedSample, ReinforceSettings, augment
from tests.conftest import refused
from tests.reinforce.reinforce_run import (
    SETTINGS,
    TEACHERS,
    TinyCaptioner,
    TinyTeacher,
    contents,
    go,
    manifest,
    picture,
    read_output,
    resume_slowly,
    sample,
    write_input,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    write_input(folder)
    return folder


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "set"
    go(shards, output)
    return output


def test_samples_hold_what_the_models_said(whole: Path) -> None:
    found = read_output(whole)
    assert list(found) == [f"s{number:04d}" for number in range(40)]
    one = found["s0017"]
    assert one.image == picture(17, "WEBP")
    assert (one.caption, one.url, one.uid) == ("picture of number 17", "http://x/17", "u17")
    assert one.meta == {"url": "http://x/17", "licence": "CC0"}
    assert one.synthetic_captions == tuple(f"a 40 by 30 picture s0017 0 {number}" for number in range(2))
    image = decode_image(one.image)
    texts = [one.caption, *one.synthetic_captions]
    for rows, made in (
        (one.image_emb, [teacher.encode_pixels(views(image, one, teacher.image_size)) for teacher in TEACHERS]),
        (one.text_emb, [teacher.encode_texts(texts) for teacher in TEACHERS]),
    ):
        torch.testing.assert_close(rows, torch.cat(made, 1), atol=2**-8, rtol=2**-8)
    assert len({params for found_one in found.values() for params in found_one.augmentations}) == 120


def views(image: object, one: ReinforcedSample, side: int) -> torch.Tensor:
    return torch.stack([augment.apply(image, params, side) for params in one.augmentations])


def test_the_manifest_tells_what_the_set_is_made_of(whole: Path, shards: Path) -> None:
    told = manifest(whole)
    assert told["status"] == "complete"
    assert told["counts"] == {"samples": 40, "skipped": 0, "reasons": {}}
    assert [teacher["name"] for teacher in told["identity"]["teachers"]] == ["one", "two"]
    assert told["identity"]["captioner"] == {"name": "tiny", "identity": {"version": "1"}}
    assert told["identity"]["settings"]["seed"] == 0
    assert told["identity"]["versions"]["torch"] == torch.__version__.partition("+")[0] or torch.__version__
    assert [one["samples"] for one in told["inputs"]] == [10] * 4
    assert [one["file"] for one in told["shards"]] == [f"shard-{number:06d}.tar" for number in range(4)]
    there = contents(whole)
    del there["manifest.json"]
    assert {one["file"]: one["sha256"] for one in told["shards"]} == there
    assert len(list(read_shards(sorted(whole.glob("*.tar"))))) == 40


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_a_byte(shards: Path, whole: Path, tmp_path: Path, workers: int) -> None:
    go(shards, tmp_path / "set", workers=workers)
    assert contents(tmp_path / "set") == contents(whole)


def test_a_samples_views_depend_on_seed_and_key_alone(shards: Path, whole: Path, tmp_path: Path) -> None:
    before = read_output(whole)
    go(shards / "in-2.tar", tmp_path / "part")
    assert {key: one.augmentations for key, one in read_output(tmp_path / "part").items()} == {
        key: one.augmentations for key, one in before.items() if "s0020" <= key < "s0030"
    }
    go(shards / "in-2.tar", tmp_path / "other", settings=dataclasses.replace(SETTINGS, seed=1))
    assert read_output(tmp_path / "other")["s0020"].augmentations != before["s0020"].augmentations


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_other_settings_reach_the_samples(shards: Path, tmp_path: Path, dtype: str) -> None:
    flipping = AugmentSettings(size=64, flip_probability=0.5, erase_probability=0.5)
    settings = ReinforceSettings(augmentations=2, dtype=dtype, augment=flipping, batch_size=1)
    result = go(shards / "in-0.tar", tmp_path / "set", settings=settings, captioner=None, teachers=TEACHERS[:1])
    assert (result.samples, result.skipped) == (10, {})
    assert manifest(tmp_path / "set")["identity"]["settings"]["captions"] == 0
    with tarfile.open(tmp_path / "set/shard-000000.tar") as archive:
        assert {name.partition(".")[2] for name in archive.getnames()} == {
            "webp", "txt", "json", "url.txt", "syn.json", "paug.json", "npz",
        }  # fmt: skip


# Killed and resumed


@pytest.fixture(scope="module")
def start(shards: Path) -> Callable[[Path], BaseProcess]:
    """Starts a run in a process of its own; from a server that has imported all, so that it takes milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mcliplib.reinforce"])

    def started(output: Path) -> BaseProcess:
        process = context.Process(target=resume_slowly, args=(str(shards), str(output)))
        process.start()
        return process

    return started


def test_killed_at_random_and_resumed(start: Callable, shards: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, again and again; then the set is that of a run that nobody killed."""
    for name in ("first", "second"):  # the second without the server's imports
        begin = time.monotonic()
        process = start(tmp_path / name)
        process.join()
        assert process.exitcode == 0
        seconds = time.monotonic() - begin
        assert contents(tmp_path / name) == contents(whole)
    rng = random.Random(7)
    kills = 0
    for number in range(6):
        output = tmp_path / f"set-{number}"
        for _ in range(4):
            process = start(output)
            process.join(rng.uniform(0, seconds / 2))
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        go(shards, output, resume=True)
        assert contents(output) == contents(whole)
    assert kills > 12


def test_killed_at_every_stage_of_the_writing(start: Callable, shards: Path, whole: Path, tmp_path: Path) -> None:
    """Killed as soon as a file appears that was not there before: with each temporary, each shard, each record."""
    output = tmp_path / "set"
    stages: list[set[str]] = []
    for _ in range(60):
        before = listing(output)
        process = start(output)
        while process.is_alive() and listing(output) <= before:
            time.sleep(0.0005)
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        stages.append(listing(output) - before)
    assert len(stages) >= 4
    go(shards, output, resume=True)
    assert contents(output) == contents(whole)


def listing(folder: Path) -> set[str]:
    return {os.path.join(where, name) for where, folders, files in os.walk(folder) for name in folders + files}


def test_a_shard_without_record_or_cut_is_made_again(shards: Path, whole: Path, tmp_path: Path) -> None:
    class Failing(TinyTeacher):
        calls = 0

        def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
            Failing.calls += 1
            if Failing.calls > 8:
                raise OSError("gone")
            return super().encode_pixels(pixels)

    output = tmp_path / "set"
    with pytest.raises(OSError, match="gone"):
        go(shards, output, teachers=[Failing("one", 24, 32), TEACHERS[1]])
    assert sorted(path.name for path in output.glob("*.tar")) == ["shard-000000.tar", "shard-000001.tar"]
    (output / "shard-000001.tar").write_bytes((output / "shard-000001.tar").read_bytes()[:-512])
    (output / ".unfinished-x").mkdir()
    (output / ".unfinished-x/shard-000002.tar").write_bytes(b"half")
    result = go(shards, output, resume=True)
    assert (result.made, result.samples) == (30, 40)
    assert contents(output) == contents(whole)


@pytest.mark.parametrize("status", ["complete", "incomplete"])
def test_a_shard_overwritten_or_lost_is_made_again(shards: Path, whole: Path, tmp_path: Path, status: str) -> None:
    output = tmp_path / "set"
    if status == "complete":
        shutil.copytree(whole, output)
    else:
        with pytest.raises(UserError, match="the last one"):
            go(shards, output, teachers=[LastShardFails("one", 24, 32), TEACHERS[1]])
    zeros = bytes((output / "shard-000000.tar").stat().st_size)
    (output / "shard-000000.tar").write_bytes(zeros)
    (output / "shard-000001.tar").unlink()
    with (
        contextlib.nullcontext() if status == "incomplete" else pytest.warns(UserWarning, match="2 shards are damaged")
    ):
        result = go(shards, output, resume=True)
    assert result.samples == 40
    assert result.made < 40 or status == "incomplete"
    assert contents(output) == contents(whole)


class LastShardFails(TinyTeacher):
    calls = 0

    def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        LastShardFails.calls += 1
        if LastShardFails.calls > 8:
            raise UserError("the last one")
        return super().encode_pixels(pixels)


def test_a_second_run_in_one_folder_is_refused_and_leaves_the_first_alone(shards: Path, tmp_path: Path) -> None:
    class Second(TinyTeacher):
        def encode_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
            there = set((tmp_path / "set").iterdir())
            with pytest.raises(UserError, match=r"set: another run writes here \(process \d+ on "):
                go(shards, tmp_path / "set", resume=True)
            assert set((tmp_path / "set").iterdir()) == there
            return super().encode_pixels(pixels)

    go(shards, tmp_path / "set", teachers=[Second("one", 24, 32), TEACHERS[1]])
    assert not list((tmp_path / "set").glob(".*"))


def test_a_finished_run_is_not_touched(shards: Path, whole: Path) -> None:
    with pytest.raises(UserError, match="holds a finished run"):
        go(shards, whole)
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    result = go(shards, whole, resume=True)
    assert (result.made, result.samples) == (0, 40)
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": dataclasses.replace(SETTINGS, seed=3)}, r"settings\.seed was 0, is 3"),
        ({"settings": dataclasses.replace(SETTINGS, dtype="int8")}, r"settings\.dtype was bfloat16, is int8"),
        ({"teachers": TEACHERS[::-1]}, r"teachers\[0\]\.dim was 24, is 40"),
        ({"teachers": TEACHERS[:1]}, "teachers was"),
        (
            {"teachers": [dataclasses.replace(TEACHERS[0], identity={"version": "2"}), TEACHERS[1]]},
            r"teachers\[0\]\.identity\.version was 1, is 2",
        ),
        ({"captioner": TinyCaptioner(name="other")}, r"captioner\.name was tiny, is other"),
        ({"captioner": None}, "captioner was"),
    ],
)
def test_resuming_otherwise_is_refused(shards: Path, whole: Path, changes: dict[str, object], message: str) -> None:
    before = contents(whole)
    with pytest.raises(UserError, match=message):
        go(shards, whole, resume=True, **changes)
    assert contents(whole) == before


def test_resuming_with_another_input_is_refused(shards: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another input: it had 4 parts, this one has 1"):
        go(shards / "in-0.tar", whole, resume=True)
    copies = write_input(tmp_path)
    write_shard(copies[2], [sample(20 + number) for number in range(9)] + [sample(29, txt=b"another caption")])
    with pytest.raises(UserError, match=r"another input: .*/in-2\.tar is another"):
        go(tmp_path, whole, resume=True)
    write_input(tmp_path)  # the same samples in another folder are the same input
    assert go(tmp_path, whole, resume=True).made == 0


def test_a_picture_that_goes_during_the_run_is_counted(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for number in range(20):
        (tmp_path / f"images/{number}.png").write_bytes(picture(number))
    (tmp_path / "list.tsv").write_text("".join(f"images/{number}.png\tpicture {number}\n" for number in range(20)))

    class Deleting(TinyTeacher):
        def encode_texts(self, texts: list[str]) -> torch.Tensor:
            (tmp_path / "images/15.png").unlink(missing_ok=True)
            return super().encode_texts(texts)

    settings = dataclasses.replace(SETTINGS, shard_size=5)
    result = go(tmp_path / "list.tsv", tmp_path / "set", teachers=[Deleting("one", 24, 32)], settings=settings)
    assert result.samples == 19
    assert result.skipped == {"missing image": 1}


# Where data comes from and goes to


def test_memory_in_and_out(shards: Path, whole: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in shards.glob("*.tar"):
        memory.pipe_file(f"/run-in/{path.name}", path.read_bytes())
    go("memory://run-in/in-*.tar", "memory://run-out/set")
    found = {name.rpartition("/")[2]: memory.cat_file(name) for name in memory.find("/run-out/set")}
    assert found.keys() == contents(whole).keys()
    for name in found:
        if name.endswith(".tar"):
            assert found[name] == (whole / name).read_bytes()
    assert go("memory://run-in", "memory://run-out/set", resume=True).made == 0
    memory.rm("/run-out", recursive=True)
    memory.rm("/run-in", recursive=True)


def test_teachers_that_break_their_promise_are_named(shards: Path, tmp_path: Path) -> None:
    class Wide(TinyTeacher):
        def encode_texts(self, texts: list[str]) -> torch.Tensor:
            return torch.ones(len(texts), 3)

    class Mute(TinyCaptioner):
        def caption(self, *args: object) -> list[list[str]]:
            return [[]]

    with pytest.raises(UserError, match=r"teacher wide: gave \[12, 3\]"):
        go(shards, tmp_path / "a", teachers=[Wide("wide", 24, 32)])
    with pytest.raises(UserError, match="captioner tiny: did not make 2 captions"):
        go(shards, tmp_path / "b", captioner=Mute())
    assert not list(tmp_path.glob("*/*.tar"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": []}, "at least one teacher"),
        ({"engine": "spark"}, "unknown engine"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"max_skipped": 10.0}, "share from 0 to 1"),
    ],
)
def test_bad_arguments(shards: Path, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with refused(UserError, message):
        go(shards, tmp_path / "set", **changes)


def test_output_that_is_something_else(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        go(shards, tmp_path / "file")
    with pytest.raises(UserError, match=r"holds file and no manifest\.json"):
        go(shards, tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        go(shards, tmp_path, resume=True)


@pytest.mark.parametrize("name", ["augmentations", "batch_size", "shard_size", "threads", "captions"])
def test_bad_settings(name: str) -> None:
    with pytest.raises(UserError, match=name):
        ReinforceSettings(**{name: -1})


def test_teachers_in_bfloat16_answer_nearly_the_same(shards: Path, tmp_path: Path) -> None:
    for compute in ("float32", "bfloat16"):
        go(str(shards), tmp_path / compute, settings=dataclasses.replace(SETTINGS, compute=compute))
    one, other = read_output(tmp_path / "float32"), read_output(tmp_path / "bfloat16")
    assert one.keys() == other.keys()
    for key in one:
        assert torch.cosine_similarity(one[key].image_emb, other[key].image_emb).min() > 0.99
    assert any(not torch.equal(one[key].image_emb, other[key].image_emb) for key in one)
