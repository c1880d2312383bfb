"""`mcliplib benchmark train`: the table, the record, and whether the contenders compute the same."""

import json
from dataclasses import replace

import pytest
import torch

from mcliplab.benchmarks import arrangements, training
from mcliplab.benchmarks.training import EXACT, RELEASED, StepSettings, compare_steps
from mcliplib.cli import main
from mcliplib.errors import UserError
from mcliplib.losses import averaged_distill_loss, distill_loss
from mcliplib.reinforce import teachers
from mcliplib.reinforce.sample import ReinforcedSample
from mcliplib.train.data import ReinforcedData, load_reinforced

DIMS = (6, 4)
SMALL = StepSettings("mobileclip_pico", image_size=32, batch_size=4, context_length=16, trimmed=8, batches=1, rounds=2)


@pytest.fixture(scope="module")
def data():
    """A few samples of the shipped set."""
    whole = load_reinforced("train-reinforced")
    return replace(whole, samples=whole.samples[::1000])


class FakeTeacher:
    name, identity, dim, image_size = "fake", {}, 5, 32

    def __init__(self):
        self.asked = []

    def encode_pixels(self, pixels):
        self.asked.append(tuple(pixels.shape))
        return torch.nn.functional.normalize(pixels.mean((2, 3)) @ torch.ones(3, 5), dim=1)

    def encode_texts(self, texts):
        self.asked.append(len(texts))
        return torch.nn.functional.normalize(torch.rand(len(texts), 5), dim=1)


def test_contenders_agree_and_all_are_timed(data, monkeypatch):
    monkeypatch.setattr(training, "computed", lambda dtype, device: "bfloat16")
    teacher = FakeTeacher()
    found = compare_steps(data, [teacher], SMALL)
    expected = {RELEASED, *training.CHAIN, *training.BESIDE, *training.TRIMMED}
    assert set(found.measurement.samples) == expected
    assert set(found.agreement) == {RELEASED, *EXACT, *training.BF16, "pytorch_depthwise"}
    assert {*found.beside.values()} == {"bf16", "trimmed_context"}
    for name in EXACT:
        assert found.agreement[name].loss_difference < 1e-4
        assert found.agreement[name].gradient_difference < 1e-2
    assert 0 < found.agreement["bf16"].loss_difference < 0.1
    assert set(teacher.asked) == {(4, 3, 32, 32), 8}  # views, and real and synthetic captions, at every step


def test_where_bfloat16_is_imitated_it_is_left_out(data, monkeypatch):
    monkeypatch.setattr(training, "computed", lambda dtype, device: "float32")
    found = compare_steps(data, [], SMALL)
    assert not set(found.measurement.samples) & set(training.BF16)
    assert {*found.beside.values()} == {EXACT[-1], "trimmed_context"}


def test_a_contender_that_computes_something_else_is_an_error(data, monkeypatch):
    monkeypatch.setattr(training.arrangements, "released_loss", lambda dims: lambda f, s, t: s * (f[0] * f[1]).sum())
    with pytest.raises(UserError, match=r"our_towers: its loss is .* not the same"):
        compare_steps(data, [], SMALL)


def test_the_released_arrangement_of_s0_is_timms_tower_with_our_weights():
    base = arrangements.base_model("mobileclip_s0", 64)
    assert arrangements.has_released_tower("mobileclip_s0")
    learner = arrangements.released(base)
    assert type(learner.model.image_encoder).__module__.startswith("timm.")
    assert not learner.optimizer.defaults["fused"]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 3, 64, 64, generator=generator)
    tokens = torch.randint(49_000, (3, 77), generator=generator)
    tokens[:, 9], tokens[:, 10:] = 49_407, 0
    with torch.no_grad():
        ours = arrangements.channels_last(arrangements.copy_of(base))(pixels, tokens)
        theirs = learner.model(pixels, tokens)
    assert torch.allclose(ours.image, theirs.image, atol=1e-4)
    assert torch.allclose(ours.text, theirs.text, atol=1e-5)


def test_a_copy_keeps_the_rows_in_use():
    base = arrangements.base_model("mobileclip_pico", 32)
    vocab = (*range(512), 700, 49_406, 49_407)
    small = arrangements.copy_of(base, vocab=vocab, context_length=8)
    assert torch.equal(small.text_encoder.embedding.weight[512], base.text_encoder.embedding.weight[700])
    assert torch.equal(small.text_encoder.positions, base.text_encoder.positions[:8])


def test_the_released_loss_is_above_ours_by_the_teachers_entropy():
    generator = torch.Generator().manual_seed(0)
    rows = [torch.nn.functional.normalize(torch.randn(5, 10, generator=generator), dim=1) for _ in range(6)]
    student, teachers = rows[:3], rows[3:]
    forms = [
        sum(
            float(form(student[0], student[place], 7.0, teachers[0], teachers[place], DIMS, (100.0, 100.0)))
            for place in (1, 2)
        )
        for form in (averaged_distill_loss, distill_loss)
    ]
    assert arrangements.teachers_entropy(teachers, DIMS) == pytest.approx(forms[0] - forms[1], abs=1e-5)
    released = arrangements.released_loss(DIMS)(student, torch.tensor(7.0), teachers)
    assert float(released) == pytest.approx(forms[0], abs=1e-5)


def test_pytorchs_kernel_is_used_inside_only():
    from mcliplib.layers.attention import attend

    q = torch.rand(1, 1, 40, 8, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    steps = attend(q, q, q, scale=0.3)
    with arrangements.pytorch_attention():
        kernel = attend(q, q, q, scale=0.3)
    assert "ScaledDotProduct" in type(kernel.grad_fn).__name__
    assert "ScaledDotProduct" not in type(steps.grad_fn).__name__
    assert torch.allclose(steps.float(), kernel.float(), atol=2e-2)


def test_table_and_record(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path))
    monkeypatch.setattr("mcliplib.train.data.load_reinforced", lambda names: data)
    monkeypatch.setattr(teachers, "LOCAL", ())  # as where the teachers' packages are missing
    command = ["benchmark", "train", "--model", "mobileclip_pico", "--image-size", "32", "--batch", "4"]
    command += ["--context", "16", "--trim", "8", "--rounds", "2", "--record", "steps-test"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert "over released" in printed.out
    assert "without online distillation: unknown teacher" in printed.err
    record = json.loads((tmp_path / "steps-test.json").read_text())
    values = record["values"]
    assert set(record["unit"]) == set(values)
    assert "--model mobileclip_pico" in record["command"]
    assert values["speedup"]["released"]["median"] == 1
    assert set(values["factor"]) == set(training.CHAIN) & set(values["milliseconds"])
    assert set(values["reinforced_over"]) == {"plain", "plain_one_caption", "plain_trimmed"}
    assert "online" not in values["samples_per_second"]
    assert "left out: unknown teacher" in values["notes"]["online"]
    assert "timm has none of mobileclip_pico's size" in values["notes"]["released"]
    assert all(0 < one["low"] <= one["median"] <= one["high"] for one in values["samples_per_second"].values())


def test_a_set_without_captions_is_refused():
    sample = ReinforcedSample("a", (), (), torch.zeros(1, 10), torch.zeros(1, 10), caption="a")
    with pytest.raises(UserError, match="no synthetic captions"):
        compare_steps(ReinforcedData([sample] * 4, DIMS), [], replace(SMALL, batch_size=4))
    with pytest.raises(UserError, match="batch_size 8 is more than the 4 pairs"):
        compare_steps(ReinforcedData([sample] * 4, DIMS), [], replace(SMALL, batch_size=8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "1"], "--rounds must be at least 2"),
        (["--batch", "1"], "--batch must be at least 2"),
        (["--model", "mobileclip_s9"], "unknown model 'mobileclip_s9'"),
        (["--record", "Bad Name"], "use lower-case letters"),
    ],
)
def test_bad_input_is_one_line_and_a_failure(arguments, message, capsys):
    assert main(["benchmark", "train", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("mcliplib benchmark: ")
    assert message in error
    assert "\n" not in error


def test_a_vit_is_refused():
    with pytest.raises(UserError, match="MCi image tower"):
        arrangements.base_model("mobileclip_b", 224)
