"""Scores of a student that has learned nothing, and the tasks that can tell."""

import json
from collections import Counter
from typing import Any

from mcliplab.pairs import encoded_pairs
from mcliplib.data import get_card, shard_paths
from mcliplib.errors import UserError

_NON_DEGENERATE = 0.1


def constant_answer(task: str, depth: int = 1) -> float:
    """The score of one answer for everything: the most frequent class or caption, or one picture.

    Of retrieval it is the mean of both ways. A student below it has learned nothing that this task would show.

    Args:
        task: "set/task", as `evaluate_suite` names it.
        depth: answers that are given, as in top-5 and R@5.

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
        return (_share(captions, depth) + min(1.0, depth / len(captions))) / 2
    labels = Counter(json.loads(members["json"])[tasks[kind]["label_field"]] for members in pairs)
    return _share(labels, depth)


def _share(counted: Counter[Any], depth: int) -> float:
    """Of all that was counted, the share of the most frequent ones."""
    return sum(count for _, count in counted.most_common(depth)) / counted.total()


def is_non_degenerate(task: str) -> bool:
    """Whether a score on the task says that something was learned: one answer for everything scores below a tenth.

    Raises:
        UserError: see `constant_answer`.
    """
    return constant_answer(task) < _NON_DEGENERATE
