"""Measure the cost of wrong pixels and of the other stem, and write data/results/pixels.json.

python -m tests.model.record_pixels
"""

import time
from dataclasses import replace
from statistics import fmean

import torch

import mcliplib
from mcliplib import results
from mcliplib.data import load_samples
from mcliplib.evaluate import image_features, retrieval, text_features
from mcliplib.model import MobileCLIP, build
from mcliplib.presets import OPENAI, PRESETS
from mcliplib.vit import ViTConfig
from tests.conftest import randomize_

SEEDS = range(5)


def other_function(**settings: float) -> list[float]:
    """How far MobileCLIP-B's image features move with other settings of the stem, as a share of their length."""
    config = PRESETS["mobileclip_b"]
    assert isinstance(config.image, ViTConfig)
    found = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        released = randomize_(build(config).eval(), seed)
        other = build(replace(config, image=replace(config.image, **settings))).eval()
        other.load_state_dict(released.state_dict())
        pixels = torch.rand(4, 3, 224, 224)
        with torch.inference_mode():
            a, b = (model.image_encoder(pixels) for model in (released, other))
        found.append(float((a - b).norm() / a.norm()))
    return found


def student_r1(model: MobileCLIP) -> float:
    """A model's image-to-text R@1 on emoji in a style that the shipped student never saw."""
    samples = load_samples("emoji-fluent-seen")
    images = image_features(model, [sample.image for sample in samples])
    texts = text_features(model, [sample.caption for sample in samples])
    return float(retrieval(images, texts).image_to_text[1])


def main() -> None:
    began = time.perf_counter()
    both, eps = other_function(stem_padding=0, norm_eps=1e-6), other_function(norm_eps=1e-6)
    student = mcliplib.create_model(pretrained="student")
    right = student_r1(student)
    student.config = replace(student.config, pixels=OPENAI)
    values = {
        "stem": fmean(both),
        "stem_lowest": min(both),
        "stem_highest": max(both),
        "stem_eps_alone": fmean(eps),
        "student_r1": right,
        "student_r1_openai": student_r1(student),
    }
    distance = "length of the difference over the features' length, random weights"
    share = "share of 1,316 emoji whose name is found first"
    unit = {name: share if name.startswith("student") else distance for name in values}
    command, seconds = "python -m tests.model.record_pixels", time.perf_counter() - began
    print(results.record("pixels", values, unit=unit, n=4, seeds=list(SEEDS), command=command, seconds=seconds))
    print(values)


if __name__ == "__main__":
    main()
