"""How good a model is: zero-shot classification, retrieval, and the suite of both, with intervals."""

from mcliplib.evaluate.features import Encoder, ModelEncoder, image_features, text_features
from mcliplib.evaluate.scores import Retrieval, Score, ZeroShot, class_features, retrieval, zero_shot
from mcliplib.evaluate.suite import constant_answer, evaluate_dataset, evaluate_suite, is_non_degenerate

__all__ = [
    "Encoder",
    "ModelEncoder",
    "Retrieval",
    "Score",
    "ZeroShot",
    "class_features",
    "constant_answer",
    "evaluate_dataset",
    "evaluate_suite",
    "image_features",
    "is_non_degenerate",
    "retrieval",
    "text_features",
    "zero_shot",
]
