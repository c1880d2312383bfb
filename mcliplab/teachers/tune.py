"""Fine-tuning a local teacher's image tower, end to end, from the locked teacher on.

What ImageNet taught it must stay. So a weight moves in proportion to its tensor's size, in few epochs; the tuned tower
is mixed with the one of before (WiSE-FT, 2109.01903); and the teacher still adds what the frozen tower is sure of
(`Heads.recall`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mcliplab.fit import fit
from mcliplab.teachers.training import WEIGHTS, both_ways, caption_numbers, soft_cross_entropy, with_noise
from mcliplib.data import Sample
from mcliplib.errors import UserError
from mcliplib.optimization import BETAS_OF_CLIP
from mcliplib.reinforce.teachers.efficientnet import LiteFeatures
from mcliplib.reinforce.teachers.locked import Heads
from mcliplib.reinforce.teachers.minilm import MiniLM
from mcliplib.train.batches import as_pixels, crop_of, jitter_colours

BLOCKS = 7  # of an EfficientNet
_SMALLEST = 1e-3  # of a tensor's root mean square, for the size of its steps


@dataclass(frozen=True)
class TuneSettings:
    """How a tower is tuned; chosen on a part of the training sets (data/teachers/README.md).

    Attributes:
        epochs: passes over the pictures.
        batch_size: pictures; the negatives are all captions of the training pictures.
        image_size: pixels, height and width of the crops; the teacher then looks at larger pictures, where things have
            the size that they have in crops (FixRes, 1906.06423).
        locked: blocks of the tower that are not tuned, from the first on; they see edges and colours, and take most of
            the time.
        min_crop: smallest share of a picture's area that is kept.
        jitter: of the colours (`jitter_colours`).
        learning_rate: of AdamW for the heads, at its peak.
        tower_rate: of the tower's tensors, as a share of each one's root mean square.
        weight_decay: of the heads.
        mixup: the largest share of another picture that is mixed into each one and its targets.
        noise: standard deviation of Gaussian noise on the text embeddings, as a share of their norm.
        mixing: share of the tuned tower in the teacher's; the rest is ImageNet's.
        seed: of order, crops, mixing, texts and noise.

    Raises:
        UserError: a value that cannot be trained with.
    """

    epochs: int = 12
    batch_size: int = 128
    image_size: int = 96
    locked: int = 3
    min_crop: float = 0.4
    jitter: float = 0.25
    learning_rate: float = 5e-4
    tower_rate: float = 0.006
    weight_decay: float = 0.05
    mixup: float = 0.3
    noise: float = 0.5
    mixing: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.image_size) < 1 or self.batch_size < 2:
            raise UserError(f"tuning: epochs and image_size must be at least 1, batch_size at least 2; got {self}")
        if not 0 <= self.locked <= BLOCKS:
            raise UserError(f"tuning: locked must be from 0 to {BLOCKS}; got {self}")
        if min(self.learning_rate, self.tower_rate) <= 0 or not (0 <= self.mixup <= 0.5 and 0 <= self.mixing <= 1):
            raise UserError(f"tuning: rates > 0, mixup in [0, 0.5], mixing in [0, 1]; got {self}")


class Tuned(nn.Module):
    """A tower and its heads, to be trained together.

    Args:
        variant: "lite0" or "lite2".
        text: of the classes' names.
        heads: trained on the locked tower; changed in place.
        locked: blocks of the tower that stay as they are.
    """

    def __init__(self, variant: str, text: MiniLM, heads: Heads, locked: int = 0) -> None:
        super().__init__()
        self.features = LiteFeatures(variant, text)
        network = self.features.tower.tower.requires_grad_(True)
        for part in (network.classifier, network.conv_stem, *network.blocks[:locked]):
            part.requires_grad_(False)
        self.heads = heads.requires_grad_(True)

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 384"]:
        """Pixels in [0, 1] to normalised features."""
        return self.heads.encode_image(self.features(pixels).features)

    def optimizer(self, settings: TuneSettings) -> torch.optim.AdamW:
        """AdamW whose groups know their share of the learning rate."""
        tower = [
            {"params": [one], "factor": settings.tower_rate * _size(one) / settings.learning_rate, "weight_decay": 0.0}
            for one in self.features.parameters()
            if one.requires_grad
        ]
        heads = {"params": list(self.heads.parameters()), "weight_decay": settings.weight_decay}
        return torch.optim.AdamW([*tower, heads], lr=settings.learning_rate, betas=BETAS_OF_CLIP)


def _size(tensor: Tensor) -> float:
    return max(float(tensor.detach().square().mean().sqrt()), _SMALLEST)


@dataclass(frozen=True)
class TuneData:
    """Pictures, and the texts of each.

    Attributes:
        samples: pictures.
        texts: [N, K, 384], K ways of saying what is in each, drawn with `mcliplab.teachers.training.WEIGHTS`.
    """

    samples: Sequence[Sample]
    texts: Float[Tensor, "n k 384"]


def tune(
    variant: str,
    text: MiniLM,
    heads: Heads,
    data: TuneData,
    settings: TuneSettings,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> dict[str, Tensor]:
    """Tune a tower and its heads, which are changed in place.

    Args:
        variant: "lite0" or "lite2".
        text: of the classes' names.
        heads: trained on the locked tower.
        data: training pairs.
        settings: how.
        progress: told each epoch's number, from 1, and mean loss in nats.

    Returns:
        The mixed tower's weights by name, without the classifier.
    """
    with torch.random.fork_rng(devices=[]):  # dropout knows only the global generator
        torch.manual_seed(settings.seed)
        tuned = Tuned(variant, text, heads.train(), settings.locked)
        before = {name: value.clone() for name, value in tuned.features.tower.state_dict().items()}
        captions = torch.tensor(caption_numbers(data.samples))
        bank = _first_of_each(captions)

        def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
            return _loss(tuned, data, captions, bank, rows, settings, generator)

        fit(tuned, len(data.samples), settings, loss_of, progress, optimizer=tuned.optimizer(settings))
    heads.eval().requires_grad_(False)
    after = tuned.features.tower.state_dict()
    return {name: before[name].lerp(after[name], settings.mixing) for name in before if "classifier" not in name}


def _first_of_each(captions: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """One row of each caption."""
    first: dict[int, int] = {}
    for row, caption in enumerate(captions.tolist()):
        first.setdefault(caption, row)
    return torch.tensor(list(first.values()))


def _loss(
    tuned: Tuned,
    data: TuneData,
    captions: Tensor,
    bank: Tensor,
    rows: Tensor,
    settings: TuneSettings,
    generator: torch.Generator,
) -> Tensor:
    """Half the batch's contrastive loss both ways, half the pictures' cross-entropy over all captions."""
    other = torch.randperm(len(rows), generator=generator)
    share = torch.rand(len(rows), 1, generator=generator) * settings.mixup

    def mixed(value: Tensor) -> Tensor:
        weight = share.view(-1, *[1] * (value.dim() - 1))
        return value + weight * (value[other] - value)

    def said(of: Tensor) -> Tensor:
        way = torch.multinomial(torch.tensor(WEIGHTS), len(of), replacement=True, generator=generator)
        return tuned.heads.encode_text(with_noise(data.texts[of, way].float(), settings.noise, generator))

    images = tuned(mixed(_crops([data.samples[row] for row in rows.tolist()], settings, generator)))
    own = captions[rows]
    match, in_bank = (mixed((own[:, None] == captions[of]).float()) for of in (rows, bank))
    logits = tuned.heads.scale * images @ said(rows).T
    return (both_ways(logits, match) + soft_cross_entropy(tuned.heads.scale * images @ said(bank).T, in_bank)) / 2


def _crops(samples: Sequence[Sample], settings: TuneSettings, generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    rng = np.random.default_rng(int(torch.randint(1 << 62, (1,), generator=generator)))
    crops = np.stack([crop_of(one.image, settings.image_size, rng, settings.min_crop) for one in samples])
    return jitter_colours(as_pixels(crops), rng, settings.jitter)
