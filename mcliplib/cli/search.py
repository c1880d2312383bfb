"""`mcliplib search`."""

import argparse
import base64
import html
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcliplib.cli.common import Intermixed, check_at_least
from mcliplib.errors import UserError
from mcliplib.files import check_replaceable, replacing

if TYPE_CHECKING:
    from PIL import Image

    from mcliplib.data import Sample
    from mcliplib.search import Hit, Index, Report
    from mcliplib.search.index import Query

_SIGN = re.compile(r"([+-])(\d+\.?\d*|\.\d+)?")
_SHEETS = (".png", ".jpg", ".pdf", ".svg", ".html")
_THUMBNAIL = 320  # pixels of the longer side
_NAMED = 5  # broken pictures
_EPILOG = """\
queries:
  Each QUERY is a text, or the path of a picture; several are added up. A sign before a query, as an argument of its
  own, says how: + adds it, - subtracts it, and with a number (-0.5) that is its weight.

    mcliplib search photos "a red flag"
    mcliplib search photos horse + stripes -0.5 snow
    mcliplib search photos beach.jpg - people --paths -k 50

  A text that looks like an option, a sign or a file goes with --text=TEXT, --minus=TEXT.

results go to stdout, all else to stderr. A name with a line break in it is safe with --null and --json only.
"""


def register(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser("search", help="find pictures in a folder by words or by a picture")
    parser = commands.choices["search"] = Intermixed(
        prog=made.prog,
        description="Index a folder of pictures, or bring its index up to date, and show what fits a query best.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="pictures, at any depth; hidden ones are left out")
    parser.add_argument("words", nargs="*", metavar="QUERY", help="a text or a picture's path, with a sign if wanted")
    for name, what in (("text", "add this text"), ("image", "add this picture"), ("minus", "subtract this query")):
        parser.add_argument(f"--{name}", action="append", default=[], metavar=name.upper(), help=what)
    parser.add_argument("-k", type=int, default=12, metavar="K", help="how many pictures (default: %(default)s)")
    _register_index(parser.add_argument_group("index"))
    shown = parser.add_argument_group("output").add_mutually_exclusive_group()
    shown.add_argument("--json", action="store_true", help="one JSON object")
    shown.add_argument("--paths", action="store_true", help="paths only, one a line")
    shown.add_argument("--null", action="store_true", help="paths only, a NUL byte after each, as xargs -0 reads them")
    parser.add_argument(
        "--show", type=Path, metavar="FILE", help=f"also a contact sheet with scores: {', '.join(_SHEETS)}"
    )
    parser.set_defaults(run=run)


def _register_index(group: Any) -> None:
    group.add_argument(
        "--model",
        help="'student' (the default for a new index), a checkpoint, a training run's folder, or a repository of "
        "Hugging Face: hf-hub:apple/MobileCLIP-S0",
    )
    group.add_argument("--random-weights", action="store_true", help="let --model be a preset's name, to try speed")
    group.add_argument("--index", type=Path, metavar="PATH", help="its folder (default: FOLDER/.mcliplib-search)")
    group.add_argument("--dtype", choices=["float32", "int8"], help="of a new index (default: float32)")
    group.add_argument("--rebuild", action="store_true", help="begin the index anew")
    group.add_argument("--no-update", action="store_true", help="ask the index as it is")


def run(args: argparse.Namespace) -> int:
    """Update the index, ask it, and print what was found."""
    check_at_least(args, k=1)
    parts = parsed(args.words, args.text, args.image, args.minus)
    if args.show is not None:
        if args.show.suffix.lower() not in _SHEETS:
            raise UserError(f"{args.show}: a contact sheet is a {', '.join(_SHEETS[:-1])} or {_SHEETS[-1]} file")
        check_replaceable(args.show)
    index = _index(args)
    if index.report is not None:
        print(_summary(index, index.report), file=sys.stderr)
    if not len(index):
        raise UserError(f"{args.folder}: holds no picture that can be read (.jpg, .png, .webp, ...)")
    hits = [one._replace(path=args.folder / one.path.relative_to(index.folder)) for one in index.query(parts, args.k)]
    _print(args, index, parts, hits)
    if args.show is not None:
        show(hits, args.show, title=" ".join(f"{weight:+g} {query}" for query, weight in parts))
        print(f"contact sheet: {args.show}", file=sys.stderr)
    return 0


def parsed(
    words: Sequence[str], texts: Sequence[str] = (), images: Sequence[str] = (), minus: Sequence[str] = ()
) -> "list[tuple[Query, float]]":
    """The parts of a query, with their weights.

    Args:
        words: queries, and signs before them.
        texts: queries that are texts, whatever they look like.
        images: queries that are pictures.
        minus: queries to subtract.

    Raises:
        UserError: there is no query, or a sign without one.
    """
    from mcliplib.search import Text

    parts: list[tuple[Query, float]] = []
    weight: float | None = None
    for word in words:
        if weight is None and (sign := _SIGN.fullmatch(word)):
            weight = float(sign[1] + (sign[2] or "1"))
            continue
        parts.append((_query(word), 1.0 if weight is None else weight))
        weight = None
    if weight is not None:
        raise UserError(f"{words[-1]!r} stands before no query; a text that looks like a sign is --text={words[-1]}")
    parts += [(Text(one), 1.0) for one in texts] + [(Path(one), 1.0) for one in images]
    parts += [(_query(one), -1.0) for one in minus]
    if not parts:
        raise UserError('no query: give a text, as "a red flag", or a picture')
    return parts


def _query(word: str) -> "Query":
    """The picture of that path, or else the text; a text that looks like a picture's path is told on stderr."""
    from mcliplib.search import Text
    from mcliplib.search.pictures import EXTENSIONS, is_picture_file

    if is_picture_file(word):
        return Path(word)
    if Path(word).suffix[1:].lower() in EXTENSIONS:
        print(f"{_printable(word)}: no such file, so it is taken as a text (--text takes it silently)", file=sys.stderr)
    return Text(word)


def _index(args: argparse.Namespace) -> "Index":
    from tqdm import tqdm

    from mcliplib.search import Index
    from mcliplib.search.models import RANDOM

    if args.random_weights and args.model is None:
        raise UserError("--random-weights goes with --model and a preset's name")
    model = f"{RANDOM}{args.model}" if args.random_weights else args.model
    if args.no_update:
        for option in ("rebuild", "dtype"):
            if getattr(args, option):
                raise UserError(f"--{option} changes the index, and --no-update leaves it as it is; drop one of them")
        index = Index.open(args.index or args.folder, model)
        index.check_is_of(args.folder)
        return index
    with tqdm(unit="", file=sys.stderr, mininterval=1.0, delay=1.0) as bar:

        def progress(what: str, done: int, total: int) -> None:
            bar.set_description(what, refresh=False)
            bar.total = total
            bar.update(done - bar.n)

        return Index.build(
            model, args.folder, path=args.index, dtype=args.dtype, rebuild=args.rebuild, progress=progress
        )


def _summary(index: "Index", report: "Report") -> str:
    counts = f"{report.added:,} new, {report.changed:,} changed, {report.removed:,} removed"
    line = f"{len(index):,} pictures ({counts})"
    if not (broken := report.broken):
        return line
    named = ", ".join(f"{_printable(path)} ({fault})" for path, fault in broken[:_NAMED])
    more = f" and {len(broken) - _NAMED:,} more (--json names all)" if len(broken) > _NAMED else ""
    return f"{line}; {len(broken):,} cannot be read: {named}{more}"


def _print(args: argparse.Namespace, index: "Index", parts: "list[tuple[Query, float]]", hits: "list[Hit]") -> None:
    if args.json:
        found = [{"path": str(one.path), "score": round(one.score, 6)} for one in hits]
        asked = [{"query": str(query), "weight": weight} for query, weight in parts]
        broken = [] if index.report is None else [list(one) for one in index.report.broken]
        content = {"folder": str(args.folder), "model": str(index.model), "pictures": len(index), "query": asked}
        print(json.dumps({**content, "results": found, "broken": broken}, indent=1))  # ASCII: a name may be no UTF-8
    elif args.paths or args.null:
        end = b"\0" if args.null else b"\n"
        sys.stdout.flush()
        sys.stdout.buffer.write(b"".join(os.fsencode(one.path) + end for one in hits))
    else:
        for rank, one in enumerate(hits, 1):
            print(f"{rank:>4}  {one.score:6.3f}  {_printable(str(one.path))}")


def _printable(name: str) -> str:
    """The name on one line, whatever is in it."""
    shown = (one if one.isprintable() else one.encode("unicode_escape").decode() for one in name)
    return "".join(shown)


def show(hits: "Sequence[Hit]", output: Path, title: str = "") -> None:
    """A contact sheet of what was found, with names and scores; a picture that has gone since is left out.

    Args:
        hits: in order.
        output: a picture's or page's path; a page (.html) holds its pictures.
        title: of the page.

    Raises:
        WriteError: it cannot be written.
    """
    from mcliplib.data import Sample
    from mcliplib.images import read_picture
    from mcliplib.viz.contact_sheet import contact_sheet

    shown = []
    for one in hits:
        try:
            image = read_picture(one.path, side=_THUMBNAIL).image
        except UserError as error:
            print(f"not on the sheet: {error}", file=sys.stderr)
            continue
        shown.append(Sample(str(one.path), image, f"{one.score:.3f} {_printable(one.path.name)}"))
    kind = output.suffix[1:].lower()
    with replacing(output) as temporary:
        if kind == "html":
            temporary.write_text(_page(shown, title), encoding="utf-8")
        else:
            contact_sheet(shown, columns=min(6, max(1, len(shown)))).savefig(temporary, dpi=100, format=kind)


def _page(samples: "Sequence[Sample]", title: str) -> str:
    style = (
        "body{font:16px/1.4 system-ui,sans-serif;margin:1rem}main{display:grid;gap:1rem;"
        "grid-template-columns:repeat(auto-fill,minmax(12rem,1fr))}figure{margin:0}"
        "img{width:100%;height:12rem;object-fit:contain}figcaption{overflow-wrap:anywhere}"
    )
    figures = "\n".join(
        f'<figure><img src="data:image/jpeg;base64,{_jpeg(one.image)}" alt="{html.escape(_printable(one.key))}">'
        f"<figcaption>{html.escape(one.caption)}</figcaption></figure>"
        for one in samples
    )
    name = html.escape(_printable(title) or "search")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{name}</title><style>{style}</style></head>\n'
        f"<body><h1>{name}</h1><main>\n{figures}\n</main></body></html>\n"
    )


def _jpeg(image: "Image.Image") -> str:
    buffer = io.BytesIO()
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    image.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()
