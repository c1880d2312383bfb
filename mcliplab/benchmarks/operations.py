"""The operations of the paper's teachers and captioner (2311.17049), counted on models that hold no numbers.

A multiplication and an addition count as two. open_clip builds the models on PyTorch's `meta` device, which knows
shapes only, so that hundreds of millions of weights take no memory and no time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mcliplib.latency.flops import tower_cost

TEACHER, CAPTIONER = "ViT-L-14", "coca_ViT-L-14"
CAPTION_TOKENS = 16  # of a synthetic caption, start and end included: some ten words


@dataclass(frozen=True)
class PaperOperations:
    """Operations of one input.

    Attributes:
        view: a picture in one ViT-L-14.
        text: a text in one ViT-L-14; always the whole context of 77 tokens.
        picture: a picture in the captioner.
        caption: one caption of `CAPTION_TOKENS` in the captioner, whose text is read anew for every token.
        caption_cached: the same where the tokens before are remembered; what one reading of the whole text takes.
    """

    view: int
    text: int
    picture: int
    caption: int
    caption_cached: int


def paper_operations() -> PaperOperations:
    """Count them; seconds."""
    import open_clip

    with torch.device("meta"):
        clip = open_clip.CLIP(**_config(TEACHER)).eval()
        coca = open_clip.CoCa(**_config(CAPTIONER)).eval()
        pixels = torch.empty(1, 3, 224, 224)
        lengths = [tower_cost(_Writes(coca), _tokens(length)).flops for length in range(1, CAPTION_TOKENS)]
        return PaperOperations(
            view=tower_cost(clip.visual, pixels).flops,
            text=tower_cost(_Reads(clip), _tokens(clip.context_length)).flops,
            picture=tower_cost(coca.visual, pixels).flops,
            caption=sum(lengths),
            caption_cached=lengths[-1],
        )


def _config(name: str) -> dict[str, object]:
    import open_clip

    config = dict(open_clip.get_model_config(name))
    config.pop("custom_text", None)  # which of open_clip's classes to use
    return config


def _tokens(length: int) -> Tensor:
    return torch.empty(1, length, dtype=torch.long)


class _Reads(nn.Module):
    """A CLIP's text tower."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.clip = clip

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.clip.encode_text(tokens)  # type: ignore[operator]
        return found


class _Writes(nn.Module):
    """A CoCa's next token, from the picture's states, as `CoCaCaptioner` asks for it."""

    def __init__(self, coca: nn.Module) -> None:
        super().__init__()
        self.coca = coca

    def forward(self, tokens: Tensor) -> Tensor:
        latent, states = torch.empty(1, 768), torch.empty(1, 255, 768)
        found: Tensor = self.coca(None, tokens, image_latent=latent, image_embs=states, output_labels=False)["logits"]
        return found
