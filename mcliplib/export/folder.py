"""The files beside the artefacts, with which a program in another language can use them.

`tokenizer.json` (`tokenizer_json` says how to read it), `preprocessing.json`, `card.json` (inputs, outputs, versions,
sizes and the figures of the verification), the same as `README.md`, and `LICENSE.md`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mcliplib.files import writing
from mcliplib.model import ModelConfig
from mcliplib.preprocess import Preprocess
from mcliplib.tokenizer import CLIP_VOCAB_SIZE, Tokenizer, clip_merges

Card = dict[str, Any]
CARD = "card.json"
_LICENSE = """# Licences

- **Weights**: an export changes nothing about them. They carry the licence of the checkpoint they come from; the
  released MobileCLIP models have Apple's licences, mcliplib's student has the MIT licence.
- **Code** that made this folder (mcliplib): MIT.
- **`tokenizer.json`**: the merges of OpenAI's CLIP, MIT.
"""


def write_beside(folder: Path, config: ModelConfig, card: Card) -> None:
    """Write all that is no artefact.

    Args:
        folder: where the artefacts are.
        config: of the model.
        card: what `card.json` holds; its member `towers` has an entry for each artefact.
    """
    preprocess, tokenizer = (
        Preprocess(config.image.image_size, config.pixels),
        Tokenizer(config.text.context_length, config.vocab),
    )
    texts = {"README.md": readme(card), "LICENSE.md": _LICENSE, CARD: _json(card, indent=2)}
    if "image" in card["towers"]:
        texts["preprocessing.json"] = _json(preprocessing_json(preprocess), indent=2)
    if "text" in card["towers"]:
        texts["tokenizer.json"] = _json(tokenizer_json(tokenizer))
    for name, text in texts.items():
        with writing(folder / name):
            (folder / name).write_text(text, encoding="utf-8")


def preprocessing_json(preprocess: Preprocess) -> dict[str, Any]:
    """How a picture becomes the image tower's input, step by step."""
    config = preprocess.config
    return {
        "steps": [
            "upright by EXIF, transparency on white, RGB",
            "resize: the shorter side to `size`, the longer one to floor(size * longer / shorter), antialiased",
            "crop the central `size` x `size` pixels, from round((side - size) / 2), halves to even",
            "divide by 255, subtract `mean`, divide by `std`",
            "channels first: float32 [batch, 3, size, size]",
        ],
        "size": preprocess.size,
        "interpolation": config.interpolation,
        "antialias": True,
        "mean": list(config.mean),
        "std": list(config.std),
    }


def tokenizer_json(tokenizer: Tokenizer) -> dict[str, Any]:
    """All that a program needs to tokenize texts as `tokenizer` does.

    A text is cleaned (`clean`), cut into words by `pattern` (case ignored), each word's UTF-8 bytes become characters
    (`bytes`), the last one with `</w>` behind it. Then, as long as two neighbours are in `merges`, those whose merge
    stands first become one. A piece is looked up in `vocab`; where the vocabulary is restricted and lacks it, it is
    split into the two halves of its merge, and they are looked up in the same way. Ids: `start`, at most
    `context_length` - 2 of the text's, `end`, then `pad`.
    """
    bpe, own = tokenizer.bpe, tokenizer.vocab or range(CLIP_VOCAB_SIZE)
    start, end = tokenizer.special_ids()
    return {
        "kind": "clip-bpe",
        "context_length": tokenizer.context_length,
        "clean": ["ftfy.fix_text", "HTML entities unescaped twice", "white space to one space, stripped", "lower case"],
        "pattern": bpe.pat.pattern,
        "bytes": {str(byte): char for byte, char in bpe.byte_encoder.items()},
        "start": start,
        "end": end,
        "pad": 0,
        "vocab": {bpe.decoder[clip_id]: index for index, clip_id in enumerate(own)},
        "merges": [list(pair) for pair in clip_merges()],
    }


def readme(card: Card) -> str:
    """The card, to be read."""
    towers = card["towers"]
    rows = "\n".join(
        f"| `{one['file']}` | {_tensor(one['input'])} | {_tensor(one['output'])} | {one['bytes'] / 1e6:.1f} MB | "
        f"{_verified(one)} |"
        for one in towers.values()
    )
    notes = [f"- {name} tower: {line}" for name, one in towers.items() for line in _notes(one)]
    notes += [f"- int8: {line}" for line in _agreement(card)]
    files = ["`card.json` has all of this for programs"]
    if "image" in towers:
        files.append("`preprocessing.json` says how a picture becomes pixels")
    if "text" in towers:
        files.append("`tokenizer.json` holds vocabulary and merges of the tokenizer")
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    return (
        f"# {card['model']}: {card['format']}, {card['precision']}\n\n"
        f"Features have length 1: the product of an image's and a text's is their cosine.\n\n"
        f"| file | input | output | size | verified |\n|---|---|---|---|---|\n{rows}\n\n"
        + "".join(f"{line}\n" for line in notes)
        + f"\n{'; '.join(files)}.\n\nMade by mcliplib with {versions}.\n"
    )


def _tensor(about: Mapping[str, Any]) -> str:
    return f"`{about['name']}` {about['dtype']} {about['shape']}".replace("'", "")


def _verified(tower: Card) -> str:
    found = tower["verified"]
    if "cannot_run" in found:
        return f"converted only: {found['cannot_run']}"
    return f"smallest cosine to PyTorch's features {found['least_cosine']:.6f} (n = {found['n']}, {found['source']})"


def _notes(tower: Card) -> list[str]:
    lines = [f"opset {tower['opset']}"] if "opset" in tower else []
    return lines + ([tower["note"]] if "note" in tower else [])


def _agreement(card: Card) -> list[str]:
    lines = []
    if (found := card.get("agreement")) is not None:
        change = ", ".join(
            f"{way} {100 * old:.1f}% -> {100 * new:.1f}%"
            for way, old, new in zip(
                ("picture to text", "text to picture"), found["float_r1"], found["int8_r1"], strict=True
            )
        )
        lines.append(
            f"the first text is the float model's for {100 * found['same_first']:.1f}% of {found['n']} pictures of "
            f"{found['source']}; R@1, float -> int8: {change}"
        )
    return lines


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
