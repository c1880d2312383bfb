"""int8 in ONNX Runtime: it runs as integers, is a quarter of the size, and ranks as the float model does."""

import onnx
import onnxruntime
import pytest
from PIL import Image
from torch import nn

import mcliplib
from mcliplib.cli import main
from mcliplib.errors import UserError
from mcliplib.export import export
from mcliplib.export.verify import calibration_inputs
from mcliplib.quantize.static import INTEGER


@pytest.fixture(scope="module")
def student():
    return mcliplib.create_model(pretrained="student")


@pytest.fixture(scope="module")
def whole(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8") / "out"
    return folder, export(student, folder, precision="int8", calibration="openclipart")


@pytest.fixture(scope="module")
def per_tensor(student, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8") / "out"
    options = {"precision": "int8", "calibration": "openclipart", "tower": "image", "per_channel": False, "force": True}
    return export(student, folder, **options)


def test_it_ranks_as_the_float_model(whole):
    _, card = whole
    found = card["agreement"]
    assert card["calibration"] == {"source": "openclipart", "n": 295}
    assert found["source"] != "openclipart"
    assert found["n"] == 300
    assert found["same_first"] > 0.75
    for before, after in zip(found["float_r1"], found["int8_r1"], strict=True):
        assert after > before - 0.02


def test_it_runs_as_integers(whole):
    _, card = whole
    executed = card["towers"]["image"]["executed"]
    integers = sum(executed.get(name, 0) for name in INTEGER)
    kept = len(card["towers"]["image"]["kept_float"])
    products_of_attention = 2 * executed["Softmax"]
    assert executed.get("Conv", 0) + executed.get("Gemm", 0) + executed["MatMul"] <= kept + products_of_attention
    layers = [part for part in _tower("image").modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert integers > 0.7 * sum(getattr(part, "groups", 1) == 1 for part in layers)
    text = card["towers"]["text"]["operators"]
    assert text["MatMulInteger"] >= 6
    assert text["MatMul"] == 2 * text["Softmax"]  # products of attention


def test_sensitive_layers_in_float_lower_the_error(whole):
    before, after = whole[1]["towers"]["image"]["errors"]
    assert after < 0.5 * before


def test_depthwise_layers_stay_in_float(whole):
    """Their integer kernels are the slow ones, and they lose most: rounded to bfloat16, and nothing else."""
    model = onnx.load(whole[0] / "image.onnx")
    shapes = {weight.name: weight.dims for weight in model.graph.initializer}
    source = {name: node for node in model.graph.node for name in node.output}
    kinds = set()
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] not in shapes:
            made = source[node.input[1]]
            kinds.add((made.op_type, shapes[made.input[0]][1] == 1))
    assert kinds == {("Cast", True), ("DequantizeLinear", False)}
    depthwise = [part for part in _tower("image").modules() if getattr(part, "groups", 1) > 1]
    assert len(whole[1]["towers"]["image"]["kept_float"]) >= len(depthwise)


def test_it_is_a_quarter_of_the_size(whole):
    """A byte for each weight is a quarter; the rest are depthwise weights' second byte, steps, biases and the graph."""
    for name, most in (("image", 0.31), ("text", 0.32)):
        about = whole[1]["towers"][name]
        assert about["bytes"] < most * sum(p.numel() for p in _tower(name).parameters()) * 4


def _tower(name):
    plain = mcliplib.reparameterize(mcliplib.create_model(pretrained="student"))
    return plain.image_encoder if name == "image" else plain.text_encoder


def test_the_readme_tells(whole):
    text = (whole[0] / "README.md").read_text()
    assert "the first text is the float model's for" in text
    assert "run as int8" in text


def test_one_step_per_tensor_is_worse(whole, per_tensor):
    assert per_tensor["agreement"]["same_first"] < whole[1]["agreement"]["same_first"] - 0.05
    assert per_tensor["towers"]["image"]["errors"][1] > 2 * whole[1]["towers"]["image"]["errors"][1]


def test_a_disagreement_is_refused(student, tmp_path, monkeypatch):
    monkeypatch.setattr("mcliplib.export.exporting.LEAST_AGREEMENT", 0.99)
    with pytest.raises(UserError, match=r"finds another text first .* or add --force"):
        export(student, tmp_path / "out", precision="int8", calibration="openclipart", tower="image", per_channel=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_pictures_calibrates(tmp_path):
    for number in range(5):
        Image.new("RGB", (40, 30), (50 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "deeper").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "deeper" / "one.jpg")
    found = calibration_inputs(tmp_path)
    assert len(found.images) == 6
    assert len(calibration_inputs(tmp_path, count=2).images) <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "int8 needs pictures to calibrate on: --calibrate FOLDER"),
        (["--calibrate", "EMPTY"], "holds no picture that can be read"),
        (
            ["--calibrate", "no-such-set"],
            "no-such-set: is no folder of pictures, and no shipped set; there is art4apps",
        ),
    ],
)
def test_no_calibration_is_one_line(tmp_path, capsys, options, message):
    (tmp_path / "empty").mkdir()
    options = [str(tmp_path / "empty") if one == "EMPTY" else one for one in options]
    argv = ["export", "--model", "student", "--precision", "int8", "--output", str(tmp_path / "out"), *options]
    assert main(argv) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_artefact_loads_as_it_is(whole):
    session = onnxruntime.InferenceSession(str(whole[0] / "image.onnx"), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == ["pixels"]
