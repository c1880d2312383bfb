"""Checks of arguments that commands share, and the way to the workshop, `mcliplab`, which only a checkout has."""

import argparse
import importlib
import importlib.util
import shlex
from typing import Any

from mcliplib.errors import UserError


def check_at_least(args: argparse.Namespace, **least: int) -> None:
    """Raises a UserError that names the first option that is below its least value."""
    for name, lowest in least.items():
        if getattr(args, name) < lowest:
            option = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
            raise UserError(f"{option} must be at least {lowest}, got {getattr(args, name)}")


def command_line(args: argparse.Namespace) -> str:
    """Return the command that repeats a measurement, for its record.

    It gives every option that has a value, also one at its default: the record then stays right when a default changes.

    Args:
        args: as parsed, with the command's own `parser` (`parser.set_defaults(parser=parser)`).
    """
    parts: list[str] = args.parser.prog.split()
    options: list[str] = []
    for action in args.parser._actions:  # argparse has no public list of them
        value = getattr(args, action.dest, None)
        if value is None or value is False or value in ("", [], ()):
            continue
        values = [] if value is True else value if isinstance(value, list | tuple) else [value]
        if action.option_strings:
            options += [action.option_strings[-1], *map(str, values)]
        else:
            parts += map(str, values)
    return shlex.join(parts + options)


class Intermixed(argparse.ArgumentParser):
    """A parser of a command that takes options between its positional arguments too."""

    _within = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As ArgumentParser's; `parse_known_intermixed_args` calls it in turn."""
        if self._within:
            return super().parse_known_args(args, namespace)
        self._within = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False


def register(commands: Any, name: str, module: str) -> None:
    """Add the command that a module offers; if the workshop is missing, one that says so whatever its arguments.

    Args:
        commands: argparse's sub-commands.
        name: of the command.
        module: with a function `register(commands)`.
    """
    if _is_there(module):
        importlib.import_module(module).register(commands)
        return
    parser = commands.add_parser(name, help="(needs a checkout of the repository)", prefix_chars="\0")
    parser.add_argument("anything", nargs="*")  # no argument begins with the prefix, so each one is taken
    parser.set_defaults(run=lambda args: workshop(module))


def workshop(module: str) -> Any:
    """A module of the workshop.

    Raises:
        UserError: there is no workshop here; says where there is one.
    """
    if not _is_there(module):
        raise UserError(
            "this belongs to the workshop, which the installed package leaves out; run it in a checkout of the "
            "repository after `make env`"
        )
    return importlib.import_module(module)


def _is_there(module: str) -> bool:
    return not module.startswith("mcliplab.") or importlib.util.find_spec("mcliplab") is not None
