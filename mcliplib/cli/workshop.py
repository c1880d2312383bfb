"""Commands of the workshop, `mcliplab`: looked for when they are wanted, since only a checkout has them."""

import argparse
import importlib
import importlib.util
from typing import Any, NoReturn

from mcliplib.errors import UserError


def register(commands: Any, name: str, module: str) -> None:
    """Add the command that a module offers; if the workshop is missing, one that says so whatever its arguments.

    Args:
        commands: argparse's sub-commands.
        name: of the command.
        module: with a function `register(commands)`.
    """
    if importlib.util.find_spec("mcliplab") or not module.startswith("mcliplab."):
        importlib.import_module(module).register(commands)
        return
    parser = commands.add_parser(name, help="(needs a checkout of the repository)", prefix_chars="\0")
    parser.add_argument("anything", nargs="*")  # no argument begins with the prefix, so each one is taken
    parser.set_defaults(run=ask_for_a_checkout)


def ask_for_a_checkout(args: argparse.Namespace) -> NoReturn:
    """Raises a UserError with the cure."""
    raise UserError(
        "this command belongs to the workshop, which the installed package leaves out; run it in a checkout of the "
        "repository after `make env`"
    )
