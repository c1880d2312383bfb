"""CLIP's byte-pair tokenizer, optionally restricted to the tokens that a data set uses.

Half of a small model's parameters can be embedding rows that its data never touches. A restricted vocabulary keeps
the rows in use, plus the 512 byte tokens: a token that was left out is split along its own merge history into pieces
that are there, so that every text still has an encoding.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mcliplib._torchvision_compat import ensure_torchvision

if TYPE_CHECKING:
    from open_clip.tokenizer import SimpleTokenizer

BYTE_TOKENS = 512  # ids 0..511: each byte alone, and each byte at the end of a word
CLIP_VOCAB_SIZE = 49408


class Tokenizer:
    """Texts to token ids.

    Args:
        context_length: ids per text; a longer text is cut, its last id stays end-of-text.
        vocab: CLIP ids in use, ascending; position in it is the id given out. None: CLIP's own ids.

    Attributes:
        bpe: open_clip's tokenizer, which cleans texts and merges bytes.
    """

    def __init__(self, context_length: int = 77, vocab: Sequence[int] | None = None) -> None:
        if context_length < 3:
            raise ValueError(f"context_length must be at least 3 (start, one token, end), got {context_length}")
        self.context_length = context_length
        self.vocab = tuple(vocab) if vocab is not None else None
        self.bpe = _clip_bpe()
        self._ids = {clip_id: index for index, clip_id in enumerate(self.vocab)} if self.vocab is not None else None
        if self.vocab is not None:
            _check_vocab(self.vocab, self.bpe)

    @property
    def vocab_size(self) -> int:
        """Rows that an embedding for this tokenizer needs."""
        return CLIP_VOCAB_SIZE if self.vocab is None else len(self.vocab)

    def __call__(self, texts: str | Iterable[str]) -> Tensor:
        """[N, context_length] int64: start, tokens, end, zeros.

        Raises:
            TypeError: something other than strings.
        """
        rows = [self._row(text) for text in ([texts] if isinstance(texts, str) else texts)]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), self.context_length)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without start, end and padding."""
        ids = self.bpe.encode(text)
        if self._ids is None:
            return ids
        known = self._ids
        return [known[piece] for clip_id in ids for piece in self._split(clip_id)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, as far as CLIP's cleaning keeps it (lower case, white space folded)."""
        clip_ids = [i if self.vocab is None else self.vocab[i] for i in ids]
        special = set(self.bpe.all_special_ids)
        return self.bpe.decode([i for i in clip_ids if i not in special]).strip()

    def _row(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError(f"texts must be strings, got {type(text).__name__}")
        start, end = self.special_ids()
        ids = [start, *self.encode(text)[: self.context_length - 2], end]
        return ids + [0] * (self.context_length - len(ids))

    def special_ids(self) -> tuple[int, int]:
        """Start and end of a text."""
        start, end = self.bpe.sot_token_id, self.bpe.eot_token_id
        return (start, end) if self._ids is None else (self._ids[start], self._ids[end])

    def _split(self, clip_id: int) -> list[int]:
        """The token itself where the vocabulary has it, else its two halves, and so on down to bytes."""
        assert self._ids is not None
        if clip_id in self._ids:
            return [clip_id]
        left, right = _merge_of(clip_id)
        return self._split(left) + self._split(right)


def restrict_vocab(texts: Iterable[str]) -> tuple[int, ...]:
    """The ascending CLIP ids that the texts use, with all byte tokens and start and end of text."""
    bpe = _clip_bpe()
    used = {clip_id for text in set(texts) for clip_id in bpe.encode(text)}
    return tuple(sorted(used | set(range(BYTE_TOKENS)) | {bpe.sot_token_id, bpe.eot_token_id}))


@lru_cache(maxsize=1)
def _clip_bpe() -> "SimpleTokenizer":
    ensure_torchvision()  # open_clip imports it
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def _merge_of(clip_id: int) -> tuple[int, int]:
    """The two tokens whose merge made this one: merge number i made token 512 + i."""
    bpe = _clip_bpe()
    left, right = clip_merges()[clip_id - BYTE_TOKENS]
    return bpe.encoder[left], bpe.encoder[right]


@lru_cache(maxsize=1)
def clip_merges() -> list[tuple[str, str]]:
    """CLIP's merges, the first one first: number i made token 512 + i."""
    ranks = _clip_bpe().bpe_ranks
    return sorted(ranks, key=ranks.__getitem__)


def _check_vocab(vocab: tuple[int, ...], bpe: "SimpleTokenizer") -> None:
    needed = {*range(BYTE_TOKENS), bpe.sot_token_id, bpe.eot_token_id}
    if list(vocab) != sorted(set(vocab)) or not needed <= set(vocab) or vocab[-1] >= CLIP_VOCAB_SIZE:
        raise ValueError("vocab must be ascending CLIP token ids with all 512 byte tokens, start and end of text")
