"""Fine-tuning begins as the zero-shot classifier, resumes to the byte, and its curve has the right ends."""

import copy
import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import mcliplib
from mcliplib.cli import main
from mcliplib.data.labelled import Labelled, load_labelled
from mcliplib.errors import UserError
from mcliplib.evaluate import class_features, image_features, linear_probe, zero_shot
from mcliplib.train import finetune as module
from mcliplib.train.finetune import FinetuneSettings, finetune, load_classifier, mixed, predict, wise_ft

QUICK = FinetuneSettings(epochs=3, batch_size=8, learning_rate=1e-3, save_every=2, mirror=0.0)
COLOURS = {"green square": (30, 160, 60), "red circle": (200, 40, 40), "yellow circle": (230, 210, 30)}


def drawn(name: str, number: int) -> Image.Image:
    image = Image.new("RGB", (60, 60), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    shape = draw.rectangle if "square" in name else draw.ellipse
    shape((5 + number, 8, 40 + number, 50), fill=COLOURS[name])
    return image


@pytest.fixture(scope="module")
def student():
    return mcliplib.create_model(pretrained="student")


@pytest.fixture(scope="module")
def data():
    images = [drawn(name, number) for name in COLOURS for number in range(12)]
    names = ("one kind", "another kind", "a third kind")  # which say nothing: there is something to learn
    return Labelled(images, torch.arange(3).repeat_interleave(12), names)


@pytest.fixture(scope="module")
def result(student, data, tmp_path_factory):
    return finetune(student, data, tmp_path_factory.mktemp("tuned"), QUICK)


def test_it_begins_as_the_zero_shot_classifier_and_learns(student, data, result):
    found = zero_shot(image_features(student, data.images), class_features(student, data.classes), data.labels)
    curve = wise_ft(result, student, data, [0.0, 0.5, 1.0])
    assert float(curve[0.0]) == float(found.top1)
    assert curve[1.0] > 0.9 > curve[0.0]
    before = predict(result.before, student, data.images)
    assert torch.allclose(before, predict(mixed(result.before, result.after, 0.0), student, data.images), atol=1e-3)


def test_the_model_itself_is_unchanged(student, data, result):
    fresh = mcliplib.create_model(pretrained="student").state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in student.state_dict().items())
    assert not student.training


def test_a_mixture_is_linear_in_every_weight(result):
    ends = result.before.state_dict(), result.after.state_dict()
    for share in (0.25, 1.0):
        for name, value in mixed(result.before, result.after, share).state_dict().items():
            if value.is_floating_point():
                assert torch.allclose(value, (1 - share) * ends[0][name] + share * ends[1][name], atol=1e-6), name
    with pytest.raises(ValueError, match="one architecture"):
        mixed(nn.Linear(2, 3), nn.Linear(3, 2), 0.5)


def test_its_files_give_the_same_answers(student, data, tmp_path):
    result = finetune(student, data, tmp_path, QUICK)
    classifier, model, classes = load_classifier(tmp_path)
    assert classes == data.classes
    found, expected = predict(classifier, model, data.images), predict(result.after, student, data.images)
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.equal(model.text_encoder.state_dict()["positions"], student.text_encoder.state_dict()["positions"])
    (tmp_path / "head.safetensors").write_bytes((tmp_path / "head.safetensors").read_bytes()[:-8])
    with pytest.raises(UserError, match=r"head\.safetensors"):
        load_classifier(tmp_path)


def test_a_probe_is_the_linear_probe(student, data, tmp_path):
    result = finetune(student, data, tmp_path, FinetuneSettings(method="probe"))
    features = image_features(student, data.images)
    probe = linear_probe(features, data.labels, features, data.labels)
    expected = features @ probe.weights.float().T + probe.bias.float()
    assert torch.allclose(predict(result.after, student, data.images), expected, atol=1e-4)
    assert not (tmp_path / "last.pt").exists()
    slow = FinetuneSettings(method="lp-ft", epochs=1, batch_size=8, learning_rate=1e-9, weight_decay=0.0)
    tuned = finetune(student, data, tmp_path / "lp-ft", slow)
    assert torch.allclose(tuned.after.head.weight, result.after.head.weight, atol=1e-6), "it begins with that head"
    assert not torch.equal(tuned.after.head.weight, result.after.head.weight)


class _StoppedError(Exception):
    pass


def test_a_stopped_run_goes_on_to_the_byte(student, data, tmp_path, monkeypatch):
    whole = finetune(student, data, tmp_path / "whole", QUICK)
    taken, step = [], module._step

    def stopping(*args):
        if len(taken) == 7:
            raise _StoppedError
        taken.append(args[-1])
        return step(*args)

    monkeypatch.setattr(module, "_step", stopping)
    with pytest.raises(_StoppedError):
        finetune(student, data, tmp_path / "stopped", QUICK)
    monkeypatch.setattr(module, "_step", step)
    with pytest.raises(UserError, match="--resume auto"):
        finetune(student, data, tmp_path / "stopped", QUICK)
    resumed = finetune(student, data, tmp_path / "stopped", QUICK, resume=True)
    for name, value in whole.after.state_dict().items():
        assert torch.equal(value, resumed.after.state_dict()[name]), name
    steps = [json.loads(line)["step"] for line in (tmp_path / "stopped" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_a_run_goes_on_only_with_its_own_settings_and_pictures(student, data, tmp_path):
    finetune(student, data, tmp_path, QUICK)
    with pytest.raises(UserError, match="epochs was 3"):
        finetune(student, data, tmp_path, FinetuneSettings(epochs=4, batch_size=8), resume=True)
    other = Labelled([image.rotate(90) for image in data.images], data.labels, data.classes)
    with pytest.raises(UserError, match="other data"):
        finetune(student, other, tmp_path, QUICK, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"min_crop": 0.0}, "min_crop must be above 0"),
        ({"mirror": 1.5}, r"mirror must be in \[0, 1\]"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(UserError, match=message):
        FinetuneSettings(**change)


def test_a_split_keeps_every_class_on_both_sides(data):
    learned, held = data.split(0.25, seed=1)
    assert (len(learned.images), len(held.images)) == (27, 9)
    assert held.labels.bincount().tolist() == [3, 3, 3]
    both = {image.tobytes() for image in learned.images} & {image.tobytes() for image in held.images}
    assert not both


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pictures"
    for name in COLOURS:
        (root / name.replace(" ", "_")).mkdir(parents=True)
        for number in range(6):
            drawn(name, number).save(root / name.replace(" ", "_") / f"{number}.png")
    (root / ".hidden").mkdir()
    drawn("red circle", 0).save(root / ".hidden" / "a.png")
    (root / "empty").mkdir()
    return root


def test_a_folder_of_folders_is_read(folder, caplog):
    (folder / "red_circle" / "broken.png").write_bytes(b"\x89PNG nothing")
    (folder / "red_circle" / "notes.txt").write_text("x")
    found = load_labelled(str(folder))
    assert found.classes == tuple(COLOURS)
    assert found.labels.bincount().tolist() == [6, 6, 6]
    assert "broken.png" in caplog.text


def test_sets_name_their_classes():
    found = load_labelled("art4apps", "category")
    assert len(found.classes) == 12
    with pytest.raises(UserError, match=r"has no label 'colour'; it has .*category"):
        load_labelled("art4apps", "colour")
    with pytest.raises(UserError, match="say which label"):
        load_labelled("art4apps")


def test_the_command_goes_from_pictures_to_a_curve(folder, tmp_path, capsys):
    output = tmp_path / "run"
    command = ["finetune", "--data", str(folder), "--output", str(output), "--epochs", "2", "--batch-size", "4"]
    assert main(command) == 0
    curve = json.loads((output / "wise_ft.json").read_text())
    assert next(iter(curve)) == "0.0"
    assert curve["1.0"]["n"] == 3
    assert "share of the fine-tuned weights" in capsys.readouterr().out
    assert main(["evaluate", "--model", str(output), "--suite", "gcompris-animals"]) == 0
    assert main(command) == 2
    assert "--resume auto" in capsys.readouterr().err


def test_what_it_cannot_use_is_one_line(tmp_path):
    (tmp_path / "one" / "cat").mkdir(parents=True)
    drawn("red circle", 0).save(tmp_path / "one" / "cat" / "a.png")
    command = [sys.executable, "-m", "mcliplib", "finetune", "--data", str(tmp_path / "one"), "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "holds 1 class; two or more are needed" in done.stderr


def test_all_is_on_the_towers_device(student, monkeypatch):
    """Tensors without content, which check devices as real ones do, stand for a GPU's."""
    for name in ("reset_parameters", "load_state_dict"):  # which need a GPU even so
        monkeypatch.setattr(nn.Linear, name, lambda *_: None)
    monkeypatch.setattr(module, "class_features", lambda *_: torch.ones(3, 4))
    with FakeTensorMode(), torch.no_grad():  # gradients need a real GPU
        model = copy.copy(student)
        model._modules = {"image_encoder": nn.Sequential(nn.Flatten(), nn.Linear(12, 4, device="cuda"))}
        model._parameters = {"logit_scale": nn.Parameter(torch.ones((), device="cuda"))}
        classifier = module.zero_shot_classifier(model, ["a", "b", "c"])
        assert {one.device.type for one in classifier.parameters()} == {"cuda"}
        assert classifier(torch.ones(2, 3, 2, 2, device="cuda")).device.type == "cuda"


def test_the_command_puts_the_model_where_training_does(folder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("mcliplib.train.distributed.device", lambda: asked.append(1) or torch.device("cpu"))
    output = str(tmp_path / "run")
    assert main(["finetune", "--data", str(folder), "--output", output, "--method", "probe"]) == 0
    assert asked


def test_one_picture_a_class_is_too_few_to_score(tmp_path, capsys):
    for name in COLOURS:
        (tmp_path / "few" / name).mkdir(parents=True)
        drawn(name, 0).save(tmp_path / "few" / name / "a.png")
    command = ["finetune", "--data", str(tmp_path / "few"), "--output", str(tmp_path / "run")]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "no class has two pictures" in told
    assert "--test" in told


def test_its_messages_speak_of_pictures_and_name_the_classes(folder, tmp_path, capsys):
    command = ["finetune", "--data", str(folder), "--output", str(tmp_path / "run")]
    assert main([*command, "--batch-size", "64"]) == 2
    assert "more than the 15 pictures there are" in capsys.readouterr().err
    assert main([*command, "--epochs", "1", "--batch-size", "8"]) == 0
    assert "picture/s" in capsys.readouterr().err
    shutil.copytree(folder, tmp_path / "other")
    (tmp_path / "other" / "red_circle").rename(tmp_path / "other" / "blue_circle")
    assert main([*command, "--test", str(tmp_path / "other")]) == 2
    assert "it lacks: red circle; only it has: blue circle" in capsys.readouterr().err
