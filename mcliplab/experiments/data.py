"""Training and evaluation data of an experiment: parts of the sets, and captions as bad as the web's."""

from dataclasses import replace
from functools import cached_property

import torch

from mcliplab.experiments.noise import caption_sources, part_of_one, with_wrong_captions
from mcliplab.experiments.plan import Plan
from mcliplib.data import Sample, concept_of, load_samples
from mcliplib.evaluate import evaluate_suite
from mcliplib.evaluate.features import ModelEncoder
from mcliplib.evaluate.suite import caption_retrieval, metrics, score_values
from mcliplib.reinforce.sample import ReinforcedSample
from mcliplib.train.data import PairData, ReinforcedData, load_reinforced
from mcliplib.train.settings import TrainSettings
from mcliplib.train.trainer import TrainResult


class PlanData:
    """The training sets of a plan, each read once, and what its runs are scored on."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._plain: dict[tuple[str, ...], PairData] = {}
        self._reinforced: dict[tuple[str, ...], ReinforcedData] = {}

    def of(self, settings: TrainSettings) -> PairData | ReinforcedData:
        """The training data of a run."""
        if not settings.reinforced:
            if settings.data not in self._plain:
                samples = [one for one in load_samples(settings.data) if self._is_used(one.key, one.caption)]
                self._plain[settings.data] = PairData(with_wrong_captions(samples, self.plan.wrong_captions))
            return self._plain[settings.data]
        if settings.data not in self._reinforced:
            whole = load_reinforced(settings.data)
            kept = [one for one in whole.samples if self._is_used(one.key, str(one.caption))]
            self._reinforced[settings.data] = replace(whole, samples=self._with_wrong_captions(kept))
        return self._reinforced[settings.data].part_for(settings)

    def scores(self, trained: TrainResult) -> dict[str, dict[str, dict[str, float]]]:
        """On the evaluation sets, or on the concepts that were held out."""
        if not self.plan.holdout:
            return score_values(evaluate_suite(trained.model))
        found = caption_retrieval(ModelEncoder(trained.model), self._validation)
        return score_values({"heldout/retrieval": metrics(found)})

    @cached_property
    def _validation(self) -> list[Sample]:
        return [one for one in load_samples("train") if self._held_out(one.caption)]

    def _is_used(self, key: str, caption: str) -> bool:
        return part_of_one("pictures", key) < self.plan.pictures and not self._held_out(caption)

    def _held_out(self, caption: str) -> bool:
        """All pictures of a concept are on one side."""
        return part_of_one("holdout", concept_of(caption)) < self.plan.holdout

    def _with_wrong_captions(self, samples: list[ReinforcedSample]) -> list[ReinforcedSample]:
        """Give some pictures another one's caption, and the teachers' embeddings of it."""
        sources = caption_sources(samples, self.plan.wrong_captions)
        return [
            replace(one, caption=source.caption, text_emb=torch.cat([source.text_emb[:1], one.text_emb[1:]]))
            for one, source in zip(samples, sources, strict=True)
        ]
