"""`mcliplib captioner train|score`: the local captioner of dataset reinforcement."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcliplab.command import add_threads, measure_and_record, print_progress, use_threads
from mcliplib.cli.common import command_line
from mcliplib.errors import UserError

if TYPE_CHECKING:
    from mcliplab.captioner.judge import Judged

_SETS = ("train", "tuxpaint-heldout", "emoji-fluent-unseen")
_EXAMPLES = 24


def register(commands: Any) -> None:
    """Add `captioner` with its two subcommands."""
    parser = commands.add_parser("captioner", help="train and judge the local captioner of dataset reinforcement")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="train both decoders on the training sets; some ten minutes")
    train.add_argument("--output", type=Path, metavar="DIR", help="where they go (default: data/captioner)")
    add_threads(train)
    train.set_defaults(run=run_train)
    score = actions.add_parser("score", help="caption pictures and let the teachers judge")
    score.add_argument("--limit", type=int, default=1000, help="pictures of each set (default: %(default)s)")
    score.add_argument("--seed", type=int, default=0, help="of captions and pictures (default: %(default)s)")
    score.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    add_threads(score)
    score.set_defaults(run=run_score, parser=score)


def run_train(args: argparse.Namespace) -> int:
    """Train the decoders and say how long it took."""
    from mcliplab.captioner.fit import train_captioner

    if args.output is not None and args.output.is_file():
        raise UserError(f"{args.output}: is a file; name a folder for --output")
    use_threads(args.threads)
    start = time.perf_counter()
    for path in train_captioner(args.output, progress=print_progress):
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    print(f"trained in {time.perf_counter() - start:.0f} s")
    return 0


def run_score(args: argparse.Namespace) -> int:
    """Caption, judge, print, and record if wanted."""
    from mcliplab.captioner.judge import OTHERS

    if args.limit <= OTHERS:
        raise UserError(f"--limit must be more than {OTHERS}, the captions that each must beat; got {args.limit}")
    use_threads(args.threads)
    return measure_and_record(args, _judged, _record)


def _judged(args: argparse.Namespace) -> dict[str, Any]:
    from mcliplab.captioner.judge import judge
    from mcliplab.teachers.ensemble import Ensemble
    from mcliplib.reinforce.captioners import make_captioner
    from mcliplib.reinforce.teachers import ENSEMBLE, make_teacher

    captioner, teacher = make_captioner("decoder"), Ensemble([make_teacher(spec) for spec in ENSEMBLE])
    values = {}
    for name in _SETS:
        judged = judge(captioner, teacher, _drawn(name, args.limit, args.seed), seed=args.seed, progress=print_progress)
        values[name] = _values(judged)
        print(_lines(name, values[name]), flush=True)
    return values


def _drawn(name: str, limit: int, seed: int) -> list[Any]:
    """At most `limit` samples of a set, in its order."""
    import torch

    from mcliplib.data import load_samples

    samples = load_samples(name)
    chosen = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[:limit]
    return [samples[place] for place in chosen.sort().values.tolist()]


def _values(judged: "list[Judged]") -> dict[str, Any]:
    from mcliplib.data import concept_of

    all_captions = [(one, text, right) for one in judged for text, right in zip(one.synthetic, one.right, strict=True)]
    step = max(1, len(judged) // _EXAMPLES)
    return {
        "pictures": len(judged),
        "right": sum(right for *_, right in all_captions) / len(all_captions),
        "some_right": sum(any(one.right) for one in judged) / len(judged),
        "real_right": sum(one.real_right for one in judged) / len(judged),
        "says_the_real_caption": sum(concept_of(text) == concept_of(one.real) for one, text, _ in all_captions)
        / len(all_captions),
        "different": len({text for _, text, _ in all_captions}) / len(all_captions),
        "examples": [
            {"key": one.key, "real": one.real, "synthetic": list(one.synthetic), "right": list(one.right)}
            for one in judged[::step][:_EXAMPLES]
        ],
    }


def _lines(name: str, values: dict[str, Any]) -> str:
    return (
        f"{name}: {values['pictures']} pictures; right by the teachers' judgement: {values['right']:.1%} of the "
        f"captions, one in five for {values['some_right']:.1%} of the pictures; of the real captions "
        f"{values['real_right']:.1%}. The real caption word for word: {values['says_the_real_caption']:.1%}; "
        f"different captions: {values['different']:.1%}"
    )


def _record(args: argparse.Namespace, values: dict[str, Any], seconds: float) -> Path:
    from mcliplib import results

    return results.record(
        args.record,
        values,
        unit="shares of captions (right, says_the_real_caption, different) and of pictures (some_right, real_right)",
        n=1,
        seeds=[args.seed],
        command=command_line(args),
        seconds=seconds,
    )
