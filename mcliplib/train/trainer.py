"""The training loop."""

import logging
import math
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from tqdm.auto import tqdm

from mcliplib.checkpoints import save_checkpoint
from mcliplib.data import Sample, load_samples
from mcliplib.errors import UserError
from mcliplib.factory import create_model, get_tokenizer
from mcliplib.losses import clip_loss
from mcliplib.model import MobileCLIP
from mcliplib.tokenizer import restrict_vocab
from mcliplib.train.batches import Batch, PairBatches
from mcliplib.train.metrics import Metrics
from mcliplib.train.schedule import warmup_cosine
from mcliplib.train.settings import TrainSettings
from mcliplib.train.state import STATE_FILE, Resumed, data_digest, load_state, save_state

MODEL_FILE = "model.safetensors"
log = logging.getLogger(__name__)


class TrainResult(NamedTuple):
    """What a finished run leaves."""

    model: MobileCLIP  # in eval mode
    checkpoint: Path
    loss: float  # of the last step
    seconds: float  # spent on the steps, over all resumptions


def train(
    settings: TrainSettings, output: str | Path, *, resume: bool = False, samples: list[Sample] | None = None
) -> TrainResult:
    """Train a model on image-text pairs with CLIP's loss.

    Args:
        settings: the run.
        output: folder for `model.safetensors`, `last.pt` (to resume from), `metrics.jsonl` and TensorBoard events.
        resume: continue from `last.pt` where there is one; bit for bit what an uninterrupted run gives on one machine.
        samples: decoded pairs to train on instead of `settings.data`.

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
    samples = load_samples(settings.data) if samples is None else samples
    model = _new_model(settings, samples)
    optimizer = _new_optimizer(settings, model)
    at = Resumed(0, 0.0, math.nan)
    if (directory / STATE_FILE).exists():
        at = load_state(directory, settings, data_digest(samples), model, optimizer)
        log.info("continuing at step %d of %d", at.step, settings.steps)
    loss, seconds = _run(settings, directory, model, optimizer, _batches(settings, model, samples), at)
    path = directory / MODEL_FILE
    save_checkpoint(model.eval(), path, metadata={"trained_on": " ".join(settings.data)})
    return TrainResult(model, path, loss, seconds)


def _new_model(settings: TrainSettings, samples: list[Sample]) -> MobileCLIP:
    texts = (text for s in samples for text in (s.caption, *s.meta.get("keywords", [])))
    torch.manual_seed(settings.seed)
    model = create_model(
        settings.preset,
        image_size=settings.image_size,
        context_length=settings.context_length,
        vocab=restrict_vocab(texts) if settings.restrict_vocab else None,
    )
    return model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _new_optimizer(settings: TrainSettings, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW; vectors and scalars (norms, biases, scales, temperature) have no weight decay."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, settings.beta2), eps=1e-6, fused=True)


def _batches(settings: TrainSettings, model: MobileCLIP, samples: list[Sample]) -> PairBatches:
    return PairBatches(
        samples,
        get_tokenizer(model),
        image_size=model.config.image.image_size,
        batch_size=settings.batch_size,
        seed=settings.seed,
        min_crop=settings.min_crop,
        mirror=settings.mirror,
        jitter=settings.jitter,
        keyword_captions=settings.keyword_captions,
    )


def _run(
    settings: TrainSettings,
    directory: Path,
    model: MobileCLIP,
    optimizer: torch.optim.Optimizer,
    batches: PairBatches,
    at: Resumed,
) -> tuple[float, float]:
    digest = data_digest(batches.samples)
    metrics = Metrics(directory, from_step=at.step)
    started, loss = time.perf_counter() - at.seconds, at.loss
    progress = tqdm(total=settings.samples, initial=at.step * settings.batch_size, unit="pair", mininterval=1.0)
    try:
        for step in range(at.step, settings.steps):
            rate = _set_rate(settings, optimizer, step)
            loss = train_step(settings, model, optimizer, batches(step), step)
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


def _set_rate(settings: TrainSettings, optimizer: torch.optim.Optimizer, step: int) -> float:
    rate = warmup_cosine(step, peak=settings.learning_rate, warmup_steps=settings.warmup_steps, steps=settings.steps)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def train_step(
    settings: TrainSettings, model: MobileCLIP, optimizer: torch.optim.Optimizer, batch: Batch, step: int
) -> float:
    """One step of gradient descent on a batch; returns the loss before it.

    Raises:
        UserError: the loss or its gradient is not a number; the weights are still those before the step.
    """
    torch.manual_seed(settings.seed * 1_000_003 + step)  # drop path draws from torch's own generator
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.dtype == "bfloat16"):
        features = model(batch.pixels, batch.tokens)
    loss = clip_loss(features.image.float(), features.text.float(), features.logit_scale)
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
