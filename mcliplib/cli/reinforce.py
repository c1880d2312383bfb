"""`mcliplib reinforce`."""

import argparse
import sys
from typing import TYPE_CHECKING, Any, get_args

from mcliplib.errors import UserError
from mcliplib.images import MAX_PIXELS
from mcliplib.precision import Computed
from mcliplib.reinforce.sample import EmbeddingDType

if TYPE_CHECKING:
    from mcliplib.reinforce import Captioner, ReinforceSettings, RunResult

_DEFAULT_CAPTIONS = 5
_DEFAULT_CAPTIONER = "decoder"


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("reinforce", help="store augmentations, captions and teachers' embeddings of a set")
    add = parser.add_argument
    add(
        "--input",
        required=True,
        nargs="+",
        metavar="SHARDS",
        help="shards (paths, URLs, globs, {0..9}), folders of them, a data set's name; a .csv, .tsv or .jsonl list",
    )
    add("--output", required=True, metavar="DIR", help="folder for the reinforced shards and manifest.json")
    add("--engine", choices=["local", "ray"], default="local", help="default: %(default)s")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto", help="auto: a GPU where there is one")
    add("--compute", choices=get_args(Computed), default="float32", help="the teachers' numbers (default: %(default)s)")
    add("--batch-size", type=int, default=64, metavar="N", help="views a call of a teacher (default: %(default)s)")
    add("--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help="skip larger pictures (default: %(default)s)")
    add("--teachers", default="tuned-lite0,tuned-lite2", help="with commas between (default: %(default)s)")
    add(
        "--captioner",
        help=f"none, decoder, or coca:... (default: {_DEFAULT_CAPTIONER} if --captions is given, else none)",
    )
    add(
        "--augmentations",
        type=int,
        default=10,
        metavar="N",
        help="views of each image; small sets gain from 30 (default: %(default)s)",
    )
    add("--captions", type=int, metavar="M", help=f"synthetic captions (default: {_DEFAULT_CAPTIONS} with a captioner)")
    add("--augmentation-size", type=int, default=224, metavar="PIXELS", help="unit of shifts (default: %(default)s)")
    add(
        "--crop-scale",
        type=float,
        nargs=2,
        default=(0.08, 1.0),
        metavar="SHARE",
        help="least and most of the area kept",
    )
    add("--ops", type=int, default=2, metavar="N", help="RandAugment's operations on a view (default: %(default)s)")
    add("--magnitude", type=int, default=9, metavar="BIN", help="their strength, 0 to 30 (default: %(default)s)")
    add("--dtype", choices=get_args(EmbeddingDType), default="bfloat16", help="default: %(default)s")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--shard-size", type=int, default=1000, metavar="N", help="samples a shard from lists (default: %(default)s)")
    add("--max-skipped", type=float, default=0.1, metavar="SHARE", help="of all samples (default: %(default)s)")
    add("--workers", type=int, metavar="N", help="threads that decode and augment; with ray, actors")
    add("--threads", type=int, default=2, metavar="N", help="of PyTorch, for the teachers (default: %(default)s)")
    add("--resume", action="store_true", help="go on with the run in --output where there is one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Reinforce, and say what came of it."""
    from mcliplib import reinforce
    from mcliplib.reinforce.caption_check import found_by_caption
    from mcliplib.reinforce.sources import find_sources
    from mcliplib.reinforce.teachers import make_teacher

    find_sources(args.input, max(1, args.shard_size))  # a wrong name should not wait for the models
    print("loading the teachers ...", file=sys.stderr, flush=True)
    here = _device(args)
    captioner, captions = _captioner(args, here)
    specs = [spec.strip() for spec in args.teachers.split(",") if spec.strip()]
    settings = _settings(args, captions)
    try:
        result = reinforce.run(
            args.input,
            args.output,
            teachers=[make_teacher(spec, here) for spec in specs],
            captioner=captioner,
            settings=settings,
            engine=args.engine,
            device=args.device,
            workers=args.workers,
            max_skipped=args.max_skipped,
            resume=args.resume,
        )
    except OSError as error:
        raise UserError(f"{error}; what is done is kept: repair it and run again with --resume") from error
    print(summary(result))
    if captions and result.samples:
        print(found_by_caption(result.output))
    return 0


def summary(result: "RunResult") -> str:
    """The result of the run, for people."""
    skipped = ", ".join(f"{count} {reason}" for reason, count in result.skipped.items()) or "none"
    lines = [f"{result.output}: {result.samples:,} samples; skipped: {skipped}"]
    if result.made:
        stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in result.stages.items())
        rate = result.made / result.seconds
        lines.append(f"{result.made:,} made in {result.seconds:.0f} s ({rate:.1f} a second); seconds: {stages}")
    return "\n".join(lines)


def _device(args: argparse.Namespace) -> str:
    """Where the models are made: with Ray on the CPU, from where each actor takes them to its own GPU."""
    import torch

    if args.device == "cuda" and args.engine == "local" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU here; `mcliplib doctor` says more")
    return "cuda" if args.device != "cpu" and args.engine == "local" and torch.cuda.is_available() else "cpu"


def _captioner(args: argparse.Namespace, device: str) -> "tuple[Captioner | None, int]":
    """The captioner and how many captions of it."""
    spec = args.captioner or (_DEFAULT_CAPTIONER if args.captions else "none")
    captions = args.captions if args.captions is not None else _DEFAULT_CAPTIONS
    if spec == "none":
        if args.captions:
            raise UserError(f"--captions {args.captions} needs a captioner; --captioner none makes no captions")
        return None, 0
    from mcliplib.reinforce.captioners import make_captioner

    return make_captioner(spec, device), captions


def _settings(args: argparse.Namespace, captions: int) -> "ReinforceSettings":
    from mcliplib.reinforce import AugmentSettings, ReinforceSettings

    return ReinforceSettings(
        augmentations=args.augmentations,
        captions=captions,
        dtype=args.dtype,
        augment=AugmentSettings(
            size=args.augmentation_size,
            crop_scale=tuple(args.crop_scale),
            num_ops=args.ops,
            magnitude=args.magnitude,
        ),
        seed=args.seed,
        shard_size=args.shard_size,
        batch_size=args.batch_size,
        max_pixels=args.max_pixels,
        compute=args.compute,
        threads=args.threads,
    )
