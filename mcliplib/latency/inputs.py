"""A model's towers with something to run them on: weights and inputs on which a loss of precision would show."""

import torch
from torch import Tensor, nn

from mcliplib.latency.peers import TowerKind
from mcliplib.layers import LayerScale
from mcliplib.model import MobileCLIP

SEED = 0


def enliven(model: nn.Module, seed: int = SEED) -> None:
    """Give fresh weights the statistics of trained ones, in place.

    A new model's layer scales are nearly zero and its BatchNorms the identity: most of it does not reach the
    features, and any precision would look faithful.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.uniform_(-0.5, 0.5, generator=generator)
                part.running_var.uniform_(0.5, 2.0, generator=generator)
            if isinstance(part, LayerScale):
                part.gamma.uniform_(-1.0, 1.0, generator=generator)


def tower_of(model: MobileCLIP, kind: TowerKind) -> nn.Module:
    """The image or the text tower."""
    return model.image_encoder if kind == "image" else model.text_encoder


def example_for(model: MobileCLIP, kind: TowerKind, batch: int = 1, seed: int = SEED) -> Tensor:
    """Random pixels [batch, 3, size, size] in [0, 1], or random token ids [batch, context_length].

    The end-of-text token, the largest id, stands where a short caption has it.
    """
    generator = torch.Generator().manual_seed(seed)
    if kind == "image":
        size = model.config.image.image_size
        return torch.rand(batch, 3, size, size, generator=generator)
    text = model.config.text
    tokens = torch.randint(text.vocab_size - 1, (batch, text.context_length), generator=generator)
    tokens[:, text.context_length // 7] = text.vocab_size - 1
    return tokens
