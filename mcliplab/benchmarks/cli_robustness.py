"""`mcliplib benchmark robustness`: whether the command line survives or names each bad input and interruption."""

import argparse
from pathlib import Path
from typing import Any

from mcliplab.command import measure_and_record, print_progress
from mcliplib.cli.common import check_at_least, command_line
from mcliplib.errors import UserError

_UNITS = {
    "kinds": "cases tried; named in one line; survived; failed",
    "cases": "verdict that it must have, verdict that it has, line that was printed, times tried, seconds",
}
_SEED = 0


def register(actions: Any) -> None:
    """Add the action."""
    parser = actions.add_parser("robustness", help="give bad inputs to every command, and judge what it does")
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="only these, as pictures, lists (default: all)")
    parser.add_argument("--only", metavar="TEXT", help="only cases that have this in their name")
    parser.add_argument("--moments", type=int, default=3, help="of kill -9, for each command (default: %(default)s)")
    parser.add_argument(
        "--known", nargs="+", default=[], metavar="NAME", help="take these records' cases, and try only the others"
    )
    parser.add_argument("--again", action="store_true", help="with --known: also what has failed in them")
    parser.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Try, print a line for each case and a table, and record if wanted; 1 where a case failed."""
    check_at_least(args, moments=1)
    failed: list[int] = []

    def measure(args: argparse.Namespace) -> dict[str, Any]:
        values = _measured(args)
        failed.append(values["kinds"]["all"]["failed"])
        return values

    measure_and_record(args, measure, _record)
    return 1 if failed[0] else 0


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    import tempfile

    from mcliplab.benchmarks import robustness
    from mcliplab.benchmarks.robustness_inputs import CASES, bad_server, make_kit
    from mcliplab.benchmarks.robustness_stops import stops

    cases = [*CASES, *stops(args.moments, _SEED)]
    known = list(dict.fromkeys(case.kind for case in cases))
    if unknown := [kind for kind in args.kinds or [] if kind not in known]:
        raise UserError(f"no kind {unknown[0]!r}; there is {', '.join(known)}")
    wanted = [case for case in cases if case.kind in (args.kinds or known) and (args.only or "") in case.name]
    if not wanted:
        raise UserError(f"no case has {args.only!r} in its name")
    rows: dict[str, dict[str, dict[str, Any]]] = {case.kind: {} for case in wanted}
    for name in args.known:
        recorded = _recorded(name)
        for case in wanted:
            row = recorded.get(case.kind, {}).get(case.slug)
            if row and not (args.again and row["verdict"] == "failed"):
                rows[case.kind][case.slug] = row
    wanted = [case for case in wanted if case.slug not in rows[case.kind]]
    with tempfile.TemporaryDirectory(prefix="mcliplib-") as name, bad_server() as server:
        folder = Path(name)
        if wanted:
            print_progress("making good pictures, shards and a model to spoil ...")
            make_kit(folder / "kit")
        tried = robustness.try_cases(wanted, folder, folder / "kit", server)
        for number, (case, outcome) in enumerate(tried, 1):
            rows[case.kind][case.slug] = robustness.row_of(case, outcome)
            print_progress(
                f"{number}/{len(wanted)} {case.kind}: {case.name}: {outcome.verdict} in {outcome.seconds:.0f} s; "
                f"{outcome.fault and outcome.fault + ': '}{outcome.line}"
            )
    values = robustness.summary(rows)
    print(f"{'kind':<18}{'tried':>7}{'named':>7}{'survived':>10}{'failed':>8}")
    for kind, counts in values["kinds"].items():
        print(f"{kind:<18}{counts['tried']:>7}{counts['named']:>7}{counts['survived']:>10}{counts['failed']:>8}")
    return values


def _recorded(name: str) -> dict[str, Any]:
    from mcliplib import results

    cases: dict[str, Any] = results.load(name)["values"].get("cases", {})
    return cases


def _record(args: argparse.Namespace, values: dict[str, Any], seconds: float) -> Path:
    from mcliplib import results

    return results.record(
        args.record,
        values,
        unit=_UNITS,
        n=values["kinds"]["all"]["tried"],
        seeds=[_SEED],
        command=command_line(args),
        seconds=sum(row["seconds"] for cases in values["cases"].values() for row in cases.values()),
    )
