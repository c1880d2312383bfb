"""CoCa (2205.01917), the paper's captioner: open_clip's model, and our own top-p sampling.

open_clip's `generate` needs classes that transformers 5 no longer has, and draws from the global generator.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from mcliplib.errors import UserError
from mcliplib.reinforce.captioners.sampling import sample_texts
from mcliplib.reinforce.store import generator_of

DEFAULT = ("coca_ViT-L-14", "mscoco_finetuned_laion2b_s13b_b90k")


class CoCaCaptioner:
    """Captions by an open_clip CoCa, top-p sampled.

    Args:
        architecture: open_clip's name.
        pretrained: open_clip's tag, or a checkpoint's path; None for random weights (for tests).
        device: where it runs.
        top_p: probability of the tokens that are drawn from.
        longest: tokens of a caption.

    Raises:
        UserError: open_clip cannot make this model.
    """

    def __init__(
        self,
        architecture: str = DEFAULT[0],
        pretrained: str | None = DEFAULT[1],
        *,
        device: str = "cpu",
        top_p: float = 0.9,
        longest: int = 30,
    ) -> None:
        import open_clip
        from open_clip.tokenizer import SimpleTokenizer

        self.name = f"coca:{architecture}/{pretrained}"
        self.identity = {
            "architecture": architecture,
            "pretrained": str(pretrained),
            "open_clip": open_clip.__version__,
        }
        self.top_p, self.longest, self.device = top_p, longest, device
        try:
            made, _, self._preprocess = open_clip.create_model_and_transforms(architecture, pretrained, device=device)
        except (RuntimeError, OSError, ValueError) as error:
            raise UserError(f"open_clip cannot make {architecture} with {pretrained}: {error}") from error
        self._model, self._bpe = made.eval(), SimpleTokenizer()

    def to(self, device: str) -> None:
        """Move to a device."""
        self.device = device
        self._model.to(device)

    @torch.inference_mode()
    def caption(self, images: Sequence[Image.Image], keys: Sequence[str], count: int, seed: int) -> list[list[str]]:
        """See `Captioner.caption`."""
        return [
            self._captions(image, count, generator_of("captions", seed, key))
            for image, key in zip(images, keys, strict=True)
        ]

    def _captions(self, image: Image.Image, count: int, generator: torch.Generator) -> list[str]:
        pixels = self._preprocess(image)[None].to(self.device)
        seen = self._model(pixels)
        latent, states = (seen[name].expand(count, *seen[name].shape[1:]) for name in ("image_features", "image_embs"))

        def next_logits(tokens: Tensor) -> Tensor:
            text = tokens.to(self.device)
            found = self._model(pixels, text, image_latent=latent, image_embs=states, output_labels=False)
            return found["logits"][:, -1]

        rows = sample_texts(
            next_logits,
            count,
            start=self._bpe.sot_token_id,
            end=self._bpe.eot_token_id,
            longest=self.longest,
            top_p=self.top_p,
            generator=generator,
        )
        return [self._bpe.decode(row).strip() for row in rows]
