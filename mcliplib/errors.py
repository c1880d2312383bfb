"""Errors about what comes from outside: they are Python's own, and the command line makes one line of them."""


class UserError(ValueError):
    """Bad input from outside: a file, an argument, a machine. The message names it and the cure."""


class MissingFileError(UserError, FileNotFoundError):
    """A file or folder that is not there."""


class WriteError(UserError, OSError):
    """A file or folder that cannot be written."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for a message of our own; the error's class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
