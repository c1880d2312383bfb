"""The paper's first picture for this machine: every released model's time here, to stand beside its published accuracy.

The towers are ours, folded and eager; open_clip's ViT-B-16 runs beside each of them, turn by turn, and the ratio is to
its tower. Weights are random: they do not change the time. One model is in memory at a time, and the reference.
"""

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mcliplib.export.towers import TOWERS
from mcliplib.latency.contenders import seeded_model
from mcliplib.latency.peers import TowerKind, example_for, tower_of
from mcliplib.latency.timing import measure as measure_times
from mcliplib.layers.cpu import optimize_for_cpu
from mcliplib.presets import list_models
from mcliplib.quiet import quiet
from mcliplib.reparam import reparameterize
from mcliplib.results import RESULTS

PUBLISHED = RESULTS.with_name("published_models.json")
REFERENCE = "ViT-B-16"
OPEN_CLIP = (REFERENCE, "ViT-B-32")

Towers = dict[TowerKind, tuple[nn.Module, Tensor]]  # and an input of each


def published() -> dict[str, dict[str, Any]]:
    """The published numbers of every released model, by its name.

    Returns:
        `imagenet` and `average38` in per cent, `phone_image_ms` and `phone_text_ms` of the release's README (for the
        ViTs, open_clip's table of results and the paper's times), and `app_ms` where the release's app says otherwise.
    """
    return dict(json.loads(PUBLISHED.read_text(encoding="utf-8")))


def models() -> list[str]:
    """Those that are both published and ours or open_clip's."""
    return [name for name in published() if name in (*list_models(), *OPEN_CLIP)]


def measure(*, rounds: int, threads: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Milliseconds of both towers of every model, for one picture and one text, and their ratio to the reference's.

    Args:
        rounds: turns of each.
        threads: PyTorch's.
        progress: told each model.
    """
    reference = open_clip_towers(REFERENCE)
    values: dict[str, Any] = {}
    for name in models():
        progress(name)
        towers = open_clip_towers(name) if name in OPEN_CLIP else our_towers(name)
        values[name] = {}
        for kind in TOWERS:
            calls = {one: _call(*of[kind]) for one, of in (("model", towers), ("reference", reference))}
            with torch.inference_mode():
                timed = measure_times(calls, rounds=rounds, threads=threads)
            values[name][kind] = {
                "ms": timed.spread("model")._asdict() | {"p90": timed.decile("model")},
                "ratio": timed.ratio("model", "reference")._asdict(),
            }
    return values


def our_towers(name: str) -> Towers:
    """Folded, in the form that is fastest on a processor."""
    model = seeded_model(name)
    return {
        kind: (optimize_for_cpu(reparameterize(tower_of(model, kind))), example_for(model, kind)) for kind in TOWERS
    }


def open_clip_towers(name: str) -> Towers:
    """open_clip's, as it makes them."""
    import open_clip

    with quiet():
        model = open_clip.create_model(name, load_weights=False).eval()
    size = model.visual.image_size[0]
    return {"image": (model.visual, torch.rand(1, 3, size, size)), "text": (_Text(model), _tokens(model))}


class _Text(nn.Module):
    """The text half of a CLIP that has no module of its own for it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self._model.encode_text(tokens)  # type: ignore[operator]


def _tokens(model: nn.Module) -> Tensor:
    tokens = torch.randint(49405, (1, 77))
    tokens[:, 11] = 49407
    return tokens


def _call(tower: nn.Module, example: Tensor) -> Callable[[], object]:
    return lambda: tower(example)
