"""The training loop, resumable to the byte."""

import copy
import dataclasses
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from mcliplib.checkpoints import save_checkpoint
from mcliplib.data import Sample
from mcliplib.errors import UserError
from mcliplib.factory import create_model, get_tokenizer
from mcliplib.files import locked
from mcliplib.model import MobileCLIP
from mcliplib.optimization import adamw, set_learning_rate, warmup_cosine
from mcliplib.presets import get_config
from mcliplib.threads import usable_cores
from mcliplib.tokenizer import restrict_vocab
from mcliplib.train.batches import Batch, ReinforcedBatch
from mcliplib.train.data import MakeBatch, PairData, ReinforcedData, StreamData, TrainingData, load_data
from mcliplib.train.distributed import check_agreement, device, merged, own_rows, processes, rank, world_size
from mcliplib.train.metrics import Report
from mcliplib.train.settings import TrainSettings
from mcliplib.train.state import STATE_FILE, Learner, Resumed, load_state, save_state
from mcliplib.train.step import DivergedError, loss_for, pinned, rows, to_device, train_step

_T = TypeVar("_T")
_MOST_THREADS = 6  # that make batches
_M = TypeVar("_M", bound=nn.Module)
MODEL_FILE = "model.safetensors"
log = logging.getLogger(__name__)


def threads_for(device: torch.device) -> int:
    """How many threads should make batches for what computes on `device`.

    None beside a CPU, whose cores they would take from the towers; for a GPU up to six, as far as this process's share
    of the machine's cores allows (`torchrun` tells how many processes share them).
    """
    if device.type == "cpu":
        return 0
    return max(1, min(_MOST_THREADS, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def made_ahead(make: Callable[[int], _T], steps: Iterable[int], threads: int) -> Generator[tuple[int, _T]]:
    """Each step and what `make` gives for it, in order.

    Threads, where a DataLoader has processes: these would each hold the pictures of a set in memory, and hand every
    batch over in a copy, while decoding and resizing let go of Python's lock anyway. A stream has a DataLoader.

    Args:
        make: a function of the step alone, that several threads may call at once.
        steps: the steps' numbers.
        threads: as many batches are made beside the caller's work, each in a thread; with 0 the caller waits for each.

    Raises:
        Exception: what `make` raises, when its step's turn has come.
    """
    if threads == 0:
        yield from ((step, make(step)) for step in steps)
        return
    numbers = iter(steps)
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        waiting = deque((step, pool.submit(make, step)) for step in islice(numbers, threads))
        while waiting:
            step, batch = waiting.popleft()
            made = batch.result()
            waiting.extend((following, pool.submit(make, following)) for following in islice(numbers, 1))
            yield step, made


def average_of(model: _M) -> _M:
    """A copy to average into: in eval mode, without gradients."""
    return copy.deepcopy(model).eval().requires_grad_(False)


@torch.no_grad()
def update_(average: nn.Module, model: nn.Module, *, decay: float, step: int) -> None:
    """Move the average towards the model: d * average + (1 - d) * model, with d = min(decay, (1 + s) / (10 + s)).

    The smaller d of the first steps keeps the random initial weights from counting for long, as in TensorFlow's
    ExponentialMovingAverage. Running statistics are averaged like weights; whole numbers are copied.

    `torch.optim.swa_utils.AveragedModel` is not used: its exponential average (`get_ema_multi_avg_fn`) has one d;
    it averages either all buffers, BatchNorm's integer counters too, or none; and its state dict has other names than
    the model's. With a function of our own in it, nothing of it would be left but the copy and the loop below.

    Args:
        average: from `average_of`; changed in place.
        model: after the step.
        decay: d in the long run; 0.999 averages over about a thousand steps.
        step: s, from 0.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, share)
        else:
            mean.copy_(value)


class TrainResult(NamedTuple):
    """The result of a finished run."""

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
    data: PairData | ReinforcedData | StreamData | None = None,
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
    with processes(), locked(Path(output)) if rank() == 0 else nullcontext():
        directory = run_folder(Path(output), resume)
        trained_on = " ".join(settings.data)
        if samples is not None:
            data = PairData(samples)
        if data is None:
            size = settings.image_size or get_config(settings.preset).image.image_size
            data = load_data(settings, size)
        else:
            trained_on = "data that the program passed"
        settings = _fitted(settings, data)
        learner = _new_learner(settings, data)
        at, digest = Resumed(0, 0.0, math.nan), data.digest()
        if (directory / STATE_FILE).exists():
            at = load_state(directory, settings, digest, learner, settings.steps)
            log.info("continuing at step %d of %d", at.step, settings.steps)
        check_agreement(str(directory), (at.step, digest))
        loss, seconds = _run(settings, directory, learner, data, digest, at)
        model, path = learner.result.eval().cpu(), directory / MODEL_FILE
        if rank() == 0:
            save_checkpoint(model, path, metadata={"trained_on": trained_on})
        return TrainResult(model, path, loss, seconds)


def _fitted(settings: TrainSettings, data: PairData | ReinforcedData | StreamData) -> TrainSettings:
    """The settings with what is impossible or useless with these data made smaller, and said so."""
    there = settings.batch_size if isinstance(data, StreamData) else len(data.samples)
    if settings.batch_size > there and settings.batch_size == TrainSettings().batch_size and there > 1:
        log.warning("batch_size %d is more than the set's %d pairs: it is %d now", settings.batch_size, there, there)
        settings = dataclasses.replace(settings, batch_size=there)
    if settings.warmup_steps >= settings.steps:
        shorter = settings.steps // 5
        log.warning(
            "warmup_steps %d is not less than the run's %d steps: it is %d now",
            settings.warmup_steps,
            settings.steps,
            shorter,
        )
        settings = dataclasses.replace(settings, warmup_steps=shorter)
    return settings


def run_folder(directory: Path, resume: bool) -> Path:
    """The folder of a run, made where it is not there.

    Raises:
        UserError: it cannot be made, or holds a run that is not to be resumed.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{directory}: cannot be a folder for the run ({error.strerror})") from error
    if (directory / STATE_FILE).exists() and not resume:
        raise UserError(f"{directory}: holds a run already; give --resume auto to continue it, or another --output")
    return directory


def _new_learner(settings: TrainSettings, data: TrainingData | StreamData) -> Learner:
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
    return Learner(model, optimizer, None if settings.ema is None else average_of(model))


def _new_model(settings: TrainSettings, data: TrainingData | StreamData) -> MobileCLIP:
    torch.manual_seed(settings.seed)
    model = create_model(
        settings.preset,
        image_size=settings.image_size,
        context_length=settings.context_length,
        vocab=None if isinstance(data, StreamData) or not settings.restrict_vocab else restrict_vocab(data.texts()),
    )
    return model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _run(
    settings: TrainSettings,
    directory: Path,
    learner: Learner,
    data: PairData | ReinforcedData | StreamData,
    digest: str,
    at: Resumed,
) -> tuple[float, float]:
    """From where the run stands to its end; returns the last loss and the seconds spent."""
    model, loss_of = learner.model, loss_for(settings, data)
    where, positions = device(), dict(at.positions)  # the latter of a stream's readers, moved on by each batch
    ahead = _batches(settings, data, model, where, at.step, positions)
    began, seen = time.perf_counter() - at.seconds, at.step * settings.batch_size
    with (
        Report(directory, pairs=settings.steps * settings.batch_size, seen=seen, from_step=at.step) as report,
        closing(ahead),
    ):
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
                update_(learner.average, model, decay=settings.ema, step=step)
            last = step + 1 == settings.steps
            at = Resumed(step + 1, time.perf_counter() - began, loss)
            save = (step + 1) % settings.save_every == 0 or last
            report.advance(settings.batch_size, loss)
            if step % settings.log_every == 0 or last:
                values = {"loss": loss, "learning_rate": rate, "logit_scale": model.scale.item(), "seconds": at.seconds}
                report.log(step, values)
            if save and isinstance(data, StreamData):
                at = at._replace(positions=merged(positions))
            if save and rank() == 0:
                save_state(directory, settings, digest, learner, at)
    return at.loss, at.seconds


def _batches(
    settings: TrainSettings,
    data: PairData | ReinforcedData | StreamData,
    model: MobileCLIP,
    where: torch.device,
    first: int,
    positions: dict[int, tuple[int, ...]],
) -> Generator[tuple[int, Batch | ReinforcedBatch]]:
    """The steps from `first` on, each with this process's rows of its batch."""
    tokenizer, size, own = get_tokenizer(model), model.config.image.image_size, own_rows(settings.batch_size)
    steps = range(first, settings.steps)
    if isinstance(data, StreamData):
        workers = threads_for(where) if settings.workers is None else settings.workers
        stream = data.stream(settings, tokenizer, size, own.stop - own.start, workers).resumed(first, positions)
        positions.clear()
        positions.update(stream.begun())
        for step, delivered in zip(steps, stream.loader(), strict=False):
            positions[delivered.reader] = delivered.position
            yield step, pinned(delivered.batch, where)
        return
    batches: MakeBatch = data.batches(settings, tokenizer, size)
    with closing(made_ahead(lambda step: pinned(rows(batches(step), own), where), steps, threads_for(where))) as ahead:
        yield from ahead


def _advice(directory: Path) -> str:
    path = directory / STATE_FILE
    kept = f"{path} is the last good state" if path.exists() else "no state was saved yet"
    return f"{kept}; start anew in another --output with a lower --learning-rate"
