"""One training step: forward, loss, backward, clipping, update; and the same for a batch that memory does not hold."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mcliplib.errors import UserError
from mcliplib.losses import clip_loss, multi_positive_loss, reinforced_loss
from mcliplib.model import MobileCLIP
from mcliplib.precision import DType, computed
from mcliplib.train.batches import Batch, ReinforcedBatch
from mcliplib.train.data import PairData, ReinforcedData, StreamData
from mcliplib.train.distributed import average_, gather, part_of, rank
from mcliplib.train.settings import TrainSettings

Encode = Callable[[int], Sequence[Tensor]]  # of a part's number: its features, [b, ...] each
LossOfAll = Callable[[Sequence[Tensor]], Tensor]
LossOf = Callable[[Sequence[Tensor], Tensor, Sequence[Tensor]], Tensor]  # of features, inverse temperature, answers


class DivergedError(UserError):
    """The loss or gradient is NaN or infinite."""


def train_step(
    settings: TrainSettings,
    model: MobileCLIP,
    optimizer: torch.optim.Optimizer,
    batch: Batch | ReinforcedBatch,
    step: int,
    loss_of: LossOf,
) -> float:
    """One step of gradient descent on a batch; returns the loss before it.

    Args:
        settings: the run's.
        model: in train mode.
        optimizer: of its parameters.
        batch: this process's rows, on the model's device.
        step: number of the step, for the random numbers.
        loss_of: see `loss_for`.

    Raises:
        DivergedError: the loss or its gradient is NaN or infinite; the weights are still those before the step.
    """

    def encode(part: int) -> Sequence[Tensor]:
        _seed(settings, step, part)
        return features_of(model, rows(batch, part_of(len(batch.pixels), part, settings.accumulate)), settings.dtype)

    def loss_of_all(features: Sequence[Tensor]) -> Tensor:
        return loss_of(gather(features), model.scale, gather(answers_of(batch, settings)))

    optimizer.zero_grad(set_to_none=True)
    if settings.accumulate == 1:
        features = encode(0)
        loss = loss_of_all(features)
        loss.backward()
    else:
        loss = backward_in_parts(model, encode, settings.accumulate, loss_of_all)
    average_(model)  # the gradients, over the processes
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):  # the same in all processes: all of them stop
        raise DivergedError(f"loss {loss.item()}, gradient norm {norm.item()} at step {step}: the run has diverged")
    optimizer.step()
    return loss.item()


def backward_in_parts(model: nn.Module, encode: Encode, parts: int, loss_of: LossOfAll) -> Tensor:
    """Add the gradients of a loss over all parts together, for a batch that does not fit in memory at once.

    Ordinary gradient accumulation would contrast each part with itself only. As in GradCache (2101.06983), the loss
    needs only the features of all rows, which are small: encode every part without keeping activations, take the loss's
    gradient with respect to the features, then encode each part again and continue the backward pass from there.

    Exact where a row's features do not depend on the rows beside it. In training, with BatchNorm they do: it normalises
    with the statistics of each part, as it would in as many processes; its running statistics move once per part.

    Args:
        model: whose parameters `encode` and `loss_of` may use.
        encode: the features of one part; the same ones (random numbers included) each time it is asked.
        parts: how many there are.
        loss_of: the loss of the features of all parts, in the parts' order.

    Returns:
        The loss, detached.
    """
    with torch.no_grad(), _statistics_kept(model):
        cached = [encode(part) for part in range(parts)]
    leaves = [torch.cat(column).requires_grad_() for column in zip(*cached, strict=True)]
    loss = loss_of(leaves)
    loss.backward()
    sizes = [len(features[0]) for features in cached]
    gradients = zip(*(_gradient(leaf).split(sizes) for leaf in leaves), strict=True)
    for part, of_part in enumerate(gradients):
        torch.autograd.backward(encode(part), of_part)
    return loss.detach()


def _gradient(leaf: Tensor) -> Tensor:
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


@contextlib.contextmanager
def _statistics_kept(model: nn.Module) -> Iterator[None]:
    """BatchNorm normalises as in training, but its running statistics stay: each part is encoded twice."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def loss_for(settings: TrainSettings, data: PairData | ReinforcedData | StreamData) -> LossOf:
    """The loss of `features_of` and `answers_of` of a whole batch of these data.

    Raises:
        UserError: the settings' scales do not fit the data's teachers.
    """
    if not data.teacher_dims:
        if settings.multi_positive:
            return lambda features, scale, answers: multi_positive_loss(features[0], features[1], scale, answers[0])
        return lambda features, scale, _: clip_loss(features[0], features[1], scale)
    dims, scales = data.teacher_dims, settings.teacher_scales
    scales = scales * len(dims) if len(scales) == 1 else scales
    if len(scales) != len(dims):
        raise UserError(f"teacher_scales: {len(scales)} numbers for {len(dims)} teachers")

    def loss(features: Sequence[Tensor], scale: Tensor, teachers: Sequence[Tensor]) -> Tensor:
        (image, text, *synthetic), (t_image, t_text, *t_synthetic) = features, teachers
        return reinforced_loss(
            image,
            text,
            scale,
            t_image,
            t_text,
            f_syn=synthetic[0] if synthetic else None,
            t_syn=t_synthetic[0] if t_synthetic else None,
            distill_weight=settings.distill_weight,
            synthetic_share=settings.synthetic_share,
            teacher_dims=dims,
            teacher_scales=scales,
        )

    return loss


def features_of(model: MobileCLIP, batch: Batch | ReinforcedBatch, dtype: DType) -> tuple[Tensor, ...]:
    """Normalised features [b, D] of pictures, captions and, where there are any, synthetic captions, in float32."""
    tokens = batch.tokens
    if isinstance(batch, ReinforcedBatch) and batch.synthetic_tokens is not None:
        tokens = torch.cat([tokens, batch.synthetic_tokens])  # the text tower sees both at once
    device = batch.pixels.device
    with torch.autocast(device.type, torch.bfloat16, enabled=computed(dtype, device) == "bfloat16"):
        features = model(batch.pixels, tokens)
    return features.image.float(), *features.text.float().split(len(batch.pixels))


def answers_of(batch: Batch | ReinforcedBatch, settings: TrainSettings) -> tuple[Tensor, ...]:
    """The targets of the features.

    They are the teachers' embeddings of what `features_of` encodes; the captions' tokens where pairs with equal ones
    count as right; nothing for CLIP's loss.
    """
    if isinstance(batch, Batch):
        return (batch.tokens,) if settings.multi_positive else ()
    both = (batch.image_emb, batch.text_emb)
    return both if batch.synthetic_emb is None else (*both, batch.synthetic_emb)


def rows(batch: Batch | ReinforcedBatch, which: slice) -> Batch | ReinforcedBatch:
    """Some rows of a batch."""
    return _each(batch, lambda part: part[which])


def pinned(batch: Batch | ReinforcedBatch, device: torch.device) -> Batch | ReinforcedBatch:
    """The batch in memory from which a copy to the device need not wait for earlier work there."""
    return _each(batch, Tensor.pin_memory) if device.type == "cuda" else batch


def to_device(batch: Batch | ReinforcedBatch, device: torch.device) -> Batch | ReinforcedBatch:
    """The batch on a device."""
    return batch if device.type == "cpu" else _each(batch, lambda part: part.to(device, non_blocking=True))


def _each(batch: Batch | ReinforcedBatch, change: Callable[[Tensor], Tensor]) -> Batch | ReinforcedBatch:
    """The batch with every part that it has changed."""
    return type(batch)._make(None if part is None else change(part) for part in batch)


def _seed(settings: TrainSettings, step: int, part: int) -> None:
    """Drop path draws from torch's own generator: other numbers for each step, and for each part of its batch."""
    place = rank() * settings.accumulate + part
    torch.manual_seed(settings.seed * 1_000_003 + step + place * 1_000_000_007)
