"""The same weights under other names: from our names to those of another program's files.

A format is a list of rules. Each rule is a regular expression and its replacement; all are applied in order to one of
our names, and what comes out is the other program's name. Some tensors are also stored in another shape.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from torch import Tensor


class Layout(Enum):
    """How a file stores one of our tensors."""

    SAME = "same"
    TRANSPOSED = "transposed"  # a projection as [in, out]
    PER_CHANNEL = "per channel"  # a vector [C] as [C, 1, 1]
    LEADING_ONE = "leading one"  # x as [1, ...]
    LEADING_TWO = "leading two"  # x as [1, 1, ...]

    def write(self, ours: Tensor) -> Tensor:
        """The tensor as the file stores it."""
        return _WRITERS[self](ours)

    def read(self, stored: Tensor) -> Tensor:
        """The inverse of `write`."""
        return _READERS[self](stored)


_WRITERS: dict[Layout, Callable[[Tensor], Tensor]] = {
    Layout.SAME: lambda x: x,
    Layout.TRANSPOSED: lambda x: x.T,
    Layout.PER_CHANNEL: lambda x: x[:, None, None],
    Layout.LEADING_ONE: lambda x: x[None],
    Layout.LEADING_TWO: lambda x: x[None, None],
}
_READERS: dict[Layout, Callable[[Tensor], Tensor]] = {
    Layout.SAME: lambda x: x,
    Layout.TRANSPOSED: lambda x: x.T,
    Layout.PER_CHANNEL: lambda x: x[:, 0, 0],
    Layout.LEADING_ONE: lambda x: x[0],
    Layout.LEADING_TWO: lambda x: x[0, 0],
}


class Rule(NamedTuple):
    """One step from our name to the file's."""

    pattern: str
    replacement: str | Callable[[re.Match[str]], str]
    layout: Layout = Layout.SAME


class Place(NamedTuple):
    """Where one of our tensors stands in a file, and how."""

    name: str
    layout: Layout


def place(name: str, rules: Sequence[Rule]) -> Place:
    """Where the rules put the tensor of this name."""
    layout = Layout.SAME
    for rule in rules:
        name, count = re.subn(rule.pattern, rule.replacement, name)
        if count and rule.layout is not Layout.SAME:
            layout = rule.layout
    return Place(name, layout)


def places(names: Iterable[str], rules: Sequence[Rule]) -> dict[str, Place]:
    """`place` of every name; no two may get the same one."""
    found = {name: place(name, rules) for name in names}
    assert len({there.name for there in found.values()}) == len(found)
    return found
