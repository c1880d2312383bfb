"""Training the caption decoder on cached features, with cross-fitting.

A captioner that has seen a picture's own caption repeats it. So the pairs are split in two by their keys, one decoder
is trained on each half, and a picture is always captioned by the decoder of the other half.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mcliplab.fit import fit
from mcliplib.reinforce.captioners.decoder import FOLDS, CaptionDecoder, DecoderConfig, fold_of


@dataclass(frozen=True)
class DecoderSettings:
    """How a decoder is trained.

    Attributes:
        epochs: passes over its half of the pairs.
        batch_size: pairs.
        learning_rate: of AdamW at its peak; warm-up over a tenth of the steps, then a cosine to zero.
        weight_decay: of AdamW.
        seed: of the weights, the order, the choice of views and captions, and dropout.
    """

    epochs: int = 40
    batch_size: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class DecoderData:
    """The training data of a decoder.

    Attributes:
        features: [views, N, F] of the pictures, any float type.
        tokens: [N, K, T], K captions of each picture, in the decoder's vocabulary.
        end: the end-of-text token.
    """

    features: Float[Tensor, "views n f"]
    tokens: Int[Tensor, "n k t"]
    end: int

    def subset(self, index: Int[Tensor, " m"]) -> "DecoderData":
        """The pairs of an index."""
        return DecoderData(self.features[:, index], self.tokens[index], self.end)


def train_decoder(
    data: DecoderData,
    config: DecoderConfig,
    settings: DecoderSettings,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> CaptionDecoder:
    """A decoder in eval mode; equal data, settings and machine give equal weights.

    Args:
        data: features and captions.
        config: the decoder's.
        settings: how it is trained.
        progress: told each epoch's number, from 1, and mean loss in nats per token.
    """
    with torch.random.fork_rng(devices=[]):  # initialisation and dropout know only the global generator
        torch.manual_seed(settings.seed)
        decoder = CaptionDecoder(config).train()
        fit(decoder, len(data.tokens), settings, lambda rows, draw: _loss(decoder, data, rows, draw), progress)
    return decoder.eval().requires_grad_(False)


def _loss(decoder: CaptionDecoder, data: DecoderData, chosen: Tensor, generator: torch.Generator) -> Tensor:
    view = torch.randint(len(data.features), (len(chosen),), generator=generator)
    way = torch.randint(data.tokens.shape[1], (len(chosen),), generator=generator)
    tokens = data.tokens[chosen, way]
    logits = decoder(data.features[view, chosen].float(), tokens[:, :-1])
    return caption_loss(logits, tokens, data.end)


def halves(concepts: Sequence[str]) -> list[Int[Tensor, " m"]]:
    """For each fold, the pairs that its decoder is trained on: those of the other one."""
    folds = torch.tensor([fold_of(concept) for concept in concepts])
    return [(folds != fold).nonzero()[:, 0] for fold in range(FOLDS)]


def caption_loss(logits: Float[Tensor, "n t v"], tokens: Int[Tensor, "n t+1"], end: int) -> Float[Tensor, ""]:
    """Cross-entropy of each next token, up to and with the end of text; the padding after it does not count."""
    targets = tokens[:, 1:]
    ended = (targets == end).long().cumsum(dim=1)
    padding = ended - (targets == end).long() > 0
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.masked_fill(padding, -100).flatten())
