"""Zero-shot classification: a class is a text, and a picture belongs to the nearest one (CLIP, section 3.1)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mcliplib.evaluate.bootstrap import Score, score
from mcliplib.evaluate.features import Encoder, ModelEncoder
from mcliplib.evaluate.ranks import first_right_rank
from mcliplib.model import MobileCLIP

PHOTO_TEMPLATES = ("{}", "a photo of a {}.", "a picture of a {}.", "the {}.")
DRAWING_TEMPLATES = ("{}", "a drawing of a {}.", "a picture of a {}.", "the {}.")


class ZeroShot(NamedTuple):
    """Shares of pictures whose class is the nearest, or among the five nearest."""

    top1: Score
    top5: Score
    classes: int  # with five or fewer, top5 says nothing


def zero_shot(image_features: Tensor, class_features: Tensor, labels: Tensor) -> ZeroShot:
    """Top-1 and top-5 accuracy.

    Args:
        image_features: [N, D], normalised.
        class_features: [C, D], normalised (`class_features`).
        labels: [N], index of each picture's class.

    Raises:
        ValueError: shapes that do not fit, or a label outside the classes.
    """
    labels = torch.as_tensor(labels)
    if image_features.dim() != 2 or class_features.dim() != 2 or image_features.shape[1] != class_features.shape[1]:
        raise ValueError(f"features must be [N, D] and [C, D], got {list(image_features.shape)} "
                         f"and {list(class_features.shape)}")  # fmt: skip
    if labels.shape != image_features.shape[:1]:
        raise ValueError(f"labels must be [{len(image_features)}], got {list(labels.shape)}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_features):
        raise ValueError(f"labels must be in 0..{len(class_features) - 1}")
    right = torch.nn.functional.one_hot(labels, len(class_features)).bool()
    ranks = first_right_rank(image_features @ class_features.T, right)
    return ZeroShot(score(ranks < 1), score(ranks < 5), len(class_features))


def class_features(
    model: MobileCLIP | Encoder, classes: Sequence[str], templates: Sequence[str] = PHOTO_TEMPLATES
) -> Tensor:
    """The classifier that the text tower makes: a class is the mean of its prompts' features, normalised again.

    Args:
        model: a model in eval mode, or another encoder.
        classes: names, put into each template's braces.
        templates: prompts.

    Returns:
        [C, D].
    """
    encoder = ModelEncoder(model) if isinstance(model, MobileCLIP) else model
    features = encoder.encode_texts([template.format(name) for name in classes for template in templates])
    mean = features.reshape(len(classes), len(templates), -1).mean(dim=1)
    return torch.nn.functional.normalize(mean, dim=-1)
