"""`mcliplib benchmark runtimes`."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcliplib.cli.common import check_at_least, command_line
from mcliplib.errors import UserError
from mcliplib.results import check_name

if TYPE_CHECKING:
    from mcliplib.latency.runtimes import Race

_UNIT = (
    "ms: milliseconds for one input (median, quartiles and the ninth decile of n turns); ratio: of these times to the "
    "reference's, turn by turn; cosine: with PyTorch's float32 features; start_seconds: from an empty process to the "
    "first features; peak_mb: most memory of its process, in 1e6 bytes; bytes: of the artefact, null in PyTorch, which "
    "has none; gflop: 1e9 operations of one input; gflops: 1e9 operations per second, of 'pytorch float32' in the "
    "fastest of several matrix products and one dense convolution, of the other runtimes in that convolution alone, "
    "and on paper; cpu_flags: the processor's instructions for vectors and low precision, as far as the system tells"
)
_CALIBRATION = "tuxpaint-train"
_PICTURES = 8  # calibrate int8: what it computes matters here less than that it computes in bytes


def register(actions: Any) -> None:
    """Add the action."""
    parser = actions.add_parser("runtimes", help="a tower in PyTorch, ONNX Runtime, OpenVINO, ExecuTorch and LiteRT")
    parser.add_argument(
        "--model", default="mobileclip_s0", help="a model's name or a .safetensors checkpoint (default: %(default)s)"
    )
    parser.add_argument("--tower", choices=["image", "text"], default="image", help="default: %(default)s")
    parser.add_argument(
        "--calibrate", metavar="FOLDER", default=_CALIBRATION,
        help="pictures for int8: a folder, or a shipped set's name (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--rounds", type=int, default=50, help="turns of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of each runtime (default: %(default)s)")
    parser.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Export, race, print a table, and record if wanted."""
    from mcliplib.export.exporting import tower_inputs
    from mcliplib.export.verify import calibration_inputs
    from mcliplib.latency.contenders import make_contenders, seeded_model
    from mcliplib.latency.flops import cpu_flags, tower_cost
    from mcliplib.latency.peers import example_for, tower_of
    from mcliplib.latency.runtimes import race
    from mcliplib.reparam import reparameterize

    check_at_least(args, rounds=2, threads=1)
    if args.record:
        check_name(args.record)
    start = time.perf_counter()

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    model = seeded_model(args.model)
    example = example_for(model, args.tower)
    wanted = tower_of(model, args.tower)(example).detach().numpy()
    with tempfile.TemporaryDirectory() as name:
        pictures = None
        if args.tower == "image":
            pictures = tower_inputs(model, "image", calibration_inputs(args.calibrate, _PICTURES))
        contenders = make_contenders(args.model, model, args.tower, Path(name), pictures, progress)
        found = race(
            contenders, example.numpy(), Path(name), rounds=args.rounds, threads=args.threads, progress=progress
        )
        kernels = _race_kernels(Path(name), args.rounds, args.threads, progress)
    gflop = tower_cost(reparameterize(tower_of(model, args.tower)), example).flops / 1e9
    values = _values(found, wanted, {one.name for one in contenders if one.ours})
    values["limits"] = {"gflop": gflop, "gflops": _speeds(kernels, args.threads), "cpu_flags": cpu_flags()}
    print(_table(values))
    if args.record:
        from mcliplib import results
        from mcliplib.latency.peers import SEED

        seconds = time.perf_counter() - start
        command = command_line(args)
        path = results.record(
            args.record, values, unit=_UNIT, n=args.rounds, seeds=[SEED], command=command, seconds=seconds
        )
        print(f"recorded in {path}")
    return 0


def _race_kernels(
    folder: Path, rounds: int, threads: int, progress: Callable[[str], None]
) -> Mapping[str, Sequence[float]]:
    """Milliseconds of one convolution in each runtime that runs it; empty where none does, as without ONNX."""
    import numpy as np

    from mcliplib.latency.contenders import make_kernels
    from mcliplib.latency.flops import CONVOLVED
    from mcliplib.latency.runtimes import race

    progress("one convolution")
    try:
        pixels = np.zeros(CONVOLVED, np.float32)
        return race(make_kernels(folder), pixels, folder, rounds=rounds, threads=threads).measurement.samples
    except UserError as error:
        progress(f"one convolution: {error}")
        return {}


def _speeds(kernels: Mapping[str, Sequence[float]], threads: int) -> dict[str, float | None]:
    from mcliplib.latency.flops import CONVOLUTION_FLOPS, machine, nominal_gflops
    from mcliplib.threads import using_threads

    with using_threads(threads):
        found = {"pytorch float32": machine().gflops}
    found |= {name: CONVOLUTION_FLOPS / min(times) / 1e6 for name, times in kernels.items()}
    return {**found, "on paper, float32": nominal_gflops(threads)}


def _values(found: "Race", wanted: Any, ours: set[str]) -> dict[str, Any]:
    import torch

    timed = found.measurement
    reference = next(iter(timed.samples))

    def cosine(name: str) -> float | None:
        if name not in ours:
            return None
        features = torch.from_numpy(found.started[name].features)
        return float(torch.nn.functional.cosine_similarity(features, torch.from_numpy(wanted), dim=-1).min())

    return {
        "reference": reference,
        "contenders": {
            name: {
                "ms": timed.spread(name)._asdict() | {"p90": timed.decile(name)},
                "ratio": timed.ratio(name, reference)._asdict(),
                "cosine": cosine(name),
                "start_seconds": found.started[name].seconds,
                "peak_mb": found.started[name].peak_mb,
                "bytes": found.started[name].bytes,
            }
            for name in timed.samples
        },
        "failed": dict(found.failed),
    }


def _table(values: dict[str, Any]) -> str:
    rows = sorted(values["contenders"].items(), key=lambda row: row[1]["ms"]["median"])
    width = max(len(name) for name, _ in rows) + 2
    over = f"over {values['reference']}"
    lines = [f"{'':<{width}}{'ms':>8}{'p90':>9}  {over:<22}{'cosine':>9}{'start s':>9}{'peak MB':>9}"]
    for name, row in rows:
        ratio = row["ratio"]
        span = f"{ratio['median']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
        cosine = "" if row["cosine"] is None else f"{row['cosine']:.5f}"
        peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        lines.append(
            f"{name:<{width}}{row['ms']['median']:>8.2f}{row['ms']['p90']:>9.2f}  {span:<22}{cosine:>9}"
            f"{row['start_seconds']:>9.1f}{peak:>9}"
        )
    limits = values["limits"]
    lines += [f"{limits['gflop']:.3g} GFLOP; the machine's GFLOP/s, in a convolution:"]
    lines += [
        f"{name:<{width}}{'unknown' if one is None else f'{one:.0f}':>8}" for name, one in limits["gflops"].items()
    ]
    lines += [f"{name}: did not take part, {why}" for name, why in values["failed"].items()]
    return "\n".join(lines)
