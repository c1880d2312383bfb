"""Fine-tuning an image tower to tell classes apart, from the classifier that the text tower makes of their names.

Three ways, which differ in the head that they begin with and in what they train:
- full: the class texts' features are the head, and all is trained (WiSE-FT, 2109.01903, section 3);
- probe: the head of a linear probe, and nothing is trained;
- lp-ft: that head, and then all is trained, so that the tower is distorted less (2202.10054).

WiSE-FT then mixes the weights of before and after (`mixed`): one run gives the whole curve between what the model knew
and what it learned.
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from mcliplib.checkpoints import load_model, save_checkpoint
from mcliplib.checkpoints.files import read_checkpoint
from mcliplib.data import Labelled
from mcliplib.errors import UserError
from mcliplib.evaluate import ModelEncoder, Score, class_features, linear_probe, score
from mcliplib.evaluate.scores import PHOTO_TEMPLATES
from mcliplib.files import fitted, locked, read_json, replacing
from mcliplib.model import MobileCLIP
from mcliplib.optimization import adamw, set_learning_rate, warmup_cosine
from mcliplib.train.batches import as_pixels, check_batch_size, crop_of, jitter_colours, rows_of
from mcliplib.train.metrics import Report
from mcliplib.train.state import STATE_FILE, Learner, Resumed, load_state, save_state
from mcliplib.train.trainer import MODEL_FILE, made_ahead, run_folder, threads_for

Method = Literal["full", "probe", "lp-ft"]
HEAD_FILE = "head.safetensors"
_M = TypeVar("_M", bound=nn.Module)


@dataclass(frozen=True)
class FinetuneSettings:
    """A fine-tuning run.

    Attributes:
        method: see the module.
        epochs: passes over the pictures.
        batch_size: pictures in a step.
        learning_rate: AdamW's peak; a tenth of the steps warm up, a cosine to zero follows.
        weight_decay: on matrices and convolution kernels only.
        label_smoothing: share of the target that goes to all classes alike.
        clip_norm: the gradient's norm is cut to this.
        min_crop: smallest share of the picture's area that RandomResizedCrop keeps.
        mirror: how often a crop is mirrored left to right.
        jitter: half-width of the random gain of each colour channel.
        seed: of order and crops, and of the probe's validation part.
        save_every: steps between checkpoints.
        log_every: steps between lines in the metrics.

    Raises:
        UserError: a value that cannot be trained with.
    """

    method: Method = "full"
    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 3e-4
    weight_decay: float = 0.05
    label_smoothing: float = 0.0
    clip_norm: float = 1.0
    min_crop: float = 0.6
    mirror: float = 0.5
    jitter: float = 0.1
    seed: int = 0
    save_every: int = 250
    log_every: int = 10

    def __post_init__(self) -> None:
        if self.method not in ("full", "probe", "lp-ft"):
            raise UserError(f"method must be full, probe or lp-ft, got {self.method!r}")
        for name, low in (("epochs", 1), ("batch_size", 2), ("seed", 0), ("save_every", 1), ("log_every", 1)):
            if getattr(self, name) < low:
                raise UserError(f"{name} must be at least {low}, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("weight_decay", "label_smoothing", "min_crop", "mirror", "jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.min_crop == 0 or self.jitter == 1:
            raise UserError(f"min_crop must be above 0 and jitter below 1; got {self}")

    def steps(self, pictures: int) -> int:
        """Optimizer steps in the whole run; none of a probe."""
        return 0 if self.method == "probe" else self.epochs * (pictures // self.batch_size)


class ImageClassifier(nn.Module):
    """An image tower and a head, which is put on the tower's device.

    Args:
        image_encoder: pixels [B, 3, H, W] -> [B, D].
        weight: of the head; class texts' features times the inverse temperature, or a linear probe's.
        bias: of the head.
    """

    def __init__(
        self, image_encoder: nn.Module, weight: Float[Tensor, "classes d"], bias: Float[Tensor, " classes"]
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        where = next(image_encoder.parameters()).device
        self.head = nn.Linear(weight.shape[1], weight.shape[0], device=where)
        self.head.load_state_dict({"weight": weight.float(), "bias": bias.float()})

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        """Logits."""
        return self.head(nn.functional.normalize(self.image_encoder(pixels), dim=-1))


class FinetuneResult(NamedTuple):
    """The result of a finished run."""

    before: ImageClassifier  # zero-shot: the head of class texts on the tower as it was; eval mode
    after: ImageClassifier
    loss: float  # of the last step, in nats; NaN of a probe
    seconds: float


def zero_shot_classifier(
    model: MobileCLIP, classes: Sequence[str], templates: Sequence[str] = PHOTO_TEMPLATES
) -> ImageClassifier:
    """The classifier that the text tower makes; it shares the model's image tower."""
    weight = model.scale.detach().cpu() * class_features(model, classes, templates)
    return ImageClassifier(model.image_encoder, weight, torch.zeros(len(classes))).eval()


def mixed(before: _M, after: _M, share: float) -> _M:
    """WiSE-FT (2109.01903): a model whose weights are (1 - share) * before + share * after, in eval mode.

    Args:
        before: unchanged.
        after: of the same architecture; unchanged.
        share: of `after`, from 0 to 1.

    Raises:
        ValueError: their weights differ in names or shapes.
    """
    ends = before.state_dict(), after.state_dict()
    if {name: one.shape for name, one in ends[0].items()} != {name: one.shape for name, one in ends[1].items()}:
        raise ValueError("the two are not of one architecture")
    model = copy.deepcopy(after)
    weights = {
        name: one.lerp(ends[1][name], share) if one.is_floating_point() else ends[1][name]
        for name, one in ends[0].items()
    }
    model.load_state_dict(weights)
    return model.eval()


@torch.inference_mode()
def predict(
    classifier: ImageClassifier, model: MobileCLIP, images: Sequence[Image.Image]
) -> Float[Tensor, "n classes"]:
    """Logits of pictures, preprocessed for the model whose tower the classifier has."""
    encoder = ModelEncoder(with_tower(model, classifier.image_encoder))
    return classifier.head(encoder.encode_images(images).to(classifier.head.weight.device)).cpu()


def accuracy(classifier: ImageClassifier, model: MobileCLIP, test: Labelled) -> Score:
    """The share of right answers on pictures preprocessed for the model whose tower the classifier has."""
    return score(predict(classifier, model, test.images).argmax(dim=1) == test.labels)


def wise_ft(result: FinetuneResult, model: MobileCLIP, test: Labelled, shares: Sequence[float]) -> dict[float, Score]:
    """Accuracy on test pictures along the line from before to after.

    Args:
        result: of a run.
        model: that it began with; its preprocessing is used.
        test: of the same classes.
        shares: of the fine-tuned weights.
    """
    return {share: accuracy(mixed(result.before, result.after, share), model, test) for share in shares}


def finetune(
    model: MobileCLIP,
    data: Labelled,
    output: str | Path,
    settings: FinetuneSettings = FinetuneSettings(),
    *,
    templates: Sequence[str] = PHOTO_TEMPLATES,
    resume: bool = False,
) -> FinetuneResult:
    """Fine-tune a copy of a model's image tower.

    Args:
        model: in training form (not folded), on the device to train on; unchanged.
        data: pictures of classes.
        output: folder for `model.safetensors` (an ordinary checkpoint: the model with the new tower), for
            `head.safetensors`, `last.pt` and the metrics.
        settings: the run.
        templates: prompts of the class names.
        resume: continue from `last.pt` where there is one; bit for bit what an uninterrupted run gives on one machine.

    Raises:
        UserError: fewer pictures than a batch, or a folder that holds another run.
    """
    if settings.method != "probe":
        check_batch_size(settings.batch_size, len(data.images), "pictures")
    with locked(Path(output)):
        directory = run_folder(Path(output), resume)
        before = zero_shot_classifier(model, data.classes, templates)
        after = _start(model, before, data, settings)
        loss, seconds = math.nan, 0.0
        if settings.method != "probe":
            loss, seconds = _run(after, model, data, settings, directory)
        save_checkpoint(with_tower(model, after.image_encoder), directory / MODEL_FILE)
        with replacing(directory / HEAD_FILE) as temporary:
            save_file(after.head.state_dict(), temporary, {"classes": json.dumps(data.classes)})
        return FinetuneResult(before, after.eval(), loss, seconds)


def load_classifier(folder: str | Path) -> tuple[ImageClassifier, MobileCLIP, tuple[str, ...]]:
    """The files of `finetune`: the classifier, the model with its tower, and the classes.

    Raises:
        UserError: the folder holds none, or a broken one.
    """
    path = Path(folder) / HEAD_FILE
    model, found = load_model(Path(folder) / MODEL_FILE), read_checkpoint(path)
    try:
        classes = tuple(fitted(read_json(found.header["classes"], "classes"), list[str], "classes"))
        classifier = ImageClassifier(model.image_encoder, found.tensors["weight"], found.tensors["bias"])
        if len(classes) != len(classifier.head.weight):
            raise ValueError(f"{len(classes)} names for {len(classifier.head.weight)} classes")
    except (KeyError, ValueError, RuntimeError, UserError) as error:
        raise UserError(f"{path}: no head of `mcliplib finetune` ({error})") from error
    return classifier.eval(), model, classes


def _start(model: MobileCLIP, before: ImageClassifier, data: Labelled, settings: FinetuneSettings) -> ImageClassifier:
    """The classifier that training begins with."""
    tower = copy.deepcopy(before.image_encoder)
    if settings.method == "full":
        return ImageClassifier(tower, before.head.weight.detach(), before.head.bias.detach())
    features = ModelEncoder(model).encode_images(data.images)
    probe = linear_probe(features, data.labels, features, data.labels, seed=settings.seed)
    weight = torch.zeros_like(before.head.weight)
    bias = torch.full_like(before.head.bias, float(probe.bias.min()))  # of classes that no picture shows
    weight[: len(probe.weights)], bias[: len(probe.bias)] = probe.weights.float(), probe.bias.float()
    return ImageClassifier(tower, weight, bias)


def _run(
    classifier: ImageClassifier, model: MobileCLIP, data: Labelled, settings: FinetuneSettings, directory: Path
) -> tuple[float, float]:
    """From where the run stands to its end; returns the last loss and the seconds spent."""
    classifier.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    device = model.logit_scale.device
    steps = settings.steps(len(data.images))
    optimizer = adamw(
        classifier, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.999)
    )
    learner, at = Learner(classifier, optimizer, None), Resumed(0, 0.0, math.nan)
    digest = _digest(data)
    if (directory / STATE_FILE).exists():
        at = load_state(directory, settings, digest, learner, steps)
    began, size = time.perf_counter() - at.seconds, model.config.image.image_size
    make = _batches(data, settings, size)
    ahead = made_ahead(make, range(at.step, steps), threads_for(device))
    total, seen = steps * settings.batch_size, at.step * settings.batch_size
    with Report(directory, pairs=total, seen=seen, from_step=at.step, unit="picture") as report, closing(ahead):
        for step, (pixels, labels) in ahead:
            rate = warmup_cosine(step, peak=settings.learning_rate, warmup_steps=max(1, steps // 10), steps=steps)
            set_learning_rate(optimizer, rate)
            loss = _step(classifier, optimizer, pixels.to(device), labels.to(device), settings, step)
            at = Resumed(step + 1, time.perf_counter() - began, loss)
            report.advance(settings.batch_size, loss)
            if step % settings.log_every == 0 or step + 1 == steps:
                report.log(step, {"loss": loss, "learning_rate": rate, "seconds": at.seconds})
            if (step + 1) % settings.save_every == 0 or step + 1 == steps:
                save_state(directory, settings, digest, learner, at)
    return at.loss, at.seconds


def _step(
    classifier: ImageClassifier,
    optimizer: torch.optim.Optimizer,
    pixels: Tensor,
    labels: Tensor,
    settings: FinetuneSettings,
    step: int,
) -> float:
    torch.manual_seed(settings.seed * 1_000_003 + step)  # of drop path
    optimizer.zero_grad(set_to_none=True)
    loss = nn.functional.cross_entropy(classifier(pixels), labels, label_smoothing=settings.label_smoothing)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(classifier.parameters(), settings.clip_norm)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise UserError(f"loss {loss.item()} at step {step}: the run has diverged; lower --learning-rate")
    optimizer.step()
    return loss.item()


def _batches(data: Labelled, settings: FinetuneSettings, size: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    def make(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([settings.seed, 1, step])
        rows = rows_of(step, len(data.images), settings.batch_size, settings.seed)
        crops = np.stack([crop_of(data.images[row], size, rng, settings.min_crop) for row in rows])
        mirrored = rng.random(len(rows)) < settings.mirror
        crops[mirrored] = crops[mirrored, :, ::-1]
        return jitter_colours(as_pixels(crops), rng, settings.jitter), data.labels[torch.from_numpy(rows)]

    return make


def _digest(data: Labelled) -> str:
    """A hash of classes, labels and pictures: a run goes on only with the data that it began with."""
    digest = hashlib.sha256(json.dumps([data.classes, data.labels.tolist()]).encode())
    for image in data.images:
        digest.update(repr(image.size).encode() + image.tobytes())
    return digest.hexdigest()


def with_tower(model: MobileCLIP, tower: nn.Module) -> MobileCLIP:
    """The model with another image tower, in eval mode; both towers are shared, not copied."""
    own = MobileCLIP(model.config, tower, model.text_encoder)
    own.logit_scale.data.copy_(model.logit_scale.data)
    return own.to(model.logit_scale.device).eval()
