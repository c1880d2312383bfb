"""The largest preset as it is, not shallow: the one that could be neither saved nor loaded. Alone, for its memory."""

import pytest
import torch

import mcliplib
from tests.model.test_every_preset import outputs


@pytest.mark.slow
def test_the_largest_whole(tmp_path):
    """As it is, not shallow: the one that could be neither saved nor loaded."""
    torch.manual_seed(0)
    model = mcliplib.create_model("mobileclip2_l14")
    mcliplib.save_checkpoint(model, tmp_path / "l14.safetensors")
    expected, totals = outputs(model), {name: tensor.double().sum() for name, tensor in model.state_dict().items()}
    del model
    loaded = mcliplib.create_model("mobileclip2_l14", pretrained=tmp_path / "l14.safetensors")
    assert {name: tensor.double().sum() for name, tensor in loaded.state_dict().items()} == totals
    assert all(torch.equal(a, b) for a, b in zip(outputs(loaded), expected, strict=True))
