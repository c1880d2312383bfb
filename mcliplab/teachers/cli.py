"""`mcliplib teachers train|score`: the local teachers of dataset reinforcement."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcliplab.command import add_threads, measure_and_record, say_on_stderr, use_threads
from mcliplib.errors import UserError

if TYPE_CHECKING:
    from mcliplab.teachers.scores import Scores


def register(commands: Any) -> None:
    """Add `teachers` with its two subcommands."""
    parser = commands.add_parser("teachers", help="train and score the local teachers of dataset reinforcement")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="train the heads on the training sets; a quarter of an hour")
    train.add_argument("--output", type=Path, metavar="DIR", help="where the heads go (default: data/teachers)")
    train.add_argument(
        "--wrong-captions",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of the pictures that get another one's caption, from 0 to 1 (default: %(default)s)",
    )
    add_threads(train)
    train.set_defaults(run=run_train)
    score = actions.add_parser("score", help="score each teacher, the ensemble, and the untrained baseline")
    score.add_argument("--suite", default="mini", help="'mini' (all evaluation sets) or one data set's name")
    score.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    add_threads(score)
    score.set_defaults(run=run_score)


def run_train(args: argparse.Namespace) -> int:
    """Train both variants' heads and say how long it took."""
    from mcliplab.teachers.fit import train_teachers

    if args.output is not None and args.output.is_file():
        raise UserError(f"{args.output}: is a file; name a folder for --output")
    if not 0 <= args.wrong_captions <= 1:
        raise UserError(f"--wrong-captions must be from 0 to 1, got {args.wrong_captions}")
    use_threads(args.threads)
    start = time.perf_counter()
    for path in train_teachers(args.output, wrong_captions=args.wrong_captions, progress=say_on_stderr):
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    print(f"trained in {time.perf_counter() - start:.0f} s")
    return 0


def run_score(args: argparse.Namespace) -> int:
    """Score, print, and record if wanted."""
    use_threads(args.threads)
    return measure_and_record(args, _scored, _record)


def _scored(args: argparse.Namespace) -> "Scores":
    from mcliplab.teachers.scores import score_teachers
    from mcliplib.cli.evaluate import table

    scores = score_teachers(args.suite, progress=say_on_stderr)
    for name, rows in scores.items():
        print(f"== {name}\n{table(rows)}")
    return scores


def _record(args: argparse.Namespace, scores: "Scores", seconds: float) -> Path:
    from mcliplab.teachers.fit import SETTINGS
    from mcliplib import results
    from mcliplib.evaluate.suite import score_values

    values = {name: score_values(rows) for name, rows in scores.items()}
    suite = [] if args.suite == "mini" else ["--suite", args.suite]
    return results.record(
        args.record,
        values,
        unit="share of n trials, with the ends of the 95% bootstrap interval",
        n=1,
        seeds=[settings.seed for settings in SETTINGS.values()],
        command=" ".join(["mcliplib", "teachers", "score", *suite, "--record", args.record]),
        seconds=seconds,
    )
