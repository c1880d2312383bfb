"""`mcliplib evaluate`."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcliplib.errors import UserError

if TYPE_CHECKING:
    from mcliplib.evaluate import Score

_MODEL = (
    "a checkpoint (ours, a released mobileclip_*.pt, or open_clip's), a training run's folder, or hf-hub:OWNER/REPO"
)


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("evaluate", help="zero-shot and retrieval scores of a model")
    parser.add_argument("--model", required=True, help=_MODEL)
    parser.add_argument("--suite", default="mini", help="'mini' (all evaluation sets) or one data set's name")
    parser.add_argument("--output", type=Path, help="write the scores to this JSON file too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print a table."""
    from mcliplib.checkpoints import load_model
    from mcliplib.evaluate import evaluate_suite
    from mcliplib.evaluate.suite import score_values

    if args.output is not None and not args.output.parent.is_dir():
        raise UserError(f"{args.output.parent}: no such folder for --output")
    if args.output is not None and args.output.is_dir():
        raise UserError(f"{args.output}: is a folder; name a file for --output")
    model = load_model(args.model)
    scores = evaluate_suite(model, args.suite, progress=lambda name: print(f"evaluating {name}", file=sys.stderr))
    print(table(scores))
    if args.output is not None:
        args.output.write_text(json.dumps(score_values(scores), indent=2) + "\n")
        print(f"written to {args.output}")
    return 0


def table(scores: "dict[str, dict[str, Score]]") -> str:
    """A line a metric: per cent, with the 95% bootstrap interval."""
    lines = []
    for task, row in scores.items():
        lines.append(task)
        for metric, value in row.items():
            interval = f"[{100 * value.low:5.1f}, {100 * value.high:5.1f}]"
            lines.append(f"  {metric:<20} {100 * value:5.1f}%  {interval}  n={value.n}")
    return "\n".join(lines)
