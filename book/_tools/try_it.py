"""Make the files behind the page "Try it" from the shipped student: models, tokenizer, gallery and sample pictures.

    python book/_tools/try_it.py FOLDER

The book's build does it by itself (`_ext/demo.py`), so that the page always has the student that is shipped. Weights are
rounded, the text tower's to float16 and the image tower's, which is more sensitive, to 16 bits of mantissa; then every
large file is compressed, and the page inflates it.
"""

import gzip
import hashlib
import html
import html.entities
import importlib.metadata
import json
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import mcliplib
from mcliplib.data import Sample, load_samples, shard_paths
from mcliplib.evaluate import image_features
from mcliplib.export.onnx import to_proto
from mcliplib.export.towers import TOWERS, Tower
from mcliplib.model import MobileCLIP
from mcliplib.tokenizer import BYTE_TOKENS, CLIP_VOCAB_SIZE, Tokenizer, clip_merges

WEIGHTS = Path(mcliplib.__file__).parent / "weights/student.safetensors"
MOST_BYTES = 8_000_000  # of both towers, as they are sent
GALLERY = "emoji-fluent-seen"
CATEGORIES = ("animals-nature", "food-drink", "travel-places", "activities")
EXPORTERS = ("torch", "onnx", "onnxscript")
CLOCKS = ("o’clock", "-thirty")  # twenty-four of them look the same at this size
THUMBNAIL, COLUMNS = 64, 24
# Sample pictures: drawings of things and in a style that training never showed, and two photographs.
SAMPLES = {
    "emoji-fluent-unseen": (
        "sunflower",
        "tomato",
        "rabbit",
        "snake",
        "books",
        "owl",
        "skateboard",
    ),
    "gcompris-animals": ("giraffe", "kingfisher"),
}
_FLOAT, _FLOAT16 = 1, 10  # ONNX's numbers of types
_LARGE = 64  # numbers, from which weights are rounded
_DROPPED_BITS = 7  # of the image tower's 23 bits of mantissa


def make(folder: Path) -> None:
    """Write all files into a folder, unless those of the same inputs are there."""
    version = inputs_hash()
    about = folder / "model.json"
    if about.is_file() and json.loads(about.read_text())["version"] == version:
        return
    folder.mkdir(parents=True, exist_ok=True)
    model = mcliplib.create_model(pretrained="student")
    sizes = {
        name: write_tower(Tower(model, name), folder / f"{name}.onnx.gz")
        for name in TOWERS
    }
    if sum(sizes.values()) > MOST_BYTES:
        raise SystemExit(
            f"the towers take {sizes} bytes, and the page allows {MOST_BYTES}"
        )
    write_tokenizer(mcliplib.get_tokenizer(model), folder)
    gallery = write_gallery(model, folder)
    samples = write_samples(folder / "samples")
    about.write_text(
        json.dumps(
            describe(model)
            | {"version": version, "gallery": gallery, "samples": samples}
        )
    )


def inputs_hash() -> str:
    """A hash of the student, of the pictures, of this program and the package, and of the exporter's versions."""
    paths = [
        WEIGHTS,
        Path(__file__),
        *sorted(Path(mcliplib.__file__).parent.rglob("*.py")),
        *(path for name in (GALLERY, *SAMPLES) for path in shard_paths(name)),
    ]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in EXPORTERS]
    return hashlib.sha256(
        b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)
        + "\n".join(versions).encode()
    ).hexdigest()


def describe(model: MobileCLIP) -> dict[str, Any]:
    """The facts about the model that the page needs."""
    config = model.config
    return {
        "name": config.name,
        "student": hashlib.sha256(WEIGHTS.read_bytes()).hexdigest(),
        "scale": float(model.scale.detach()),
        "dim": config.embed_dim,
        "size": config.image.image_size,
        "interpolation": config.pixels.interpolation,
        "mean": config.pixels.mean,
        "std": config.pixels.std,
    }


def write_tower(tower: Tower, path: Path) -> int:
    """Write a tower as compressed ONNX with rounded weights, and return the bytes."""
    model = to_proto(tower)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != _FLOAT or np.prod(weight.dims) < _LARGE:
            continue
        values = np.frombuffer(weight.raw_data, np.float32)
        if tower.name == "text":
            casts.append(_store_as_float16(weight, values))
        else:
            weight.raw_data = _rounded(values).tobytes()
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    path.write_bytes(gzip.compress(model.SerializeToString(), 9, mtime=0))
    return path.stat().st_size


def _store_as_float16(weight: Any, values: np.ndarray) -> Any:
    """Replace a weight by one in float16; return the node that makes the old one of it."""
    from onnx import helper

    stored, name = f"{weight.name}.float16", weight.name
    weight.CopyFrom(
        helper.make_tensor(
            stored, _FLOAT16, weight.dims, values.astype(np.float16).tobytes(), raw=True
        )
    )
    return helper.make_node("Cast", [stored], [name], name=f"cast_{stored}", to=_FLOAT)


def _rounded(values: np.ndarray) -> np.ndarray:
    """float32 with the last bits of the mantissa zero, which then take hardly any space."""
    bits = values.view(np.uint32).astype(np.uint64) + (1 << (_DROPPED_BITS - 1))
    return (bits >> _DROPPED_BITS << _DROPPED_BITS).astype(np.uint32).view(np.float32)


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write `merges.bin.gz`, two little-endian uint16 for each merge, and `tokenizer.json`, the tables of the cleaning.

    Merge number i joins two tokens, whose CLIP ids it holds, to token 512 + i.
    """
    from ftfy.chardata import HTML_ENTITIES, LIGATURES, WIDTH_MAP

    ids = tokenizer.bpe.encoder
    merges = np.array([(ids[left], ids[right]) for left, right in clip_merges()], "<u2")
    assert BYTE_TOKENS + len(merges) + 2 == CLIP_VOCAB_SIZE
    (folder / "merges.bin.gz").write_bytes(gzip.compress(merges.tobytes(), 9, mtime=0))
    named = {
        name: char
        for name, char in HTML_ENTITIES.items()
        if html.entities.html5.get(name[1:]) != char
    }
    tables = {
        "context_length": tokenizer.context_length,
        "vocab": tokenizer.vocab,
        "entities": html.entities.html5,
        "capital_entities": {name[1:]: char for name, char in named.items()},
        "replaced_references": getattr(html, "_invalid_charrefs"),  # noqa: B009
        "dropped_references": sorted(getattr(html, "_invalid_codepoints")),  # noqa: B009
        "characters": {
            chr(code): text for code, text in {**LIGATURES, **WIDTH_MAP}.items()
        },
        "c1": bytes(range(0x80, 0xA0)).decode("sloppy-windows-1252"),
    }
    (folder / "tokenizer.json").write_text(
        json.dumps(tables, ensure_ascii=False), encoding="utf-8"
    )


def gallery_samples() -> list[Sample]:
    """The pictures that the page searches."""
    return [
        sample
        for sample in load_samples(GALLERY)
        if sample.meta["category"] in CATEGORIES and not sample.caption.endswith(CLOCKS)
    ]


def write_gallery(model: MobileCLIP, folder: Path) -> dict[str, Any]:
    """Write `gallery.webp`, all thumbnails in one picture, and `gallery.bin`, features as float16 [N, D]; describe them."""
    samples = gallery_samples()
    features = image_features(model, [sample.image for sample in samples])
    (folder / "gallery.bin").write_bytes(features.numpy().astype("<f2").tobytes())
    sheet = Image.new(
        "RGB", (COLUMNS * THUMBNAIL, -(-len(samples) // COLUMNS) * THUMBNAIL), "white"
    )
    for index, sample in enumerate(samples):
        small = sample.image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        sheet.paste(small, (index % COLUMNS * THUMBNAIL, index // COLUMNS * THUMBNAIL))
    sheet.save(folder / "gallery.webp", quality=80, method=6)
    shutil.copy(
        shard_paths(GALLERY)[0].with_name("LICENSE"), folder / "gallery-LICENSE.txt"
    )
    captions = [sample.caption for sample in samples]
    return {"captions": captions, "columns": COLUMNS, "rows": sheet.height // THUMBNAIL}


def write_samples(folder: Path) -> list[dict[str, str]]:
    """Copy the sample pictures as they are in the shards, and say what each one is and whose."""
    folder.mkdir(exist_ok=True)
    written = []
    for name, captions in SAMPLES.items():
        found = {sample.caption: sample for sample in load_samples(name)}
        keys = {f"{found[caption].key}.webp": found[caption] for caption in captions}
        for shard in shard_paths(name):
            with tarfile.open(shard) as archive:
                for member in archive:
                    if member.name in keys and (file := archive.extractfile(member)):
                        (folder / member.name).write_bytes(file.read())
        for file_name, sample in keys.items():
            credit = f"{sample.meta['author']}, {sample.meta['licence'].removeprefix('LicenseRef-')}"
            written.append(
                {"file": file_name, "name": sample.caption, "credit": credit}
            )
    assert all((folder / one["file"]).is_file() for one in written)
    return written


if __name__ == "__main__":
    torch.set_num_threads(1)
    make(Path(sys.argv[1]))
