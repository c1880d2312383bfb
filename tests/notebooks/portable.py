"""Do the chapters hold on any processor, with any number of threads and any seed? `make portable` runs them and sees.

Each chapter runs with five seeds as it is pinned (float32, one or two threads), then once each with the other number of
threads, with the processor's instruction sets limited, and, where the processor multiplies bfloat16, in bfloat16. Every
comparison that a chapter asserts is measured and not only checked: its slack says how far the values are from failing.

    python tests/notebooks/portable.py                     # the chapters that changed since the record
    python tests/notebooks/portable.py --all --record      # all of them, into data/results/portable.json
"""

import argparse
import ast
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
SEEDS = range(5)
RECORD = "portable"
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}  # threads that wait let others compute; it changes no number
HANGING = 1800  # seconds for a cell; nothing here is a test of speed
MEASURED = """
import json as _json

_measured = []


def _compare(source, values, orders):
    def number(value):
        try:
            return float(value)
        except (TypeError, ValueError):
            return None

    numbers = [number(value) for value in values]
    for left, right, order in zip(numbers, numbers[1:], orders):
        if left is None or right is None:
            continue
        slack = (right - left) if order.startswith("<") else (left - right)
        scale = max(abs(left), abs(right)) or 1.0
        _measured.append({"assert": source, "left": left, "right": right, "slack": slack / scale})


def _write():
    with open("measured.json", "w") as file:
        _json.dump(_measured, file)


"""


class Variant(NamedTuple):
    """One way to run a chapter."""

    name: str
    parameters: dict[str, Any]
    environment: dict[str, str]


class Run(NamedTuple):
    """What came of it."""

    chapter: str
    variant: str
    error: str  # "" where every assertion held
    seconds: float
    measured: list[dict[str, Any]]  # the comparisons: assert, left, right, slack


def variants(parameters: dict[str, Any]) -> list[Variant]:
    """The ways to run a chapter that has these parameters, on this machine."""
    found = [Variant(f"seed {seed}", {"seed": seed}, {}) for seed in SEEDS]
    other = 1 if parameters["threads"] == 2 else 2
    found.append(Variant(f"threads {other}", {"threads": other}, {}))
    found += [Variant(name, {}, environment) for name, environment in instruction_sets()]
    if "dtype" in parameters and multiplies_bfloat16():
        found.append(Variant("bfloat16", {"dtype": "bfloat16"}, {}))
    return found


def instruction_sets() -> Iterator[tuple[str, dict[str, str]]]:
    """Smaller instruction sets than the machine's, for PyTorch's own kernels and for oneDNN's."""
    import torch

    best = torch.backends.cpu.get_cpu_capability()
    for level in ("DEFAULT", "AVX2"):
        if level != best:
            yield f"ATEN_CPU_CAPABILITY={level.lower()}", {"ATEN_CPU_CAPABILITY": level.lower()}
    if best == "AVX512":
        for level in ("AVX2", "AVX512_CORE"):
            yield f"ONEDNN_MAX_CPU_ISA={level}", {"ONEDNN_MAX_CPU_ISA": level}


def multiplies_bfloat16() -> bool:
    """Where it does not, its imitation is some sixty times slower."""
    import torch

    from mcliplib.precision import computed

    return computed("auto", torch.device("cpu")) == "bfloat16"


def parameters_of(notebook: Any) -> dict[str, Any]:
    """The names in a notebook's `parameters` cell, and their values."""
    source = next(cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    scope: dict[str, Any] = {}
    exec(source, scope)
    return {name: scope[name] for name in scope["__annotations__"]}


def measured_source(source: str) -> str:
    """A cell of assertions, with every comparison of sizes measured before it is asserted."""
    tree = _Measure().visit(ast.parse(source))
    return ast.unparse(ast.fix_missing_locations(tree))


class _Measure(ast.NodeTransformer):
    """`assert a < b` becomes `_operands = (a, b); _compare("a < b", _operands, ["<"]); assert _operands[0] < ...`."""

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        test = node.test
        if not isinstance(test, ast.Compare) or not all(
            isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in test.ops
        ):
            return [node]
        orders = ["<" if isinstance(op, ast.Lt | ast.LtE) else ">" for op in test.ops]
        operands = ast.unparse(ast.Tuple([test.left, *test.comparators], ast.Load()))
        source = ast.unparse(test)
        parts = [
            ast.unparse(ast.Compare(ast.Name(f"_operands_{i}"), [op], [ast.Name(f"_operands_{i + 1}")]))
            for i, op in enumerate(test.ops)
        ]
        names = ", ".join(f"_operands_{i}" for i in range(len(orders) + 1))
        return ast.parse(
            f"{names} = {operands}\n_compare({source!r}, ({names}), {orders})\nassert {' and '.join(parts)}, {source!r}"
        ).body


def instrumented(notebook: Any) -> Any:
    """The notebook with its last, hidden cells measured; the measurements are written even where one fails."""
    cells = [
        cell for cell in notebook.cells if cell.cell_type == "code" and "remove-cell" in cell.metadata.get("tags", [])
    ]
    for cell in cells:
        body = "\n".join("    " + line for line in measured_source(cell.source).splitlines())
        cell.source = f"try:\n{body}\nfinally:\n    _write()"
    cells[0].source = MEASURED + cells[0].source
    return notebook


def run(path: Path, variant: Variant) -> Run:
    """Run a chapter one way, in a folder of its own."""
    import nbformat
    import papermill

    os.environ.update(PATIENT | variant.environment)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        source, error = Path(folder, path.name), ""
        nbformat.write(instrumented(nbformat.read(path, as_version=4)), source)
        try:
            papermill.execute_notebook(
                source, Path(folder, "run.ipynb"), parameters={"fast": True, **variant.parameters}, cwd=folder,
                kernel_name="python3", execution_timeout=HANGING, progress_bar=False,
            )  # fmt: skip
        except Exception as raised:
            error = next((line for line in reversed(str(raised).strip().splitlines()) if line), repr(raised))
        found = Path(folder, "measured.json")
        measured = json.loads(found.read_text()) if found.is_file() else []
    return Run(path.stem, variant.name, error, time.perf_counter() - began, measured)


def fingerprint(path: Path) -> str:
    """A hash of what a chapter's outcome depends on: its own code, the package's, the data."""
    import nbformat

    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    digest = hashlib.sha256("\0".join(code).encode())
    for file in sorted([*(ROOT / "mcliplib").rglob("*.py"), *(ROOT / "data").rglob("*.tar")]):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def by_assertion(runs: list[Run]) -> dict[str, list[dict[str, Any]]]:
    """The comparisons of all runs by what was asserted, the narrowest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in runs:
        for comparison in one.measured:
            found.setdefault(comparison["assert"], []).append(comparison)
    return dict(sorted(found.items(), key=lambda item: least_slack(item[1])))


def least_slack(comparisons: list[dict[str, Any]]) -> float:
    return min(one["slack"] for one in comparisons)


def summary(runs: list[Run]) -> dict[str, Any]:
    """What the record keeps of a chapter: how many runs held, which did not, and its narrowest assertions."""
    narrowest = list(by_assertion(runs).items())[:3]
    return {
        "runs": len(runs),
        "held": sum(not one.error for one in runs),
        "failed": {one.variant: one.error for one in runs if one.error},
        "variants": [one.variant for one in runs],
        "narrowest": {source: round(least_slack(found), 4) for source, found in narrowest},
    }


def show(runs: list[Run]) -> None:
    """Print a chapter's margins: each comparison's range over the runs, the narrowest first."""
    failed = [one for one in runs if one.error]
    print(f"{runs[0].chapter}: {len(runs) - len(failed)} of {len(runs)} runs hold", flush=True)
    for one in failed:
        print(f"  {one.variant}: {one.error}")
    for source, found in by_assertion(runs).items():
        left, right = ([one[side] for one in found] for side in ("left", "right"))
        spans = [f"{min(side):.4g}..{max(side):.4g}" for side in (left, right)]
        print(f"  slack {least_slack(found):8.1%}  {spans[0]} against {spans[1]}  {source[:90]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", help="names of chapters (default: those that changed since the record)")
    parser.add_argument("--all", action="store_true", help="every chapter")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time (default: 2)")
    parser.add_argument("--record", action="store_true", help="write data/results/portable.json")
    args = parser.parse_args()
    import nbformat
    from tqdm import tqdm

    from mcliplib import results

    known = results.load(RECORD)["values"] if RECORD in results.names() else {}
    paths = sorted((ROOT / "book").glob("*.ipynb"))
    hashes = {path.stem: fingerprint(path) for path in paths}
    if args.chapters:
        chosen = [ROOT / f"book/{name}.ipynb" for name in args.chapters]
    else:
        chosen = [
            p
            for p in paths
            if args.all or known.get(p.stem, {}).get("inputs") != hashes[p.stem] or known[p.stem]["failed"]
        ]
    if not chosen:
        print("nothing changed since the record")
        return 0
    began, values, failed = time.perf_counter(), dict(known), False
    with ProcessPoolExecutor(args.jobs, max_tasks_per_child=1) as pool:
        pending = {}
        for path in chosen:
            ways = variants(parameters_of(nbformat.read(path, as_version=4)))
            pending[path.stem] = [pool.submit(run, path, one) for one in ways]
        for name, futures in pending.items():
            runs = [future.result() for future in tqdm(futures, desc=name)]
            show(runs)
            values[name] = {"inputs": hashes[name], **summary(runs)}
            failed |= bool(values[name]["failed"])
            if args.record:  # after each chapter: who stops it goes on with the others
                write(values, time.perf_counter() - began)
    return int(failed)


def write(values: dict[str, Any], seconds: float) -> None:
    """The record of all chapters; those of an earlier run stay as they are."""
    from mcliplib import results

    n = sum(one["runs"] for one in values.values())
    unit, command = "runs, and slack as a share of the larger side", "make portable"
    results.record(RECORD, values, unit=unit, n=n, seeds=list(SEEDS), command=command, seconds=seconds)


if __name__ == "__main__":
    sys.exit(main())
