"""How good a model is: zero-shot classification, retrieval, and the suite of both, with intervals."""

from mcliplib.evaluate.bootstrap import Score
from mcliplib.evaluate.features import Encoder, ModelEncoder, image_features, text_features
from mcliplib.evaluate.retrieval import Retrieval, retrieval
from mcliplib.evaluate.suite import constant_answer, evaluate_dataset, evaluate_suite, is_telling
from mcliplib.evaluate.zero_shot import ZeroShot, class_features, zero_shot

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
    "is_telling",
    "retrieval",
    "text_features",
    "zero_shot",
]
