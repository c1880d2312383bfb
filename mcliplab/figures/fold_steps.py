"""A block folded before the reader's eyes: its branches as boxes with their real kernels, one step a frame."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.layers.fold import Affine, identity_kernel, pad_kernel, require_eval, then_batch_norm
from mcliplib.layers.mobileone import ConvBN, MobileOneBlock
from mcliplib.layers.repmixer import RepMixer
from mcliplib.viz.style import DIVERGING, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

Block = RepMixer | MobileOneBlock

# Places on the drawing, in inches.
WIDTH, ROW, MARGIN, TITLE = 4.75, 1.02, 0.4, 0.35
X_INPUT, X_FAN, X_KERNEL, X_NORM, X_SCALE, X_SUM, X_OUTPUT = 0.13, 0.5, 1.47, 2.38, 3.1, 4.05, 4.6
CELL, KERNEL = 0.32, 0.97  # largest side of a kernel's cell, and of the kernel


@dataclass(frozen=True)
class Branch:
    """One of the parallel branches from a block's input to its sum.

    Attributes:
        name: what the branch is called in the block.
        kernel: [C, C / groups, h, w]; None where the map passes unchanged.
        bias: [C].
        norm: the BatchNorm that follows, until it is folded.
        scale: the layer scale [C] that multiplies the sum of all branches that have it, until it is folded.
        sign: 1 or -1, with which the branch enters that sum.
    """

    name: str
    kernel: Float[Tensor, "c per_group h w"] | None
    bias: Float[Tensor, " c"]
    norm: nn.BatchNorm2d | None = None
    scale: Float[Tensor, " c"] | None = None
    sign: int = 1


@dataclass(frozen=True)
class FoldStep:
    """A block after some of its folding.

    Attributes:
        title: what this step did.
        branches: what is left to sum.
        difference: the largest absolute difference of any output value from the block's own.
    """

    title: str
    branches: tuple[Branch, ...]
    difference: float

    @property
    def alt(self) -> str:
        """The drawing in words."""
        words = "; ".join(map(_in_words, self.branches))
        return f"{self.title}. From x to y: {words}. Largest difference: {_short_float(self.difference)}."


def trace_fold(block: Block, x: Float[Tensor, "b c h w"]) -> list[FoldStep]:
    """Fold a block one rule at a time, and evaluate every step on `x`.

    Args:
        block: a RepMixer, or a MobileOne block with stride 1 (its squeeze-excite and activation are left out).
        x: input; float64 shows how little rounding matters.

    Returns:
        The block as trained, then one step for each kind of folding, until one branch is left.

    Raises:
        RuntimeError: the block is in train mode.
        ValueError: the block has a stride.
    """
    require_eval(block)
    conv = (block.mixer if isinstance(block, RepMixer) else block).conv.conv
    if conv.stride != (1, 1):
        raise ValueError(f"trace_fold draws blocks with stride 1, not {conv.stride}")
    size = (conv.kernel_size[0], conv.kernel_size[1])
    states = [("as trained", _branches(block))]
    states.append(("BatchNorms folded", [_without_norm(branch, conv.groups) for branch in states[-1][1]]))
    states.append(("kernels padded to one size", [_padded(branch, size, conv.groups) for branch in states[-1][1]]))
    if isinstance(block, RepMixer):
        states.append(("layer scale folded", [_scaled(branch) for branch in states[-1][1]]))
        first, *mixer, last = states[-1][1]
        states.append(("the mixer's branches added", [first, _added("mixer", mixer), last]))
    states.append(("everything added", [_added("folded", states[-1][1])]))
    with torch.no_grad():
        expected = _linear_part(block)(x)
        outputs = [_evaluate(branches, x, conv.groups) for _, branches in states]
    return [
        FoldStep(title, tuple(branches), (y - expected).abs().max().item())
        for (title, branches), y in zip(states, outputs, strict=True)
    ]


def draw_fold_step(step: FoldStep, *, channel: int = 0, rows: int = 5) -> "Figure":
    """Every branch as a row of boxes, with the kernel of one channel as a heat map with its values.

    Args:
        step: one of `trace_fold`.
        channel: whose kernel is drawn.
        rows: rows that the figure has place for; the same for all frames of a slider, so that nothing jumps.
    """
    import matplotlib.pyplot as plt

    height = TITLE + MARGIN + ROW * rows
    figure = plt.figure(figsize=(WIDTH, height), layout="none")
    axis = figure.add_axes((0, 0, 1, 1))
    axis.axis("off")
    middle = MARGIN + ROW * rows / 2
    heights = [middle + ROW * ((len(step.branches) - 1) / 2 - row) for row in range(len(step.branches))]
    for branch, at in zip(step.branches, heights, strict=True):
        _draw_branch(axis, branch, at, middle, channel)
    _draw_scale(axis, step.branches, heights, middle, channel)
    _draw_ends(axis, len(step.branches), middle)
    difference = f"largest difference from the block: {_short_float(step.difference)}"
    axis.text(WIDTH / 2, MARGIN / 2, difference, ha="center", va="center", fontsize=10)
    axis.text(WIDTH / 2, height - TITLE / 2, step.title, ha="center", va="center", fontsize=12)
    axis.set(xlim=(0, WIDTH), ylim=(0, height), aspect="auto")  # last: an image sets the limits too
    return figure


# From the block's modules to branches, and from branches to fewer branches.


def _branches(block: Block) -> list[Branch]:
    if isinstance(block, MobileOneBlock):
        return _mobileone_branches(block)
    alpha = block.layer_scale.gamma.detach()
    zero = torch.zeros_like(alpha)
    mixer = [replace(branch, scale=alpha) for branch in _mobileone_branches(block.mixer)]
    return [Branch("input", None, zero), *mixer, Branch("norm", None, zero, block.norm, alpha, sign=-1)]


def _mobileone_branches(block: MobileOneBlock) -> list[Branch]:
    zero = block.conv.bn.bias.detach().new_zeros(block.conv.conv.out_channels)

    def convolution(name: str, branch: ConvBN) -> Branch:
        return Branch(name, branch.conv.weight.detach(), zero, branch.bn)

    found = [convolution("conv", block.conv)]
    if block.scale is not None:
        found.append(convolution("scale", block.scale))
    if block.skip is not None:
        found.append(Branch("skip", None, zero, block.skip))
    return found


def _without_norm(branch: Branch, groups: int) -> Branch:
    if branch.norm is None:
        return branch
    kernel = _kernel(branch, groups)
    with torch.no_grad():
        folded = then_batch_norm(Affine(kernel, branch.bias), branch.norm)
    return replace(branch, kernel=folded.kernel, bias=folded.bias, norm=None)


def _padded(branch: Branch, size: tuple[int, int], groups: int) -> Branch:
    return replace(branch, kernel=pad_kernel(_kernel(branch, groups), size))


def _scaled(branch: Branch) -> Branch:
    if branch.scale is None or branch.kernel is None:
        return branch
    folded = Affine(branch.kernel, branch.bias).scaled(branch.sign * branch.scale)
    return replace(branch, kernel=folded.kernel, bias=folded.bias, scale=None, sign=1)


def _added(name: str, branches: Sequence[Branch]) -> Branch:
    kernels = torch.stack([branch.kernel for branch in branches if branch.kernel is not None])
    return Branch(name, kernels.sum(0), torch.stack([branch.bias for branch in branches]).sum(0))


def _kernel(branch: Branch, groups: int) -> Tensor:
    if branch.kernel is not None:
        return branch.kernel
    return identity_kernel(len(branch.bias), groups, (1, 1), like=branch.bias)


def _linear_part(block: Block) -> nn.Module:
    if isinstance(block, RepMixer):
        return block
    linear = copy.deepcopy(block)
    linear.se = linear.act = None
    return linear


def _evaluate(branches: Sequence[Branch], x: Tensor, groups: int) -> Tensor:
    """The sum of the branches, with the layer scale on the sum of those that have it."""
    plain = [_apply(branch, x, groups) for branch in branches if branch.scale is None]
    scaled = [_apply(branch, x, groups) * branch.sign for branch in branches if branch.scale is not None]
    total = torch.stack(plain).sum(0) if plain else torch.zeros_like(x)
    scale = next((branch.scale for branch in branches if branch.scale is not None), None)
    return total if scale is None else total + torch.stack(scaled).sum(0) * scale[:, None, None]


def _apply(branch: Branch, x: Tensor, groups: int) -> Tensor:
    y = x
    if branch.kernel is not None:
        y = nn.functional.conv2d(x, branch.kernel, branch.bias, padding="same", groups=groups)
    return y if branch.norm is None else branch.norm(y)


# Drawing.


def _draw_branch(axis: "Axes", branch: Branch, at: float, middle: float, channel: int) -> None:
    alone = at == middle  # the only branch, or the middle one: straight through
    end = X_SCALE if branch.scale is not None else X_SUM + 0.13 if alone else X_SUM - 0.5
    axis.plot([X_INPUT + 0.12, X_FAN, end], [middle, at, at], color="black", lw=1, ls="-", zorder=0)
    if branch.scale is None and not alone:
        _arrow(axis, (end, at), (X_SUM - 0.12, middle))
    axis.text(X_FAN + 0.05, at + 0.04, branch.name, fontsize=9, va="bottom", ha="left")
    if branch.kernel is not None:
        _draw_kernel(axis, branch.kernel[channel, channel % branch.kernel.shape[1]], (X_KERNEL, at))
        if branch.norm is None:
            axis.text(
                X_NORM,
                at + 0.04,
                f"bias {_short(branch.bias[channel].item(), 2)}",
                fontsize=9,
                va="bottom",
                ha="center",
            )
    if branch.norm is not None:
        _box(axis, (X_NORM, at), "BN", PALETTE["sky"])


def _draw_kernel(axis: "Axes", kernel: Tensor, centre: tuple[float, float]) -> None:
    """Colours and numbers: nothing is told by colour alone."""
    rows, columns = kernel.shape
    cell = min(CELL, KERNEL / max(rows, columns))
    left, top = centre[0] - columns * cell / 2, centre[1] + rows * cell / 2
    extent = (left, left + columns * cell, top - rows * cell, top)
    axis.imshow(kernel.numpy(), cmap=DIVERGING, vmin=-1, vmax=1, extent=extent, zorder=2, aspect="auto")
    axis.add_patch(_frame(extent))
    if cell < CELL:
        return
    for row in range(rows):
        for column in range(columns):
            value = float(kernel[row, column])
            place = (left + (column + 0.5) * cell, top - (row + 0.5) * cell)
            colour = "white" if abs(value) > 0.7 else "black"
            axis.text(*place, _short(value), ha="center", va="center", fontsize=9, color=colour, zorder=3)


def _draw_scale(
    axis: "Axes", branches: Sequence[Branch], heights: Sequence[float], middle: float, channel: int
) -> None:
    """The layer scale multiplies a sum: one tall box over the rows of that sum, with each row's sign."""
    scaled = [(branch, at) for branch, at in zip(branches, heights, strict=True) if branch.scale is not None]
    if not scaled:
        return
    bottom, top = scaled[-1][1] - 0.2, scaled[0][1] + 0.2
    axis.add_patch(_frame((X_SCALE - 0.15, X_SCALE + 0.5, bottom, top), PALETTE["yellow"]))
    for branch, at in scaled:
        axis.text(X_SCALE - 0.03, at, "+" if branch.sign > 0 else "−", ha="center", va="center", fontsize=11)
    centre = (bottom + top) / 2
    assert scaled[0][0].scale is not None
    text = f"× α\n= {_short(scaled[0][0].scale[channel].item())}"
    axis.text(X_SCALE + 0.22, centre, text, ha="center", va="center", fontsize=9)
    _arrow(axis, (X_SCALE + 0.5, centre), (X_SUM - 0.12, middle))


def _draw_ends(axis: "Axes", branches: int, middle: float) -> None:
    for place, name in ((X_INPUT, "x"), (X_OUTPUT, "y")):
        axis.text(place, middle, f"${name}$", ha="center", va="center", fontsize=14)
    if branches > 1:
        _box(axis, (X_SUM, middle), "+", "white", boxstyle="circle,pad=0.12")
    _arrow(axis, (X_SUM + 0.13, middle), (X_OUTPUT - 0.12, middle))


def _box(axis: "Axes", place: tuple[float, float], text: str, colour: str, boxstyle: str = "round,pad=0.35") -> None:
    box = {"boxstyle": boxstyle, "facecolor": colour, "edgecolor": "black", "linewidth": 0.8}
    axis.text(*place, text, ha="center", va="center", fontsize=9, bbox=box, zorder=3)


def _frame(extent: tuple[float, float, float, float], colour: str = "none") -> "Rectangle":
    from matplotlib.patches import Rectangle

    left, right, bottom, top = extent
    return Rectangle((left, bottom), right - left, top - bottom, facecolor=colour, edgecolor="black", lw=0.8, zorder=2)


def _arrow(axis: "Axes", start: tuple[float, float], end: tuple[float, float]) -> None:
    axis.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "color": "black"})


def _short(value: float, digits: int = 1) -> str:
    return "0" if value == 0 else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _short_float(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}"


def _in_words(branch: Branch) -> str:
    parts = [branch.name]
    if branch.kernel is not None:
        parts.append(f"a {branch.kernel.shape[2]} by {branch.kernel.shape[3]} kernel")
    if branch.norm is not None:
        parts.append("a BatchNorm")
    if branch.scale is not None:
        parts.append(f"times {'' if branch.sign > 0 else 'minus '}alpha")
    return ", ".join(parts)
