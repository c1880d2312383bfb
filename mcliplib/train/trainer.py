"""The training loop."""

import logging
import math
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import torch

from mcliplib.checkpoints import save_checkpoint
from mcliplib.data import Sample
from mcliplib.errors import UserError
from mcliplib.factory import create_model, get_tokenizer
from mcliplib.model import MobileCLIP
from mcliplib.optimization import adamw, set_learning_rate, warmup_cosine
from mcliplib.tokenizer import restrict_vocab
from mcliplib.train import ema
from mcliplib.train.ahead import made_ahead, threads_for
from mcliplib.train.batches import Batch
from mcliplib.train.data import MakeBatch, PairData, ReinforcedData, TrainingData, load_data
from mcliplib.train.distributed import check_agreement, device, own_rows, processes, rank, world_size
from mcliplib.train.metrics import Report
from mcliplib.train.reinforced import ReinforcedBatch
from mcliplib.train.settings import TrainSettings
from mcliplib.train.state import STATE_FILE, Learner, Resumed, load_state, save_state
from mcliplib.train.step import DivergedError, loss_for, pinned, rows, to_device, train_step

MODEL_FILE = "model.safetensors"
log = logging.getLogger(__name__)


class TrainResult(NamedTuple):
    """What a finished run leaves."""

    model: MobileCLIP  # in eval mode, on the CPU; the average of the weights where `ema` is set
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

    On a GPU where there is one; threads then make the next batches. Under `torchrun`, each process computes its rows of
    the same batches (see `mcliplib.train.distributed`), and the first one writes the files.

    Args:
        settings: the run.
        output: folder for `model.safetensors`, `last.pt` (to resume from), `metrics.jsonl` and TensorBoard events; the
            same for all processes.
        resume: continue from `last.pt` where there is one; bit for bit what an uninterrupted run gives on one machine.
        samples: decoded pairs to train on (with CLIP's loss) instead of `settings.data`.
        data: a set in memory, also instead of it; what it holds decides, whatever the settings say of the data.

    Raises:
        UserError: unusable data, a folder that holds another run, or a loss that is no longer a number.
    """
    with processes():
        directory = _folder(Path(output), resume)
        if data is None:
            data = load_data(settings) if samples is None else PairData(samples)
        learner = _new_learner(settings, data)
        at, digest = Resumed(0, 0.0, math.nan), data.digest()
        if (directory / STATE_FILE).exists():
            at = load_state(directory, settings, digest, learner)
            log.info("continuing at step %d of %d", at.step, settings.steps)
        check_agreement(str(directory), (at.step, digest))
        loss, seconds = _run(settings, directory, learner, data, digest, at)
        model, path = learner.result.eval().cpu(), directory / MODEL_FILE
        if rank() == 0:
            save_checkpoint(model, path, metadata={"trained_on": " ".join(settings.data)})
        return TrainResult(model, path, loss, seconds)


def _folder(directory: Path, resume: bool) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be a folder for the run ({error.strerror})") from error
    if (directory / STATE_FILE).exists() and not resume:
        raise UserError(f"{directory}: holds a run already; give --resume auto to continue it, or another --output")
    return directory


def _new_learner(settings: TrainSettings, data: TrainingData) -> Learner:
    smallest = settings.batch_size // world_size() // settings.accumulate
    if smallest < 2:  # BatchNorm needs two rows
        raise UserError(
            f"batch_size {settings.batch_size} leaves {smallest} pairs for each of {world_size()} processes x "
            f"{settings.accumulate} parts; at least 2 are needed"
        )
    model = _new_model(settings, data).to(device())
    optimizer = adamw(
        model,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        betas=(0.9, settings.beta2),
        eps=1e-6,
    )
    return Learner(model, optimizer, None if settings.ema is None else ema.average_of(model))


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
    learner: Learner,
    data: PairData | ReinforcedData,
    digest: str,
    at: Resumed,
) -> tuple[float, float]:
    """From where the run stands to its end; returns the last loss and the seconds spent."""
    model, loss_of = learner.model, loss_for(settings, data)
    batches: MakeBatch = data.batches(settings, get_tokenizer(model), model.config.image.image_size)
    where, own = device(), own_rows(settings.batch_size)

    def batch_of(step: int) -> Batch | ReinforcedBatch:
        return pinned(rows(batches(step), own), where)

    ahead = made_ahead(batch_of, range(at.step, settings.steps), threads_for(where))
    began, seen = time.perf_counter() - at.seconds, at.step * settings.batch_size
    with Report(directory, pairs=settings.samples, seen=seen, from_step=at.step) as report, closing(ahead):
        for step, batch in ahead:
            rate = warmup_cosine(
                step, peak=settings.learning_rate, warmup_steps=settings.warmup_steps, steps=settings.steps
            )
            set_learning_rate(learner.optimizer, rate)
            try:
                loss = train_step(settings, model, learner.optimizer, to_device(batch, where), step, loss_of)
            except DivergedError as error:
                raise UserError(f"{error}; {_advice(directory)}") from error
            if learner.average is not None and settings.ema is not None:
                ema.update_(learner.average, model, decay=settings.ema, step=step)
            last = step + 1 == settings.steps
            at = Resumed(step + 1, time.perf_counter() - began, loss)
            report.advance(settings.batch_size, loss)
            if step % settings.log_every == 0 or last:
                values = {"loss": loss, "learning_rate": rate, "logit_scale": model.scale.item(), "seconds": at.seconds}
                report.log(step, values)
            if rank() == 0 and ((step + 1) % settings.save_every == 0 or last):
                save_state(directory, settings, digest, learner, at)
    return at.loss, at.seconds


def _advice(directory: Path) -> str:
    path = directory / STATE_FILE
    kept = f"{path} is the last good state" if path.exists() else "no state was saved yet"
    return f"{kept}; start anew in another --output with a lower --learning-rate"
