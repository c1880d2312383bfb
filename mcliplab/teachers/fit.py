"""From the training sets to trained heads."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcliplab.experiments.folds import fold_of
from mcliplab.experiments.noise import with_wrong_captions
from mcliplab.teachers.training import WEIGHTS, HeadData, HeadSettings, caption_numbers, train_heads, ways_to_say
from mcliplab.teachers.tune import TuneData, TuneSettings, tune
from mcliplab.teachers.views import image_views
from mcliplib.checkpoints.files import write_safetensors
from mcliplib.checkpoints.int8 import to_int8
from mcliplib.data import Sample, data_root, list_datasets, load_samples
from mcliplib.errors import UserError
from mcliplib.evaluate import linear_probe
from mcliplib.preprocess import preprocess_image
from mcliplib.reinforce.augment import AugmentSettings
from mcliplib.reinforce.teachers.efficientnet import FEATURES, LiteFeatures
from mcliplib.reinforce.teachers.features import in_batches
from mcliplib.reinforce.teachers.locked import GATE, IMAGE_SIZE, TOWER, Heads, tuned_features
from mcliplib.reinforce.teachers.minilm import WIDTH, MiniLM

VIEWS = 2
TUNING = TuneSettings()
ASKED_AT = 128  # pixels, where the crops of the tuning are 96: the best of 96, 112, 128 and 160 on held-out pictures
AUGMENTATIONS = AugmentSettings(size=IMAGE_SIZE, crop_scale=(0.3, 1.0))
SETTINGS = {
    "lite0": HeadSettings(seed=0),
    "lite2": HeadSettings(seed=1),
}


def head_data(
    variant: str,
    samples: Sequence[Sample],
    text: MiniLM,
    *,
    cache: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> HeadData:
    """The frozen features that one variant's heads are trained on; the pictures' are kept in `cache`.

    Args:
        variant: "lite0" or "lite2".
        samples: training pairs.
        text: embeds their texts.
        cache: folder; `.cache/teachers` in the data folder unless given.
        progress: told what is being computed.
    """
    images = training_views(LiteFeatures(variant, text), samples, cache=cache, progress=progress)
    captions = torch.tensor(caption_numbers(samples))
    return HeadData(images, _texts(samples, text), torch.tensor(WEIGHTS), captions)


def training_views(
    features: LiteFeatures,
    samples: Sequence[Sample],
    *,
    cache: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Float[Tensor, "views n 1664"]:
    """The frozen features of each picture, plain and augmented, that heads and captioner are trained on."""
    cache = cache or data_root() / ".cache" / "teachers"
    return image_views(features, samples, AUGMENTATIONS, views=VIEWS, seed=0, cache=cache, progress=progress)


def _texts(samples: Sequence[Sample], text: MiniLM) -> Tensor:
    said = [way for sample in samples for way in ways_to_say(sample)]
    index = {way: number for number, way in enumerate(dict.fromkeys(said))}
    found = text(list(index))
    return found[[index[way] for way in said]].clone().reshape(len(samples), len(WEIGHTS), WIDTH)


def train_teachers(
    output: Path | None = None, *, wrong_captions: float = 0.0, progress: Callable[[str], None] = lambda _: None
) -> list[Path]:
    """Train the heads of every variant on all training sets and write one file each.

    Args:
        output: folder; `data/teachers` unless given.
        wrong_captions: share of the pictures that have another one's caption and keywords, the same ones as in the
            experiments; for teachers that know no more about the training pictures than their student.
        progress: told what is being done.

    Returns:
        The files.

    Raises:
        UserError: the extra `teachers` is not installed, there is no data folder, or the shipped teachers would be
            overwritten by ones of wrong captions.
    """
    if wrong_captions and output is None:
        raise UserError("teachers of wrong captions need a folder of their own: name one with --output")
    text = MiniLM()
    samples = with_wrong_captions(load_samples(list_datasets("train")), wrong_captions)
    noted = {"wrong_captions": str(wrong_captions)} if wrong_captions else {}
    paths = []
    for variant, settings in SETTINGS.items():
        data = head_data(variant, samples, text, progress=progress)
        heads = train_heads(data, settings, lambda epoch, loss: progress(f"epoch {epoch}: loss {loss:.3f}"))
        path = (output or data_root() / "teachers") / f"{variant}.safetensors"
        save_trained(heads, path, {"variant": variant, "pairs": str(len(samples)), "settings": repr(settings), **noted})
        paths.append(path)
    return paths


def tune_teachers(
    output: Path | None = None,
    *,
    variants: Sequence[str] = tuple(SETTINGS),
    folds: int = 0,
    cache: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Tune teachers on all training sets, or one for each fold on the pictures outside it.

    Args:
        output: folder; `data/teachers` unless given. A file that is there is not made again.
        variants: of "lite0" and "lite2".
        folds: 0 tunes each variant on everything, `tuned-VARIANT.safetensors`; else the first one is tuned for each of
            as many folds: `fold-N.safetensors` has seen nothing of fold N (`mcliplab.experiments.world`). These have no
            text head, so that all share MiniLM's space.
        cache: as `head_data`.
        progress: told what is being done.

    Returns:
        The files.

    Raises:
        UserError: the extra `teachers` is not installed, or there is no data folder.
    """
    text, samples = MiniLM(), load_samples(list_datasets("train"))
    folder = output or data_root() / "teachers"
    everything = range(len(samples))
    wanted = [(f"tuned-{variant}", variant, list(everything)) for variant in variants]
    if folds:
        rows = [[row for row in everything if fold_of(samples[row].key, folds) != fold] for fold in range(folds)]
        wanted = [(f"fold-{fold}", variants[0], own) for fold, own in enumerate(rows)]
    paths = []
    for name, variant, own in wanted:
        paths.append(folder / f"{name}.safetensors")
        if not paths[-1].exists():
            data = head_data(variant, samples, text, cache=cache, progress=progress).subset(torch.tensor(own))
            _tune_teacher(variant, [samples[row] for row in own], data, paths[-1], text, progress, text_head=not folds)
    return paths


def _tune_teacher(
    variant: str,
    samples: Sequence[Sample],
    data: HeadData,
    path: Path,
    text: MiniLM,
    progress: Callable[[str], None],
    *,
    text_head: bool,
) -> None:
    """Train heads on the frozen tower, then tune the tower with them, and write one file."""
    settings = SETTINGS[variant] if text_head else dataclasses.replace(SETTINGS[variant], text_hidden=0)

    def of(part: str) -> Callable[[int, float], None]:
        return lambda epoch, loss: progress(f"{path.name}: {part}, epoch {epoch}: loss {loss:.3f}")

    heads = train_heads(data, settings, of("heads"))
    tower = tune(variant, text, heads, TuneData(samples, data.texts), TUNING, of("tower"))
    gate = photo_gate(variant, text, tower, samples)
    about = {"variant": variant, "pairs": str(len(samples)), "settings": f"{settings!r}, {TUNING!r}"}
    save_trained(heads, path, {**about, "image_size": str(ASKED_AT)}, tower, gate)


def photo_gate(variant: str, text: MiniLM, tower: Mapping[str, Tensor], samples: Sequence[Sample]) -> nn.Linear | None:
    """The linear probe of a tuned tower's pooled features that tells photographs, above 0, from drawings.

    Args:
        variant: "lite0" or "lite2".
        text: of the classes' names.
        tower: tuned weights.
        samples: with their `style`; None is returned where all are of one kind.
    """
    labels = torch.tensor([int(one.meta.get("style") == "photo") for one in samples])
    if len(labels.unique()) < 2:
        return None
    features = tuned_features(LiteFeatures(variant, text), tower)

    @torch.inference_mode()
    def pooled(pixels: Tensor) -> Tensor:
        return features(pixels).features[:, :FEATURES].clone()

    found = in_batches(
        pooled, [one.image for one in samples], lambda image: preprocess_image(image, ASKED_AT), FEATURES
    )
    probe = linear_probe(found, labels, found, labels)
    gate = nn.Linear(FEATURES, 1).requires_grad_(False)
    weights, bias = probe.weights.float(), probe.bias.float()
    gate.load_state_dict({"weight": weights[1:] - weights[:1], "bias": bias[1:] - bias[:1]})
    return gate


def save_trained(
    heads: Heads,
    path: Path,
    about: dict[str, str],
    tower: Mapping[str, Tensor] | None = None,
    gate: nn.Linear | None = None,
) -> None:
    """Write the heads, with the widths and `about` in the file's metadata.

    Args:
        heads: float16 in the file; a byte for each weight where the tower is with them.
        path: of the file.
        about: what is to be known about them.
        tower: weights of a tuned image tower; they take a byte each.
        gate: of its features, for photographs.
    """
    text_hidden = heads.text[1].out_features if heads.text is not None else 0
    widths = {"image_hidden": str(heads.image[1].out_features), "text_hidden": str(text_hidden)}
    tensors = {name: value.half() for name, value in heads.state_dict().items()}
    if tower is not None:
        own = {TOWER + name: value for name, value in tower.items()}
        own |= {GATE + name: value for name, value in gate.state_dict().items()} if gate is not None else {}
        tensors = to_int8({**heads.state_dict(), **own})
    write_safetensors(tensors, path, {"heads": json.dumps({**about, **widths}, sort_keys=True)})
