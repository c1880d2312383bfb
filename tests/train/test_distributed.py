"""Real processes that share a batch give the loss and the gradients of one process with the whole batch."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import multiprocessing

from mcliplib.train.distributed import gather, own_rows, part_of, rank, world_size
from mcliplib.train.metrics import read_metrics
from tests.train.distributed_worker import gradients, work


@pytest.fixture(scope="module", params=[2, 3])
def found(request, tmp_path_factory):
    """What each process found."""
    folder = tmp_path_factory.mktemp("gloo")
    multiprocessing.spawn(work, (request.param, str(folder)), nprocs=request.param)
    return [torch.load(folder / f"{n}.pt", weights_only=False) for n in range(request.param)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["clip", "reinforced"])
def test_processes_with_uneven_parts_equal_one_with_the_whole_batch(found, kind):
    alone = gradients(kind)
    for one in found:
        for name, value in alone.items():
            torch.testing.assert_close(one[kind][name], value, rtol=1e-10, atol=1e-12, msg=f"{name}: differs")


@pytest.mark.slow
def test_pytorchs_data_parallel_model_wants_the_same_factor(found):
    alone = gradients("reinforced")
    for one in found:
        for name, value in alone.items():
            torch.testing.assert_close(one["ddp"][name], value, rtol=1e-10, atol=1e-12, msg=f"{name}: differs")


@pytest.mark.slow
def test_running_statistics_are_averaged(found):
    mean = torch.stack([one["statistics"][0] for one in found]).mean(0)
    assert not torch.equal(found[0]["statistics"][0], mean)
    for one in found:
        torch.testing.assert_close(one["statistics"][1], mean)


@pytest.mark.slow
def test_processes_that_differ_all_stop(found):
    assert all("steps: the processes differ (0, 1" in one["disagreement"] for one in found)


@pytest.mark.parametrize(("rows", "parts"), [(7, 1), (7, 2), (7, 3), (8, 4), (9, 5)])
def test_parts_are_even_and_cover_all_rows(rows, parts):
    slices = [part_of(rows, part, parts) for part in range(parts)]
    assert [row for part in slices for row in range(rows)[part]] == list(range(rows))
    sizes = [part.stop - part.start for part in slices]
    assert max(sizes) - min(sizes) <= 1


def test_one_process_gathers_nothing():
    tensor = torch.zeros(3, 2)
    assert gather([tensor])[0] is tensor
    assert (rank(), world_size(), own_rows(5)) == (0, 1, slice(0, 5))


FLAGS = (
    "--preset mobileclip_pico --data emoji-noto --samples 54 --batch-size 9 --image-size 32 --context-length 8 "
    "--dtype float32 --save-every 2 --log-every 1 --seed 5 --learning-rate 1e-3 --warmup-steps 1"
)


def run(*command, check=True):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], check=check, capture_output=True, text=True, env=environment
    )


def torchrun(output, *flags, check=True):
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    return run(*launcher, "mcliplib", "train", *FLAGS.split(), "--output", str(output), *flags, check=check)


@pytest.mark.slow
def test_torchrun_equals_one_process_that_normalises_the_same_parts(tmp_path):
    """Two processes with 4 and 5 rows of each batch; one process that encodes the same rows in two parts.

    BatchNorm sees the same rows in both (against the whole batch at once, weights differ by up to 0.008 after these six
    steps), so that only rounding could differ. With two parts not even that does: a sum of two and a factor of two are
    exact. The tolerance leaves room for libraries that add up otherwise. Running statistics differ in meaning (mean
    over processes; part after part) and are left out.
    """
    out = torchrun(tmp_path / "two").stdout
    assert out.count("after 54 pairs") == 1  # the first process alone speaks
    run("mcliplib", "train", *FLAGS.split(), "--output", str(tmp_path / "one"), "--accumulate", "2")
    two, one = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert two.keys() == one.keys()
    names = [name for name, value in one.items() if value.is_floating_point() and "running_" not in name]
    for name in names:
        torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-6, msg=f"{name}: differs")
    losses = [[line["loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl")] for name in ("two", "one")]
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_torchrun_resumes_to_the_bit(tmp_path):
    torchrun(tmp_path / "whole")
    script = tmp_path / "stopped.py"
    script.write_text(f"""
import sys; from mcliplib.train import trainer; original = trainer.save_state
def save(directory, settings, digest, learner, at):
    original(directory, settings, digest, learner, at)
    if at.step == 4: raise SystemExit(9)
trainer.save_state = save
from mcliplib.cli import main; sys.exit(main({["train", *FLAGS.split(), "--output", str(tmp_path / "cut")]!r}))
""")
    broken = run("torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), check=False)
    assert broken.returncode != 0
    assert torch.load(tmp_path / "cut" / "last.pt", weights_only=True)["step"] == 4
    torchrun(tmp_path / "cut", "--resume", "auto")
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(6))


@pytest.mark.slow
def test_a_run_that_diverges_stops_in_all_processes(tmp_path):
    """The step is patched to make the second process's features no number; both must stop, and say so."""
    script = tmp_path / "poisoned.py"
    script.write_text(f"""
import sys, torch; from mcliplib.train import step; from mcliplib.train.distributed import rank
original = step.features_of
def poisoned(model, batch, dtype):
    image, *texts = original(model, batch, dtype)
    return (image * torch.nan if rank() == 1 else image), *texts
step.features_of = poisoned
from mcliplib.cli import main; sys.exit(main({["train", *FLAGS.split(), "--output", str(tmp_path / "run")]!r}))
""")
    done = run("torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), check=False)
    assert done.returncode != 0
    assert done.stderr.count("at step 0: the run has diverged; no state was saved yet") == 2
    assert not (tmp_path / "run" / "model.safetensors").exists()
