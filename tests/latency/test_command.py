"""`mcliplib benchmark latency`, end to end on a small model; and the peers."""

import copy
import json

import pytest
import torch
from torch import nn

import mcliplib
from mcliplib.cli import main
from mcliplib.latency import PEERS, peers
from mcliplib.latency.peers import example_for, randomize_statistics
from mcliplib.presets import PRESETS

QUICK = ["--rounds", "2", "--threads", "1"]


@pytest.mark.parametrize("arguments", [["benchmark"], ["benchmark", "latency"]])
def test_help(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        main([*arguments, "--help"])
    assert exit.value.code == 0
    assert "usage: mcliplib benchmark" in capsys.readouterr().out


def test_table_and_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path))
    command = ["benchmark", "latency", "--model", "mobileclip_nano", *QUICK, "--roofline", "--record", "nano-latency"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "image tower" in printed.out
    assert "text tower" in printed.out
    assert "2 rounds of as_trained, eager" in printed.err
    record = json.loads((tmp_path / "nano-latency.json").read_text())
    assert record["n"] == 2
    assert "--model mobileclip_nano" in record["command"]
    for tower in ("image", "text"):
        values = record["values"][tower]
        assert set(values["ms"]) == {"as_trained", "eager"}
        spread = values["ratio"]["as_trained"]["eager"]
        assert spread["low"] <= spread["median"] <= spread["high"]
        assert values["cosine"]["eager"] > 0.9999
        assert values["best"]["float32"]["way"] == "eager"
        assert values["cost"]["gflop"] > 0
        assert values["shares"]["1x1 convolution"]["milliseconds"] > 0
    assert record["values"]["machine"]["gflops"] > 0


def test_loader_table_and_record(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path))
    command = ["benchmark", "loader", "--data", "gcompris-animals", "--samples", "16", "--batch", "8"]
    assert main([*command, "--image-size", "32", "--rounds", "2", "--record", "loader-test"]) == 0
    assert "reinforced, views made once" in capsys.readouterr().out
    values = json.loads((tmp_path / "loader-test.json").read_text())["values"]
    assert values["plain, decoded once"]["ratio"]["median"] == 1
    assert all(one["samples_per_second"] > 0 for one in values.values())
    assert main([*command[:4], "--samples", "100000"]) == 2
    assert "fewer than the 100000 wanted" in capsys.readouterr().err


def test_tune_tries_what_this_machine_has(monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")  # compiling takes longer than this test may
    assert main(["benchmark", "latency", "--model", "mobileclip_nano", "--tower", "text", "--tune", *QUICK]) == 0
    out = capsys.readouterr().out
    assert "eager_bf16" in out
    assert "compiled: dropped, no C++ compiler" in out


def test_a_peer_takes_part(monkeypatch, capsys):
    class Tiny(nn.Module):
        def forward(self, pixels):
            return pixels.mean((2, 3))

    peer = copy.copy(PEERS["timm"])
    peer = type(peer)("timm", "image", {"mobileclip_nano": "tiny"}, lambda name, embed_dim: Tiny())
    monkeypatch.setitem(peers.PEERS, "timm", peer)
    command = ["benchmark", "latency", "--model", "mobileclip_nano", "--tower", "image", "--against", "timm", *QUICK]
    assert main(command) == 0
    assert "over timm" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "shape"), [("timm", (1, 3, 64, 64)), ("open_clip", (1, 77))])
def test_peers_build_the_towers_of_our_models(name, shape):
    run = peers.peer_run(PEERS[name], "mobileclip_s0")
    example = torch.rand(shape) if len(shape) == 4 else torch.randint(49408, shape)
    assert run(example).shape == (1, 512)


@pytest.mark.parametrize("model", PEERS["timm"].models)
def test_timms_towers_are_as_wide_as_ours(model):
    """S3, S4 and L-14 end in 768 numbers, the others in 512."""
    config = PRESETS[model]
    size = config.image.image_size
    with torch.device("meta"):
        features = peers.peer_run(PEERS["timm"], model)(torch.rand(1, 3, size, size))
    assert features.shape == (1, config.embed_dim)


@pytest.mark.parametrize("name", list(PEERS))
def test_peers_are_for_models_that_we_have(name):
    assert set(PEERS[name].models) <= set(mcliplib.list_models())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--against", "tensorflow"], "unknown peer 'tensorflow'; known: timm, open_clip"),
        (["--against", "timm", "--tower", "text"], "timm is compared in the image tower only"),
        (["--model", "mobileclip_s9"], "unknown model 'mobileclip_s9'"),
        (["--model", "gone.safetensors"], "gone.safetensors: no such file"),
        (["--model", "mobileclip_nano", "--against", "timm"], "timm has no image tower like mobileclip_nano's"),
        (["--rounds", "1"], "--rounds must be at least 2"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--record", "Bad Name"], "use lower-case letters"),
    ],
)
def test_bad_input_is_one_line_and_a_failure(arguments, message, capsys):
    assert main(["benchmark", "latency", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("mcliplib benchmark: ")
    assert message in error
    assert "\n" not in error


def test_fresh_weights_are_enlivened():
    torch.manual_seed(0)
    model = mcliplib.create_model("mobileclip_nano")
    pixels = example_for(model, "image")
    before = model.encode_image(pixels)
    randomize_statistics(model)
    assert not torch.allclose(before, model.encode_image(pixels), rtol=0.1)


def test_the_example_ends_its_texts():
    model = mcliplib.create_model("mobileclip_nano")
    tokens = example_for(model, "text", batch=3)
    assert tokens.shape == (3, 16)
    assert (tokens.argmax(-1) == 2).all()
