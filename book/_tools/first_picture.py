"""Draw the picture on the first page: a gallery searched with three phrases by the shipped student; record the answers.

python book/_tools/first_picture.py
"""

import time
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch

import mcliplib
from mcliplib import results
from mcliplib.data import load_samples
from mcliplib.evaluate import image_features, text_features
from mcliplib.images import on_white
from mcliplib.viz import WIDTH, show_picture, use_style

BOOK = Path(__file__).parents[1]
GALLERY = ("emoji-fluent-seen", "emoji-fluent-unseen")
PHRASES = ("a bird", "a red car", "a house")
SHOWN = 6


def main() -> None:
    began = time.perf_counter()
    torch.set_num_threads(1)
    matplotlib.use("svg")
    use_style()
    gallery = [sample for name in GALLERY for sample in load_samples(name)]
    cosines = cosines_of([on_white(sample.image) for sample in gallery])
    best = cosines.topk(SHOWN, dim=1)
    figure, axes = plt.subplots(
        len(PHRASES), SHOWN, figsize=(WIDTH, 3.3), gridspec_kw={"hspace": 0.1}
    )
    answers = {}
    for phrase, row, values, line in zip(
        PHRASES, best.indices.tolist(), best.values.tolist(), axes, strict=True
    ):
        found = [gallery[index] for index in row]
        answers[phrase] = [
            {"picture": sample.caption, "cosine": round(value, 3)}
            for sample, value in zip(found, values, strict=True)
        ]
        for axis, sample in zip(line, found, strict=True):
            show_picture(axis, on_white(sample.image).resize((128, 128)))
        line[0].set_title(f"“{phrase}”", loc="left", fontsize=12)
    figure.savefig(BOOK / "_static/search.svg", metadata={"Date": None})
    results.record(
        "first-search", {"gallery": len(gallery), "answers": answers}, unit="cosine", n=len(gallery), seeds=[], command="python book/_tools/first_picture.py",
        seconds=time.perf_counter() - began,
    )  # fmt: skip


def cosines_of(pictures: list) -> torch.Tensor:
    """Cosines of the phrases (rows) and the pictures (columns) by the shipped student."""
    model = mcliplib.create_model(pretrained="student")
    return text_features(model, PHRASES) @ image_features(model, pictures).T


if __name__ == "__main__":
    main()
