"""How good a model is: zero-shot classification, retrieval, and the suite of both, with intervals."""

from mcliplib.evaluate.features import Encoder, ModelEncoder, image_features, text_features
from mcliplib.evaluate.scores import Retrieval, Score, ZeroShot, class_features, retrieval, zero_shot
from mcliplib.evaluate.suite import evaluate_dataset, evaluate_suite

__all__ = [
    "Encoder",
    "ModelEncoder",
    "Retrieval",
    "Score",
    "ZeroShot",
    "class_features",
    "evaluate_dataset",
    "evaluate_suite",
    "image_features",
    "retrieval",
    "text_features",
    "zero_shot",
]
