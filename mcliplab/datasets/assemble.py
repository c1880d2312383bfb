"""Which sample goes into which set."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mcliplab.datasets import art4apps, emoji, gcompris, openclipart, tuxpaint
from mcliplab.datasets.draft import Draft, same_words, stable_order
from mcliplab.datasets.leaks import matches, without_leaks, without_repetitions
from mcliplib.errors import UserError

UNSEEN = 200
_STYLES = {"noto": "Apache-2.0", "twemoji": "CC-BY-4.0", "openmoji": "CC-BY-SA-4.0", "fluent": "MIT"}
# Concepts that have near twins among the seen ones (genders, hours, arrows) are not offered as unseen.
_TWINS = re.compile(r"\b(man|men|woman|women|person|people|boy|girl|o’clock|thirty|arrow|button)\b")

Folders = Mapping[str, Path]


def assemble(folders: Folders, progress: Callable[[str], None]) -> tuple[dict[str, list[Draft]], dict[str, int]]:
    """All sets from the unpacked packages.

    Returns:
        The samples of each set, and how many evaluation samples of each set were dropped as leaks or repetitions.
    """
    concepts = emoji.concepts(folders["emojibase"])
    styles: dict[str, list[Draft]] = {}
    for style, licence in _STYLES.items():
        progress(f"drawing the {style} emoji")
        styles[style] = list(emoji.drafts(style, folders[style], concepts, licence))
    extras = list(emoji.openmoji_extras(folders["openmoji"], _STYLES["openmoji"]))
    styles["openmoji"] += extras
    progress("drawing OpenClipart")
    clipart = list(openclipart.drafts(folders["openclipart"]))
    progress("reading Tux Paint, GCompris and art4apps")
    tux_train, tux_held = tuxpaint.split(tuxpaint.drafts(folders["tuxpaint"]))
    photo_train, animals, activities = gcompris.split(gcompris.drafts(folders["gcompris"]))
    words = list(art4apps.drafts(folders["pysiogame"]))

    progress("choosing the unseen concepts, dropping leaks")
    fluent = styles.pop("fluent")
    others = [*clipart, *tux_train, *photo_train, *extras]
    unseen = choose_unseen(fluent, [draft for style in styles.values() for draft in style], others)
    hidden = {draft.meta["code"] for draft in unseen}
    train = {
        f"emoji-{style}": [draft for draft in drafts if draft.meta["code"] not in hidden]
        for style, drafts in styles.items()
    }
    train |= {"openclipart": clipart, "tuxpaint-train": tux_train, "gcompris-train": photo_train}
    train = {name: without_copies(drafts) for name, drafts in train.items()}
    seen = [draft for draft in fluent if draft.meta["code"] not in hidden]
    candidates = {
        "emoji-fluent-seen": seen,
        "emoji-fluent-unseen": unseen,
        "tuxpaint-heldout": tux_held,
        "gcompris-animals": animals,
        "gcompris-activities": activities,
        "art4apps": words,
    }
    everything = [draft for drafts in train.values() for draft in drafts]
    evaluation = {name: without_repetitions(without_leaks(drafts, everything)) for name, drafts in candidates.items()}
    dropped = {name: len(drafts) - len(evaluation[name]) for name, drafts in candidates.items()}
    return {**train, **evaluation}, dropped


def choose_unseen(fluent: Sequence[Draft], emojis: Sequence[Draft], others: Sequence[Draft]) -> list[Draft]:
    """`UNSEEN` concepts in Fluent style whose name is no training caption and whose picture is in no training set.

    Raises:
        UserError: there are not enough; the sources are not the pinned ones.
    """
    taken = {same_words(draft.caption) for draft in others}
    offered = [draft for draft in fluent if not _TWINS.search(draft.caption) and same_words(draft.caption) not in taken]
    drawn_in = {draft.meta["code"] for draft in emojis}
    like_others = np.any(matches(offered, others), axis=1).tolist()
    like_emojis = matches(offered, emojis)
    codes = [draft.meta["code"] for draft in emojis]
    free = []
    for index, draft in enumerate(offered):
        strangers = any(codes[hit] != draft.meta["code"] for hit in like_emojis[index].nonzero()[0])
        if draft.meta["code"] in drawn_in and not like_others[index] and not strangers:
            free.append(draft)
    chosen = sorted(free, key=lambda draft: stable_order(draft.meta["code"]))[:UNSEEN]
    if len(chosen) < UNSEEN:
        raise UserError(f"only {len(chosen)} of {UNSEEN} unseen emoji concepts can be found: use the pinned packages")
    return sorted(chosen, key=lambda draft: draft.key)


def without_copies(drafts: Sequence[Draft]) -> list[Draft]:
    """Without repeated pairs of the same image bytes and caption, and without repeated keys; sorted by key."""
    pairs: dict[tuple[str, str], Draft] = {}
    for draft in drafts:
        pairs.setdefault((draft.meta["sha256"], draft.caption), draft)
    return sorted({draft.key: draft for draft in pairs.values()}.values(), key=lambda draft: draft.key)
