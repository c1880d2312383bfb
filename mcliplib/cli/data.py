"""`mcliplib data list|show|export|build`: the data sets and their cards."""

import argparse
from pathlib import Path
from typing import Any

from mcliplib.cli.common import register as register_module
from mcliplib.data import registry
from mcliplib.errors import UserError
from mcliplib.files import replacing

_SAMPLES_ON_SHEET = 64


def register(commands: Any) -> None:
    """Add `data` with its subcommands to the command line."""
    parser = commands.add_parser("data", help="list, show and rebuild the data sets")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    table = actions.add_parser("list", help="one line per data set")
    table.add_argument("--role", choices=registry.ROLES, help="only sets for training or for evaluation")
    table.set_defaults(run=run_list)

    show = actions.add_parser("show", help="print a set's card and draw a contact sheet of its images")
    show.add_argument("name", metavar="NAME", help="a data set, as `mcliplib data list` names it")
    show.add_argument("--output", type=Path, metavar="FILE.png", help="the contact sheet (default: ./NAME.png)")
    show.add_argument("--count", type=int, default=_SAMPLES_ON_SHEET, help="images on the sheet (default: %(default)s)")
    show.set_defaults(run=run_show)

    export = actions.add_parser("export", help="write sets in a form that other programs read")
    export.add_argument(
        "--layout",
        required=True,
        choices=("folder", "clip-benchmark"),
        help="folders of pictures with a list of captions, or CLIP_benchmark's WebDatasets",
    )
    export.add_argument(
        "--set",
        action="append",
        metavar="NAME",
        help="a data set, as often as wanted (default: all; for clip-benchmark all that evaluate)",
    )
    export.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to write them to")
    export.set_defaults(run=run_export)

    register_module(actions, "build", "mcliplab.datasets.cli")


def run_list(args: argparse.Namespace) -> None:
    """Print the table of data sets."""
    print(f"{'name':<22}{'role':<7}{'samples':>8}{'MB':>7}  {'tasks':<22} licence")
    for name in registry.list_datasets(args.role):
        card = registry.get_card(name)
        size = sum(shard["bytes"] for shard in card["shards"]) / 1e6
        tasks = ", ".join(card["tasks"]) or "-"
        licences = ", ".join(card["licences"])
        print(f"{name:<22}{card['role']:<7}{card['count']:>8,}{size:>7.2f}  {tasks:<22} {licences}")


def run_show(args: argparse.Namespace) -> None:
    """Print one card and write its contact sheet."""
    from mcliplib.viz.contact_sheet import contact_sheet, spread

    registry.get_card(args.name)  # an unknown name ends here, with the known ones
    print((registry.data_root() / args.name / "README.md").read_text(encoding="utf-8"))
    output: Path = args.output or Path(f"{args.name}.png")
    if output.suffix.lower() not in (".png", ".jpg", ".pdf", ".svg"):
        raise UserError(f"{output}: a contact sheet is a .png, .jpg, .pdf or .svg file")
    figure = contact_sheet(spread(registry.load_samples(args.name), args.count))
    with replacing(output) as temporary:
        figure.savefig(temporary, dpi=100, format=output.suffix[1:].lower())
    print(f"contact sheet: {output}")


def run_export(args: argparse.Namespace) -> None:
    """Write the sets in another layout."""
    from mcliplib.data.export_clip_benchmark import export_clip_benchmark
    from mcliplib.data.export_folder import export_folder
    from mcliplib.evaluate.scores import DRAWING_TEMPLATES, PHOTO_TEMPLATES

    if args.layout == "folder":
        for name in args.set or registry.list_datasets():
            print(export_folder(name, args.output))
        return
    for name in args.set or registry.list_datasets("eval"):
        for folder in export_clip_benchmark(name, args.output, {True: PHOTO_TEMPLATES, False: DRAWING_TEMPLATES}):
            print(folder)
