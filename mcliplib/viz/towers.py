"""The two towers drawn from a model's settings."""

from typing import TYPE_CHECKING, NamedTuple

from mcliplib.image_encoder import CONVOLUTION_STAGES, MCiConfig
from mcliplib.model import ModelConfig
from mcliplib.vit import ViTConfig
from mcliplib.viz.style import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DARK_TEXT, LIGHT_TEXT = "black", "white"


class Box(NamedTuple):
    """One part of a tower."""

    title: str
    shape: str  # of what leaves it
    colour: str


def draw_towers(config: ModelConfig) -> "Figure":
    """Both towers as columns of boxes, input at the top; convolutions light, attention dark.

    Args:
        config: a model's settings, from which every number in the figure comes.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(7, 4.6))
    for axis, name, boxes in zip(
        axes, ("image tower", "text tower"), (image_boxes(config), text_boxes(config)), strict=True
    ):
        _draw_column(axis, name, boxes)
    return figure


def image_boxes(config: ModelConfig) -> list[Box]:
    """The image tower's parts, from pixels to features."""
    size = config.image.image_size
    parts = _vit_boxes(config.image) if isinstance(config.image, ViTConfig) else _mci_boxes(config.image)
    return [
        Box("pixels", f"3 × {size} × {size}", "white"),
        *parts,
        Box("projection", f"{config.embed_dim}", PALETTE["orange"]),
    ]


def _mci_boxes(image: MCiConfig) -> list[Box]:
    side = image.image_size // 4
    boxes = [
        Box("stem: 3 MobileOne", f"{image.widths[0]} × {side} × {side}", PALETTE["sky"]),
    ]
    for stage, (width, depth) in enumerate(zip(image.widths, image.depths, strict=True)):
        convolution = stage < CONVOLUTION_STAGES
        kind, colour = ("RepMixer", PALETTE["sky"]) if convolution else ("attention", PALETTE["blue"])
        boxes.append(Box(f"stage {stage + 1}: {depth} × {kind}", f"{width} × {side} × {side}", colour))
        side = -(-side // 2)
    return [*boxes, Box("expand, pool", f"{2 * image.widths[-1]}", PALETTE["sky"])]


def _vit_boxes(image: ViTConfig) -> list[Box]:
    side = image.image_size // image.patch_size
    stem = "stem: 3 convolutions" if image.conv_stem else "stem: linear patches"
    return [
        Box(stem, f"{image.width} × {side} × {side}", PALETTE["sky"]),
        Box("class token + positions", f"{side * side + 1} × {image.width}", PALETTE["yellow"]),
        Box(f"{image.layers} × transformer", f"{side * side + 1} × {image.width}", PALETTE["blue"]),
        Box("class token", f"{image.width}", PALETTE["yellow"]),
    ]


def text_boxes(config: ModelConfig) -> list[Box]:
    """The text tower's parts, from tokens to features."""
    text = config.text
    shape = f"{text.context_length} × {text.width}"
    mixers = [Box("RepMixer along tokens", shape, PALETTE["sky"])] * text.repmixers
    return [
        Box("tokens", f"{text.context_length}", "white"),
        Box("embedding + positions", shape, PALETTE["yellow"]),
        *mixers,
        Box(f"{text.layers} × transformer", shape, PALETTE["blue"]),
        *mixers,
        Box("end-of-text token", f"{text.width}", PALETTE["yellow"]),
        Box("projection", f"{config.embed_dim}", PALETTE["orange"]),
    ]


def _draw_column(axis: "Axes", name: str, boxes: list[Box]) -> None:
    axis.set(xlim=(0, 1), ylim=(-len(boxes), 0.2), title=name)
    axis.axis("off")
    for row, box in enumerate(boxes):
        text = LIGHT_TEXT if box.colour == PALETTE["blue"] else DARK_TEXT
        axis.text(
            0.32, -row - 0.5, box.title, ha="center", va="center", color=text, fontsize=9,
            bbox={"boxstyle": "round,pad=0.45", "facecolor": box.colour, "edgecolor": "black", "linewidth": 0.8},
        )  # fmt: skip
        axis.text(0.72, -row - 0.5, box.shape, ha="left", va="center", fontsize=9, family="monospace")
        if row:
            axis.annotate(
                "",
                (0.32, -row - 0.24),
                (0.32, -row + 0.24),
                arrowprops={"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0},
            )
