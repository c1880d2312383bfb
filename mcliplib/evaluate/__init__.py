"""How good a model is: zero-shot, retrieval, probes, calibration, suites of sets; with intervals and paired tests."""

from mcliplib.evaluate.calibration import confusion, fit_temperature, most_confused, reliability
from mcliplib.evaluate.features import Encoder, ModelEncoder, image_features, text_features
from mcliplib.evaluate.intervals import Comparison, Score, compare, mean_per_class, score, worst_group
from mcliplib.evaluate.probe import FewShot, LinearProbe, few_shot, linear_probe, nearest_neighbours
from mcliplib.evaluate.scores import (
    Retrieval,
    ZeroShot,
    class_features,
    constant_answer,
    jaccard,
    macro_f1,
    nearest_class,
    retrieval,
    zero_shot,
)
from mcliplib.evaluate.suite import evaluate_dataset, evaluate_suite

__all__ = [
    "Comparison",
    "Encoder",
    "FewShot",
    "LinearProbe",
    "ModelEncoder",
    "Retrieval",
    "Score",
    "ZeroShot",
    "class_features",
    "compare",
    "confusion",
    "constant_answer",
    "evaluate_dataset",
    "evaluate_suite",
    "few_shot",
    "fit_temperature",
    "image_features",
    "jaccard",
    "linear_probe",
    "macro_f1",
    "mean_per_class",
    "most_confused",
    "nearest_class",
    "nearest_neighbours",
    "reliability",
    "retrieval",
    "score",
    "text_features",
    "worst_group",
    "zero_shot",
]
