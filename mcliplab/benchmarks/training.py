"""The speed of a training step: the released arrangement against ours, one change after the other, in turn.

A step is what `mcliplib.train.step.train_step` does: both towers, the loss, its gradient, clipping, the optimizer. The
batches are real ones of a reinforced set, made beforehand; `mcliplab.benchmarks.loader` measures what loading costs.
All contenders have the same weights and keep them (the learning rate is 0), so that they must agree.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from mcliplab.benchmarks import arrangements
from mcliplab.benchmarks.arrangements import Learner, Material
from mcliplib.errors import UserError
from mcliplib.factory import get_tokenizer
from mcliplib.latency.timing import Measurement, measure
from mcliplib.losses import clip_loss
from mcliplib.model import MobileCLIP
from mcliplib.precision import DType, computed
from mcliplib.reinforce.settings import Teacher
from mcliplib.threads import using_threads
from mcliplib.tokenizer import restrict_vocab
from mcliplib.train.batches import ReinforcedBatch, check_batch_size
from mcliplib.train.data import ReinforcedData
from mcliplib.train.settings import TrainSettings
from mcliplib.train.step import LossOf, loss_for, train_step

TOLERANCE = 1e-4  # nats, between losses in float32
RELEASED = "released"
CHAIN = ("our_towers", "channels_last", "fused_adamw", "restricted_vocab", "bf16", "trimmed_context")  # one by one
EXACT = CHAIN[:4]  # the same function in float32; then come rounding and another model
BF16 = ("bf16", "bf16_pytorch_attention")  # left out where the processor only imitates bfloat16
BESIDE = ("pytorch_depthwise", "bf16_pytorch_attention", "plain", "plain_one_caption", "online")
TRIMMED = ("plain_trimmed", "online_trimmed")


@dataclass(frozen=True)
class StepSettings:
    """The settings of a step benchmark.

    Attributes:
        model: a preset with an MCi image tower.
        image_size: pixels, height and width.
        batch_size: pictures in a batch, each with its real caption and a synthetic one.
        context_length: tokens of the full context; the preset's if None.
        trimmed: tokens of the trimmed context.
        batches: different batches, which every contender goes through.
        rounds: steps of each contender that are counted.
        threads: PyTorch's.
    """

    model: str = "mobileclip_s0"
    image_size: int = 64
    batch_size: int = 32
    context_length: int | None = None
    trimmed: int = 16
    batches: int = 2
    rounds: int = 8
    threads: int = 1


class Agreement(NamedTuple):
    """A contender's first step beside the released arrangement's."""

    loss: float  # nats, of the reinforced loss
    loss_difference: float  # absolute
    gradient_difference: float  # L2 norm at a few parameters of both towers, relative


@dataclass(frozen=True)
class StepComparison:
    """The result of `compare_steps`.

    Attributes:
        measurement: milliseconds of a step.
        beside: what each further contender is compared with.
        agreement: of the contenders that compute the released arrangement's function.
        cut: share of the captions that the trimmed context cuts.
        vocab: embedding rows that the data's texts use.
    """

    measurement: Measurement
    beside: Mapping[str, str]
    agreement: Mapping[str, Agreement]
    cut: float
    vocab: int


@dataclass(frozen=True)
class _Contender:
    learner: Learner
    step: Callable[[int], float]  # on the batch of that number; returns the loss


def compare_steps(data: ReinforcedData, teachers: Sequence[Teacher], settings: StepSettings) -> StepComparison:
    """Time steps in interleaved rounds, after a look whether the contenders agree.

    Args:
        data: a reinforced set.
        teachers: run in the step by the contenders "online"; these are left out without any.
        settings: of the benchmark.

    Raises:
        UserError: too few samples, none with synthetic captions, a model that this is not for, or contenders that
            should compute the same and do not.
    """
    material = _material(data, settings)
    vocab = restrict_vocab(data.texts())
    with using_threads(settings.threads):
        contenders = _contenders(material, vocab, teachers, settings)
        agreement = _agreement(contenders, material)
        measurement = measure(
            {name: _in_turn(one.step, settings.batches) for name, one in contenders.items()},
            rounds=settings.rounds,
            warmup=1,
        )
    return StepComparison(measurement, _beside_what(contenders), agreement, _cut(material, settings), len(vocab))


def _beside_what(contenders: Mapping[str, _Contender]) -> dict[str, str]:
    ours = "bf16" if "bf16" in contenders else EXACT[-1]
    pairs = [(name, ours) for name in BESIDE] + [(name, "trimmed_context") for name in TRIMMED]
    return {name: other for name, other in pairs if name in contenders}


def _material(data: ReinforcedData, settings: StepSettings) -> Material:
    size, count = settings.batch_size, settings.batches
    check_batch_size(size * count, len(data.samples))
    if not data.samples[0].synthetic_captions:
        raise UserError("the set has no synthetic captions, so that there are no reinforced steps to measure")
    chosen = [data.samples[place * len(data.samples) // (size * count)] for place in range(size * count)]
    return Material(data, [chosen[part::count] for part in range(count)], settings.image_size)


def _contenders(
    material: Material, vocab: tuple[int, ...], teachers: Sequence[Teacher], settings: StepSettings
) -> dict[str, _Contender]:
    base = arrangements.base_model(settings.model, settings.image_size, settings.context_length)
    full = arrangements.copy_of(base)
    found = {RELEASED: _released(base, material, settings)}
    found["our_towers"] = _ours(full, material, settings, "float32", fused=False, contiguous=True)
    full = arrangements.channels_last(arrangements.copy_of(base))
    found["channels_last"] = _ours(full, material, settings, "float32", fused=False)
    found["fused_adamw"] = _ours(full, material, settings, "float32")
    small = arrangements.channels_last(arrangements.copy_of(base, vocab=vocab))
    found["restricted_vocab"] = _ours(small, material, settings, "float32")
    fastest = computed("auto", torch.device("cpu"))
    ours = found["restricted_vocab"]
    if fastest == "bfloat16":
        ours = found["bf16"] = _ours(small, material, settings, "bfloat16")
        found["bf16_pytorch_attention"] = _inside(arrangements.pytorch_attention, ours)
    found["pytorch_depthwise"] = _inside(arrangements.pytorch_depthwise, ours)
    found |= _beside(ours.learner, material, teachers, settings, "")
    found["plain_one_caption"] = _one_caption(ours.learner, material, settings)
    if settings.trimmed < base.config.text.context_length:
        short = arrangements.copy_of(base, vocab=vocab, context_length=settings.trimmed)
        found["trimmed_context"] = _ours(arrangements.channels_last(short), material, settings, "auto")
        found |= _beside(found["trimmed_context"].learner, material, teachers, settings, "_trimmed")
    return found


def _released(base: MobileCLIP, material: Material, settings: StepSettings) -> _Contender:
    learner = arrangements.released(base)
    batches = material.batches(base, contiguous=True)
    return _Contender(
        learner,
        _stepping(learner, batches, settings, "float32", arrangements.released_loss(material.data.teacher_dims)),
    )


def _ours(
    model: MobileCLIP,
    material: Material,
    settings: StepSettings,
    dtype: DType,
    *,
    fused: bool = True,
    contiguous: bool = False,
) -> _Contender:
    optimizer = arrangements.fused_adamw(model) if fused else arrangements.unfused_adamw(model)
    learner = arrangements.ours(model, optimizer)
    batches = material.batches(model, contiguous=contiguous)
    loss = loss_for(_train_settings(settings, dtype), material.data)
    return _Contender(learner, _stepping(learner, batches, settings, dtype, loss))


def _beside(
    learner: Learner, material: Material, teachers: Sequence[Teacher], settings: StepSettings, suffix: str
) -> dict[str, _Contender]:
    """The plain step with as many captions, and the step that asks the teachers itself."""
    batches = material.batches(learner.model)
    found = {f"plain{suffix}": _Contender(learner, _stepping(learner, batches, settings, "auto", _plain_loss))}
    if teachers:
        found[f"online{suffix}"] = _Contender(learner, _online(learner, material, teachers, settings))
    return found


def _one_caption(learner: Learner, material: Material, settings: StepSettings) -> _Contender:
    batches = [batch._replace(synthetic_tokens=None, synthetic_emb=None) for batch in material.batches(learner.model)]
    return _Contender(learner, _stepping(learner, batches, settings, "auto", _plain_loss))


def _plain_loss(features: Sequence[Tensor], scale: Tensor, teachers: Sequence[Tensor]) -> Tensor:
    image, *texts = features
    return torch.stack([clip_loss(image, text, scale) for text in texts]).sum()


def _stepping(
    learner: Learner, batches: Sequence[ReinforcedBatch], settings: StepSettings, dtype: DType, loss: LossOf
) -> Callable[[int], float]:
    run = _train_settings(settings, dtype)
    return lambda number: train_step(run, learner.model, learner.optimizer, batches[number], number, loss)


def _online(
    learner: Learner, material: Material, teachers: Sequence[Teacher], settings: StepSettings
) -> Callable[[int], float]:
    """The views at the teachers' size are made beforehand, as all pixels are."""
    run = _train_settings(settings, "auto")
    loss = loss_for(run, replace(material.data, teacher_dims=tuple(one.dim for one in teachers)))
    batches, sizes = material.batches(learner.model), {one.image_size for one in teachers}
    views = [{size: material.views(group, size) for size in sizes} for group in material.groups]
    texts = [
        [str(one.caption) for one in group] + [one.synthetic_captions[0] for one in group] for group in material.groups
    ]

    def step(number: int) -> float:
        pixels = views[number]
        t_image = torch.cat([one.encode_pixels(pixels[one.image_size]) for one in teachers], dim=1)
        t_texts = torch.cat([one.encode_texts(texts[number]) for one in teachers], dim=1)
        t_real, t_synthetic = t_texts.clone().chunk(2)  # a copy, as inference tensors cannot take part in autograd
        batch = batches[number]._replace(image_emb=t_image.clone(), text_emb=t_real, synthetic_emb=t_synthetic)
        return train_step(run, learner.model, learner.optimizer, batch, number, loss)

    return step


def _inside(patch: Callable[[], AbstractContextManager[None]], contender: _Contender) -> _Contender:
    """Return the contender with each of its steps run inside `patch`, which swaps some kernels for others."""

    def patched(number: int) -> float:
        with patch():
            return contender.step(number)

    return _Contender(contender.learner, patched)


def _agreement(contenders: Mapping[str, _Contender], material: Material) -> dict[str, Agreement]:
    """One step of each on the first batch.

    Raises:
        UserError: a contender that is the released arrangement's function in float32 has another loss.
    """
    teachers = [torch.stack([one.image_emb[0] for one in material.groups[0]])]
    teachers += [torch.stack([one.text_emb[place] for one in material.groups[0]]) for place in (0, 1)]
    above = arrangements.teachers_entropy(teachers, material.data.teacher_dims)
    wanted = contenders[RELEASED].step(0) - above
    gradient = contenders[RELEASED].learner.gradient()
    found = {RELEASED: Agreement(wanted, 0.0, 0.0)}
    for name in (name for name in (*EXACT, *BF16, "pytorch_depthwise") if name in contenders):
        loss = contenders[name].step(0)
        apart = contenders[name].learner.gradient() - gradient
        found[name] = Agreement(loss, abs(loss - wanted), float(apart.norm() / gradient.norm()))
        if name in EXACT and found[name].loss_difference > TOLERANCE:
            raise UserError(f"{name}: its loss is {loss:.6f}, the released arrangement's {wanted:.6f}: not the same")
    return found


def _cut(material: Material, settings: StepSettings) -> float:
    """Share of the captions with more tokens than the trimmed context holds."""
    full = get_tokenizer(settings.model)
    texts = [text for group in material.groups for one in group for text in (one.caption, one.synthetic_captions[0])]
    return sum(len(full.encode(str(text))) + 2 > settings.trimmed for text in texts) / len(texts)


def _train_settings(settings: StepSettings, dtype: DType) -> TrainSettings:
    return TrainSettings(
        preset=settings.model,
        reinforced=True,
        batch_size=settings.batch_size,
        dtype=dtype,
        teacher_scales=(arrangements.TEACHER_SCALE,),
    )


def _in_turn(step: Callable[[int], float], batches: int) -> Callable[[], float]:
    calls = iter(range(1 << 62))
    return lambda: step(next(calls) % batches)
