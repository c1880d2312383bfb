"""What a run leaves when it is killed, diverges, or finds a damaged or an unwritable state."""

import errno
import random
import subprocess
import sys
import time

import pytest
import torch

import mcliplib
from mcliplib import UserError, reinforce
from mcliplib.data import write_shard
from mcliplib.train import TrainSettings, train
from mcliplib.train.metrics import read_metrics
from tests.reinforce.reinforce_run import SETTINGS, TEACHERS, TinyCaptioner, sample

TINY = TrainSettings(
    preset="mobileclip_pico", samples=128, batch_size=8, image_size=32, context_length=8, save_every=4, log_every=1,
    warmup_steps=2,
)  # fmt: skip


def test_a_gradient_that_is_no_number_leaves_the_last_good_state(samples, tmp_path, monkeypatch):
    def poisoned(model):
        def forward(pixels, tokens):
            features = original(pixels, tokens)
            if steps.pop():
                features.image.register_hook(lambda gradient: gradient * torch.nan)
            return features

        original, steps = model.forward, [True, False, False, False, False]
        model.forward = forward
        return model

    from mcliplib.train import trainer

    new_model = trainer._new_model
    monkeypatch.setattr(trainer, "_new_model", lambda *arguments: poisoned(new_model(*arguments)))
    with pytest.raises(
        UserError,
        match=r"gradient norm nan at step 4: the run has diverged; .*last\.pt is the last good state; start anew",
    ):
        train(TINY, tmp_path, samples=samples)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["step"] == 4
    assert all(tensor.isfinite().all() for tensor in state["model"].values())


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04" + bytes(100)])
def test_a_broken_state_is_named(samples, tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"last\.pt: not a whole training state"):
        train(TINY, tmp_path, resume=True, samples=samples)


def test_a_loss_that_is_no_number_stops_the_run(samples, tmp_path, monkeypatch):
    monkeypatch.setattr("mcliplib.train.step.clip_loss", lambda a, b, s: (a.sum() + b.sum()) * s * torch.nan)
    with pytest.raises(UserError, match=r"loss nan, gradient norm nan at step 0.*no state was saved yet"):
        train(TINY, tmp_path, samples=samples)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_state_cut_short_is_named(samples, tmp_path, share):
    train(TINY, tmp_path, samples=samples)
    path = tmp_path / "last.pt"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"last\.pt: not a whole training state .*; remove it to start anew"):
        train(TINY, tmp_path, resume=True, samples=samples)


def test_a_full_disk_leaves_the_earlier_state(samples, tmp_path, monkeypatch):
    original, saved = torch.save, []

    def save(state, file):
        if saved:
            file.write(b"half of")
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(state["step"])
        original(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(UserError, match=r"last\.pt: cannot be written .*No space left"):
            train(TINY, tmp_path / "full", samples=samples)
    assert torch.load(tmp_path / "full" / "last.pt", weights_only=True)["step"] == saved[0] == 4
    assert not list((tmp_path / "full").glob(".*"))
    resumed = train(TINY, tmp_path / "full", resume=True, samples=samples)
    whole = train(TINY, tmp_path / "whole", samples=samples)
    assert same(resumed.model, whole.model)


def test_a_state_from_before_a_setting_existed_is_continued(samples, tmp_path):
    """Settings that are younger than the file count as their defaults."""
    train(TINY, tmp_path, samples=samples)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    state["settings"] = state["settings"].replace('"accumulate": 1, ', "")
    assert "accumulate" not in state["settings"]
    torch.save(state, tmp_path / "last.pt")
    train(TINY, tmp_path, resume=True, samples=samples)
    with pytest.raises(UserError, match=r"other settings \(accumulate was 1\)"):
        train(TrainSettings(**{**vars(TINY), "accumulate": 2}), tmp_path, resume=True, samples=samples)


@pytest.fixture
def reinforced(tmp_path):
    """A small reinforced set."""
    plain = write_shard(tmp_path / "plain.tar", map(sample, range(24)))
    reinforce.run(
        [str(plain)], tmp_path / "set", teachers=TEACHERS, captioner=TinyCaptioner(), settings=SETTINGS, progress=False
    )
    return tmp_path / "set"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "reinforced"])
def test_kill_9_and_resume_on_the_command_line(tmp_path, kind, request):
    """The real command, really killed, three times at random moments: the weights are those of an undisturbed run."""
    flags = (
        "--preset mobileclip_pico --samples 640 --batch-size 16 --image-size 32 --context-length 12 --save-every 2 "
        "--ema 0.99 --seed 5"
    )
    data = ["emoji-noto"] if kind == "plain" else [str(request.getfixturevalue("reinforced")), "--reinforced"]
    command = [sys.executable, "-m", "mcliplib", "train", *flags.split(), "--resume", "auto", "--data", *data]
    subprocess.run([*command, "--output", tmp_path / "whole"], check=True, capture_output=True)
    kills = 0
    for _ in range(3):
        kills += killed_at_random([*command, "--output", str(tmp_path / "cut")], tmp_path / "cut" / "last.pt")
    assert kills > 0
    subprocess.run([*command, "--output", tmp_path / "cut"], check=True, capture_output=True)
    for name in ("model.safetensors", "last.pt"):
        assert (tmp_path / "cut" / name).exists()
    assert same(*(mcliplib.load_model(tmp_path / name / "model.safetensors") for name in ("whole", "cut")))
    whole, cut = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "cut"))
    for part in ("model", "average"):
        assert all(torch.equal(whole[part][name], cut[part][name]) for name in whole[part])


def killed_at_random(command, state):
    """Start it, let it save at least once, kill it up to a second later; whether that was before its end."""
    before = state.stat().st_mtime_ns if state.exists() else None
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        if state.exists() and state.stat().st_mtime_ns != before:
            break
        time.sleep(0.005)
    time.sleep(random.uniform(0, 1))
    process.kill()
    process.wait()
    assert state.exists()
    return not (state.parent / "model.safetensors").exists()


def same(one, other):
    """Whether two models are equal to the bit."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def _optimizer_changed(state, **changes):
    first = next(iter(state["optimizer"]["state"].values()))
    first.update(changes)


STATES = {
    "step": (lambda s: s.update(step=10**9), "step 1,000,000,000 is after the last one"),
    "negative step": (lambda s: s.update(step=-1), "step: must be from 0"),
    "half a step": (lambda s: s.update(step=1.5), "step: must be int"),
    "seconds": (lambda s: s.update(seconds=float("nan")), "seconds: must be float"),
    "loss": (lambda s: s.update(loss="low"), "loss: must be float"),
    "no average": (lambda s: s.pop("average"), "lacks average"),
    "settings": (lambda s: s.update(settings="[" * 10**5), "nested too deeply"),
    "settings of a list": (lambda s: s.update(settings="[1]"), "settings: must be"),
    "weights": (lambda s: s.update(model={}), "Missing key|Error"),
    "no weights": (lambda s: s.update(model=[1]), "model: must be"),
    "NaN": (lambda s: next(iter(s["model"].values())).fill_(float("nan")), "NaN or infinite"),
    "claims": (lambda s: s["model"].update(logit_scale=torch.zeros(1).expand(10**12)), "claims"),
    "optimizer": (lambda s: s.update(optimizer={}), "param_groups"),
    "moments": (lambda s: _optimizer_changed(s, exp_avg=torch.zeros(7)), "does not fit its parameter"),
    "NaN moments": (lambda s: _optimizer_changed(s, step=torch.tensor(float("nan"))), "NaN or infinite"),
    "words": (lambda s: _optimizer_changed(s, exp_avg="x"), "does not fit its parameter"),
}


@pytest.fixture(scope="module")
def stopped(samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(TINY, folder, samples=samples)
    return folder / "last.pt"


@pytest.mark.parametrize("kind", STATES)
def test_a_state_that_is_none_is_named_with_its_field(samples, stopped, tmp_path, kind):
    change, message = STATES[kind]
    state = torch.load(stopped, weights_only=True)
    change(state)
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(UserError, match=rf"last\.pt: not a whole training state \(.*({message})"):
        train(TINY, tmp_path, resume=True, samples=samples)


@pytest.mark.parametrize("line", ["[" * 10**5, "7", '{"loss": 1}', '{"step": "x"}', "\udcff", '{"step": 1e999}'])
def test_metrics_that_are_damaged_end_there(samples, tmp_path, line):
    train(TINY, tmp_path, samples=samples)
    path = tmp_path / "metrics.jsonl"
    good = read_metrics(path)
    assert good
    with path.open("a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(line + "\n")
    assert read_metrics(path) == good


def test_a_finished_run_has_no_lock_nor_half_files(samples, tmp_path):
    train(TINY, tmp_path, samples=samples)
    assert not list(tmp_path.glob(".*"))
