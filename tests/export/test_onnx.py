"""ONNX: the same features as PyTorch's, by ONNX Runtime, whatever the batch, the precision and the model."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch.nn import Conv2d

import mcliplib
from mcliplib.export import export
from mcliplib.export.onnx import OPSET, load, preprocessing_graph
from mcliplib.image_encoder import MCi
from mcliplib.model import MobileCLIP
from mcliplib.text_encoder import TextEncoder


def cosines(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module")
def inputs(student):
    size = student.config.image.image_size
    pixels = torch.rand(7, 3, size, size, generator=torch.Generator().manual_seed(0))
    return pixels, mcliplib.get_tokenizer(student)(
        ["a red flag", "", "a cat", "é", "two boats", "8", "a very long text " * 9]
    )


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize(("precision", "least"), [("float32", 0.99999), ("float16", 0.9999), ("bfloat16", 0.999)])
def test_its_features_are_pytorchs(exported, student, inputs, precision, least, batch):
    folder, _ = exported(precision=precision)
    with torch.inference_mode():
        wanted = [student.encode_image(inputs[0][:batch], True), student.encode_text(inputs[1][:batch], True)]
    for name, given, features in zip(("image", "text"), inputs, wanted, strict=True):
        made = load(folder / f"{name}.onnx")(given[:batch].numpy())
        assert made.dtype == np.float32
        assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-3)
        assert cosines(made, features.numpy()).min() >= least


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_halves_the_size(exported, precision):
    for tower in ("image", "text"):
        whole, half = (exported(precision=one)[1]["towers"][tower]["bytes"] for one in ("float32", precision))
        assert 0.45 < half / whole < 0.55


def test_a_graph_says_nothing_of_the_machine_it_was_made_on(exported):
    for name in ("image", "text"):
        content = (exported(precision="float32")[0] / f"{name}.onnx").read_bytes()
        assert b".py" not in content
        assert b"pkg.torch" not in content
        assert onnx.load_from_string(content).opset_import[0].version == OPSET


def test_the_batch_has_a_name(exported):
    """By which a runtime can be told the one size that it will get."""
    for name in ("image", "text"):
        graph = onnx.load(exported(precision="float32")[0] / f"{name}.onnx").graph
        for value in (*graph.input, *graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_the_graph_is_the_plain_form(exported, student):
    _, card = exported(precision="float32")
    assert "BatchNormalization" not in card["towers"]["image"]["operators"]
    convolutions = [
        part for part in mcliplib.reparameterize(student).image_encoder.modules() if isinstance(part, Conv2d)
    ]
    assert card["towers"]["image"]["operators"]["Conv"] == len(convolutions)


@pytest.mark.parametrize("name", ["mobileclip_s0", "mobileclip2_s3", "mobileclip2_l14", "mobileclip_pico"])
@pytest.mark.parametrize("size", [(300, 420), (640, 480), (64, 64), (257, 999), (31, 40)])
def test_the_preprocessing_graph_is_the_preprocessing(name, size, colourful):
    preprocess = mcliplib.get_preprocess(name)
    session = onnxruntime.InferenceSession(preprocessing_graph(preprocess, 10).SerializeToString())
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    smooth = np.asarray(colourful.resize(size[::-1], Image.Resampling.BICUBIC))
    made = session.run(None, {"pictures": np.stack([noise, smooth])})[0]
    for found, picture in zip(made, (noise, smooth), strict=True):
        wanted = preprocess(Image.fromarray(picture)).numpy()
        levels = 255 * np.abs(found - wanted) * np.array(preprocess.config.std)[:, None, None]
        assert levels.mean() < 0.05
        assert levels.max() < (2.01 if preprocess.config.interpolation == "bicubic" else 1.01)


def test_a_graph_with_preprocessing_takes_bytes(exported, student, colourful):
    folder, card = exported(preprocessing=True, tower="image")
    assert card["towers"]["image"]["input"] == {
        "name": "pictures", "dtype": "uint8", "shape": ["batch", "height", "width", 3]
    }  # fmt: skip
    made = load(folder / "image.onnx")(np.stack([np.asarray(colourful)] * 2))
    with torch.inference_mode():
        wanted = student.encode_image(mcliplib.get_preprocess(student)(colourful)[None], True).numpy()
    assert cosines(made, wanted).min() > 0.9999


def test_a_released_architecture(tmp_path, randomize):
    """S0's two towers with fewer blocks and non-trivial statistics: all kinds of blocks, squeeze-excite, LayerNorm."""
    torch.manual_seed(0)
    config = mcliplib.create_model("mobileclip_s0").config
    config = replace(
        config,
        image=replace(config.image, depths=(1, 1, 1, 1), image_size=64),
        text=replace(config.text, layers=1),
    )
    model = MobileCLIP(config, MCi(config.image, 512), TextEncoder(config.text, 512))
    randomize(model.eval())
    card = export(model, tmp_path / "out")
    assert all(one["verified"]["least_cosine"] > 0.9999 for one in card["towers"].values())


@pytest.mark.parametrize("name", ["mobileclip_b", "mobileclip2_s3"])
def test_other_towers_trace_too(tmp_path, name, randomize):
    """A ViT with a causal text tower; LayerNorms and five stages. With few blocks, or it takes long."""
    torch.manual_seed(0)
    config = mcliplib.presets.get_config(name)
    few = {"layers": 1} if name == "mobileclip_b" else {"depths": (1, 1, 1, 1, 1)}
    size = 224 if name == "mobileclip_b" else 64
    config = replace(config, image=replace(config.image, **few, image_size=size), text=replace(config.text, layers=1))
    model = randomize(mcliplib.model.build(config).eval())
    card = export(model, tmp_path / "out")
    assert all(one["verified"]["least_cosine"] > 0.9999 for one in card["towers"].values())
