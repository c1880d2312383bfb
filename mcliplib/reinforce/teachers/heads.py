"""The trained part of a locked teacher: two small residual heads that start as ConSE and MiniLM themselves.

Each output layer starts at zero, so the untrained heads give what the frozen towers already know about photographs and
words that no training pair shows; training and weight decay decide how far to go from there (LiT, 2111.07991; the
residual form is that of CLIP-Adapter, 2110.04544).
"""

import json
import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.checkpoints.files import read, write_safetensors
from mcliplib.errors import UserError
from mcliplib.reinforce.teachers.conse import IMAGE_WIDTH
from mcliplib.reinforce.teachers.efficientnet import FEATURES
from mcliplib.reinforce.teachers.minilm import WIDTH

KEPT = 0.6  # of ConSE, times the confidence; chosen on photographs of two training sets left out of the training


class Heads(nn.Module):
    """Frozen image and text features to one space of 384 dimensions.

    Args:
        image_hidden: width of the image head's hidden layer.
        text_hidden: width of the text head's.
        dropout: of the inputs and the hidden layers, in training.
    """

    def __init__(self, *, image_hidden: int = 384, text_hidden: int = 256, dropout: float = 0.0) -> None:
        super().__init__()
        self.image = _mlp(IMAGE_WIDTH, image_hidden, dropout)
        self.text = _mlp(WIDTH, text_hidden, dropout)
        self.pooled_norm = nn.LayerNorm(FEATURES)
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))

    def encode_image(self, features: Float[Tensor, "n 1664"]) -> Float[Tensor, "n 384"]:
        """Pooled features and ConSE embedding to normalised features."""
        pooled, conse = features.split([FEATURES, WIDTH], dim=-1)
        change = self.image(torch.cat([self.pooled_norm(pooled), conse * WIDTH**0.5], dim=-1))
        return nn.functional.normalize(conse + change, dim=-1)

    def recall(self, features: Float[Tensor, "n 1664"], confidence: Float[Tensor, "n 1"]) -> Float[Tensor, "n 384"]:
        """`encode_image`, with ConSE mixed in again as far as the CNN is sure: how trained heads are asked.

        Training on drawings makes the heads forget what the CNN knows of photographs; a mixture of the tuned and the
        untuned model keeps both (Wortsman et al., 2109.01903).
        """
        mixed = self.encode_image(features) + KEPT * confidence * features[:, FEATURES:]
        return nn.functional.normalize(mixed, dim=-1)

    def encode_text(self, features: Float[Tensor, "m 384"]) -> Float[Tensor, "m 384"]:
        """MiniLM's embeddings to normalised features."""
        return nn.functional.normalize(features + self.text(features * WIDTH**0.5), dim=-1)

    @property
    def scale(self) -> Tensor:
        """What the similarities are multiplied with before the softmax."""
        return self.log_scale.exp()


def save_heads(heads: Heads, path: Path, about: dict[str, str]) -> None:
    """Write the heads in float16, with the widths and `about` in the file's metadata."""
    widths = {"image_hidden": str(heads.image[1].out_features), "text_hidden": str(heads.text[1].out_features)}
    tensors = {name: value.half() for name, value in heads.state_dict().items()}
    write_safetensors(tensors, path, {"heads": json.dumps({**about, **widths}, sort_keys=True)})


def load_heads(path: Path) -> tuple[Heads, dict[str, str]]:
    """Heads in float32 and eval mode, and what was noted about them.

    Raises:
        UserError: no such file, or not one that `save_heads` wrote.
    """
    try:
        found = read(path)
        about = json.loads(found.header["heads"])
        heads = Heads(image_hidden=int(about["image_hidden"]), text_hidden=int(about["text_hidden"]))
        heads.load_state_dict(found.tensors)
    except (UserError, KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: no trained heads ({error}); `mcliplib teachers train` makes them") from error
    return heads.eval().requires_grad_(False), about


def _mlp(width: int, hidden: int, dropout: float) -> nn.Sequential:
    last = nn.Linear(hidden, WIDTH)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), last)
