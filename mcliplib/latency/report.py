"""A comparison as people read it, and as the record that the book quotes."""

from collections.abc import Iterator, Sequence
from typing import Any

from mcliplib.latency.comparison import Comparison
from mcliplib.latency.roofline import Machine, Share
from mcliplib.latency.timing import Spread

UNITS = {
    "tower": "ms: milliseconds for one batch; ratio: time over the reference's time (both: median and quartiles of n "
    "rounds); cosine: with the float32 features of the tower as trained; cost: 1e9 operations for one batch (a "
    "multiplication and an addition are two), parameters; shares: for one batch, eager, by kind of operator",
    "machine": "gflops: 1e9 operations/s in a 1024 x 1024 product; gigabytes: 1e9 bytes/s read and written in a copy",
}


def table(comparison: Comparison) -> str:
    """A line a contender, the fastest first, then what was dropped, then what the tower costs."""
    timed = comparison.measurement.samples
    width = max(map(len, timed)) + 2
    heads = "".join(f"  {'   over ' + name:<26}" for name in comparison.references)
    lines = [f"{comparison.tower} tower", f"  {'':<{width}}{'ms':>8} {'[quartiles]':<17} {'cosine':<9}{heads}".rstrip()]
    cosines = {one.way.name: one.cosine for one in comparison.candidates}
    for name in sorted(timed, key=lambda name: comparison.measurement.spread(name).median):
        cosine = cosines.get(name)
        ratios = "".join(f"  {_span(comparison.measurement.ratio(name, to), 3):<26}" for to in comparison.references)
        told = "" if cosine is None else f"{cosine:.6f}"
        lines.append(f"  {name:<{width}}{_span(comparison.measurement.spread(name), 2)} {told:<9}{ratios}".rstrip())
    lines += [f"  {one.way.name}: dropped, {one.dropped}" for one in comparison.candidates if one.dropped is not None]
    lines.append(f"  folded: {comparison.cost.flops / 1e9:.2f} GFLOP, {comparison.cost.parameters:,} parameters")
    return "\n".join(lines)


def shares_table(rows: Sequence[Share], limits: Machine) -> str:
    """Where the eager folded tower's time goes."""
    lines = [
        f"  limits: {limits.gflops:.0f} GFLOP/s, {limits.gigabytes:.0f} GB/s",
        f"  {'operators':<24}{'calls':>6}{'ms':>9}{'limit ms':>10}{'GFLOP':>8}{'MB':>8}",
    ]
    for row in rows:
        lines.append(f"  {row.kind:<24}{row.calls:>6}{row.milliseconds:>9.2f}{row.bound:>10.2f}"
                     f"{row.gflop:>8.2f}{row.megabytes:>8.1f}")  # fmt: skip
    return "\n".join(lines)


def values(comparison: Comparison) -> dict[str, Any]:
    """The members `ms`, `ratio`, `cosine`, `dropped`, `best` and `cost` of a tower's record."""
    timed = comparison.measurement
    return {
        "ms": {name: timed.spread(name)._asdict() for name in timed.samples},
        "ratio": {
            to: {name: timed.ratio(name, to)._asdict() for name in timed.samples if name != to}
            for to in comparison.references
        },
        "cosine": {one.way.name: one.cosine for one in comparison.candidates if one.run is not None},
        "dropped": {one.way.name: one.dropped for one in comparison.candidates if one.dropped is not None},
        "best": dict(_best(comparison)),
        "cost": {"gflop": comparison.cost.flops / 1e9, "parameters": comparison.cost.parameters},
    }


def share_values(rows: Sequence[Share]) -> dict[str, Any]:
    """Each kind of operator's numbers."""
    return {row.kind: {key: value for key, value in row._asdict().items() if key != "kind"} for row in rows}


def _best(comparison: Comparison) -> Iterator[tuple[str, dict[str, Any]]]:
    for label, precision in (("any", None), ("float32", "float32"), ("bfloat16", "bfloat16")):
        if (one := comparison.best(precision)) is not None:  # type: ignore[arg-type]
            name = one.way.name
            ratios = {to: comparison.measurement.ratio(name, to)._asdict() for to in comparison.references}
            yield label, {"way": name, "ms": comparison.measurement.spread(name).median, "ratio": ratios}


def _span(spread: Spread, digits: int) -> str:
    quartiles = f"[{spread.low:.{digits}f}, {spread.high:.{digits}f}]"
    return f"{spread.median:8.{digits}f} {quartiles:<17}"
