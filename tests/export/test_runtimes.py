"""OpenVINO and ExecuTorch: the same features, in their own runtimes."""

import importlib.util

import numpy as np
import pytest
import torch

import mcliplib
from mcliplib.errors import UserError
from mcliplib.export import export
from mcliplib.export.exporting import find_format

CASES = [("openvino", "float32"), ("openvino", "float16"), ("executorch", "float32"), ("executorch", "float16")]


def needs(format):
    package = importlib.util.find_spec(format)
    return pytest.mark.skipif(package is None, reason=f"{format} is in requirements-runtimes.lock, not installed here")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "precision"), [pytest.param(*case, id="-".join(case), marks=needs(case[0])) for case in CASES]
)
def test_its_features_are_pytorchs(student, tmp_path, format, precision):
    tower = "both" if format == "openvino" else ("image" if precision == "float32" else "text")  # it takes a minute
    card = export(student, tmp_path / "out", format, tower, precision)
    writer = find_format(format)
    size = student.config.image.image_size
    pixels = torch.rand(7, 3, size, size, generator=torch.Generator().manual_seed(0))
    tokens = mcliplib.get_tokenizer(student)(["a red flag", "", "a cat", "é", "two boats", "8", "long " * 90])
    with torch.inference_mode():
        wanted = {"image": student.encode_image(pixels, True), "text": student.encode_text(tokens, True)}
    for name, given in {"image": pixels, "text": tokens}.items():
        if name not in card["towers"]:
            continue
        assert card["towers"][name]["verified"]["least_cosine"] > (0.9999 if precision == "float32" else 0.999)
        runtime = writer.load(tmp_path / "out" / card["towers"][name]["file"])
        for batch in (1, 2, 7):
            cosines = (runtime(given[:batch].numpy()) * wanted[name][:batch].numpy()).sum(axis=1)
            assert np.all(cosines > 0.999)


@pytest.mark.slow
@needs("openvino")
def test_openvino_in_bytes(student, tmp_path):
    card = export(student, tmp_path / "out", "openvino", precision="int8", calibration="openclipart")
    assert card["agreement"]["same_first"] > 0.75
    parameters = sum(p.numel() for p in mcliplib.reparameterize(student).parameters())
    assert sum(one["bytes"] for one in card["towers"].values()) < 0.65 * 4 * parameters


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        pytest.param("openvino", {"precision": "bfloat16"}, "not written in bfloat16", marks=needs("openvino")),
        pytest.param("executorch", {"precision": "int8"}, "not written in int8", marks=needs("executorch")),
        pytest.param("openvino", {"preprocessing": True}, "only format onnx can", marks=needs("openvino")),
    ],
)
def test_what_a_format_cannot_is_refused(student, tmp_path, format, options, message):
    with pytest.raises(UserError, match=message):
        export(student, tmp_path / "out", format, **options)
    assert list(tmp_path.iterdir()) == []
