"""The two towers drawn from a model's settings."""

from typing import TYPE_CHECKING, NamedTuple

from mcliplib.image_encoder import CONVOLUTION_STAGES, MCiConfig
from mcliplib.model import ModelConfig
from mcliplib.vit import ViTConfig
from mcliplib.viz.style import PALETTE, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CONVOLUTION, ATTENTION, TOKENS, PROJECTION = (PALETTE[name] for name in ("sky", "blue", "yellow", "orange"))
KINDS = {CONVOLUTION: "convolution", ATTENTION: "attention", TOKENS: "tokens, positions", PROJECTION: "projection"}
INPUT = "white"
BOX = (0.96, 0.66)  # width of a box over its column's, height over its row's
ROW, MARGIN = 0.47, 0.6  # height of a row, and of title and legend together, in inches


class Box(NamedTuple):
    """One part of a tower."""

    title: str
    shape: str  # of what leaves it
    colour: str


def draw_towers(config: ModelConfig) -> "Figure":
    """Both towers as columns of boxes, input at the top, with a legend of what the colours mean.

    Args:
        config: a model's settings, from which every number in the figure comes.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Patch

    columns = {"image tower": image_boxes(config), "text tower": text_boxes(config)}
    rows = max(map(len, columns.values()))
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, ROW * rows + MARGIN))
    for axis, (name, boxes) in zip(axes, columns.items(), strict=True):
        _draw_column(axis, name, boxes, rows)
    used = {box.colour for boxes in columns.values() for box in boxes}
    patches = [Patch(facecolor=c, edgecolor="black", label=name) for c, name in KINDS.items() if c in used]
    narrow = {"handlelength": 1, "handletextpad": 0.4, "columnspacing": 1}
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=9, **narrow)
    return figure


def image_boxes(config: ModelConfig) -> list[Box]:
    """The image tower's parts, from pixels to features."""
    size = config.image.image_size
    parts = _vit_boxes(config.image) if isinstance(config.image, ViTConfig) else _mci_boxes(config.image)
    return [
        Box("pixels", f"3 × {size} × {size}", INPUT),
        *parts,
        Box("projection", f"{config.embed_dim}", PROJECTION),
    ]


def _mci_boxes(image: MCiConfig) -> list[Box]:
    side = image.image_size // 4
    boxes = [
        Box("stem: 3 MobileOne", f"{image.widths[0]} × {side} × {side}", CONVOLUTION),
    ]
    for stage, (width, depth) in enumerate(zip(image.widths, image.depths, strict=True)):
        convolution = stage < CONVOLUTION_STAGES
        kind, colour = ("RepMixer", CONVOLUTION) if convolution else ("attention", ATTENTION)
        boxes.append(Box(f"stage {stage + 1}: {depth} × {kind}", f"{width} × {side} × {side}", colour))
        side = -(-side // 2)
    return [*boxes, Box("expand, pool", f"{2 * image.widths[-1]}", CONVOLUTION)]


def _vit_boxes(image: ViTConfig) -> list[Box]:
    side = image.image_size // image.patch_size
    stem = "stem: 3 convolutions" if image.conv_stem else "stem: linear patches"
    return [
        Box(stem, f"{image.width} × {side} × {side}", CONVOLUTION),
        Box("class token + positions", f"{side * side + 1} × {image.width}", TOKENS),
        Box(f"{image.layers} × transformer", f"{side * side + 1} × {image.width}", ATTENTION),
        Box("class token", f"{image.width}", TOKENS),
    ]


def text_boxes(config: ModelConfig) -> list[Box]:
    """The text tower's parts, from tokens to features."""
    text = config.text
    shape = f"{text.context_length} × {text.width}"
    mixers = [Box("RepMixer along tokens", shape, CONVOLUTION)] * text.repmixers
    return [
        Box("tokens", f"{text.context_length}", INPUT),
        Box("embedding + positions", shape, TOKENS),
        *mixers,
        Box(f"{text.layers} × transformer", shape, ATTENTION),
        *mixers,
        Box("end-of-text token", f"{text.width}", TOKENS),
        Box("projection", f"{config.embed_dim}", PROJECTION),
    ]


def _draw_column(axis: "Axes", name: str, boxes: list[Box], rows: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    axis.set(xlim=(0, 1), ylim=(-rows, 0), title=name)
    axis.axis("off")
    width, height = BOX
    for row, box in enumerate(boxes):
        middle, colour = -row - 0.5, "white" if box.colour == ATTENTION else "black"
        corner = ((1 - width) / 2, middle - height / 2)
        style = "round,pad=0,rounding_size=0.02"
        axis.add_patch(FancyBboxPatch(corner, width, height, style, facecolor=box.colour, edgecolor="black"))
        text = f"{box.title}\n{box.shape}"
        axis.text(0.5, middle, text, ha="center", va="center", color=colour, fontsize=9, linespacing=1.1)
        if row:
            ends = (0.5, middle + height / 2), (0.5, middle + 1 - height / 2)
            axis.annotate("", *ends, arrowprops={"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0})
