"""Replay draws and paints what torchvision does, at any size, and refuses parameters that make no sense."""

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode, functional
from torchvision.transforms.autoaugment import _apply_op

from mcliplib.errors import UserError
from mcliplib.reinforce import Augmentation, AugmentSettings, augment
from mcliplib.reinforce.augment import OPS, Box, Op, magnitude_of

NUMBERS = range(len(OPS))
ALL = AugmentSettings(size=64, flip_probability=0.5, erase_probability=0.5)
BICUBIC = InterpolationMode.BICUBIC


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def space(bins: int, size: int) -> dict:
    return transforms.RandAugment()._augmentation_space(bins, (size, size))


@pytest.fixture(scope="module")
def small(colourful: Image.Image) -> Image.Image:
    return colourful.resize((110, 80), Image.Resampling.BOX)


# Equality with torchvision


def test_the_recipe_is_torchvisions_pixel_for_pixel(small: Image.Image) -> None:
    recipe = transforms.Compose(
        [transforms.RandomResizedCrop(224, interpolation=BICUBIC), transforms.RandAugment(), transforms.ToTensor()]
    )
    for seed in range(40):
        torch.manual_seed(seed)
        expected = recipe(small)
        assert torch.equal(augment.apply(small, augment.sample(small.size, seeded(seed)), size=224), expected)


def test_flip_and_erase_are_torchvisions_too(small: Image.Image) -> None:
    recipe = transforms.Compose(
        [
            transforms.RandomResizedCrop(64, interpolation=BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.RandAugment(),
            transforms.ToTensor(),
            transforms.RandomErasing(value=0),
        ]
    )
    for seed in range(100):
        torch.manual_seed(seed)
        expected = recipe(small)
        params = augment.sample(small.size, seeded(seed), ALL)
        assert torch.equal(augment.apply(small, params, 64, ALL), expected)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (640, 480), (33, 32), (1, 7)])
def test_crops_are_torchvisions_for_every_shape(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size)
    for seed in range(50):
        torch.manual_seed(seed)
        expected = transforms.RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3])
        crop = augment.sample(size, seeded(seed)).crop
        assert crop is not None
        if size in ((1, 7), (2, 300), (300, 2)) and crop != expected:  # torchvision's fallback may have no pixels
            assert min(expected[2:]) < 1 or max(expected[0] + expected[2] - size[1], 0) > 0
        else:
            assert tuple(crop) == expected
        assert crop.top + crop.height <= size[1]
        assert crop.left + crop.width <= size[0]
        assert min(crop.height, crop.width) >= 1


def test_no_global_randomness_is_used() -> None:
    before = torch.get_rng_state()
    assert augment.sample((90, 70), seeded(3), ALL) == augment.sample((90, 70), seeded(3), ALL)
    assert torch.equal(torch.get_rng_state(), before)


def test_names_and_order_are_torchvisions() -> None:
    assert [operator.name for operator in OPS] == list(space(31, 64))
    assert [operator.signed for operator in OPS] == [signed for _, signed in space(31, 64).values()]


@pytest.mark.parametrize("bins", [2, 10, 31, 33])
@pytest.mark.parametrize("size", [64, 224])
def test_magnitudes_are_torchvisions(bins: int, size: int) -> None:
    for number, (bin_values, _) in enumerate(space(bins, size).values()):
        for level in range(bins):
            expected = bin_values[level].item() if bin_values.ndim else 0.0
            assert magnitude_of(number, level, bins, size) == expected


@pytest.mark.parametrize("number", NUMBERS, ids=[operator.name for operator in OPS])
@pytest.mark.parametrize("level", [3, 9, 30])
@pytest.mark.parametrize("sign", [1, -1])
def test_each_operation_is_torchvisions(small: Image.Image, number: int, level: int, sign: int) -> None:
    magnitude = magnitude_of(number, level, 31, 64) * (sign if OPS[number].signed else 1)
    cropped = functional.resized_crop(small, 10, 20, 50, 70, [64, 64], BICUBIC)
    expected = _apply_op(cropped, OPS[number].name, magnitude, InterpolationMode.NEAREST, None)
    params = Augmentation(Box(10, 20, 50, 70), (Op(number, magnitude), Op(0, 0.0)))
    assert torch.equal(augment.apply(small, params, 64, ALL), functional.to_tensor(expected))


def test_operations_and_signs_are_drawn_evenly() -> None:
    generator = seeded(0)
    drawn = [op for _ in range(2000) for op in augment.sample((64, 64), generator).ops or ()]
    counts = torch.bincount(torch.tensor([op.number for op in drawn]), minlength=14)
    assert ((counts - 4000 / 14) ** 2 / (4000 / 14)).sum() < 40  # chi-square, 13 degrees: 1 in 6000
    signed = [op.magnitude > 0 for op in drawn if OPS[op.number].signed]
    assert abs(sum(signed) / len(signed) - 0.5) < 0.04
    assert {abs(op.magnitude) for op in drawn if op.number == 3} == {magnitude_of(3, 9, 31, 224)}


# Replay


def test_replay_repeats_and_leaves_the_picture_alone(small: Image.Image) -> None:
    before = small.tobytes()
    for seed in range(30):
        params = augment.sample(small.size, seeded(seed), ALL)
        stored = augment.decode(json.loads(json.dumps(augment.encode(params, ALL))), ALL)
        first = augment.apply(small, params, 64, ALL)
        assert torch.equal(augment.apply(small, stored, 64, ALL), first)
        assert first.shape == (3, 64, 64)
        assert first.dtype == torch.float32
        assert first.is_contiguous()
        assert 0 <= first.min() <= first.max() <= 1
    assert small.tobytes() == before


def test_every_grey_level_becomes_torchvisions_float() -> None:
    levels = Image.frombytes("L", (16, 16), bytes(range(256))).convert("RGB")
    assert torch.equal(augment.apply(levels, Augmentation(), 16), functional.to_tensor(levels))


def test_nothing_outside_of_the_crop_leaks_in() -> None:
    picture = Image.new("RGB", (60, 60), "white")
    picture.paste((0, 0, 0), (20, 20, 40, 40))
    pixels = augment.apply(picture, Augmentation(Box(20, 20, 20, 20)), 33)
    assert pixels.max() == 0


@pytest.mark.parametrize("number", [3, 4])
@pytest.mark.parametrize("size", [16, 32, 100, 128])
def test_translations_move_the_same_share_of_the_picture_at_every_size(number: int, size: int) -> None:
    white = Image.new("RGB", (64, 64), "white")
    magnitude = magnitude_of(number, 9, 31, 64)
    for sign in (1, -1):
        moved = augment.apply(white, Augmentation(ops=(Op(number, sign * magnitude),)), size, ALL)
        emptied = (moved[0] == 0).any(dim=0 if number == 3 else 1).sum()
        assert emptied == math.floor(magnitude * size / 64)
    at_home = augment.apply(white, Augmentation(ops=(Op(number, magnitude),)), 64, ALL)
    assert int((at_home == 0).sum()) == 3 * 64 * int(magnitude)


def test_views_at_two_sizes_show_the_same(colourful: Image.Image) -> None:
    """A smooth picture augmented at 128 and shrunk is nearly that augmented at 64."""
    smooth = Image.radial_gradient("L").convert("RGB").crop((0, 40, 200, 240))
    distances = []
    for seed in range(60):
        params = augment.sample(smooth.size, seeded(seed), ALL)
        large = augment.apply(smooth, params, 128, ALL)
        small = torch.nn.functional.avg_pool2d(large, 2)
        distances.append((small - augment.apply(smooth, params, 64, ALL)).abs().mean().item())
    assert max(distances) < 0.03


def test_erased_boxes_scale() -> None:
    white = Image.new("RGB", (64, 64), "white")
    params = Augmentation(erase=Box(8, 16, 32, 24))
    for size in (32, 64, 128):
        erased = augment.apply(white, params, size, ALL)[0] == 0
        scale = size // 64 if size >= 64 else 0.5
        rows, columns = erased.any(1).nonzero().flatten(), erased.any(0).nonzero().flatten()
        assert (rows[0], rows[-1] + 1) == (8 * scale, 40 * scale)
        assert (columns[0], columns[-1] + 1) == (16 * scale, 40 * scale)
    assert augment.apply(white, Augmentation(erase=Box(0, 0, 1, 1)), 4, ALL).shape == (3, 4, 4)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK"])
def test_other_pictures_become_rgb(small: Image.Image, mode: str) -> None:
    params = augment.sample(small.size, seeded(1))
    assert augment.apply(small.convert(mode), params, 32).shape == (3, 32, 32)


def test_transparency_is_white() -> None:
    assert augment.apply(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), Augmentation(), 8).min() == 1


def test_skipped_augmentations_are_null(small: Image.Image) -> None:
    never = dataclasses.replace(ALL, randaug_probability=0.0)
    params = augment.sample(small.size, seeded(0), never)
    assert params.ops is None
    assert augment.encode(params, never)[2] is None
    assert augment.decode([None, None]) == Augmentation()
    whole = augment.replay(small, augment.decode([None, None]), 48)
    assert whole.tobytes() == small.resize((48, 48), Image.Resampling.BICUBIC).tobytes()


# The stored form


def test_the_stored_form_is_the_public_one() -> None:
    params = Augmentation(Box(1, 2, 30, 40), (Op(3, -30.5), Op(13, 0.0)), True, Box(0, 0, 5, 6))
    both = [[1, 2, 30, 40], True, [[3, -30.5], [13, 0.0]], [0, 0, 5, 6]]
    assert augment.encode(params, ALL) == both
    assert augment.encode(Augmentation(params.crop, params.ops)) == [both[0], both[2]]
    with pytest.raises(ValueError, match="with the settings they come from"):
        augment.encode(params)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    flip=st.sampled_from([0.0, 0.5, 1.0]),
    erase=st.sampled_from([0.0, 0.5, 1.0]),
    randaug=st.sampled_from([0.3, 1.0]),
    num_ops=st.integers(0, 3),
)
def test_round_trip(seed: int, size: tuple[int, int], flip: float, erase: float, randaug: float, num_ops: int) -> None:
    chosen = AugmentSettings(
        flip_probability=flip, erase_probability=erase, randaug_probability=randaug, num_ops=num_ops, size=96
    )
    params = augment.sample(size, seeded(seed), chosen)
    value = json.loads(json.dumps(augment.encode(params, chosen), allow_nan=False))
    assert len(value) == 2 + (flip > 0) + (erase > 0)
    assert augment.decode(value, chosen) == params


GOOD = [[0, 0, 5, 5], [[1, 0.1], [2, 0.1]]]
BAD = {
    "a string": "x",
    "null": None,
    "a place too few": [[0, 0, 5, 5]],
    "a place too many": [*GOOD, None],
    "a short crop": [[0, 0, 5], GOOD[1]],
    "a negative top": [[-1, 0, 5, 5], GOOD[1]],
    "no height": [[0, 0, 0, 5], GOOD[1]],
    "negative width": [[0, 0, 5, -5], GOOD[1]],
    "half pixels": [[0, 0, 5.5, 5], GOOD[1]],
    "whole floats": [[0, 0, 5.0, 5], GOOD[1]],
    "booleans": [[False, False, True, True], GOOD[1]],
    "an endless crop": [[0, 0, 10**30, 5], GOOD[1]],
    "a named crop": [{"top": 0}, GOOD[1]],
    "one operation": [GOOD[0], [[1, 0.1]]],
    "three operations": [GOOD[0], [[1, 0.1]] * 3],
    "an operation without magnitude": [GOOD[0], [[1], [2, 0.1]]],
    "operation 14": [GOOD[0], [[14, 0.1], [2, 0.1]]],
    "operation -1": [GOOD[0], [[-1, 0.1], [2, 0.1]]],
    "operation 1.0": [GOOD[0], [[1.0, 0.1], [2, 0.1]]],
    "operation true": [GOOD[0], [[True, 0.1], [2, 0.1]]],
    "a named operation": [GOOD[0], [["ShearX", 0.1], [2, 0.1]]],
    "nan": [GOOD[0], [[1, math.nan], [2, 0.1]]],
    "infinity": [GOOD[0], [[1, -math.inf], [2, 0.1]]],
    "a magnitude in words": [GOOD[0], [[1, "0.1"], [2, 0.1]]],
    "a null magnitude": [GOOD[0], [[1, None], [2, 0.1]]],
    "a true magnitude": [GOOD[0], [[1, True], [2, 0.1]]],
    "a giant integer": [GOOD[0], [[1, 10**400], [2, 0.1]]],
    "nine bits": [GOOD[0], [[10, 9], [2, 0.1]]],
    "no bits": [GOOD[0], [[10, 0.0], [2, 0.1]]],
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_malformed_parameters_name_the_sample(value: object) -> None:
    with pytest.raises(UserError, match=r"^dog-17: ") as caught:
        augment.decode(value, key="dog-17")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "value", [[GOOD[0], 1, GOOD[1], None], [GOOD[0], "yes", GOOD[1], None], [GOOD[0], None, GOOD[1], [0, 60, 5, 5]]]
)
def test_malformed_flip_and_erase(value: object) -> None:
    with pytest.raises(UserError, match="dog-17"):
        augment.decode(value, ALL, key="dog-17")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=14,
)


@settings(max_examples=300, deadline=None)
@given(value=JSON | st.tuples(JSON, JSON) | st.tuples(st.none(), st.tuples(st.tuples(st.integers(0, 13), JSON), JSON)))
def test_any_json_is_decoded_or_refused(value: object) -> None:
    try:
        params = augment.decode(value, key="dog-17")
    except UserError:
        return
    assert augment.decode(augment.encode(params)) == params


@settings(max_examples=100, deadline=None)
@given(
    ops=st.lists(
        st.tuples(st.integers(0, 13), st.floats(-10_000, 10_000) | st.integers(-10_000, 10_000)), min_size=2, max_size=2
    ),
    size=st.integers(1, 40),
)
def test_what_decode_accepts_apply_can_do(ops: list, size: int) -> None:
    bounded = [[number, min(abs(value) + 1, 8) if number == 10 else value] for number, value in ops]
    pixels = augment.apply(Image.radial_gradient("L"), augment.decode([None, bounded]), size)
    assert pixels.shape == (3, size, size)
    assert pixels.isfinite().all()


@pytest.mark.parametrize("crop", [Box(0, 0, 81, 10), Box(71, 0, 10, 10), Box(0, 101, 10, 10), Box(0, 0, 10, 111)])
def test_a_crop_of_another_picture_is_refused(small: Image.Image, crop: Box) -> None:
    with pytest.raises(UserError, match=r"^dog-17: .*110 x 80"):
        augment.apply(small, Augmentation(crop), key="dog-17")


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"bins": 1},
        {"magnitude": 31},
        {"magnitude": -1},
        {"num_ops": -1},
        {"flip_probability": 1.1},
        {"erase_probability": -0.1},
        {"randaug_probability": math.nan},
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 1.5)},
        {"crop_ratio": (2.0, 1.0)},
    ],
)
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        AugmentSettings(**wrong)


def test_a_picture_without_pixels_has_no_crops() -> None:
    with pytest.raises(ValueError, match="0 x 5"):
        augment.sample((0, 5), seeded(0))
