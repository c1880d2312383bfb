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
from mcliplib.images import on_white
from mcliplib.viz import WIDTH, show_picture, use_style

BOOK = Path(__file__).parents[1]
STUDENT = BOOK.parent / "data/student/model.safetensors"
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
    for phrase, row, line in zip(PHRASES, best.indices.tolist(), axes, strict=True):
        answers[phrase] = [
            {
                "picture": gallery[i].caption,
                "cosine": round(float(cosines[PHRASES.index(phrase), i]), 3),
            }
            for i in row
        ]
        for axis, index in zip(line, row, strict=True):
            show_picture(axis, on_white(gallery[index].image).resize((128, 128)))
        line[0].set_title(f"“{phrase}”", loc="left", fontsize=12)
    figure.savefig(BOOK / "_static/search.svg", metadata={"Date": None})
    values = {"gallery": len(gallery), "answers": answers}
    results.record(
        "first-search", values, unit="cosine", n=len(gallery), seeds=[], command="python book/_tools/first_picture.py",
        seconds=time.perf_counter() - began,
    )  # fmt: skip


def cosines_of(pictures: list) -> torch.Tensor:
    """Cosines of the phrases (rows) and the pictures (columns) by the shipped student."""
    model = mcliplib.create_model("mobileclip_pico", pretrained=STUDENT).eval()
    preprocess, tokenizer = (
        mcliplib.get_preprocess(model),
        mcliplib.get_tokenizer(model),
    )
    with torch.inference_mode():
        batches = torch.stack([preprocess(picture) for picture in pictures]).split(128)
        images = torch.cat(
            [model.encode_image(batch, normalize=True) for batch in batches]
        )
        return model.encode_text(tokenizer(list(PHRASES)), normalize=True) @ images.T


if __name__ == "__main__":
    main()
