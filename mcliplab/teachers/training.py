"""The heads' texts, and their training: contrastive, on cached features; equal captions are all matches.

Locked towers with trained heads are those of 2111.07991, several matches in a batch those of 2004.11362.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mcliplab.fit import fit
from mcliplib.data import Sample, concept_of
from mcliplib.errors import UserError
from mcliplib.reinforce.teachers.locked import Heads

WEIGHTS = (0.5, 0.2, 0.2, 0.1)  # how often each of the ways is drawn
_MOST_KEYWORDS = 6


@dataclass(frozen=True)
class HeadSettings:
    """How heads are trained; the defaults were chosen on a part of the training sets (data/teachers/README.md).

    Attributes:
        epochs: passes over the pairs; each picture is seen in one of its views each time, with one of its texts.
        batch_size: pairs, among which the others are the negatives.
        learning_rate: of AdamW at its peak; linear warm-up over a tenth of the steps, then a cosine to zero.
        weight_decay: towards the untrained heads, whose output layers are zero.
        dropout: of the heads' inputs and hidden layers.
        noise: standard deviation of Gaussian noise on the normalised text embeddings, as a share of their norm.
        mixup: the largest share of another picture that is mixed into each picture's features and targets.
        image_hidden: width of the image head's hidden layer.
        text_hidden: width of the text head's; 0 for none, so that several teachers share MiniLM's space.
        seed: of the weights, the order, the choice of views and texts, dropout, noise and mixing.

    Raises:
        UserError: a value that cannot be trained with.
    """

    epochs: int = 40
    batch_size: int = 1024
    learning_rate: float = 3e-3
    weight_decay: float = 0.5
    dropout: float = 0.2
    noise: float = 0.5
    mixup: float = 0.3
    image_hidden: int = 384
    text_hidden: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.image_hidden) < 1 or self.text_hidden < 0 or self.batch_size < 2:
            raise UserError(
                f"heads: epochs and image_hidden must be at least 1, text_hidden 0, batch_size 2; got {self}"
            )
        if not (self.learning_rate > 0 and 0 <= self.dropout < 1 and 0 <= self.mixup <= 0.5):
            raise UserError(f"heads: learning_rate > 0, dropout in [0, 1), mixup in [0, 0.5]; got {self}")


@dataclass(frozen=True)
class HeadData:
    """Cached frozen features of the training pairs.

    Attributes:
        images: [views, N, 1664], any float type.
        texts: [N, K, 384], K ways of saying what is in the picture.
        weights: [K], how often each way is drawn.
        captions: [N], pictures with equal numbers have the same caption.
    """

    images: Float[Tensor, "views n 1664"]
    texts: Float[Tensor, "n k 384"]
    weights: Float[Tensor, " k"]
    captions: Int[Tensor, " n"]

    def subset(self, index: Int[Tensor, " m"]) -> "HeadData":
        """The pairs of an index."""
        return HeadData(self.images[:, index], self.texts[index], self.weights, self.captions[index])


def train_heads(
    data: HeadData, settings: HeadSettings, progress: Callable[[int, float], None] = lambda epoch, loss: None
) -> Heads:
    """Heads in eval mode; equal data, settings and machine give equal heads.

    Args:
        data: features of the pairs.
        settings: how they are trained.
        progress: told each epoch's number, from 1, and mean loss in nats.
    """
    with torch.random.fork_rng(devices=[]):  # initialisation and dropout know only the global generator
        torch.manual_seed(settings.seed)
        heads = Heads(
            image_hidden=settings.image_hidden, text_hidden=settings.text_hidden, dropout=settings.dropout
        ).train()
        fit(heads, len(data.captions), settings, lambda rows, draw: _loss(heads, data, rows, settings, draw), progress)
    return heads.eval().requires_grad_(False)


def _loss(heads: Heads, data: HeadData, chosen: Tensor, settings: HeadSettings, generator: torch.Generator) -> Tensor:
    """Both directions' cross-entropy over one batch, each picture in one view and with one text."""
    number = len(chosen)
    view = torch.randint(len(data.images), (number,), generator=generator)
    way = torch.multinomial(data.weights, number, replacement=True, generator=generator)
    images, texts = data.images[view, chosen].float(), data.texts[chosen, way].float()
    texts = with_noise(texts, settings.noise, generator)
    captions = data.captions[chosen]
    match = (captions[:, None] == captions).float()
    other = torch.randperm(number, generator=generator)
    share = torch.rand(number, 1, generator=generator) * settings.mixup
    images, match = images + share * (images[other] - images), match + share * (match[other] - match)
    logits = heads.scale * heads.encode_image(images) @ heads.encode_text(texts).T
    return both_ways(logits, match)


def with_noise(texts: Float[Tensor, "n d"], noise: float, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Unit vectors with Gaussian noise, whose standard deviation is a share of their norm."""
    return texts + torch.randn(texts.shape, generator=generator) * noise / texts.shape[1] ** 0.5


def both_ways(logits: Float[Tensor, "n m"], match: Float[Tensor, "n m"]) -> Float[Tensor, ""]:
    """The mean of `soft_cross_entropy` over pictures and over texts."""
    return (soft_cross_entropy(logits, match) + soft_cross_entropy(logits.T, match.T)) / 2


def soft_cross_entropy(logits: Float[Tensor, "n m"], match: Float[Tensor, "n m"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of the rows; a row's target is its matches, scaled to sum to one."""
    target = match / match.sum(dim=1, keepdim=True)
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def ways_to_say(sample: Sample) -> tuple[str, str, str, str]:
    """The caption, "a picture of ...", the caption with keywords, and the keywords (or the caption again)."""
    caption = sample.caption
    thing = re.sub(r"^(a|an|the)\s+", "", caption.rstrip("."), flags=re.IGNORECASE)
    kind = "photo" if sample.meta.get("style") == "photo" else "drawing"
    keywords = ", ".join(sample.meta.get("keywords", [])[:_MOST_KEYWORDS])
    listed = f"{thing}, {keywords}" if keywords else caption
    return caption, f"a {kind} of a {thing}.", listed, keywords or caption


def caption_numbers(samples: Sequence[Sample]) -> list[int]:
    """Equal numbers for equal captions, as `concept_of` compares them."""
    known: dict[str, int] = {}
    return [known.setdefault(concept_of(sample.caption), len(known)) for sample in samples]
