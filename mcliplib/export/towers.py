"""A tower as it is exported: one input, one output, nothing to set."""

import copy
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mcliplib.model import MobileCLIP
from mcliplib.reparam import reparameterize

TowerName = Literal["image", "text"]
TOWERS: tuple[TowerName, ...] = ("image", "text")
INPUTS = {"image": "pixels", "text": "tokens"}
MOST_BATCH = 64  # of the formats that must know a bound


class Tower(nn.Module):
    """A folded tower with normalised features: float32 in and out (tokens: int64), whatever it computes in.

    Args:
        model: its folded form is taken (`reparameterize`); it is untouched.
        name: "image" or "text".

    Raises:
        RuntimeError: the model is in train mode.
    """

    def __init__(self, model: MobileCLIP, name: TowerName) -> None:
        super().__init__()
        tower = model.image_encoder if name == "image" else model.text_encoder
        self.encoder = reparameterize(tower).to("cpu", torch.float32).requires_grad_(False)
        self.name: TowerName = name
        self.config, self.dtype = model.config, torch.float32
        self.eval()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input, without the batch: (3, H, W), or (context length,)."""
        size = self.config.image.image_size
        return (3, size, size) if self.name == "image" else (self.config.text.context_length,)

    def example(self, batch: int = 2) -> Tensor:
        """Any input, to trace with."""
        if self.name == "image":
            return torch.rand(batch, *self.shape)
        return torch.randint(0, self.config.text.vocab_size, (batch, *self.shape))

    def computing_in(self, dtype: torch.dtype) -> "Tower":
        """A copy whose weights and layers are of another type; float32 is the tower itself."""
        if dtype == self.dtype:
            return self
        made = copy.deepcopy(self)
        made.encoder, made.dtype = made.encoder.to(dtype), dtype
        return made

    def forward(self, x: Tensor) -> Tensor:
        features = self.encoder(x.to(self.dtype) if x.is_floating_point() else x)
        return nn.functional.normalize(features.float(), dim=-1)

    def exported(self, *, most: int | None = None) -> torch.export.ExportedProgram:
        """The tower as a graph of PyTorch's, for batches from 1 to `most` (None: any)."""
        return exported(self, self.example(most or 2), most)

    @torch.inference_mode()
    def reference(self, inputs: np.ndarray, batch: int = 16) -> np.ndarray:
        """Features [N, D] of inputs [N, ...], by PyTorch."""
        return np.concatenate([self(part).numpy() for part in torch.from_numpy(inputs).split(batch)])


def exported(module: nn.Module, example: Tensor, most: int | None) -> torch.export.ExportedProgram:
    """A module of one input as a graph of PyTorch's, for batches from 1 to `most` (None: any).

    The example is as large as can be: ExecuTorch's lowering asks whether a batch has 16 items or more, and a graph that
    was made of fewer would take no more than 15.
    """
    batch = torch.export.Dim("batch", min=1, max=most)
    with torch.no_grad():
        return torch.export.export(module, (example,), dynamic_shapes=({0: batch},), strict=False)
