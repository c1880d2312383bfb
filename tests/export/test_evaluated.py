"""An exported folder is evaluated like the model it came from."""

import json

import pytest
import torch
from PIL import Image

from mcliplib.checkpoints.formats import config_to_json
from mcliplib.cli import main
from mcliplib.errors import UserError
from mcliplib.evaluate import Encoder, ModelEncoder
from mcliplib.export import export, load_exported
from mcliplib.export.exporting import find_format

TEXTS = ["a red flag", "", "two boats in a harbour", "é ☂ 漢字"]


def pictures():
    """Of several shapes and modes; one lies on its side."""
    made = [Image.linear_gradient("L").resize(size).convert(mode) for size, mode in (
        ((300, 200), "RGB"), ((90, 260), "RGBA"), ((64, 64), "L"))]  # fmt: skip
    turned = made[0].copy()
    turned.getexif()[0x0112] = 6
    return [*made, turned]


@pytest.mark.parametrize("preprocessing", [False, True])
def test_it_encodes_as_the_model(exported, student, preprocessing):
    folder, _ = exported(preprocessing=True) if preprocessing else exported(precision="float32")
    encoder, wanted = load_exported(folder), ModelEncoder(student)
    assert isinstance(encoder, Encoder)
    for found, right in (
        (encoder.encode_images(pictures()), wanted.encode_images(pictures())),
        (encoder.encode_texts(TEXTS), wanted.encode_texts(TEXTS)),
    ):
        assert found.shape == right.shape
        assert torch.nn.functional.cosine_similarity(found, right).min() > 0.999


def test_evaluate_takes_a_folder(exported, capsys):
    folder, _ = exported(precision="float32")
    assert main(["evaluate", "--model", str(folder), "--suite", "gcompris-activities"]) == 0
    of_folder = capsys.readouterr().out
    assert main(["evaluate", "--model", "student", "--suite", "gcompris-activities"]) == 0
    assert capsys.readouterr().out == of_folder


def test_int8_with_preprocessing_is_judged_on_bytes(student, tmp_path):
    options = {"precision": "int8", "calibration": "openclipart", "tower": "image", "preprocessing": True}
    card = export(student, tmp_path / "out", **options)
    assert card["agreement"]["same_first"] > 0.75


def test_a_tower_that_is_not_there(exported):
    folder, _ = exported(preprocessing=True, tower="image")
    with pytest.raises(UserError, match="no text tower; export it with --tower both"):
        load_exported(folder).encode_texts(["a"])


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("{", "card.json"),
        ("[]", "is not the card of an export"),
        (json.dumps({"format": "onnx"}), "is not the card of an export"),
        (json.dumps({"format": "pickle", "config": "{}"}), "is not the card of an export"),
        (json.dumps({"format": "onnx", "config": "{}", "bytes_in": "no", "towers": {}}), "bytes_in: must be bool"),
        (json.dumps({"format": "onnx", "config": "{}", "bytes_in": False, "towers": []}), "towers: must be"),
        (
            json.dumps({"format": "onnx", "config": "{}", "bytes_in": False, "towers": {"text": {}}}),
            r"text\.onnx: is mis",
        ),
        (json.dumps({"format": "onnx", "config": "[", "bytes_in": False, "towers": {}}), r"card\.json"),
    ],
)
def test_a_broken_folder_is_one_line(tmp_path, card, message):
    (tmp_path / "card.json").write_text(card)
    with pytest.raises(UserError, match=message) as caught:
        load_exported(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("format", ["onnx", "openvino", "executorch", "litert"])
def test_a_damaged_artefact_is_named_with_its_cure(student, tmp_path, format):
    try:
        writer = find_format(format)
    except UserError as error:
        pytest.skip(str(error))
    card = {"format": format, "config": config_to_json(student.config), "bytes_in": False, "towers": {"image": {}}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / f"image{writer.SUFFIX}").write_bytes(b"<net>no model")
    with pytest.raises(UserError, match=rf"image\{writer.SUFFIX}: cannot be read .*; write the folder anew") as caught:
        load_exported(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_card_is_named(tmp_path):
    with pytest.raises(UserError, match=r"card\.json"):
        load_exported(tmp_path)
