"""OpenVINO and ExecuTorch: the same features, in their own runtimes. Core ML: converted."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch

import mcliplib
from mcliplib.errors import UserError
from mcliplib.export import export, load_exported
from mcliplib.export.exporting import find_format
from mcliplib.export.towers import MOST_BATCH
from mcliplib.latency.worker import open_openvino

CASES = [
    ("openvino", "float32"),
    ("openvino", "float16"),
    ("executorch", "float32"),
    ("executorch", "float16"),
    ("litert", "float32"),
    ("litert", "float16"),
]
PACKAGES = {"litert": "litert_torch", "coreml": "coremltools"}


def needs(format):
    package = importlib.util.find_spec(PACKAGES.get(format, format))
    return pytest.mark.skipif(package is None, reason=f"{format} is in requirements-runtimes.lock, not installed here")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "precision"), [pytest.param(*case, id="-".join(case), marks=needs(case[0])) for case in CASES]
)
def test_its_features_are_pytorchs(student, tmp_path, format, precision):
    tower = ("image" if precision == "float32" else "text") if format == "executorch" else "both"  # it takes a minute
    card = export(student, tmp_path / "out", format, tower, precision)
    writer = find_format(format)
    size = student.config.image.image_size
    pixels = torch.rand(MOST_BATCH, 3, size, size, generator=torch.Generator().manual_seed(0))
    texts = ["a red flag", "", "a cat", "é", "two boats", "8", "long " * 90, "a blue flag"]
    tokens = mcliplib.get_tokenizer(student)(texts * (MOST_BATCH // len(texts)))
    with torch.inference_mode():
        wanted = {"image": student.encode_image(pixels, True), "text": student.encode_text(tokens, True)}
    for name, given in {"image": pixels, "text": tokens}.items():
        if name not in card["towers"]:
            continue
        assert card["towers"][name]["verified"]["least_cosine"] > (0.9999 if precision == "float32" else 0.999)
        runtime = writer.load(tmp_path / "out" / card["towers"][name]["file"])
        for batch in (1, 2, 7, 16, MOST_BATCH):
            cosines = (runtime(given[:batch].numpy()) * wanted[name][:batch].numpy()).sum(axis=1)
            assert np.all(cosines > 0.999)


@pytest.mark.slow
@needs("openvino")
def test_the_card_says_how_openvino_is_faster(student, tmp_path):
    card = export(student, tmp_path / "out", "openvino", "image")
    size = student.config.image.image_size
    assert f"model.reshape([1, 3, {size}, {size}])" in card["towers"]["image"]["note"]
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).numpy()
    planned = open_openvino(tmp_path / "out" / "image.xml", shape=[1, 3, size, size])
    assert np.allclose(planned(pixels), find_format("openvino").load(tmp_path / "out" / "image.xml")(pixels), atol=1e-5)


@pytest.mark.slow
@needs("openvino")
def test_models_of_openvino_may_go_in_any_order(student, tmp_path):
    """With a signal handler there, the first signal after that ended the process."""
    export(student, tmp_path / "out", "openvino")
    program = f"""
import signal, subprocess
from pathlib import Path
from mcliplib.export.openvino import load
signal.signal(signal.SIGCHLD, lambda *_: None)
folder = Path({str(tmp_path / "out")!r})
first, second = load(folder / "image.xml"), load(folder / "text.xml")
del first
del second
subprocess.run(["true"], check=True)
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "alive")


@pytest.mark.slow
@needs("openvino")
def test_openvino_in_bytes(student, tmp_path):
    card = export(student, tmp_path / "out", "openvino", precision="int8", calibration="openclipart")
    assert card["agreement"]["same_first"] > 0.75
    parameters = sum(p.numel() for p in mcliplib.reparameterize(student).parameters())
    assert sum(one["bytes"] for one in card["towers"].values()) < 0.65 * 4 * parameters


@pytest.mark.slow
@needs("executorch")
def test_executorch_in_bytes(student, tmp_path):
    card = export(student, tmp_path / "out", "executorch", precision="int8", calibration="openclipart")
    assert card["agreement"]["same_first"] > 0.75
    sizes = {name: one["bytes"] for name, one in card["towers"].items()}
    folded = mcliplib.reparameterize(student)
    floats = {name: 4 * sum(p.numel() for p in getattr(folded, f"{name}_encoder").parameters()) for name in sizes}
    assert sizes["image"] < 0.4 * floats["image"]
    assert sizes["text"] < 0.95 * floats["text"]  # the embedding stays in float


@pytest.mark.slow
@needs("litert")
def test_litert_in_bytes(student, tmp_path):
    card = export(student, tmp_path / "out", "litert", precision="int8")
    assert card["agreement"]["same_first"] > 0.75
    parameters = sum(p.numel() for p in mcliplib.reparameterize(student).parameters())
    assert sum(one["bytes"] for one in card["towers"].values()) < 0.35 * 4 * parameters


@pytest.mark.slow
@needs("coreml")
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_core_ml_is_converted_and_says_that_nobody_ran_it(student, tmp_path, precision):
    import coremltools

    folder = tmp_path / "out"
    card = export(student, folder, "coreml", precision=precision)
    size, length = student.config.image.image_size, student.config.text.context_length
    for name, (given, shape) in {"image": ("pixels", [1, 3, size, size]), "text": ("tokens", [1, length])}.items():
        package = folder / f"{name}.mlpackage"
        spec = coremltools.models.MLModel(str(package), skip_model_load=True).get_spec()
        (one,), (features,) = spec.description.input, spec.description.output
        assert (one.name, list(one.type.multiArrayType.shape)) == (given, shape)
        assert (features.name, list(features.type.multiArrayType.shape)) == ("features", [1, student.config.embed_dim])
        verified = card["towers"][name]["verified"]
        if sys.platform != "darwin":
            assert verified["cannot_run"] == "Core ML runs on macOS only"
            assert "converted only: Core ML runs on macOS only" in (folder / "README.md").read_text()
        else:
            assert verified["least_cosine"] > 0.999
        parameters = sum(
            part.numel() for part in getattr(mcliplib.reparameterize(student), f"{name}_encoder").parameters()
        )
        size = 4 if precision == "float32" else 2
        assert size * parameters < card["towers"][name]["bytes"] < 1.3 * size * parameters + 100_000
    if sys.platform != "darwin":
        with pytest.raises(UserError, match="Core ML runs on macOS only"):
            load_exported(folder)


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        pytest.param("openvino", {"precision": "bfloat16"}, "not written in bfloat16", marks=needs("openvino")),
        pytest.param("executorch", {"precision": "bfloat16"}, "not written in bfloat16", marks=needs("executorch")),
        pytest.param("executorch", {"precision": "int8"}, "needs pictures to calibrate", marks=needs("executorch")),
        pytest.param("coreml", {"precision": "int8"}, "on macOS only", marks=needs("coreml")),
        pytest.param("openvino", {"preprocessing": True}, "only the image tower in onnx", marks=needs("openvino")),
    ],
)
def test_what_a_format_cannot_is_refused(student, tmp_path, format, options, message):
    with pytest.raises(UserError, match=message):
        export(student, tmp_path / "out", format, **options)
    assert list(tmp_path.iterdir()) == []
