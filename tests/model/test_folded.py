"""A folded model is plain, exact, and works under everything that people run models under."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import mcliplib
from mcliplib.layers import LayerScale, MobileOneBlock, RepMixer
from mcliplib.layers.cpu import is_for_cpu
from mcliplib.model import build
from mcliplib.presets import PRESETS
from tests.conftest import randomize_

TRAINING_ONLY = (nn.BatchNorm2d, nn.Identity, nn.Dropout, LayerScale, MobileOneBlock, RepMixer)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return randomize_(mcliplib.create_model("mobileclip_nano"))


@pytest.fixture(scope="module", params=["plain", "for CPUs"])
def fast(model, request):
    folded = mcliplib.reparameterize(model)
    return folded if request.param == "plain" else mcliplib.optimize_for_cpu(folded)


@pytest.fixture(scope="module")
def inputs(model):
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return pixels, mcliplib.get_tokenizer(model)(["a cat", "two dogs on a red chair"])


@pytest.fixture(scope="module")
def expected(model, inputs):
    with torch.inference_mode():
        return model(*inputs)


def close(found, expected, tolerance):
    for a, b in zip(found[:2], expected[:2], strict=True):
        assert torch.linalg.vector_norm(a.float() - b) < tolerance * torch.linalg.vector_norm(b)


@pytest.mark.parametrize("name", PRESETS)
def test_nothing_of_the_training_form_is_left(name):
    with torch.device("meta"):
        plain = mcliplib.reparameterize(build(PRESETS[name]).eval())
    assert not [part for part in plain.modules() if isinstance(part, TRAINING_ONLY)]
    affine = [part for part in plain.modules() if isinstance(part, nn.LayerNorm) and part.elementwise_affine]
    assert [part for part in affine if part is not getattr(plain.image_encoder, "norm_pre", None)] == []
    words = ("scale_branch", "skip", "gamma", "bn", "running", "drop")
    names = [name for name, _ in plain.named_modules()] + list(plain.state_dict())
    assert [name for name in names if any(word in name.split(".")[-1] for word in words)] == []


def test_the_plain_form_is_for_any_device(model):
    """Convolutions stay convolutions, in PyTorch's own layout: exports and GPUs want nothing else."""
    folded = mcliplib.reparameterize(model)
    assert not is_for_cpu(folded)
    assert all(weight.is_contiguous() for weight in folded.state_dict().values())
    before = {name: value.clone() for name, value in folded.state_dict().items()}
    assert is_for_cpu(mcliplib.optimize_for_cpu(folded))
    assert all(torch.equal(before[name], value) for name, value in folded.state_dict().items())


def test_exact_in_double(model, inputs):
    pixels, tokens = inputs
    double = randomize_(mcliplib.create_model("mobileclip_nano"), seed=3).double()
    with torch.no_grad():
        close_to = double(pixels.double(), tokens)
        for a, b in zip(mcliplib.reparameterize(double)(pixels.double(), tokens)[:2], close_to[:2], strict=True):
            assert torch.linalg.vector_norm(a - b) < 1e-10 * torch.linalg.vector_norm(b)


def test_single_precision(fast, inputs, expected):
    with torch.inference_mode():
        close(fast(*inputs), expected, 1e-4)


def test_channels_last_input(fast, inputs, expected):
    pixels, tokens = inputs
    with torch.inference_mode():
        close(fast(pixels.to(memory_format=torch.channels_last), tokens), expected, 1e-4)


def test_autocast(fast, inputs, expected):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        close(fast(*inputs), expected, 0.05)


def test_bfloat16_weights(model, inputs, expected):
    half = mcliplib.reparameterize(model).bfloat16()
    with torch.inference_mode():
        close(half(inputs[0].bfloat16(), inputs[1]), expected, 0.05)


def test_export(fast, inputs, expected):
    program = torch.export.export(fast, inputs)
    close(program.module()(*inputs), expected, 1e-4)
    assert not [node for node in program.graph.nodes if "batch_norm" in str(node.target)]


COMPILED = """
import sys, torch, mcliplib
fast = mcliplib.load_model(sys.argv[1])
pixels, tokens = torch.load(sys.argv[2], weights_only=True)
with torch.inference_mode():
    torch.save(torch.compile(fast, fullgraph=True)(pixels, tokens)[:2], sys.argv[3])
"""


@pytest.mark.slow
def test_compile(fast, inputs, expected, tmp_path):
    """In a process without the check of annotations, through which torch.compile cannot trace."""
    mcliplib.save_checkpoint(fast, tmp_path / "fast.safetensors")
    torch.save(inputs, tmp_path / "inputs.pt")
    argv = [sys.executable, "-c", COMPILED, *(tmp_path / name for name in ("fast.safetensors", "inputs.pt", "out.pt"))]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    close(torch.load(tmp_path / "out.pt", weights_only=True), expected, 1e-4)
