"""`mcliplib benchmark train`: samples a second of a training step, released arrangement and ours."""

import argparse
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcliplab.command import measure_and_record
from mcliplib.cli.common import check_at_least, command_line
from mcliplib.errors import UserError

if TYPE_CHECKING:
    from mcliplab.benchmarks.training import StepComparison
    from mcliplib.latency.timing import Spread
    from mcliplib.reinforce import Teacher

_DEFAULT = "default: %(default)s"
_UNITS = {
    "samples_per_second": "pictures of training steps in a second, each with two captions (one where the name says so)",
    "milliseconds": "of a step",
    "speedup": "the released arrangement's time over this one's, within a round",
    "factor": "the time of the line before over this one's, within a round",
    "beside": "the reinforced step that a step is compared with",
    "over_reinforced": "this step's time over that one's, within a round",
    "reinforced_over": "the same the other way round",
    "agreement": "reinforced loss (nats), difference from the released arrangement's, relative one of the gradient",
    "cut": "share of the captions that the trimmed context cuts",
    "vocab": "rows of the restricted embedding",
    "notes": "what is behind the names",
}
_NOTES = {
    "released": "open_clip's step: timm's image tower, NCHW, float32, all 49,408 rows, unfused AdamW, every token of "
    "the last text layer; the text tower is our MCt, as open_clip has none",
    "our_towers": "ours in the same arrangement; only the end token's channels are mixed in the last text layer; KL",
    "channels_last": "+ pixels and convolutions with the channels last",
    "fused_adamw": "+ AdamW in one kernel",
    "restricted_vocab": "+ only the embedding rows of the data's texts; so far the same function, checked in float32",
    "bf16": "+ bf16 autocast, attention in steps; the same function to rounding: our reinforced step",
    "trimmed_context": "+ a shorter context: another model, as MCt's padding takes part",
    "bf16_pytorch_attention": "as bf16, attention by PyTorch's kernel",
    "pytorch_depthwise": "our reinforced step, its depthwise convolutions all by PyTorch's kernels",
    "plain": "our step, CLIP's loss on both captions",
    "plain_one_caption": "our step, CLIP's loss on the real caption, the only one",
    "online": "our step, both teachers' image and text towers run in it",
    "plain_trimmed": "as trimmed_context, CLIP's loss on both captions",
    "online_trimmed": "as trimmed_context, both teachers run in the step",
}


def register(actions: Any) -> None:
    """Add the action."""
    parser = actions.add_parser("train", help="samples/s of a training step, against the released arrangement")
    parser.add_argument(
        "--data", nargs="+", default=["train-reinforced"], help="reinforced sets (default: the shipped)"
    )
    parser.add_argument("--model", default="mobileclip_s0", help=f"a preset with an MCi image tower ({_DEFAULT})")
    parser.add_argument("--image-size", type=int, default=64, help=f"pixels ({_DEFAULT})")
    parser.add_argument("--batch", type=int, default=32, help=f"pictures in a batch ({_DEFAULT})")
    parser.add_argument("--context", type=int, default=77, help=f"tokens of the full context ({_DEFAULT})")
    parser.add_argument("--trim", type=int, default=16, help=f"tokens of the trimmed context ({_DEFAULT})")
    parser.add_argument("--rounds", type=int, default=8, help=f"interleaved steps of each ({_DEFAULT})")
    parser.add_argument("--threads", type=int, default=1, help=f"PyTorch's threads ({_DEFAULT})")
    parser.add_argument(
        "--teachers", choices=["local", "none"], default="local", help=f"of the online steps ({_DEFAULT})"
    )
    parser.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and record if wanted."""
    from mcliplib.presets import get_config

    check_at_least(args, rounds=2, batch=2, image_size=32, context=3, trim=3, threads=1)
    get_config(args.model)  # an unknown name ends here, with the known ones
    return measure_and_record(args, _measured, _record)


def _measured(args: argparse.Namespace) -> dict[str, Any]:
    from mcliplab.benchmarks import training
    from mcliplab.benchmarks.arrangements import has_released_tower
    from mcliplib.train.data import load_reinforced

    settings = training.StepSettings(
        model=args.model,
        image_size=args.image_size,
        batch_size=args.batch,
        context_length=args.context,
        trimmed=args.trim,
        rounds=args.rounds,
        threads=args.threads,
    )
    teachers, skipped = _teachers(args.teachers)
    comparison = training.compare_steps(load_reinforced(args.data), teachers, settings)
    notes = {name: _NOTES[name] for name in comparison.measurement.samples}
    if not has_released_tower(args.model):
        notes["released"] += f"; so is the image tower, as timm has none of {args.model}'s size"
    values = _values(comparison, args.batch) | {"notes": notes | skipped}
    _print(values, notes | skipped)
    return values


def _teachers(which: str) -> "tuple[list[Teacher], dict[str, str]]":
    """The local ensemble, or why it is left out."""
    from mcliplib.reinforce import make_teacher
    from mcliplib.reinforce.teachers import ENSEMBLE

    if which == "none":
        return [], {"online": "left out: --teachers none"}
    try:
        return [make_teacher(spec) for spec in ENSEMBLE], {}
    except UserError as error:
        print(f"without online distillation: {error}", file=sys.stderr)
        return [], {"online": f"left out: {error}"}


def _values(comparison: "StepComparison", batch: int) -> dict[str, Any]:
    from mcliplab.benchmarks.training import CHAIN, RELEASED

    timed, beside = comparison.measurement, comparison.beside
    chain = [name for name in (RELEASED, *CHAIN) if name in timed.samples]
    return {
        "samples_per_second": {name: _rate(timed.spread(name), batch) for name in timed.samples},
        "milliseconds": {name: timed.spread(name)._asdict() for name in timed.samples},
        "speedup": {name: timed.ratio(RELEASED, to=name)._asdict() for name in timed.samples},
        "factor": {name: timed.ratio(before, to=name)._asdict() for before, name in itertools.pairwise(chain)},
        "beside": dict(beside),
        "over_reinforced": {name: timed.ratio(name, to=of)._asdict() for name, of in beside.items()},
        "reinforced_over": {name: timed.ratio(of, to=name)._asdict() for name, of in beside.items() if "plain" in name},
        "agreement": {name: one._asdict() for name, one in comparison.agreement.items()},
        "cut": comparison.cut,
        "vocab": comparison.vocab,
    }


def _rate(time_of: "Spread", batch: int) -> dict[str, float]:
    return {
        "median": 1e3 * batch / time_of.median,
        "low": 1e3 * batch / time_of.high,
        "high": 1e3 * batch / time_of.low,
    }


def _print(values: dict[str, Any], notes: dict[str, str]) -> None:
    from mcliplab.benchmarks.training import CHAIN, RELEASED

    print(f"{'':24}{'samples/s':>10}  {'over released':22}{'over the line before':22}{'loss apart':>10}")
    for name in (RELEASED, *CHAIN):
        if name not in values["samples_per_second"]:
            continue
        apart = values["agreement"].get(name, {}).get("loss_difference")
        factor = values["factor"].get(name)
        line = f"{name:24}{values['samples_per_second'][name]['median']:10.1f}  {_span(values['speedup'][name]):22}"
        line += f"{'' if factor is None else _span(factor):22}{'' if apart is None else format(apart, '10.1e')}"
        print(line.rstrip())
    for name, of in values["beside"].items():
        rate = values["samples_per_second"][name]["median"]
        print(f"{name:24}{rate:10.1f}  {_span(values['over_reinforced'][name])} of {of}'s time", end="")
        print(f", which takes {_span(values['reinforced_over'][name])} of it" if "plain" in name else "")
    for name, note in notes.items():
        print(f"  {name}: {note}")


def _span(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def _record(args: argparse.Namespace, values: dict[str, Any], seconds: float) -> Path:
    from mcliplib import results

    command = command_line(args)
    return results.record(args.record, values, unit=_UNITS, n=args.rounds, seeds=[0], command=command, seconds=seconds)
