"""Towers in processes of their own: each runs and answers, one that fails is told, and none stays behind."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from mcliplib.cli import main
from mcliplib.export.onnx import to_proto
from mcliplib.export.towers import Tower
from mcliplib.latency import runtimes
from mcliplib.latency.contenders import seeded_model, torch_run
from mcliplib.latency.flops import cpu_flags
from mcliplib.latency.peers import PEERS, Peer
from mcliplib.latency.runtimes import Contender, race
from mcliplib.latency.timing import turns
from mcliplib.latency.worker import open_openvino

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tower():
    return Tower(seeded_model("mobileclip_pico"), "image")


@pytest.fixture
def contender(tower, tmp_path):
    import onnx

    onnx.save(to_proto(tower), tmp_path / "image.onnx")
    return Contender("onnxruntime float32", "onnxruntime", tmp_path / "image.onnx")


def test_everyone_has_a_turn_in_each_round():
    found = list(turns(["a", "b", "c"], 4))
    rounds = ["".join(name for at, name in found if at == turn) for turn in range(4)]
    assert rounds == ["abc", "bca", "cab", "abc"]


def test_features_times_and_memory(contender, tower, tmp_path):
    path = tmp_path / "eager.json"
    path.write_text(json.dumps({"model": "mobileclip_pico", "tower": "image", "way": "eager"}))
    example = tower.example(2)
    found = race([contender, Contender("eager", "torch", path)], example.numpy(), tmp_path, rounds=3, threads=1)
    assert found.failed == {}
    for name in ("onnxruntime float32", "eager"):
        told = found.started[name]
        features = torch.from_numpy(told.features)
        cosines = torch.nn.functional.cosine_similarity(features, tower(example).double(), dim=1)
        assert cosines.min() > 0.9999
        assert told.seconds > 0
        assert len(found.measurement.samples[name]) == 3
        assert min(found.measurement.samples[name]) > 0
    assert found.started["onnxruntime float32"].bytes > 0
    light, heavy = (found.started[name].peak_mb for name in ("onnxruntime float32", "eager"))
    if light is not None:
        assert light < heavy  # its process holds no PyTorch


def test_one_that_fails_is_told_and_the_others_run(contender, tower, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    told = []
    every = [Contender("broken", "onnxruntime", broken), contender]
    found = race(every, tower.example(1).numpy(), tmp_path, rounds=2, threads=1, progress=told.append)
    assert list(found.measurement.samples) == ["onnxruntime float32"]
    assert "broken.onnx" in found.failed["broken"]
    assert any(line.startswith("broken: ") for line in told)


def test_no_process_stays(contender, tower, tmp_path):
    before = {child.pid for child in psutil.Process().children()}
    race([contender, contender], tower.example(1).numpy(), tmp_path, rounds=2, threads=1)
    for _ in range(100):
        if not {child.pid for child in psutil.Process().children()} - before:
            return
        time.sleep(0.1)
    raise AssertionError("a worker is left")


def test_a_waiting_worker_is_stopped(contender, tower, tmp_path):
    np.save(tmp_path / "example.npy", tower.example(1).numpy())
    with runtimes._worker(contender, tmp_path / "example.npy", 1) as one:
        one.answer()
        process = psutil.Process(one._process.pid)
        for _ in range(100):
            if process.status() == psutil.STATUS_STOPPED:
                break
            time.sleep(0.1)
        assert process.status() == psutil.STATUS_STOPPED
        assert one.take_turn()["milliseconds"] > 0


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no process on a core")
def test_a_worker_stays_on_as_many_cores_as_it_has_threads(contender, tower, tmp_path):
    np.save(tmp_path / "example.npy", tower.example(1).numpy())
    with runtimes._worker(contender, tmp_path / "example.npy", 1) as one:
        one.answer()
        threads = [os.sched_getaffinity(int(path.name)) for path in Path(f"/proc/{one._process.pid}/task").iterdir()]
    assert len(threads[0]) == 1
    assert threads == [threads[0]] * len(threads)


EXECUTORCH = """
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count
from mcliplib.latency.worker import open_executorch
program = torch.export.export(torch.nn.Linear(4, 4), (torch.zeros(1, 4),))
with open("linear.pte", "wb") as file:
    file.write(to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer)
before = _threadpool_get_thread_count()
open_executorch("linear.pte")
print(_threadpool_get_thread_count() == before)
run = open_executorch("linear.pte", before + 1)
print(_threadpool_get_thread_count() - before, *run(torch.zeros(1, 4).numpy()).shape)
"""


@pytest.mark.skipif(
    importlib.util.find_spec("executorch") is None, reason="executorch is in requirements-runtimes.lock"
)
def test_executorch_has_the_threads_that_it_is_given(tmp_path):
    """In a process of its own: the threads are the whole process's, and loaded programs may hold those before."""
    done = subprocess.run([sys.executable, "-c", EXECUTORCH], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["True", "1 1 4"]


def test_our_towers_are_the_same_in_every_process():
    example = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    first, second = (torch_run("mobileclip_pico", "image", way="eager")(example) for _ in range(2))
    assert torch.equal(first, second)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")  # compiling takes longer than this test may
    monkeypatch.setattr("mcliplib.latency.contenders.FORMATS", {"onnx": ("float32", "int8")})
    command = ["benchmark", "runtimes", "--model", "mobileclip_pico", "--rounds", "2", "--threads", "1"]
    assert main([*command, "--record", "runtimes-test"]) == 0
    out = capsys.readouterr().out
    assert "over pytorch eager" in out
    assert "pytorch ahead_of_time: did not take part, ahead_of_time: no C++ compiler" in out
    record = json.loads((tmp_path / "runtimes-test.json").read_text())
    values = record["values"]["contenders"]
    assert set(values) == {"pytorch eager", "onnxruntime float32", "onnxruntime int8"}
    assert values["onnxruntime float32"]["cosine"] > 0.9999
    assert values["pytorch eager"]["ratio"]["median"] == 1
    assert values["onnxruntime int8"]["bytes"] < values["onnxruntime float32"]["bytes"]
    assert "--tower image" in record["command"]
    limits = record["values"]["limits"]
    assert 0 < limits["gflop"] < 0.1
    assert limits["cpu_flags"] == cpu_flags()
    assert "'pytorch float32' in the fastest of several matrix products" in record["unit"]
    assert min(limits["gflops"][name] for name in ("pytorch float32", "onnxruntime float32")) > 0


def test_the_command_without_onnx(tmp_path, monkeypatch, capsys):
    """The race leaves out all that needs the extra `export`: our exports, the peer's and the kernels."""
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path))
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr("mcliplib.latency.contenders.FORMATS", {"onnx": ("float32",)})
    monkeypatch.setattr("mcliplib.latency.contenders.OUR_WAYS", ("eager",))
    peer = Peer("timm", "image", {"mobileclip_pico": "tiny"}, lambda name, embed_dim: torch.nn.Identity())
    monkeypatch.setitem(PEERS, "timm", peer)
    command = ["benchmark", "runtimes", "--model", "mobileclip_pico", "--rounds", "2", "--threads", "1"]
    assert main([*command, "--record", "runtimes-test"]) == 0
    told = capsys.readouterr().err.splitlines()
    for what in ("onnx", "timm in ONNX", "one convolution"):
        assert f"{what}: format onnx needs onnx: pip install 'mcliplib[export]'" in told
    values = json.loads((tmp_path / "runtimes-test.json").read_text())["values"]
    assert set(values["contenders"]) == {"pytorch eager"}
    assert set(values["limits"]["gflops"]) == {"pytorch float32", "on paper, float32"}


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is in requirements-runtimes.lock")
def test_openvino_takes_part(tower, tmp_path):
    import onnx

    onnx.save(to_proto(tower), tmp_path / "image.onnx")
    every = [Contender(f"openvino {one}", "openvino", tmp_path / "image.onnx", one) for one in ("float32", "bfloat16")]
    example = tower.example(1)
    found = race(every, example.numpy(), tmp_path, rounds=2, threads=1)
    for name, least in (("openvino float32", 0.9999), ("openvino bfloat16", 0.99)):
        features = torch.from_numpy(found.started[name].features)
        assert torch.nn.functional.cosine_similarity(features, tower(example).double(), dim=1).min() > least


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is in requirements-runtimes.lock")
def test_openvino_plans_for_the_one_batch_that_it_gets(tower, tmp_path):
    import onnx

    onnx.save(to_proto(tower), tmp_path / "image.onnx")
    one, two = (tower.example(batch).numpy() for batch in (1, 2))
    planned, any_batch = (open_openvino(tmp_path / "image.onnx", shape=shape) for shape in (one.shape, None))
    assert np.allclose(planned(one), any_batch(one), atol=1e-5)
    assert any_batch(two).shape[0] == 2
    with pytest.raises(RuntimeError):
        planned(two)
