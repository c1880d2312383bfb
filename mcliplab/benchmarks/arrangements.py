"""The released training's arrangement of a step, and ours, on the same weights: what `benchmark train` compares."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import cast
from unittest import mock

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mcliplib.checkpoints.formats import to_format
from mcliplib.errors import UserError
from mcliplib.factory import create_model, get_tokenizer
from mcliplib.image_encoder import MCi, MCiConfig
from mcliplib.latency.peers import SEED, TIMM, randomize_statistics
from mcliplib.layers.attention import token_at
from mcliplib.losses import averaged_distill_loss, distill_loss
from mcliplib.model import MobileCLIP
from mcliplib.optimization import adamw
from mcliplib.reinforce.sample import ReinforcedSample
from mcliplib.text_encoder import TextEncoder
from mcliplib.train.batches import ReinforcedBatch, as_pixels, view_of
from mcliplib.train.data import ReinforcedData
from mcliplib.train.step import LossOf

TEACHER_SCALE = 100.0
BETAS, EPS, WEIGHT_DECAY = (0.9, 0.95), 1e-6, 0.2
LEARNING_RATE = 0.0  # the same work for the optimizer, and all contenders stay at the same weights


@dataclass(frozen=True)
class Learner:
    """A model, its optimizer, and the parameters by whose gradients learners are compared."""

    model: MobileCLIP
    optimizer: torch.optim.Optimizer
    probes: tuple[Tensor, ...]

    def gradient(self) -> Tensor:
        """The gradient of the last step (after clipping) at the probes, as one vector."""
        return torch.cat([_gradient(probe).flatten() for probe in self.probes])


@dataclass(frozen=True)
class Material:
    """Rows of a reinforced set, grouped into batches; the view and the synthetic caption of each are its first ones."""

    data: ReinforcedData
    groups: Sequence[Sequence[ReinforcedSample]]
    image_size: int

    def batches(self, model: MobileCLIP, *, contiguous: bool = False) -> list[ReinforcedBatch]:
        """The same batches for any model.

        Args:
            model: whose tokenizer is used.
            contiguous: whether the pixels have the channels first in memory.
        """
        tokenizer = get_tokenizer(model)
        made = []
        for group in self.groups:
            pixels = self.views(group, self.image_size)
            made.append(
                ReinforcedBatch(
                    pixels.contiguous() if contiguous else pixels,
                    tokenizer([str(one.caption) for one in group]),
                    torch.stack([one.image_emb[0] for one in group]),
                    torch.stack([one.text_emb[0] for one in group]),
                    tokenizer([one.synthetic_captions[0] for one in group]),
                    torch.stack([one.text_emb[1] for one in group]),
                )
            )
        return made

    def views(self, group: Sequence[ReinforcedSample], size: int) -> Tensor:
        """A group's pixels [B, 3, size, size], channels_last."""
        return as_pixels(np.stack([view_of(one, 0, size, self.data.augment) for one in group]))


class AllTokens(nn.Module):
    """A text tower that computes every token of its last layer and norm before it picks one, as the released one does.

    Args:
        tower: whose layers these are.
    """

    def __init__(self, tower: TextEncoder) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b embed"]:
        x = self.tower.layers(self.tower.embedding(tokens) + self.tower.positions)
        return self.tower.head.proj(token_at(self.tower.head.norm(x), tokens.argmax(dim=-1)))


def base_model(name: str, image_size: int, context_length: int | None = None) -> MobileCLIP:
    """A model in train mode, contiguous, with the full vocabulary, on whose features every layer has an effect.

    Raises:
        UserError: its image tower is a ViT.
    """
    torch.manual_seed(SEED)
    model = create_model(name, image_size=image_size, context_length=context_length)
    if not isinstance(model.config.image, MCiConfig):
        raise UserError(f"{name}: benchmark train is for models with an MCi image tower, and this one's is a ViT")
    randomize_statistics(model)
    return model.train()


def released(base: MobileCLIP) -> Learner:
    """The reference recipe's arrangement, with timm's image tower where it has one of that size.

    Its text tower is MCt in our layers, which open_clip and timm lack, but not in our shortened form; its optimizer is
    what `open_clip_train.main` makes.
    """
    text = copy_of(base).text_encoder
    assert isinstance(text, TextEncoder)
    image = _timm_tower(base)
    model = MobileCLIP(base.config, image, AllTokens(text)).train()
    head = cast(nn.Linear, image.get_submodule("proj" if isinstance(image, MCi) else "head.fc"))
    return Learner(model, unfused_adamw(model), (text.positions, model.logit_scale, head.weight))


def has_released_tower(name: str) -> bool:
    """Whether timm has this model's image tower; ours stands in for it otherwise."""
    return name in TIMM.models


def ours(model: MobileCLIP, optimizer: torch.optim.Optimizer) -> Learner:
    """One of our models."""
    assert isinstance(model.text_encoder, TextEncoder)
    assert isinstance(model.image_encoder, MCi)
    return Learner(model, optimizer, (model.text_encoder.positions, model.logit_scale, model.image_encoder.proj.weight))


def copy_of(base: MobileCLIP, *, vocab: tuple[int, ...] | None = None, context_length: int | None = None) -> MobileCLIP:
    """The same weights in a new model, with only some rows of the embeddings, in train mode.

    Args:
        base: with the full vocabulary.
        vocab: the ids to keep.
        context_length: the first so many positions are kept.
    """
    length = context_length or base.config.text.context_length
    size = base.config.image.image_size
    model = create_model(base.config.name, image_size=size, context_length=length, vocab=vocab)
    weights = dict(base.state_dict())
    if vocab is not None:
        weights["text_encoder.embedding.weight"] = weights["text_encoder.embedding.weight"][list(vocab)]
    weights["text_encoder.positions"] = weights["text_encoder.positions"][:length]
    model.load_state_dict(weights)
    return model.train()


def channels_last(model: MobileCLIP) -> MobileCLIP:
    """The model, its convolutions' weights now with the channels last."""
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def fused_adamw(model: nn.Module) -> torch.optim.AdamW:
    """Our optimizer: one kernel."""
    return adamw(model, learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=BETAS, eps=EPS)


def unfused_adamw(model: nn.Module) -> torch.optim.AdamW:
    """open_clip's: the same groups, and PyTorch's default of how to step (on CPUs, one parameter after the other)."""
    groups = [
        {"params": group["params"], "weight_decay": group["weight_decay"]} for group in fused_adamw(model).param_groups
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPS)


def released_loss(teacher_dims: Sequence[int]) -> LossOf:
    """The released form of the reinforced loss (lambda 1): cross-entropy with the mean of the teachers' softmaxes."""

    def loss(features: Sequence[Tensor], scale: Tensor, teachers: Sequence[Tensor]) -> Tensor:
        (image, *texts), (t_image, *t_texts) = features, teachers
        scales = (TEACHER_SCALE,) * len(teacher_dims)
        terms = [
            averaged_distill_loss(image, text, scale, t_image, t_text, teacher_dims, scales)
            for text, t_text in zip(texts, t_texts, strict=True)
        ]
        return torch.stack(terms).sum()

    return loss


def teachers_entropy(teachers: Sequence[Tensor], teacher_dims: Sequence[int]) -> float:
    """The entropy of the teachers' softmaxes, by which `released_loss` is above the reinforced loss for any student.

    Args:
        teachers: their embeddings of pictures, captions and further captions.
        teacher_dims: dimensions of each.
    """
    scales = (TEACHER_SCALE,) * len(teacher_dims)
    image, *texts = teachers
    above: list[Callable[..., Tensor]] = [averaged_distill_loss, distill_loss]
    first, second = (
        sum(float(form(image, text, 1.0, image, text, teacher_dims, scales)) for text in texts) for form in above
    )
    return first - second


@contextmanager
def pytorch_attention() -> Iterator[None]:
    """Attention by PyTorch's one kernel also where `layers.attention.attend` goes by steps."""

    def kernel(
        q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool, seen: Tensor | None
    ) -> Float[Tensor, "b h m d"]:
        return nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal, scale=scale)

    with mock.patch.object(import_module("mcliplib.layers.attention"), "attention_in_steps", kernel):
        yield


@contextmanager
def pytorch_depthwise() -> Iterator[None]:
    """Depthwise convolutions by PyTorch's kernels also where `layers.cpu.convolve` multiplies matrices."""
    with mock.patch.object(import_module("mcliplib.layers.cpu"), "_is_small", return_value=False):
        yield


def _timm_tower(base: MobileCLIP) -> nn.Module:
    """timm's image tower with the weights of ours, or a copy of ours."""
    name = base.config.name
    if not has_released_tower(name):
        return copy_of(base).image_encoder
    import timm

    named = to_format(base.state_dict(), base.config, "open_clip")
    prefix = "visual.trunk."
    tower = timm.create_model(TIMM.models[name], num_classes=base.config.embed_dim)
    tower.load_state_dict({key.removeprefix(prefix): w for key, w in named.items() if key.startswith(prefix)})
    return tower


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.detach().clone()
