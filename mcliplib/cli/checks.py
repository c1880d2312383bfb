"""Checks of arguments that several commands share."""

import argparse

from mcliplib.errors import UserError


def check_at_least(args: argparse.Namespace, **least: int) -> None:
    """Raises a UserError that names the first option that is below its least value."""
    for name, lowest in least.items():
        if getattr(args, name) < lowest:
            raise UserError(f"--{name.replace('_', '-')} must be at least {lowest}, got {getattr(args, name)}")
