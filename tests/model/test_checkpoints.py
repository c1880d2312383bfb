"""Files out and in: equal, whole, and clear about what is wrong."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import mcliplib
from mcliplib import UserError
from mcliplib.checkpoints import read_header
from mcliplib.layers.cpu import is_for_cpu


@pytest.fixture(scope="module")
def vocab():
    return mcliplib.restrict_vocab(["a red flag"])


@pytest.fixture(scope="module")
def model(vocab):
    torch.manual_seed(0)
    return mcliplib.create_model("mobileclip_nano", vocab=vocab, context_length=12)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / "nano.safetensors"
    mcliplib.save_checkpoint(model, path, metadata={"trained_on": "nothing"})
    return path


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_round_trip_keeps_weights_and_settings(model, file):
    loaded = mcliplib.load_model(file)
    assert loaded.config == model.config
    assert same(loaded, model)
    assert read_header(file)["trained_on"] == "nothing"


def test_pretrained_takes_the_files_settings(model, file):
    assert same(mcliplib.create_model("mobileclip_nano", pretrained=file), model)


@pytest.mark.parametrize("for_cpu", [False, True])
def test_folded_model_saves_and_loads_by_itself(model, for_cpu, tmp_path):
    fast = mcliplib.reparameterize(model)
    fast = mcliplib.optimize_for_cpu(fast) if for_cpu else fast
    mcliplib.save_checkpoint(fast, tmp_path / "fast.safetensors")
    loaded = mcliplib.load_model(tmp_path / "fast.safetensors")
    pixels = torch.rand(1, 3, 64, 64)
    assert torch.equal(loaded.encode_image(pixels), fast.encode_image(pixels))
    assert is_for_cpu(loaded) == for_cpu


def test_folded_file_of_an_earlier_version_still_loads(model, tmp_path):
    """They were all laid out for CPUs, and did not say so."""
    fast = mcliplib.optimize_for_cpu(mcliplib.reparameterize(model))
    mcliplib.save_checkpoint(fast, tmp_path / "new.safetensors")
    header = {name: text for name, text in read_header(tmp_path / "new.safetensors").items() if name != "for_cpu"}
    save_file(load_file(tmp_path / "new.safetensors"), tmp_path / "old.safetensors", header)
    pixels = torch.rand(1, 3, 64, 64)
    loaded = mcliplib.load_model(tmp_path / "old.safetensors")
    assert torch.equal(loaded.encode_image(pixels), fast.encode_image(pixels))


def test_a_file_for_cpus_does_not_fit_a_plain_model(model, tmp_path):
    fast = mcliplib.reparameterize(model)
    mcliplib.save_checkpoint(mcliplib.optimize_for_cpu(fast), tmp_path / "fast.safetensors")
    with pytest.raises(UserError, match="optimized for CPUs, the model is not alike"):
        mcliplib.load_checkpoint(fast, tmp_path / "fast.safetensors")


def test_folded_file_does_not_fit_a_training_model(model, vocab, tmp_path):
    path = tmp_path / "fast.safetensors"
    mcliplib.save_checkpoint(mcliplib.reparameterize(model), path)
    with pytest.raises(UserError, match=r"fast\.safetensors: does not fit.*the file is folded.*missing \d+:.*\.\.\."):
        mcliplib.load_checkpoint(mcliplib.create_model("mobileclip_nano", vocab=vocab, context_length=12), path)


def test_other_settings_are_named(file):
    with pytest.raises(UserError, match=r"other settings.*not fitting \d+: text_encoder"):
        mcliplib.load_checkpoint(mcliplib.create_model("mobileclip_nano"), file)


def test_another_vocabulary_of_the_same_size_is_refused(file, vocab):
    other = mcliplib.restrict_vocab(["a blue house"])
    assert len(other) == len(vocab)
    with pytest.raises(UserError, match="its token ids stand for other tokens"):
        mcliplib.load_checkpoint(mcliplib.create_model("mobileclip_nano", vocab=other, context_length=12), file)


def test_pretrained_at_another_image_size(file):
    loaded = mcliplib.create_model("mobileclip_nano", pretrained=file, image_size=96)
    assert loaded.config.image.image_size == 96
    with pytest.raises(UserError, match="leave context_length and vocab out"):
        mcliplib.create_model("mobileclip_nano", pretrained=file, context_length=20)


def test_other_model_is_named(file):
    with pytest.raises(UserError, match="holds mobileclip_nano, not mobileclip_s0"):
        mcliplib.create_model("mobileclip_s0", pretrained=file)


def test_a_failed_load_changes_nothing(model, tmp_path):
    path = tmp_path / "fast.safetensors"
    mcliplib.save_checkpoint(mcliplib.reparameterize(model), path)
    target = mcliplib.create_model("mobileclip_nano")
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(UserError):
        mcliplib.load_checkpoint(target, path)
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match=r"gone\.safetensors: no such file"):
        mcliplib.load_model(tmp_path / "gone.safetensors")


def test_unknown_format(model, tmp_path):
    with pytest.raises(ValueError, match="unknown checkpoint format 'onnx'"):
        mcliplib.save_checkpoint(model, tmp_path / "x", format="onnx")


@given(share=st.floats(0, 0.999))
@settings(max_examples=15, deadline=None)
def test_truncated_file(file, tmp_path_factory, share):
    whole = file.read_bytes()
    path = tmp_path_factory.mktemp("cut") / "cut.safetensors"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"cut\.safetensors: not a whole safetensors file"):
        mcliplib.load_model(path)


def test_a_pickle_is_never_opened(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    path = tmp_path / "evil.safetensors"
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(UserError, match="not a whole safetensors file"):
        mcliplib.load_model(path)
    assert not (tmp_path / "owned").exists()


def test_safetensors_of_another_program(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="in no format that mcliplib knows"):
        mcliplib.load_model(tmp_path / "other.safetensors")
