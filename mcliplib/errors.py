"""The one exception that the command line turns into a one-line message and a non-zero exit."""


class UserError(Exception):
    """Bad input from outside: a file, an argument, a machine. The message names it and the cure."""
