"""How good are synthetic captions? A teacher that looks at picture and caption is asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mcliplib.data import Sample, concept_of
from mcliplib.evaluate.features import Encoder
from mcliplib.reinforce.settings import Captioner
from mcliplib.reinforce.store import generator_of

OTHERS = 99  # captions that a right one must beat


@dataclass(frozen=True)
class Judged:
    """One picture's synthetic captions.

    Attributes:
        key: of the sample.
        real: its real caption.
        synthetic: what the captioner said.
        real_right: whether the teacher finds the real caption.
        right: whether it finds each synthetic one in the real one's place.
    """

    key: str
    real: str
    synthetic: tuple[str, ...]
    real_right: bool
    right: tuple[bool, ...]


def judge(
    captioner: Captioner,
    teacher: Encoder,
    samples: Sequence[Sample],
    *,
    captions: int = 5,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Judged]:
    """Caption pictures and let a teacher judge.

    A caption is right if the teacher puts it nearer to its picture than the real captions of 99 other pictures, drawn
    from those with another caption. The same is asked of the real caption, for comparison.

    Args:
        captioner: is asked for the captions.
        teacher: judges; its word is not the truth.
        samples: pictures with real captions, at least 100 different ones.
        captions: per picture.
        seed: of the captions and of the 99 others.
        progress: told what is being done.
    """
    progress(f"captions of {len(samples):,} pictures")
    said = captioner.caption([one.image for one in samples], [one.key for one in samples], captions, seed)
    progress("the teacher looks")
    images = teacher.encode_images([one.image for one in samples])
    reals = [one.caption for one in samples]
    known = list(dict.fromkeys([*reals, *(text for texts in said for text in texts)]))
    texts = dict(zip(known, teacher.encode_texts(known), strict=True))
    judged = []
    for sample, image, made in zip(samples, images, said, strict=True):
        best_other = (_others(sample, reals, texts, seed) @ image).max()
        scores = torch.stack([texts[text] for text in (sample.caption, *made)]) @ image
        real_right, *right = (scores > best_other).tolist()
        judged.append(Judged(sample.key, sample.caption, tuple(made), real_right, tuple(right)))
    return judged


def _others(sample: Sample, reals: Sequence[str], texts: dict[str, Tensor], seed: int) -> Tensor:
    """Features of the captions to beat [99, D]."""
    order = torch.randperm(len(reals), generator=generator_of("others", seed, sample.key)).tolist()
    mine = concept_of(sample.caption)
    different = (reals[place] for place in order if concept_of(reals[place]) != mine)
    chosen = list(dict.fromkeys(text for text, _ in zip(different, range(4 * OTHERS), strict=False)))[:OTHERS]
    return torch.stack([texts[text] for text in chosen])
