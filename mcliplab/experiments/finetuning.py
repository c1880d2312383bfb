"""Is a reinforced student the better start for a task of one's own? Probes, few shots, fine-tuning, mixtures.

The task: the twelve categories of `art4apps`, whose pictures no student has seen, half to learn from and half to be
scored. What fine-tuning makes a model forget is asked of emoji in a style that it never saw.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mcliplib.checkpoints import load_model
from mcliplib.data import Labelled, load_labelled, load_samples
from mcliplib.evaluate import ModelEncoder, Score, few_shot, image_features, linear_probe
from mcliplib.evaluate.scores import DRAWING_TEMPLATES
from mcliplib.evaluate.suite import caption_retrieval
from mcliplib.model import MobileCLIP
from mcliplib.train.finetune import FinetuneResult, FinetuneSettings, accuracy, finetune, mixed, with_tower

TASK, LABEL, KEPT = "art4apps", "category", "emoji-fluent-seen"
SHOTS = (1, 4, 16)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
TEST = 0.5

Values = dict[str, Any]


def measure(
    models: Mapping[str, Path], seeds: Sequence[int], progress: Callable[[str], None] = lambda _: None
) -> Values:
    """Every method from every start.

    Args:
        models: start -> a path with `{seed}` in it, of students in training form.
        seeds: of the students, of the split and of fine-tuning.
        progress: told what is being done.

    Returns:
        start -> seed -> method -> a score's record; the WiSE-FT curves by share, `task` and `kept` each.
    """
    data = load_labelled(TASK, LABEL)
    values: Values = {}
    for start, pattern in models.items():
        for seed in seeds:
            progress(f"{start}, seed {seed}")
            model = load_model(str(pattern).format(seed=seed))
            learned, test = data.split(TEST, seed)
            values.setdefault(start, {})[str(seed)] = _of_one(model, learned, test, seed)
    return values


def _of_one(model: MobileCLIP, learned: Labelled, test: Labelled, seed: int) -> Values:
    features, tested = (image_features(model, one.images) for one in (learned, test))
    found: Values = {}
    for shots in SHOTS:
        of_few = few_shot(features, learned.labels, tested, test.labels, shots, repeats=3, seed=seed)
        found[f"shots_{shots}"] = of_few.accuracy.record()
    probe = linear_probe(features, learned.labels, tested, test.labels, seed=seed)
    found["probe"] = probe.accuracy.record()
    for method in ("full", "lp-ft"):
        settings = FinetuneSettings(method=method, seed=seed)
        with tempfile.TemporaryDirectory() as folder:
            result = finetune(model, learned, folder, settings, templates=DRAWING_TEMPLATES)
        found[method] = {str(share): _ends(result, model, test, share) for share in SHARES}
    return found


def _ends(result: FinetuneResult, model: MobileCLIP, test: Labelled, share: float) -> Values:
    """The scores of a mixture on the task, and on what is to be kept."""
    classifier = mixed(result.before, result.after, share)
    return {
        "task": accuracy(classifier, model, test).record(),
        "kept": _kept(with_tower(model, classifier.image_encoder)).record(),
    }


def _kept(model: MobileCLIP) -> Score:
    return caption_retrieval(ModelEncoder(model), load_samples(KEPT)).image_to_text[1]
