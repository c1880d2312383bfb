"""Texts of a training picture for the heads: its caption, the caption in a sentence, and its keywords."""

import re
from collections.abc import Sequence

from mcliplib.data import Sample, concept_of

WEIGHTS = (0.5, 0.2, 0.2, 0.1)  # how often each of the ways is drawn
_MOST_KEYWORDS = 6


def ways_to_say(sample: Sample) -> tuple[str, str, str, str]:
    """The caption, "a picture of ...", the caption with keywords, and the keywords (or the caption again)."""
    caption = sample.caption
    thing = re.sub(r"^(a|an|the)\s+", "", caption.rstrip("."), flags=re.IGNORECASE)
    kind = "photo" if sample.meta.get("style") == "photo" else "drawing"
    keywords = ", ".join(sample.meta.get("keywords", [])[:_MOST_KEYWORDS])
    listed = f"{thing}, {keywords}" if keywords else caption
    return caption, f"a {kind} of a {thing}.", listed, keywords or caption


def caption_numbers(samples: Sequence[Sample]) -> list[int]:
    """Equal numbers for equal captions, as `concept_of` compares them."""
    known: dict[str, int] = {}
    return [known.setdefault(concept_of(sample.caption), len(known)) for sample in samples]
