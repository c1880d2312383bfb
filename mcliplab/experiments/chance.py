"""Scores of a student that has learned nothing, and the tasks that can tell."""

import json
from collections import Counter

from mcliplab.pairs import encoded_pairs
from mcliplib.data import get_card, shard_paths
from mcliplib.errors import UserError

_NON_DEGENERATE = 0.1


def constant_answer(task: str) -> float:
    """The score of one answer for everything: the most frequent class or caption, or one picture.

    Of retrieval it is the mean of both ways. A student below it has learned nothing that this task would show.

    Args:
        task: "set/task", as `evaluate_suite` names it.

    Raises:
        UserError: no such set, or no such task in it.
    """
    name, _, kind = task.partition("/")
    tasks = get_card(name)["tasks"]
    if kind not in tasks:
        raise UserError(f"{name} has no task {kind!r}; there is {', '.join(tasks) or 'none'}")
    pairs = (members for _, members in encoded_pairs(shard_paths(name)))
    if tasks[kind]["kind"] == "retrieval":
        captions = Counter(members["txt"] for members in pairs)
        return (max(captions.values()) / captions.total() + 1 / len(captions)) / 2
    labels = Counter(json.loads(members["json"])[tasks[kind]["label_field"]] for members in pairs)
    return max(labels.values()) / labels.total()


def is_non_degenerate(task: str) -> bool:
    """Whether a score on the task says that something was learned: one answer for everything scores below a tenth.

    Raises:
        UserError: see `constant_answer`.
    """
    return constant_answer(task) < _NON_DEGENERATE
