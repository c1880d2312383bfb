"""The training loop."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mcliplib.checkpoints import save_checkpoint
from mcliplib.data import Sample
from mcliplib.errors import UserError
from mcliplib.factory import create_model, get_tokenizer
from mcliplib.losses import clip_loss, reinforced_loss
from mcliplib.model import Features, MobileCLIP
from mcliplib.optimization import adamw, set_learning_rate, warmup_cosine
from mcliplib.tokenizer import restrict_vocab
from mcliplib.train.batches import Batch
from mcliplib.train.data import MakeBatch, PairData, ReinforcedData, TrainingData, load_data
from mcliplib.train.metrics import Metrics
from mcliplib.train.reinforced import ReinforcedBatch
from mcliplib.train.settings import TrainSettings
from mcliplib.train.state import STATE_FILE, Resumed, load_state, save_state

MODEL_FILE = "model.safetensors"
LossOf = Callable[[Features, Batch | ReinforcedBatch], Tensor]
log = logging.getLogger(__name__)


class TrainResult(NamedTuple):
    """What a finished run leaves."""

    model: MobileCLIP  # in eval mode
    checkpoint: Path
    loss: float  # of the last step
    seconds: float  # spent on the steps, over all resumptions


def train(
    settings: TrainSettings,
    output: str | Path,
    *,
    resume: bool = False,
    samples: list[Sample] | None = None,
    data: PairData | ReinforcedData | None = None,
) -> TrainResult:
    """Train a model on image-text pairs with CLIP's loss, or on a reinforced set with the reinforced loss.

    Args:
        settings: the run.
        output: folder for `model.safetensors`, `last.pt` (to resume from), `metrics.jsonl` and TensorBoard events.
        resume: continue from `last.pt` where there is one; bit for bit what an uninterrupted run gives on one machine.
        samples: decoded pairs to train on (with CLIP's loss) instead of `settings.data`.
        data: a set in memory, also instead of it; what it holds decides, whatever the settings say of the data.

    Raises:
        UserError: unusable data, a folder that holds another run, or a loss that is no longer a number.
    """
    directory = Path(output)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be a folder for the run ({error.strerror})") from error
    if (directory / STATE_FILE).exists() and not resume:
        raise UserError(f"{directory}: holds a run already; give --resume auto to continue it, or another --output")
    if data is None:
        data = load_data(settings) if samples is None else PairData(samples)
    model = _new_model(settings, data)
    optimizer = adamw(
        model,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        betas=(0.9, settings.beta2),
        eps=1e-6,
    )
    at = Resumed(0, 0.0, math.nan)
    if (directory / STATE_FILE).exists():
        at = load_state(directory, settings, data.digest(), model, optimizer)
        log.info("continuing at step %d of %d", at.step, settings.steps)
    loss, seconds = _run(settings, directory, model, optimizer, data, at)
    path = directory / MODEL_FILE
    save_checkpoint(model.eval(), path, metadata={"trained_on": " ".join(settings.data)})
    return TrainResult(model, path, loss, seconds)


def _new_model(settings: TrainSettings, data: TrainingData) -> MobileCLIP:
    torch.manual_seed(settings.seed)
    model = create_model(
        settings.preset,
        image_size=settings.image_size,
        context_length=settings.context_length,
        vocab=restrict_vocab(data.texts()) if settings.restrict_vocab else None,
    )
    return model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _run(
    settings: TrainSettings,
    directory: Path,
    model: MobileCLIP,
    optimizer: torch.optim.Optimizer,
    data: PairData | ReinforcedData,
    at: Resumed,
) -> tuple[float, float]:
    digest = data.digest()
    batches: MakeBatch = data.batches(settings, get_tokenizer(model), model.config.image.image_size)
    loss_of = _loss_of(settings, data)
    metrics = Metrics(directory, from_step=at.step)
    started, loss = time.perf_counter() - at.seconds, at.loss
    progress = tqdm(total=settings.samples, initial=at.step * settings.batch_size, unit="pair", mininterval=1.0)
    try:
        for step in range(at.step, settings.steps):
            rate = warmup_cosine(
                step, peak=settings.learning_rate, warmup_steps=settings.warmup_steps, steps=settings.steps
            )
            set_learning_rate(optimizer, rate)
            loss = train_step(settings, model, optimizer, batches(step), step, loss_of)
            seconds = time.perf_counter() - started
            progress.update(settings.batch_size)
            progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
            if step % settings.log_every == 0 or step + 1 == settings.steps:
                scale = model.scale.item()
                metrics.log(step, {"loss": loss, "learning_rate": rate, "logit_scale": scale, "seconds": seconds})
            if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
                save_state(directory, settings, digest, model, optimizer, Resumed(step + 1, seconds, loss))
    finally:
        progress.close()
        metrics.close()
    return loss, time.perf_counter() - started


def train_step(
    settings: TrainSettings,
    model: MobileCLIP,
    optimizer: torch.optim.Optimizer,
    batch: Batch | ReinforcedBatch,
    step: int,
    loss_of: LossOf,
) -> float:
    """One step of gradient descent on a batch; returns the loss before it.

    Raises:
        UserError: the loss or its gradient is not a number; the weights are still those before the step.
    """
    torch.manual_seed(settings.seed * 1_000_003 + step)  # drop path draws from torch's own generator
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.dtype == "bfloat16"):
        features = model(batch.pixels, _all_tokens(batch))
    loss = loss_of(Features(features.image.float(), features.text.float(), features.logit_scale), batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise UserError(
            f"loss {loss.item()}, gradient norm {norm.item()} at step {step}: the run has diverged; "
            f"start anew in another --output with a lower --learning-rate"
        )
    optimizer.step()
    return loss.item()


def _all_tokens(batch: Batch | ReinforcedBatch) -> Tensor:
    """The real captions, then the synthetic ones: the text tower sees both at once."""
    if isinstance(batch, Batch) or batch.synthetic_tokens is None:
        return batch.tokens
    return torch.cat([batch.tokens, batch.synthetic_tokens])


def _loss_of(settings: TrainSettings, data: PairData | ReinforcedData) -> LossOf:
    """The loss of a batch's features; `features.text` holds the texts of `_all_tokens`."""
    if isinstance(data, PairData):
        return lambda features, batch: clip_loss(*features)
    dims, scales = data.teacher_dims, settings.teacher_scales
    scales = scales * len(dims) if len(scales) == 1 else scales
    if len(scales) != len(dims):
        raise UserError(f"teacher_scales: {len(scales)} numbers for {len(dims)} teachers")

    def loss(features: Features, batch: Batch | ReinforcedBatch) -> Tensor:
        assert isinstance(batch, ReinforcedBatch)
        real, *synthetic = features.text.split(len(features.image))
        return reinforced_loss(
            features.image,
            real,
            features.logit_scale,
            batch.image_emb,
            batch.text_emb,
            f_syn=synthetic[0] if synthetic else None,
            t_syn=batch.synthetic_emb,
            distill_weight=settings.distill_weight,
            teacher_dims=dims,
            teacher_scales=scales,
        )

    return loss
