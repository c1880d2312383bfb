"""`mcliplib train`."""

import argparse
import dataclasses
import logging
import types
import typing
from pathlib import Path
from typing import Any

from mcliplib.cli.common import workshop
from mcliplib.results import check_writable
from mcliplib.train.settings import TrainSettings, load_settings, settings_from


def register(commands: Any) -> None:
    """Add the command; every field of TrainSettings is a flag."""
    parser = commands.add_parser("train", help="train a model on image-text pairs (also under torchrun)")
    parser.add_argument("--output", type=Path, required=True, help="folder for checkpoints and metrics")
    parser.add_argument("--config", type=Path, help="YAML file of settings; flags override it")
    parser.add_argument(
        "--resume", choices=["auto"], help="continue the run in --output where there is one, else start it"
    )
    parser.add_argument("--record", metavar="NAME", help="evaluate at the end and write data/results/NAME.json")
    group = parser.add_argument_group("settings")
    add_settings(group, TrainSettings)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, and say where the result is."""
    from mcliplib.train.distributed import processes, rank
    from mcliplib.train.trainer import train

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = given_settings(args, TrainSettings)
    if args.record:  # before hours are spent on what could not be written
        check_writable(args.record)
        record = workshop("mcliplab.experiments.record")
    settings = load_settings(args.config, **given) if args.config else settings_from(given, "command line")
    with processes():  # of torchrun, if it started this; the first one speaks
        result = train(settings, args.output, resume=args.resume == "auto")
        if rank() == 0:
            seen = f"{settings.samples:,} pairs in {result.seconds:.0f} s"
            print(f"{result.checkpoint}: loss {result.loss:.3f} after {seen}")
            if args.record:
                print(f"recorded in {record.record_training(args.record, settings, result)}")
    return 0


def add_settings(group: Any, record: type) -> None:
    """Add a flag for each field of a settings record; None where it is not given."""
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        _add_setting(group, field, hints[field.name])


def given_settings(args: argparse.Namespace, record: type) -> dict[str, Any]:
    """The fields of a settings record that the command line gives."""
    found = {field.name: getattr(args, field.name) for field in dataclasses.fields(record)}
    return {name: value for name, value in found.items() if value is not None}


def _add_setting(group: Any, field: dataclasses.Field[Any], hint: Any) -> None:
    flag = "--" + field.name.replace("_", "-")
    help = f"default: {field.default}"
    if typing.get_origin(hint) is types.UnionType:
        hint = typing.get_args(hint)[0]
    if hint is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=help)
    elif typing.get_origin(hint) is tuple:
        group.add_argument(flag, nargs="+", help=help)
    elif typing.get_origin(hint) is typing.Literal:
        group.add_argument(flag, choices=typing.get_args(hint), help=help)
    else:
        group.add_argument(flag, type=hint, help=help)
