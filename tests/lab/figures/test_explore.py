"""The explorers: each control redraws what it says, and the page has the same without a kernel."""

import base64
import io
import re

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

import mcliplib
from mcliplab.figures import (
    explore_augmentation,
    explore_classes,
    explore_fold,
    explore_search,
    explore_targets,
    trace_fold,
)
from mcliplib.layers import MobileOneBlock
from mcliplib.reinforce.augment import OPS, Augmentation, Box, Op, magnitude_of, replay
from tests.conftest import randomize_

matplotlib.use("agg")


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))


def shown(explorer) -> bytes:
    return base64.b64decode(re.search(r"base64,([^\"]+)", explorer.view.value)[1])


def alt(explorer) -> str:
    return re.search(r'alt="([^"]*)"', explorer.view.value)[1]


def frames(explorer) -> int:
    return int(re.search(r'max="(\d+)"', explorer.page.data)[1]) + 1


def explorers(picture):
    block = randomize_(MobileOneBlock(4, 4, (3, 3), groups=4)).eval()
    model = mcliplib.create_model("mobileclip_pico", image_size=64).eval()
    yield explore_augmentation(picture)
    yield explore_targets(torch.rand(4, 4), ["a", "b", "c", "d"])
    yield explore_fold(trace_fold(block, torch.rand(1, 4, 8, 8)))
    yield explore_search(model, [picture] * 3, ["a red flag", "a cat"])


def test_each_one_serves_the_notebook_and_the_page(picture):
    for explorer in explorers(picture):
        bundle = explorer._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in bundle
        assert '<input id="frames-' in bundle["text/html"]
        assert frames(explorer) >= 2
        assert shown(explorer).startswith(b"\x89PNG")
        assert alt(explorer)


def test_the_augmentation_is_replayed(picture):
    explorer = explore_augmentation(picture, size=48)
    rotate, solarize = (next(i for i, op in enumerate(OPS) if op.name == name) for name in ("Rotate", "Solarize"))
    controls = explorer.controls
    controls["across"].value, controls["down"].value = (0.25, 0.75), (0.5, 1.0)
    controls["first"].value, controls["first_level"].value = "Rotate", 20
    controls["second"].value, controls["second_level"].value = "Solarize", 12
    ops = tuple(Op(number, magnitude_of(number, level, 31, 224)) for number, level in ((rotate, 20), (solarize, 12)))
    expected = replay(picture, Augmentation(Box(30, 20, 30, 40), ops), 48)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(shown(explorer)))), np.asarray(expected))
    assert "[30, 20, 30, 40]" in alt(explorer)
    assert "Solarize at 12" in alt(explorer)


def test_the_page_opens_with_what_the_controls_show(picture):
    """A picture that no operation has changed would look as if the slider did nothing."""
    explorer = explore_augmentation(picture)
    assert explorer.controls["second"].value != "Identity"
    assert f'alt="{alt(explorer)}"' in explorer.page.data


@pytest.mark.parametrize("across", [(0.0, 0.0), (1.0, 1.0), (0.99, 0.99)])
def test_the_smallest_crop_is_a_pixel(picture, across):
    explorer = explore_augmentation(picture)
    explorer.controls["across"].value = explorer.controls["down"].value = across
    assert shown(explorer)


def test_temperature_and_weight_move_the_target():
    teacher = torch.eye(3) * 0.2 + 0.5
    explorer = explore_targets(teacher, ["a", "b", "c"])
    explorer.controls["tau"].value, explorer.controls["lambda_"].value = 0.2, 1.0
    kept = float((teacher / 0.2).softmax(1)[0, 0])
    assert f"{kept:.0%}" in alt(explorer)
    explorer.controls["lambda_"].value = 0.5
    assert f"{kept / 2 + 0.5:.0%}" in alt(explorer)
    explorer.controls["lambda_"].value = 0.0
    assert "100%" in alt(explorer)


def test_the_fold_goes_step_by_step():
    block = randomize_(MobileOneBlock(4, 4, (3, 3), groups=4)).eval()
    explorer = explore_fold(trace_fold(block, torch.rand(1, 4, 8, 8)))
    before = shown(explorer)
    explorer.controls["channel"].value = 3
    other = shown(explorer)
    assert other != before
    explorer.controls["step"].value = explorer.controls["step"].max
    assert "everything added" in alt(explorer)
    assert frames(explorer) == explorer.controls["step"].max + 1


def test_the_text_box_ranks_the_gallery(picture):
    model = mcliplib.create_model("mobileclip_pico", image_size=64).eval()
    gallery = [Image.new("RGB", (64, 64), colour) for colour in ("red", "green", "blue", "white", "black")]
    names = ["red", "green", "blue", "white", "black"]
    explorer = explore_search(model, gallery, ["a cat"], names=names, columns=2)
    explorer.controls["text"].value = "a <red> flag costs $5"
    preprocess, tokenizer = mcliplib.get_preprocess(model), mcliplib.get_tokenizer(model)
    with torch.inference_mode():
        features = model.encode_image(torch.stack([preprocess(one) for one in gallery]), normalize=True)
        text = model.encode_text(tokenizer(["a <red> flag costs $5"]), normalize=True)[0]
    expected = ", ".join(names[i] for i in (features @ text).topk(4).indices.tolist())
    assert alt(explorer).endswith(f"best first: {expected}.")


def test_class_names_over_a_picture():
    model = mcliplib.create_model("mobileclip_pico", image_size=64).eval()
    pictures = {name: Image.new("RGB", (64, 64), name) for name in ("red", "green")}
    explorer = explore_classes(model, pictures, ["a cat", "a dog"])
    assert frames(explorer) == len(pictures)
    explorer.controls["picture"].value = "green"
    explorer.controls["text"].value = "a cat, , costs $5,a cat, a bird "
    with torch.inference_mode():
        feature = model.encode_image(mcliplib.get_preprocess(model)(pictures["green"])[None], normalize=True)
        texts = model.encode_text(mcliplib.get_tokenizer(model)(["a cat", "costs $5", "a bird"]), normalize=True)
    wanted = (model.scale.item() * feature @ texts.T).softmax(dim=1)[0]
    said = ", ".join(f"{name} {share:.0%}" for name, share in zip(("a cat", "costs $5", "a bird"), wanted, strict=True))
    assert alt(explorer).endswith(f"each class: {said}.")
    explorer.controls["text"].value = " , "
    assert "? 100%" in alt(explorer)
