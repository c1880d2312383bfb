"""The command line: help everywhere, one clear line and a non-zero exit on bad input."""

import json
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

import mcliplib
from mcliplib.cli import build_parser, main
from mcliplib.cli.evaluate import own_pictures


def commands():
    parser = build_parser()
    return sorted(next(a for a in parser._actions if a.dest == "command").choices)


def test_the_contracts_commands_are_there():
    assert set(commands()) >= {"data", "doctor", "evaluate", "train"}


@pytest.mark.parametrize("arguments", [[], *([name] for name in ("data", "doctor", "evaluate", "train"))])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main([*arguments, "--help"])
    assert exit.value.code == 0
    assert "usage: mcliplib" in capsys.readouterr().out


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--version"])
    assert exit.value.code == 0
    assert capsys.readouterr().out == f"mcliplib {mcliplib.__version__}\n"


def test_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "mcliplib", "--help"], capture_output=True, text=True, check=True)
    assert "train" in done.stdout


def test_a_reader_that_goes_away_is_no_accident():
    """As in `mcliplib experiment list | head -0`."""
    command = [sys.executable, "-m", "mcliplib", "experiment", "list"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "nano.safetensors"
    model = mcliplib.create_model("mobileclip_nano", vocab=mcliplib.restrict_vocab(["a fox"]), image_size=32)
    mcliplib.save_checkpoint(model, path)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--output", "{tmp}", "--preset", "mobileclip_s9"], "unknown model 'mobileclip_s9'"),
        (["train", "--output", "{tmp}", "--data", "no-such-set"], "no data set 'no-such-set'"),
        (["train", "--output", "{tmp}", "--config", "{tmp}/gone.yaml"], "gone.yaml: no such file"),
        (["train", "--output", "{tmp}", "--data", "{tmp}/gone.tar"], "gone.tar"),
        (["evaluate", "--model", "{tmp}/gone.safetensors"], "gone.safetensors: no such file"),
        (["evaluate", "--model", "{checkpoint}", "--suite", "imagenet"], "no data set 'imagenet'"),
        (["evaluate", "--model", "{checkpoint}", "--output", "{checkpoint}/where.json"], "cannot be written"),
        (["evaluate", "--model", "{checkpoint}", "--output", "{tmp}"], "Is a directory"),
        (["evaluate", "--model", "{checkpoint}", "--suite", "gcompris-train"], "has no evaluation task"),
        (["evaluate", "--model", "{checkpoint}", "--cache", "{tmp}"], "--cache needs --root"),
        (["evaluate", "--model", "{checkpoint}", "--published-model", "x"], "--published-model needs --against"),
        (["evaluate", "--model", "{checkpoint}", "--data", "x", "--root", "x"], "drop one of them"),
        (["train", "--output", "{checkpoint}", "--data", "gcompris-train"], "cannot be written"),
        (["train", "--output", "{tmp}", "--record", "Bad Name"], "use lower-case letters"),
        (["data", "show", "gcompris-train", "--output", "{tmp}/a.foo"], "a contact sheet is a .png"),
    ],
)
def test_bad_input_is_one_line_and_a_failure(arguments, message, tmp_path, checkpoint, capsys):
    filled = [argument.format(tmp=tmp_path, checkpoint=checkpoint) for argument in arguments]
    assert main(filled) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert error.splitlines()[-1].startswith(f"mcliplib {arguments[0]}: ")
    assert "Traceback" not in error


def test_evaluate_prints_and_writes_scores(checkpoint, tmp_path, capsys):
    output = tmp_path / "scores.json"
    assert main(["evaluate", "--model", str(checkpoint), "--suite", "gcompris-animals", "--output", str(output)]) == 0
    scores = json.loads(output.read_text())
    assert all(name.startswith("gcompris-animals/") for name in scores)
    metric = next(iter(scores.values()))["top1"]
    assert 0 <= metric["low"] <= metric["value"] <= metric["high"] <= 1
    assert metric["n"] > 30
    assert "top1" in capsys.readouterr().out


def test_train_then_evaluate(tmp_path, capsys):
    """The path of a first visit: train a little, evaluate what came out."""
    flags = "--data gcompris-train --samples 96 --batch-size 32 --image-size 32 --context-length 8"
    assert main(["train", "--output", str(tmp_path), *flags.split()]) == 0
    assert "after 96 pairs" in capsys.readouterr().out
    model = tmp_path / "model.safetensors"
    assert main(["evaluate", "--model", str(model), "--suite", "tuxpaint-heldout"]) == 0
    assert "image_to_text_r1" in capsys.readouterr().out


def heeding_ctrl_c() -> None:
    """A shell's background jobs ignore SIGINT, and so would their children: this test would never end."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "code", "word"), [(2, 130, "interrupted"), (15, 143, "terminated")])
@pytest.mark.parametrize("after", [2.0, 8.0])
def test_a_stopped_command_says_so_in_one_line(number, code, word, after, tmp_path):
    """Also during the imports, which take seconds."""
    arguments = ["train", "--output", str(tmp_path / "run"), "--samples", "100000000", "--preset", "mobileclip_pico"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mcliplib", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_ctrl_c,
    )
    time.sleep(after)
    process.send_signal(number)
    lines = process.communicate()[1].splitlines()
    if process.returncode < 0:
        pytest.skip("Python itself had not started yet")
    assert process.returncode == code
    assert lines[-1] == f"mcliplib train: {word}"
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize("form", ["flickr", "jsonl"])
def test_a_picture_with_several_captions_is_one_picture(form, checkpoint, tmp_path, capsys):
    """Any of its captions is right; twice the same picture would tie with itself, and a tie is a miss."""
    names, folder = ("red", "green", "blue"), tmp_path / "own"
    folder.mkdir()
    for name in names:
        Image.new("RGB", (32, 32), name).save(folder / f"{name}.png")
    captions = {name: [f"a {name} wall", f"paint of {name} colour"] for name in names}
    if form == "flickr":
        lines = [f"{name}.png#{at}\t{text}" for name in names for at, text in enumerate(captions[name])]
        (folder / "captions.token").write_text("\n".join(lines))
    else:
        lines = [json.dumps({"image": f"{name}.png", "caption": captions[name]}) for name in names]
        (folder / "captions.jsonl").write_text("\n".join(lines))
    images, texts = own_pictures(str(folder), 1 << 20, side=32)
    assert (len(images), texts) == (3, list(captions.values()))
    output = tmp_path / "scores.json"
    assert main(["evaluate", "--model", "student", "--data", str(folder), "--output", str(output)]) == 0
    scores = next(iter(json.loads(output.read_text()).values()))
    assert {name: one["n"] for name, one in scores.items() if name.endswith("r1")} == {
        "image_to_text_r1": 3,
        "text_to_image_r1": 6,
    }
    assert scores["text_to_image_r1"]["value"] > 0.5
