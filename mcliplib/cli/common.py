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
            raise UserError(f"--{name.replace('_', '-')} must be at least {lowest}, got {getattr(args, name)}")


def command_line(words: str, args: argparse.Namespace, *options: str) -> str:
    """The command that repeats a measurement, for its record.

    Args:
        words: with which it begins, "mcliplib benchmark latency".
        args: as parsed.
        options: names of those to give again; one that is false, empty or None is left out.
    """
    parts = words.split()
    for name in options:
        value = getattr(args, name)
        if value is None or value is False or value in ("", [], ()):
            continue
        values = value if isinstance(value, list | tuple) else [] if value is True else [value]
        parts += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(parts)


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
