"""Write one set's folder: shards, card.json, README.md, LICENSE, ATTRIBUTION.tsv."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mcliplab.datasets.catalogue import Info
from mcliplab.datasets.draft import Draft
from mcliplab.datasets.fingerprint import COLOUR_LIMIT, HASH_LIMIT, PLAIN_LIMIT
from mcliplab.datasets.packages import BY_SHORT
from mcliplib.data.shards import write_shard
from mcliplib.files import write_text

SHARD_SAMPLES = 2000
_TEXTS = Path(__file__).parent / "licences"
_PUBLIC_DOMAIN = (
    "Public domain: the authors dedicated these works to the public domain, or their copyright has expired. No "
    "permission is needed to use them. ATTRIBUTION.tsv names the source of each file and, where known, its author.\n"
)
_URLS = {
    "CC-BY-2.0": "https://creativecommons.org/licenses/by/2.0/",
    "CC-BY-3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-SA-3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "CC-BY-SA-4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
}


def write_set(root: Path, name: str, info: Info, drafts: Sequence[Draft], dropped: int) -> dict[str, Any]:
    """Write the folder `root/name` and return the card."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("shard-*.tar.gz"):
        old.unlink()
    shards = []
    for number, start in enumerate(range(0, len(drafts), SHARD_SAMPLES)):
        part = drafts[start : start + SHARD_SAMPLES]
        path = write_shard(folder / f"shard-{number:06d}.tar.gz", ((draft.key, members(draft)) for draft in part))
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        shards.append({"file": path.name, "samples": len(part), "bytes": len(content), "sha256": digest})
    card = make_card(name, info, drafts, dropped, shards)
    write_text(folder / "card.json", json.dumps(card, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", readme(card))
    write_text(folder / "LICENSE", licence_text(info.licences))
    write_text(folder / "ATTRIBUTION.tsv", attribution(drafts))
    return card


def members(draft: Draft) -> dict[str, bytes]:
    """The tar members of one sample."""
    meta = json.dumps(draft.meta, ensure_ascii=False, separators=(",", ":"))
    return {"webp": draft.payload, "txt": draft.caption.encode(), "json": meta.encode()}


def make_card(
    name: str, info: Info, drafts: Sequence[Draft], dropped: int, shards: list[dict[str, Any]]
) -> dict[str, Any]:
    """The machine-readable card."""
    sizes = [draft.image.size for draft in drafts]
    tasks: dict[str, Any] = {"retrieval": {"kind": "retrieval"}} if info.retrieval else {}
    for task, label in info.labels.items():
        classes = sorted({draft.meta[label] for draft in drafts})
        tasks[task] = {"kind": "zero-shot", "label_field": label, "classes": classes, "photos": info.photos}
    leak_rule = (
        "An evaluation image is dropped when it and a training image, both without their white margins, differ in at "
        f"most {HASH_LIMIT} of 63 bits of a perceptual hash and by at most {COLOUR_LIMIT} in colour (root mean square "
        f"over an 8 x 8 map of RGB in 0..1), or in colour by at most {PLAIN_LIMIT} of the fainter image's distance "
        "from white; of identical images one is kept."
    )
    return {
        "name": name,
        "title": info.title,
        "role": info.role,
        "about": info.about,
        "tasks": tasks,
        "licences": dict(sorted(Counter(draft.meta["licence"] for draft in drafts).items())),
        "licence_file": "LICENSE",
        "attribution_file": "ATTRIBUTION.tsv",
        "sources": [
            {key: getattr(BY_SHORT[short], key) for key in ("name", "version", "client", "file", "sha256")}
            for short in info.sources
        ],
        "count": len(drafts),
        "unique_captions": len({draft.caption for draft in drafts}),
        "categories": dict(sorted(Counter(draft.meta["category"] for draft in drafts).items())),
        "image": {
            "format": "WebP",
            "smallest": [min(width for width, _ in sizes), min(height for _, height in sizes)],
            "largest": [max(width for width, _ in sizes), max(height for _, height in sizes)],
        },
        "dropped": dropped,
        "split_rule": leak_rule if info.role == "eval" else "No image here looks like one of an evaluation set.",
        "how_built": "mcliplib data build",
        "limits": list(info.limits),
        "shards": shards,
    }


def readme(card: dict[str, Any]) -> str:
    """The card for people."""
    licences = ", ".join(f"{name} ({count})" for name, count in card["licences"].items())
    lines = [f"# {card['title']}", "", card["about"], "", "| | |", "|---|---|"]
    lines.append(f"| role | {'training' if card['role'] == 'train' else 'evaluation only, never trained on'} |")
    lines.append(f"| samples | {card['count']:,} ({card['unique_captions']:,} different captions) |")
    small, large = ("x".join(map(str, card["image"][key])) for key in ("smallest", "largest"))
    lines.append(f"| images | WebP, {small if small == large else f'{small} to {large}'} px |")
    lines.append(f"| licence | {licences}; text in LICENSE, files in ATTRIBUTION.tsv |")
    for source in card["sources"]:
        lines.append(f"| source | {source['name']} {source['version']} |")
    for task, facts in card["tasks"].items():
        kind = facts["kind"] + (f", {len(facts['classes'])} classes" if "classes" in facts else "")
        lines.append(f"| task | {task}: {kind} |")
    if card["role"] == "eval":
        lines.append(f"| dropped | {card['dropped']} look-alikes and repetitions |")
    lines += ["", "## What it can't show", "", *(f"- {limit}" for limit in card["limits"])]
    lines += ["", "## How it was built", "", f"`{card['how_built']}` rebuilds it byte for byte. {card['split_rule']}"]
    lines += ["", "The images were scaled, flattened on white and encoded anew; nothing else was changed.", ""]
    return "\n".join(lines)


def index(cards: Sequence[dict[str, Any]]) -> str:
    """`data/README.md`: one line per set."""
    about = (
        "Each folder holds WebDataset shards, a card (README.md and card.json), the full licence and the attribution "
        "of every file. `mcliplib data show NAME` draws a set; `mcliplib data build` rebuilds all of them."
    )
    lines = ["# Data sets", "", about, "", "| set | role | samples | licence |", "|---|---|---|---|"]
    for card in cards:
        name, licences = card["name"], ", ".join(card["licences"])
        lines.append(f"| [{name}]({name}/README.md) | {card['role']} | {card['count']:,} | {licences} |")
    made = (
        "Made from these sets, each with a card of its own: [train-reinforced](train-reinforced/README.md), what "
        "teachers and a captioner said of the training sets; the [teachers](teachers/README.md)' heads; the "
        "[captioner](captioner/README.md). [results](results) holds the records of measurements."
    )
    return "\n".join([*lines, "", made, ""])


def licence_text(licences: Sequence[str]) -> str:
    """The full texts of a set's licences, one after the other."""
    parts = []
    if len(licences) > 1:
        parts.append("The licence differs by file: ATTRIBUTION.tsv says which of those below holds for which file.\n")
    for licence in licences:
        if licence == "LicenseRef-Public-Domain":
            text = _PUBLIC_DOMAIN
        else:
            file = {"MIT": "MIT-fluent", "GPL-2.0-only": "GPL-2.0"}.get(licence, licence)
            text = (_TEXTS / f"{file}.txt").read_text(encoding="utf-8")
        link = f" ({_URLS[licence]})" if licence in _URLS else ""
        parts.append(f"== {licence}{link} ==\n\n{text}" if len(licences) > 1 or link else text)
    return "\n".join(parts)


def attribution(drafts: Sequence[Draft]) -> str:
    """Tab-separated: key, licence, author, source."""
    rows = ["key\tlicence\tauthor\tsource"]
    for draft in drafts:
        cells = (draft.key, draft.meta["licence"], draft.meta["author"], draft.meta["source"])
        rows.append("\t".join(" ".join(str(cell).split()) for cell in cells))
    return "\n".join(rows) + "\n"
