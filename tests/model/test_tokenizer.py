"""CLIP's tokenizer, whole and restricted."""

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mcliplib import Tokenizer, restrict_vocab
from tests.conftest import refused

ODD = [
    "",
    " ",
    "a cat",
    "naïve café",
    "Ünïcödé ß",
    "日本語のテキスト",
    "مرحبا بالعالم",
    "😀 👍🏽 emoji",
    "a&amp;b",
    "x" * 500,
]


def test_full_vocabulary_equals_open_clip():
    assert torch.equal(Tokenizer(77)(ODD), open_clip.get_tokenizer("ViT-B-32")(ODD))


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_equals_open_clip(text):
    assert torch.equal(Tokenizer(77)(text), open_clip.tokenizer.tokenize(text))


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_restricted_vocabulary_loses_nothing(text):
    """A text of tokens that the vocabulary lacks is spelled out, and reads the same."""
    small, full = Tokenizer(77, restrict_vocab(["a red flag"])), Tokenizer(77)
    assert small.decode(small.encode(text)) == full.decode(full.encode(text))


def test_restricted_vocabulary_is_one_to_one_on_its_own_texts():
    texts = ["a red flag", "two dogs, a cat and a ladybug"]
    vocab = restrict_vocab(texts)
    small, full = Tokenizer(24, vocab), Tokenizer(24)
    assert small.vocab_size == len(vocab) < 600
    for text in texts:
        assert [vocab[i] for i in small.encode(text)] == full.encode(text)


def test_end_of_text_is_the_largest_id_and_survives_the_cut():
    for vocab in (None, restrict_vocab(["a red flag"])):
        tokenizer = Tokenizer(8, vocab)
        tokens = tokenizer(["a", "one two three four five six seven eight nine"])
        assert tokens.shape == (2, 8)
        assert tokens[1, -1] == tokenizer.vocab_size - 1
        assert (tokens.argmax(dim=1) == torch.tensor([2, 7])).all()


@pytest.mark.parametrize("texts", [[b"bytes"], [None], ["a", 3]])
def test_not_strings(texts):
    with refused(TypeError, "texts must be strings"):
        Tokenizer()(texts)


def test_no_texts():
    assert Tokenizer(12)([]).shape == (0, 12)


@pytest.mark.parametrize("vocab", [[1, 2, 3], [*range(49408), 60000], list(range(49407, -1, -1))])
def test_unusable_vocabulary(vocab):
    with pytest.raises(ValueError, match="vocab must be"):
        Tokenizer(77, vocab)


def test_unusable_context_length():
    with pytest.raises(ValueError, match="context_length"):
        Tokenizer(2)
