"""`mcliplib experiment list|run|world|finetune|show`: the experiments of the book, of many training runs each."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from mcliplib.cli.common import command_line
from mcliplib.errors import UserError


def register(commands: Any) -> None:
    """Add `experiment` with its subcommands."""
    parser = commands.add_parser("experiment", help="run the book's experiments: many trainings, resumable")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="the experiments, and how far they are").set_defaults(run=run_list)
    run = actions.add_parser("run", help="do the runs that have no result yet; stop and go on whenever you like")
    run.add_argument("name", help="an experiment, or a .yaml file")
    run.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for a result and a model of each run"
    )
    run.add_argument("--share", default="1/1", metavar="I/N", help="do every N-th run, from the I-th (default: all)")
    run.add_argument("--variants", nargs="+", metavar="NAME", help="only these variants of the plan (default: all)")
    run.add_argument("--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)")
    run.add_argument("--record", action="store_true", help="write what there is to data/results at the end")
    run.set_defaults(run=run_run)
    world = actions.add_parser("world", help="make plain and reinforced sets with captions as vague as the web's")
    world.add_argument("--names", type=float, required=True, metavar="SHARE", help="of the pictures that keep theirs")
    world.add_argument(
        "--wrong", type=float, default=0.2, metavar="SHARE", help="another's caption (default: %(default)s)"
    )
    world.add_argument("--teachers", type=Path, required=True, metavar="DIR", help="of `teachers tune --folds N`")
    world.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the sets; what is there stays")
    world.add_argument("--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)")
    world.set_defaults(run=run_world)
    tuned = actions.add_parser("finetune", help="probes, few shots and fine-tuning from two ways of training")
    tuned.add_argument("--runs", type=Path, required=True, metavar="DIR", help="of `experiment run`, with its models")
    tuned.add_argument("--variants", nargs="+", default=["plain", "reinforced"], help="default: plain reinforced")
    tuned.add_argument("--samples", type=int, default=320_000, help="seen by each start (default: %(default)s)")
    tuned.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    tuned.add_argument("--record", metavar="NAME", help="write data/results/NAME.json")
    tuned.add_argument("--threads", type=int, default=1, help="PyTorch's threads (default: %(default)s)")
    tuned.set_defaults(run=run_finetune, parser=tuned)
    show = actions.add_parser("show", help="scores of each variant over samples seen")
    show.add_argument("name", help="an experiment, or a .yaml file")
    show.add_argument("--output", type=Path, metavar="DIR", help="also look at the results in this folder")
    show.add_argument("--task", default="mean", help="one evaluation task (default: the mean over all)")
    show.add_argument("--depth", type=int, choices=(1, 5), default=1, help="of top-k and recall (default: %(default)s)")
    show.add_argument("--record", action="store_true", help="write what there is to data/results")
    show.set_defaults(run=run_show)


def run_list(args: argparse.Namespace) -> int:
    """A line for each experiment."""
    from mcliplab.experiments import gather, load_plan, plan_names

    for name in plan_names():
        plan = load_plan(name)
        print(f"{name}: {len(gather(plan, None))} of {sum(1 for _ in plan.runs())} runs recorded. {plan.about}")
    return 0


def run_run(args: argparse.Namespace) -> int:
    """Do the runs that are not recorded; record them if wanted. A record to which nothing came stays as it was."""
    from mcliplab.command import print_progress, use_threads
    from mcliplab.experiments import gather, load_plan, run_plan
    from mcliplib import results

    plan, share = load_plan(args.name), _share(args.share)
    use_threads(args.threads)
    run_plan(plan, args.output, share=share, variants=args.variants, progress=print_progress)
    if gather(plan, args.output) == gather(plan, None):
        print_progress(
            f"nothing to add to the record in {results.folder()}; to repeat its runs, name another folder in "
            "MCLIPLIB_RESULTS"
        )
    elif args.record:
        _record(args)
    return 0


def run_world(args: argparse.Namespace) -> int:
    """Make the sets of a world, with as many folds as there are teachers."""
    from mcliplab.command import print_progress, use_threads
    from mcliplab.experiments.world import World, make_world
    from mcliplib.reinforce.teachers import make_teacher

    folds = len(list(args.teachers.glob("fold-*.safetensors")))
    if folds < 2:
        raise UserError(f"{args.teachers}: no teachers of folds; `mcliplib teachers tune --folds 4` makes them")
    use_threads(args.threads)
    make_world(
        args.output,
        World(args.names, args.wrong, folds),
        lambda fold: make_teacher(f"tuned-lite0:{args.teachers / f'fold-{fold}.safetensors'}"),
        progress=print_progress,
    )
    return 0


def run_finetune(args: argparse.Namespace) -> int:
    """Measure, print the means over the seeds, and record if wanted."""
    from mcliplab.command import measure_and_record, use_threads

    use_threads(args.threads)
    return measure_and_record(args, _finetuned, _record_finetuned)


def _finetuned(args: argparse.Namespace) -> dict[str, Any]:
    from statistics import fmean

    from mcliplab.command import print_progress
    from mcliplab.experiments.finetuning import SHARES, measure

    starts = {one: args.runs / f"{one}-{args.samples}-{{seed}}.safetensors" for one in args.variants}
    values = measure(starts, args.seeds, print_progress)
    for start, by_seed in values.items():
        rows = {name: [one[name]["value"] for one in by_seed.values()] for name in ("shots_1", "shots_16", "probe")}
        for share in map(str, SHARES):
            for what in ("task", "kept"):
                rows[f"full, {share}, {what}"] = [one["full"][share][what]["value"] for one in by_seed.values()]
        for name, found in rows.items():
            print(f"{start:12} {name:18} {fmean(found):6.1%}  ({', '.join(f'{one:.1%}' for one in found)})")
    return values


def _record_finetuned(args: argparse.Namespace, values: dict[str, Any], seconds: float) -> Path:
    from mcliplib import results

    return results.record(
        args.record,
        values,
        unit="share of right answers, with the ends of the 95% bootstrap interval",
        n=len(args.seeds),
        seeds=args.seeds,
        command=command_line(args),
        seconds=seconds,
    )


def run_show(args: argparse.Namespace) -> int:
    """A line for each variant and budget."""
    from statistics import fmean

    from mcliplab.experiments import efficiency, gather, load_plan
    from mcliplab.experiments.curves import curves

    plan = load_plan(args.name)
    runs = gather(plan, args.output)
    found = {variant: curves(runs, variant, args.depth) for variant in plan.variants}
    if args.task not in (tasks := {task: None for one in found.values() for task in one}) and tasks:
        raise UserError(f"no task {args.task!r}; there is {', '.join(tasks)}")
    baseline = found[plan.baseline].get(args.task) if plan.baseline else None
    for variant, by_task in found.items():
        curve = by_task.get(args.task, {})
        worth = {one.samples: one for one in efficiency(curve, baseline)} if baseline else {}
        for samples, scores in curve.items():
            line = f"{variant:16} {samples:>10,}  {fmean(scores):6.2%}  ({', '.join(f'{one:.2%}' for one in scores)})"
            if (one := worth.get(samples)) and variant != plan.baseline:
                line += f"  {one.times} times ({one.interval()})"
            print(line)
    if args.record:
        _record(args)
    return 0


def _record(args: argparse.Namespace) -> None:
    from mcliplab.experiments import load_plan
    from mcliplab.experiments.runner import record_plan

    folder = f"runs/{Path(args.name).stem}"
    command = shlex.join(["mcliplib", "experiment", "run", args.name, "--output", folder, "--record"])
    print(f"recorded in {record_plan(load_plan(args.name), args.output, command)}")


def _share(text: str) -> tuple[int, int]:
    part, slash, of = text.partition("/")
    if not (slash and part.isdigit() and of.isdigit() and 1 <= int(part) <= int(of)):
        raise UserError(f"--share is I/N with I from 1 to N, as 1/2 and 2/2; got {text!r}")
    return int(part) - 1, int(of)
