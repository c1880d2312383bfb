"""A tower in one runtime, in a process of its own, run and timed when it is told to.

`mcliplib.latency.runtimes` starts this file as a program. It imports neither mcliplib nor torch by itself, so that the
time until the first answer and the memory are those of a program that has the runtime alone.

It reads JSON, a line at a time. The first says what to load: `runtime` (a name in `LOADERS`), `path`, `threads`,
`precision` and `example` (an .npy file of inputs). The answer has the `seconds` until the first features, and those
`features`; or why it `failed`. Each further line is `{"runs": n}`: the answer is the `milliseconds` of the last of n
runs, and the most memory so far, `peak_mb`.

All runtimes alike are kept on the same cores, as many as they have threads (`pin`), so that none gets more of the
processor than the others, whatever threads it starts. To keep only one of them there would not be fair: it alone would
be spared the scheduler's moves, and it alone would wait where another program takes one of these cores.
"""

import contextlib
import ctypes
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]  # inputs [B, ...] -> features [B, D]
Shape = Sequence[int]  # of all inputs that a loader's run will get, where it is known


def open_onnx(
    path: str | Path | bytes, threads: int = 1, precision: str = "float32", shape: Shape | None = None
) -> Run:
    """An ONNX file, or its content, in ONNX Runtime, on the CPU; it computes in the precision that the file says."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    model = path if isinstance(path, bytes) else str(path)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: session.run(None, {name: inputs})[0]


def open_openvino(path: str | Path, threads: int = 1, precision: str = "float32", shape: Shape | None = None) -> Run:
    """An .xml or .onnx file in OpenVINO, on the CPU, computing in float32 or, where precision says so, in bfloat16.

    With the shape of all inputs, [B, ...], it plans for that one batch: S0's image tower gains up to a tenth.
    """
    import openvino

    hint = "bf16" if precision == "bfloat16" else "f32"
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
    with signal_stack_kept():
        core = openvino.Core()
        model = core.read_model(str(path))
        if shape is not None:
            model.reshape(list(shape))
        compiled = core.compile_model(model, "CPU", settings)
    return lambda inputs: compiled(np.ascontiguousarray(inputs))[0]


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """This thread's alternate signal stack is afterwards as it was before (on Linux; elsewhere nothing is done).

    OpenVINO sets one for each compiled model, and puts the former one back when the model goes. Of two models that go
    in the order in which they came, the second puts back what the first has freed: the next signal ends the process.
    """
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    before = _SignalStack()
    known = libc.sigaltstack(None, ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if known:
            libc.sigaltstack(ctypes.byref(before), None)


class _SignalStack(ctypes.Structure):
    """`stack_t` of signal.h."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def open_executorch(
    path: str | Path, threads: int | None = None, precision: str = "float32", shape: Shape | None = None
) -> Run:
    """A .pte file in ExecuTorch.

    By default it has a thread for each core of the machine, also in a process that is kept on fewer cores, where they
    get in each other's way (two on one core took 1.7 times as long as one). A number of threads is for the whole
    process, which must not have loaded a program before.
    """
    import torch
    from executorch.runtime import Runtime

    if threads is not None:
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

        _unsafe_reset_threadpool(threads)  # unsafe where a loaded program holds the threads that were there before
    program = Runtime.get().load_program(Path(path))
    method = program.load_method("forward")
    assert method is not None
    return lambda inputs: method.execute([torch.from_numpy(np.ascontiguousarray(inputs))])[0].numpy()


def open_litert(path: str | Path, threads: int = 1, precision: str = "float32", shape: Shape | None = None) -> Run:
    """A .tflite file in LiteRT, on the CPU, for one input at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (given,), (features,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(inputs: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], inputs.astype(given["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(features["index"])

    return run


def open_torch(path: str | Path, threads: int = 1, precision: str = "float32", shape: Shape | None = None) -> Run:
    """A tower of ours or a peer's in PyTorch; the file is JSON with the arguments of `torch_run`."""
    import torch

    from mcliplib.latency.contenders import torch_run

    torch.set_num_threads(threads)
    run = torch_run(**json.loads(Path(path).read_text(encoding="utf-8")))
    return lambda inputs: run(torch.from_numpy(inputs)).numpy()


LOADERS: dict[str, Callable[..., Run]] = {
    "onnxruntime": open_onnx,
    "openvino": open_openvino,
    "executorch": open_executorch,
    "litert": open_litert,
    "torch": open_torch,
}


def peak_mb() -> float | None:
    """The most memory that this process has held, in 1e6 bytes; None where the system does not tell."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    return None if found is None else int(found[1]) * 1024 / 1e6


def pin(threads: int) -> None:
    """Keep this thread, and those that it starts from now on, on `threads` cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # a sandbox may forbid it
            os.sched_setaffinity(0, choose_cores(threads, os.sched_getaffinity(0)))


def choose_cores(count: int, allowed: Iterable[int], folder: Path = Path("/sys/devices/system/cpu")) -> set[int]:
    """That many of the allowed cores, or all if they are fewer; two share a physical core only if no other is left.

    Args:
        count: of threads.
        allowed: numbers of cores, as the system counts them.
        folder: in which Linux tells which of them are one physical core.
    """

    def physical(core: int) -> str:
        siblings = folder / f"cpu{core}/topology/thread_siblings_list"
        return siblings.read_text() if siblings.is_file() else str(core)

    cores, first = sorted(allowed), dict[str, int]()
    for core in cores:
        first.setdefault(physical(core), core)
    return set(sorted(cores, key=lambda core: core not in first.values())[:count])


def main() -> None:
    """Answer line by line until the input ends."""
    start = time.perf_counter()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime prints is not an answer

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    task = json.loads(sys.stdin.readline())
    pin(task["threads"])
    inputs = np.load(task["example"], allow_pickle=False)
    try:
        run = LOADERS[task["runtime"]](task["path"], task["threads"], task["precision"], inputs.shape)
        features = run(inputs)
    except Exception as error:  # a runtime has many ways to fail, and none may end the race
        answer({"failed": str(error).strip().partition("\n")[0] or type(error).__name__})
        return
    answer({"seconds": time.perf_counter() - start, "features": np.asarray(features, np.float64).tolist()})
    for line in sys.stdin:
        milliseconds = 0.0
        for _ in range(json.loads(line)["runs"]):
            start = time.perf_counter()
            run(inputs)
            milliseconds = 1e3 * (time.perf_counter() - start)
        answer({"milliseconds": milliseconds, "peak_mb": peak_mb()})


if __name__ == "__main__":
    main()
