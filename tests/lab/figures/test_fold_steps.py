"""A fold in steps: every step computes the block's function, and every frame draws the step's own branches."""

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch

from mcliplab.figures import draw_fold_step, trace_fold
from mcliplib.layers import MobileOneBlock, RepMixer
from tests.conftest import randomize_

matplotlib.use("Agg")

BLOCKS = {
    "repmixer": lambda: RepMixer(6, (3, 3), scale_branch=True),
    "repmixer along tokens": lambda: RepMixer(6, (1, 11), scale_branch=False),
    "mobileone": lambda: MobileOneBlock(6, 6, (3, 3), groups=6, squeeze_excite=2),
    "mobileone, dense": lambda: MobileOneBlock(6, 6, (3, 3), groups=2),
    "mobileone, wider": lambda: MobileOneBlock(6, 12, (3, 3), groups=6),
}


def made(name, dtype=torch.float64):
    return randomize_(BLOCKS[name]()).to(dtype).eval()


def x(height=7, width=13):
    return torch.randn(2, 6, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", BLOCKS)
def test_every_step_is_the_same_function(name):
    steps = trace_fold(made(name), x())
    assert max(step.difference for step in steps) < 1e-12


@pytest.mark.parametrize("name", BLOCKS)
def test_paths_become_one_without_norm_or_scale(name):
    steps = trace_fold(made(name), x())
    counts = [len(step.branches) for step in steps]
    assert counts == sorted(counts, reverse=True)
    (last,) = steps[-1].branches
    assert last.norm is None
    assert last.scale is None


@pytest.mark.parametrize("name", ["repmixer", "repmixer along tokens"])
def test_the_last_step_is_the_packages_own_fold(name):
    block = made(name)
    (last,) = trace_fold(block, x())[-1].branches
    folded = block.fuse()
    assert torch.allclose(last.kernel, folded.weight)
    assert torch.allclose(last.bias, folded.bias)


def test_a_mobileone_block_keeps_its_activation():
    block = made("mobileone")
    trace_fold(block, x())
    assert block.se is not None
    assert block.act is not None


def test_a_wrong_fold_would_show(monkeypatch):
    """The difference is measured, not assumed."""
    monkeypatch.setattr("mcliplab.figures.fold_steps.then_batch_norm", lambda map_, bn: map_)
    steps = trace_fold(made("repmixer"), x())
    assert steps[0].difference < 1e-12 < 0.01 < steps[1].difference


def test_train_mode_and_strides_are_refused():
    with pytest.raises(RuntimeError, match="train mode"):
        trace_fold(made("repmixer").train(), x())
    strided = MobileOneBlock(6, 12, (3, 3), stride=2, groups=6).double().eval()
    with pytest.raises(ValueError, match="stride 1, not \\(2, 2\\)"):
        trace_fold(strided, x())


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_a_frame_draws_its_step():
    steps = trace_fold(made("repmixer"), x())
    first, last = (draw_fold_step(step) for step in (steps[0], steps[-1]))
    assert len(first.axes[0].images) == 2, "the 3x3 and the 1x1 kernel"
    assert texts(first).count("BN") == 4
    assert texts(first).count("−") == 1, "norm is subtracted"
    assert len(last.axes[0].images) == 1
    centre = steps[-1].branches[0].kernel[0, 0, 1, 1].item()
    assert f"{centre:.1f}".replace("-", "−") in texts(last)
    assert "BN" not in texts(last)
    assert (first.get_size_inches() == last.get_size_inches()).all(), "frames of one slider must not jump"
    plt.close("all")


def test_a_phone_can_read_the_drawing():
    drawn = draw_fold_step(trace_fold(made("repmixer"), x())[0])
    drawn.draw_without_rendering()
    assert min(text.get_fontsize() for text in drawn.axes[0].texts) >= 9
    kernels = [image.get_window_extent() for image in drawn.axes[0].images]
    for text in drawn.axes[0].texts:
        place = text.get_window_extent()
        for kernel in kernels:
            apart = place.x1 <= kernel.x0 or place.x0 >= kernel.x1 or place.y1 <= kernel.y0 or place.y0 >= kernel.y1
            inside = kernel.x0 <= place.x0 and place.x1 <= kernel.x1
            assert apart or inside, text.get_text()
    plt.close(drawn)


def test_the_drawn_channel_can_be_chosen():
    step = trace_fold(made("mobileone, dense"), x())[0]
    drawn = draw_fold_step(step, channel=4, rows=3).axes[0].images[0].get_array()
    assert torch.allclose(torch.as_tensor(drawn), step.branches[0].kernel[4, 1]), "channel 4 is the second of its group"
    plt.close("all")


def test_texts_say_what_is_drawn():
    steps = trace_fold(made("repmixer"), x())
    assert "norm, a BatchNorm, times minus alpha" in steps[0].alt
    assert steps[0].alt.endswith("Largest difference: 0.")
    assert steps[-1].alt.startswith("everything added. From x to y: folded, a 3 by 3 kernel. Largest difference: ")
