"""`mcliplib teachers train|tune|score`: the local teachers of dataset reinforcement."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcliplab.command import add_threads, measure_and_record, print_progress, use_threads
from mcliplab.experiments.folds import MOST_FOLDS
from mcliplib.cli.common import command_line
from mcliplib.errors import UserError

if TYPE_CHECKING:
    from mcliplab.teachers.scores import Scores


def register(commands: Any) -> None:
    """Add `teachers` with its subcommands."""
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
    tune = actions.add_parser("tune", help="tune the image towers end to end; an hour. What is there stays")
    tune.add_argument("--output", type=Path, metavar="DIR", help="where the teachers go (default: data/teachers)")
    tune.add_argument(
        "--variants", nargs="+", choices=("lite0", "lite2"), default=("lite0", "lite2"), help="of the towers"
    )
    tune.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="N",
        help="tune a teacher for each of N folds on the pictures outside it, for `experiment world`",
    )
    add_threads(tune)
    tune.set_defaults(run=run_tune)
    score = actions.add_parser("score", help="score each teacher, the ensemble, and the untrained baseline")
    score.add_argument("--suite", default="mini", help="'mini' (all evaluation sets) or one data set's name")
    score.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    add_threads(score)
    score.set_defaults(run=run_score, parser=score)


def run_train(args: argparse.Namespace) -> int:
    """Train both variants' heads and say how long it took."""
    from mcliplab.teachers.fit import train_teachers

    if not 0 <= args.wrong_captions <= 1:
        raise UserError(f"--wrong-captions must be from 0 to 1, got {args.wrong_captions}")
    return _make(args, lambda: train_teachers(args.output, wrong_captions=args.wrong_captions, progress=print_progress))


def run_tune(args: argparse.Namespace) -> int:
    """Tune both variants, or one for each fold, and say how long it took."""
    if args.folds and not 2 <= args.folds <= MOST_FOLDS:
        raise UserError(f"--folds must be from 2 to {MOST_FOLDS}, got {args.folds}")
    if args.folds and args.output is None:
        raise UserError("teachers of folds need a folder of their own: name one with --output")
    return _make(args, lambda: _tuned(args))


def _tuned(args: argparse.Namespace) -> list[Path]:
    from mcliplab.teachers.fit import tune_teachers

    return tune_teachers(args.output, variants=args.variants, folds=args.folds, progress=print_progress)


def _make(args: argparse.Namespace, make: Callable[[], list[Path]]) -> int:
    if args.output is not None and args.output.is_file():
        raise UserError(f"{args.output}: is a file; name a folder for --output")
    use_threads(args.threads)
    start = time.perf_counter()
    for path in make():
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    print(f"made in {time.perf_counter() - start:.0f} s")
    return 0


def run_score(args: argparse.Namespace) -> int:
    """Score, print, and record if wanted."""
    use_threads(args.threads)
    return measure_and_record(args, _scored, _record)


def _scored(args: argparse.Namespace) -> "Scores":
    from mcliplab.teachers.scores import score_teachers
    from mcliplib.cli.evaluate import table

    scores = score_teachers(args.suite, progress=print_progress)
    for name, rows in scores.items():
        print(f"== {name}\n{table(rows)}")
    return scores


def _record(args: argparse.Namespace, scores: "Scores", seconds: float) -> Path:
    from mcliplab.teachers.fit import SETTINGS
    from mcliplib import results
    from mcliplib.evaluate.suite import score_values

    values = {name: score_values(rows) for name, rows in scores.items()}
    return results.record(
        args.record,
        values,
        unit="share of n trials, with the ends of the 95% bootstrap interval",
        n=1,
        seeds=[settings.seed for settings in SETTINGS.values()],
        command=command_line(args),
        seconds=seconds,
    )
