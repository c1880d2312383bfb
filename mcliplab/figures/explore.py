"""Figures to play with: in a live notebook controls that redraw, on a static page a slider over frames drawn before.

Each `explore_*` function gives an `Explorer`; it is shown by being the last value of a cell.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mcliplab.figures.fold_steps import FoldStep, draw_fold_step
from mcliplab.figures.slider import data_uri, frames_slider, img_style
from mcliplib.evaluate.features import ModelEncoder
from mcliplib.model import MobileCLIP
from mcliplib.reinforce.augment import OPS, PAPER, Augmentation, Box, Op, magnitude_of, replay
from mcliplib.viz.style import WIDTH, hide_frame, show_picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = Mapping[str, Any]


class Explorer:
    """A drawing and the controls that change it.

    Attributes:
        controls: the ipywidgets, by the name of the argument of `draw` that each one sets.
        view: the ipywidgets `HTML` with the drawing and its alt text; it is redrawn when a control changes.
        page: the same as a slider without a kernel, for static pages.
    """

    def __init__(
        self,
        draw: Callable[..., tuple[Any, str]],
        controls: Mapping[str, Any],
        frames: Sequence[Values],
        label: str,
        captions: Sequence[str] | None = None,
    ) -> None:
        """Connect the controls.

        Args:
            draw: gives a matplotlib figure or a PIL picture, and its alt text.
            controls: ipywidgets with a `value`, by the argument of `draw`.
            frames: values of the controls for the static page, one set a frame; those left out stay as they are. The
                page opens with the frame that the controls show, if there is one.
            label: what the static slider changes.
            captions: of the frames; unless given, the values that make each one.
        """
        import ipywidgets

        self.controls, self.view = dict(controls), ipywidgets.HTML()
        self._draw = draw
        drawn = [draw(**(self.values() | dict(frame))) for frame in frames]
        captions = captions or [self._in_words(frame) for frame in frames]
        start = next((i for i, frame in enumerate(frames) if frame.items() <= self.values().items()), 0)
        figures, alts = zip(*drawn, strict=True)
        self.page = frames_slider(figures, alts, label, captions=captions, start=start)
        for control in self.controls.values():
            control.observe(self._redraw, names="value")
        self._redraw()

    def values(self) -> dict[str, Any]:
        """Return the current value of every control, by its name."""
        return {name: control.value for name, control in self.controls.items()}

    def _in_words(self, values: Values) -> str:
        return ", ".join(f"{self.controls[name].description} {_short(value)}" for name, value in values.items())

    def _redraw(self, change: object = None) -> None:
        picture, alt = self._draw(**self.values())
        style = img_style(picture)  # first: a figure is closed once drawn
        self.view.value = f'<img src="{data_uri(picture)}" alt="{escape(alt)}" style="{style}">'

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """The widget for a live notebook, the slider for a page: whoever shows them takes the richest it can."""
        import ipywidgets

        box = ipywidgets.VBox([*self.controls.values(), self.view])
        return {**box._repr_mimebundle_(**options), "text/html": self.page.data}


def explore_augmentation(picture: Image.Image, *, size: int = 224) -> Explorer:
    """A picture's crop and two of RandAugment's operations, with their strengths.

    Args:
        picture: any PIL image.
        size: side of the view in pixels.
    """
    import ipywidgets

    names, levels = [operator.name for operator in OPS], ipywidgets.IntSlider
    controls = {
        "across": ipywidgets.FloatRangeSlider(value=(0.0, 1.0), min=0, max=1, step=0.01, description="crop, across"),
        "down": ipywidgets.FloatRangeSlider(value=(0.0, 1.0), min=0, max=1, step=0.01, description="crop, down"),
        "first": ipywidgets.Dropdown(options=names, value="Rotate", description="first"),
        "first_level": levels(value=9, min=0, max=PAPER.bins - 1, description="its level"),
        "second": ipywidgets.Dropdown(options=names, value="Solarize", description="then"),
        "second_level": levels(value=9, min=0, max=PAPER.bins - 1, description="its level"),
    }

    def draw(
        across: tuple[float, float], down: tuple[float, float], first: str, first_level: int, second: str,
        second_level: int,
    ) -> tuple[Image.Image, str]:  # fmt: skip
        crop = _box(across, down, picture.size)
        ops = tuple(
            Op(names.index(name), magnitude_of(names.index(name), level, PAPER.bins, PAPER.size))
            for name, level in ((first, first_level), (second, second_level))
        )
        view = replay(picture, Augmentation(crop, ops), size)
        alt = f"The picture cropped to {list(crop)}, then {first} at level {first_level}, {second} at {second_level}."
        return view, alt

    frames = [{"first": first, "second": second} for first, second in _PAIRS]
    return Explorer(draw, controls, frames, "operations")


_PAIRS = [
    ("Identity", "Identity"), ("Rotate", "Identity"), ("Rotate", "Solarize"), ("ShearX", "Posterize"),
    ("TranslateY", "Color"), ("Contrast", "Sharpness"), ("Equalize", "Brightness"),
]  # fmt: skip


def explore_targets(teacher: Float[Tensor, "b b"], names: Sequence[str]) -> Explorer:
    """Show a batch's soft targets at any temperature and distillation weight.

    The target of picture i is lambda * softmax(teacher_i / tau) + (1 - lambda) * one_hot(i). Up to a constant, the
    reinforced loss of MobileCLIP (section 4) is the cross-entropy with this target.

    Args:
        teacher: cosines of the teacher's picture features (rows) and text features (columns).
        names: one for each pair; they label both axes.
    """
    import ipywidgets

    controls = {
        "tau": ipywidgets.FloatLogSlider(value=0.01, min=-3, max=0, step=0.1, description="τ"),
        "lambda_": ipywidgets.FloatSlider(value=1.0, min=0, max=1, step=0.05, description="λ"),
    }

    def draw(tau: float, lambda_: float) -> "tuple[Figure, str]":
        import matplotlib.pyplot as plt

        target = lambda_ * (teacher / tau).softmax(dim=1) + (1 - lambda_) * torch.eye(len(teacher))
        figure, axis = plt.subplots(figsize=(WIDTH, 0.8 * WIDTH))
        shown = axis.imshow(target.numpy(), vmin=0, vmax=1)
        axis.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="text", ylabel="picture")
        axis.set_xticklabels(names, rotation=90)
        axis.set_yticklabels(names)
        hide_frame(axis)
        figure.colorbar(shown, label="target probability")
        kept = float(target.diagonal().mean())
        return figure, f"Target probabilities of {len(names)} pairs; the pair's own text keeps {kept:.0%} on average."

    frames = [{"tau": tau, "lambda_": 1.0} for tau in (0.003, 0.01, 0.03, 0.1, 1.0)]
    frames += [{"tau": 0.03, "lambda_": weight} for weight in (0.75, 0.5, 0.0)]
    return Explorer(draw, controls, frames, "temperature and weight")


def explore_fold(steps: Sequence[FoldStep]) -> Explorer:
    """Show every step of a block's folding, and the kernels of every channel.

    Args:
        steps: of `trace_fold`.
    """
    import ipywidgets

    rows, channels = max(len(step.branches) for step in steps), len(steps[0].branches[0].bias)
    controls = {
        "step": ipywidgets.IntSlider(value=0, min=0, max=len(steps) - 1, description="step"),
        "channel": ipywidgets.IntSlider(value=0, min=0, max=channels - 1, description="channel"),
    }

    def draw(step: int, channel: int) -> "tuple[Figure, str]":
        return draw_fold_step(steps[step], channel=channel, rows=rows), steps[step].alt

    captions = [f"{i} of {len(steps) - 1}" for i in range(len(steps))]  # the drawing says the rest
    return Explorer(draw, controls, [{"step": i} for i in range(len(steps))], "step", captions)


def explore_search(
    model: MobileCLIP,
    pictures: Sequence[Image.Image],
    phrases: Sequence[str],
    *,
    names: Sequence[str] | None = None,
    columns: int = 4,
) -> Explorer:
    """A text box that ranks pictures by what a model sees in them.

    Args:
        model: in eval mode.
        pictures: the gallery.
        phrases: the first one stands in the box; a static page shows all of them.
        names: of the pictures, for the text that stands for the figure; their places in the gallery unless given.
        columns: of the best pictures that are shown, in two rows.
    """
    import ipywidgets

    encoder = ModelEncoder(model)
    features = encoder.encode_images(pictures)
    controls = {"text": ipywidgets.Text(value=phrases[0], description="search", continuous_update=False)}

    def draw(text: str) -> "tuple[Figure, str]":
        import matplotlib.pyplot as plt

        best = (features @ encoder.encode_texts([text])[0]).topk(min(2 * columns, len(pictures)))
        figure, axes = plt.subplots(2, columns, figsize=(WIDTH, 0.6 * WIDTH), squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, cosine, index in zip(axes.flat, best.values.tolist(), best.indices.tolist(), strict=False):
            show_picture(axis, pictures[index], f"{cosine:.2f}")
        figure.suptitle(text.replace("$", r"\$"))
        found = ", ".join(names[i] if names else f"picture {i}" for i in best.indices.tolist())
        return figure, f"The pictures nearest to “{text}”, best first: {found}."

    captions = [f"“{phrase}”" for phrase in phrases]
    return Explorer(draw, controls, [{"text": phrase} for phrase in phrases], "search", captions)


def explore_classes(model: MobileCLIP, pictures: Mapping[str, Image.Image], classes: Sequence[str]) -> Explorer:
    """Class names in a text box, and how likely each one is for a picture.

    Args:
        model: in eval mode.
        pictures: by the names of what they show; a static page shows all of them.
        classes: stand in the box at first, with commas between; none of them holds a comma.
    """
    import ipywidgets

    encoder = ModelEncoder(model)
    features = dict(zip(pictures, encoder.encode_images(list(pictures.values())), strict=True))
    controls = {
        "picture": ipywidgets.Dropdown(options=list(pictures), description="picture"),
        "text": ipywidgets.Text(value=", ".join(classes), description="classes", continuous_update=False),
    }

    def draw(picture: str, text: str) -> "tuple[Figure, str]":
        import matplotlib.pyplot as plt

        names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip())) or ["?"]
        shares = (model.scale.item() * encoder.encode_texts(names) @ features[picture]).softmax(dim=0).tolist()
        figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 0.3 * len(names) + 1.5), width_ratios=(1, 2))
        show_picture(left, pictures[picture])
        right.barh([name.replace("$", r"\$") for name in names], [100 * share for share in shares])
        right.invert_yaxis()
        right.set(xlabel="probability, %", xlim=(0, 100))
        said = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares, strict=True))
        return figure, f"A picture of {picture}, and the probability of each class: {said}."

    return Explorer(draw, controls, [{"picture": name} for name in pictures], "picture", list(pictures))


def _box(across: tuple[float, float], down: tuple[float, float], size: tuple[int, int]) -> Box:
    """The crop between these shares of the width and the height, of at least one pixel."""
    left, top = (min(int(share[0] * side), side - 1) for share, side in zip((across, down), size, strict=True))
    right, bottom = (round(share[1] * side) for share, side in zip((across, down), size, strict=True))
    return Box(top, left, max(1, bottom - top), max(1, right - left))


def _short(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
