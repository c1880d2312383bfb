"""Any open_clip model as a teacher, such as the paper's two: `ViT-L-14` from `openai` and `datacomp_xl_s13b_b90k`."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

import mcliplib._vision  # noqa: F401  the cure of torchvision comes before open_clip
from mcliplib.checkpoints.files import weights_sha256
from mcliplib.errors import UserError, first_line
from mcliplib.model import PixelConfig
from mcliplib.preprocess import preprocess_image
from mcliplib.reinforce.teachers.features import in_batches

_TEXT_BATCH = 128


class OpenClipTeacher:
    """A model of open_clip's, asked with its own tokenizer and pixel normalisation.

    Args:
        name: open_clip's name of the architecture, such as "ViT-L-14".
        pretrained: a tag that open_clip knows for it, or a checkpoint file; "" leaves the weights random (for tests).
        device: where it runs.

    Raises:
        UserError: open_clip knows no such model or tag, or the weights cannot be fetched.
    """

    def __init__(self, name: str, pretrained: str, device: str | torch.device = "cpu") -> None:
        import open_clip

        if name not in open_clip.list_models():
            raise UserError(f"open_clip has no model {name!r}; `open_clip.list_models()` lists them")
        try:
            model = open_clip.create_model(name, pretrained or None, device=device)
        except (RuntimeError, OSError) as error:
            raise UserError(f"open_clip:{name}/{pretrained}: {first_line(error)}") from error
        self.name = f"{name}/{pretrained}" if pretrained else name
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = open_clip.get_tokenizer(name)
        settings = open_clip.get_model_preprocess_cfg(model)
        self.image_size = _side(settings["size"])
        self.dim = int(open_clip.get_model_config(name)["embed_dim"])
        self._pixels = PixelConfig(interpolation=settings["interpolation"])
        self._mean, self._std = (torch.tensor(settings[one]).reshape(3, 1, 1) for one in ("mean", "std"))
        self.to(device)
        self.identity = {
            "open_clip": open_clip.__version__,
            "model": name,
            "pretrained": pretrained,
            "sha256": weights_sha256(self.model.state_dict()),
        }

    def to(self, device: str | torch.device) -> None:
        """Move to a device."""
        self.device = torch.device(device)
        self.model.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)

    @torch.inference_mode()
    def encode_pixels(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Pixels in [0, 1] to normalised features, float32, on the CPU."""
        normal = (pixels.to(self.device) - self._mean) / self._std
        return nn.functional.normalize(self.model.encode_image(normal).float(), dim=-1).cpu()

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "m d"]:
        """Texts to normalised features, float32, on the CPU."""
        parts = []
        for start in range(0, len(texts), _TEXT_BATCH):
            tokens = self.tokenizer(list(texts[start : start + _TEXT_BATCH])).to(self.device)
            parts.append(nn.functional.normalize(self.model.encode_text(tokens).float(), dim=-1).cpu())
        return torch.cat(parts) if parts else torch.empty(0, self.dim)

    def encode_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "n d"]:
        """Pictures of any size to normalised features: shorter side resized, centre cropped, as open_clip evaluates."""
        return in_batches(
            self.encode_pixels, images, lambda image: preprocess_image(image, self.image_size, self._pixels), self.dim
        )


def _side(size: int | Sequence[int]) -> int:
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise UserError(f"teachers see square pictures; this model wants {size}")
    return sides.pop()
