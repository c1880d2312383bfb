"""Accuracy against time: on the phone of the paper, and on a machine that was measured."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mcliplib.viz.style import PALETTE, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# how the models of a family begin -> its name, marker and colour, and where a model's name stands beside its marker
_FAMILIES = {
    "mobileclip_": ("MobileCLIP", "o", "blue", (5, -11), "left"),
    "mobileclip2_": ("MobileCLIP2", "s", "orange", (-5, 4), "right"),
    "ViT-": ("open_clip", "^", "black", (5, 4), "left"),
}
_SHORT = {"ViT-B-16": "B/16", "ViT-B-32": "B/32"}


def draw_accuracy_latency(
    measured: Mapping[str, Any], published: Mapping[str, Mapping[str, Any]], here: str = "this machine"
) -> "Figure":
    """Two panels, one above the other: the published phone's times, and those measured.

    Args:
        measured: model -> tower -> `ms`, with a `median`, as `mcliplib benchmark released` gives it.
        published: model -> `average38`, `phone_image_ms`, `phone_text_ms`.
        here: what was measured on, for the title.
    """
    import matplotlib.pyplot as plt

    figure, (phone, machine) = plt.subplots(2, 1, figsize=(WIDTH, 6.4), sharey=True)
    names = [name for name in published if name in measured]
    _panel(phone, {name: published[name]["phone_image_ms"] + published[name]["phone_text_ms"] for name in names},
           published, "iPhone 12 Pro Max, as published")  # fmt: skip
    _panel(machine, {name: sum(measured[name][tower]["ms"]["median"] for tower in ("image", "text")) for name in names},
           published, here)  # fmt: skip
    machine.set_xlabel("milliseconds, image + text")
    phone.legend(loc="lower right", fontsize=9)
    return figure


def _panel(axis: "Axes", times: Mapping[str, float], published: Mapping[str, Mapping[str, Any]], title: str) -> None:
    for start, (family, marker, colour, offset, side) in _FAMILIES.items():
        names = [name for name in times if name.startswith(start)]
        scores = [published[name]["average38"] for name in names]
        axis.plot([times[name] for name in names], scores, marker, color=PALETTE[colour], label=family, linestyle="")
        for name, score in zip(names, scores, strict=True):
            short = _SHORT.get(name, name.removeprefix(start).upper().replace("L14", "L/14"))
            at = (times[name], score)
            axis.annotate(short, at, offset, textcoords="offset points", fontsize=9, ha=side)
    axis.set(xscale="log", title=title, ylabel="mean of 38 sets, %")
    low, high = min(times.values()), max(times.values())
    ticks = [tick for tick in (1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000) if low / 2 < tick < high * 2]
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set_xlim(low / 1.3, high * 1.3)
