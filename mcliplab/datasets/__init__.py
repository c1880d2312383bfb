"""Rebuild `data/` from its pinned source packages; the same packages give the same bytes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mcliplab.datasets.assemble import assemble
from mcliplab.datasets.cards import index, write_set
from mcliplab.datasets.catalogue import CATALOGUE
from mcliplab.datasets.packages import PACKAGES, obtain
from mcliplib.files import write_text

__all__ = ["build"]


def build(
    output: Path, *, sources: Sequence[Path] = (), progress: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """Obtain the packages, build every set into ``output`` and return the cards.

    Args:
        output: the data folder; packages are kept in its ``.cache``.
        sources: folders with the packages already downloaded; without them the ordinary clients fetch them.
        progress: called with one line per step.

    Raises:
        UserError: a client or resvg-py is missing, a package is missing or its checksum differs.
    """
    cache = output.resolve() / ".cache"
    folders = {}
    for package in PACKAGES:
        progress(f"checking {package.file}")
        folders[package.short] = obtain(package, cache, sources)
    sets, dropped = assemble(folders, progress)
    cards = []
    for name, info in CATALOGUE.items():
        card = write_set(output, name, info, sets[name], dropped.get(name, 0))
        progress(f"{name}: {card['count']:,} samples, {sum(shard['bytes'] for shard in card['shards']) / 1e6:.2f} MB")
        cards.append(card)
    write_text(output / "README.md", index(cards))
    return cards
