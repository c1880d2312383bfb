"""A small caption decoder: a causal transformer that reads a picture's features as its first tokens."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mcliplib.layers import TransformerLayer


@dataclass(frozen=True)
class DecoderConfig:
    """The decoder's settings.

    Attributes:
        features: width of the picture's features.
        vocab_size: tokens it can say.
        width: channels of a token, a multiple of 32 (the attention's head width).
        layers: transformer layers.
        prefix: tokens that the picture becomes.
        context_length: tokens of a caption, start and end included.
        dropout: of the features and the embeddings, in training.
    """

    features: int
    vocab_size: int
    width: int = 160
    layers: int = 3
    prefix: int = 4
    context_length: int = 24
    dropout: float = 0.2


class CaptionDecoder(nn.Module):
    """Picture features and the tokens so far to the next token's logits.

    Args:
        config: widths and depths.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.norm_features = nn.LayerNorm(config.features)
        self.to_prefix = nn.Linear(config.features, config.prefix * config.width)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.zeros(config.prefix + config.context_length, config.width))
        layers = (TransformerLayer(config.width, head_dim=32, mlp_ratio=4.0, causal=True) for _ in range(config.layers))
        self.layers = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    def forward(self, features: Float[Tensor, "n f"], tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n t v"]:
        """Logits of the token after each of `tokens`; the output layer is the embedding (1608.05859)."""
        seen = self.to_prefix(self.dropout(self.norm_features(features)))
        prefix = seen.unflatten(1, (self.config.prefix, self.config.width))
        x = torch.cat([prefix, self.embedding(tokens)], dim=1)
        x = self.layers(self.dropout(x + self.positions[: x.shape[1]]))
        return self.norm(x[:, self.config.prefix :]) @ self.embedding.weight.T


def caption_loss(logits: Float[Tensor, "n t v"], tokens: Int[Tensor, "n t+1"], end: int) -> Float[Tensor, ""]:
    """Cross-entropy of each next token, up to and with the end of text; the padding after it does not count."""
    targets = tokens[:, 1:]
    ended = (targets == end).long().cumsum(dim=1)
    padding = ended - (targets == end).long() > 0
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.masked_fill(padding, -100).flatten())
