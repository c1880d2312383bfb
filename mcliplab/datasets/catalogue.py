"""The part of each set's card that its data do not tell: title, licences, sources, tasks and limits."""

from dataclasses import dataclass, field

_EMOJI_LIMITS = (
    "Flat drawings of single things on white: nothing here tells how a model does on photographs or on scenes.",
    "Captions are CLDR names of one to six words; they name, they do not describe.",
)
_NAMES = ("emojibase",)


@dataclass(frozen=True)
class Info:
    """The hand-written part of a card. `labels`: task name -> the member of `KEY.json` that holds the class."""

    title: str
    role: str
    licences: tuple[str, ...]
    sources: tuple[str, ...]
    about: str
    limits: tuple[str, ...]
    labels: dict[str, str] = field(default_factory=dict)
    retrieval: bool = False
    photos: bool = False  # what prompts call the pictures


CATALOGUE: dict[str, Info] = {
    "emoji-noto": Info(
        "Emoji in Noto style",
        "train",
        ("Apache-2.0",),
        ("noto", *_NAMES),
        "Every CLDR emoji but flags, keycaps, skin tones and the 200 unseen concepts; the caption is the CLDR name, "
        "the keywords are CLDR's.",
        _EMOJI_LIMITS,
    ),
    "emoji-twemoji": Info(
        "Emoji in Twemoji style",
        "train",
        ("CC-BY-4.0",),
        ("twemoji", *_NAMES),
        "The same concepts as emoji-noto, drawn by the Twemoji project.",
        _EMOJI_LIMITS,
    ),
    "emoji-openmoji": Info(
        "Emoji in OpenMoji style",
        "train",
        ("CC-BY-SA-4.0",),
        ("openmoji", *_NAMES),
        "The same concepts as emoji-noto, and OpenMoji's own additions captioned by their names (no brands, no flags). "
        'Icons whose name two code points share are left out ("scroll" shows the wheel of a mouse).',
        _EMOJI_LIMITS,
    ),
    "openclipart": Info(
        "OpenClipart drawings",
        "train",
        ("LicenseRef-Public-Domain",),
        ("openclipart",),
        "Public-domain drawings captioned by their authors' titles; a description or the file name replaces a title "
        "that says nothing. Flags, stars, playing cards, themes, gradients and blank drawings are left out.",
        (
            "Titles are noisy: some are Italian or French, some name a variant rather than what is seen.",
            "Styles and subjects are those of 2004 to 2006.",
        ),
    ),
    "tuxpaint-train": Info(
        "Tux Paint stamps, training side",
        "train",
        ("GPL-2.0-only",),
        ("tuxpaint",),
        "Cut-out photographs and drawings on white with the English sentences of the Tux Paint stamps; what "
        "tuxpaint-heldout holds, and every variant of it, is left out.",
        (
            "A third of it are letters, digits, signs and coins; about seventy are photographs.",
            "Objects are cut out: there are no backgrounds.",
        ),
    ),
    "gcompris-train": Info(
        "GCompris photographs, training side",
        "train",
        ("LicenseRef-Public-Domain", "CC0-1.0"),
        ("gcompris",),
        "Photographs of monuments, tools, fish, energy sources and household things, public domain or CC0 only, "
        "captioned by the activity's label or the file name; a monument's text is its description in the metadata.",
        ("Fewer than a hundred and twenty photographs.", "No animals but fish: those are for evaluation."),
    ),
    "emoji-fluent-seen": Info(
        "Emoji in the held-out Fluent style, seen concepts",
        "eval",
        ("MIT",),
        ("fluent", *_NAMES),
        "Concepts that training shows in other styles, in a style it never shows. Look-alikes of any training image "
        "(geometric symbols, mostly) are dropped.",
        (*_EMOJI_LIMITS, "Related concepts (a man and a woman of one profession) make some confusions unavoidable."),
        retrieval=True,
    ),
    "emoji-fluent-unseen": Info(
        "Emoji in the held-out Fluent style, unseen concepts",
        "eval",
        ("MIT",),
        ("fluent", *_NAMES),
        "200 concepts that no training style draws and whose names are no training caption.",
        (
            *_EMOJI_LIMITS,
            "OpenClipart and Tux Paint may show some of these things under longer or other names.",
            "200 candidates make retrieval easier than over the seen ones: compare to chance, 0.5%.",
        ),
        retrieval=True,
    ),
    "tuxpaint-heldout": Info(
        "Tux Paint photographs with held-out captions",
        "eval",
        ("GPL-2.0-only",),
        ("tuxpaint",),
        "Photograph-style stamps, one per caption. Pictures of one caption, one file name or one shape are on one side "
        "of the split.",
        ("Cut-outs on white.", "Close kinds (two finches) have captions that only an expert could tell apart."),
        retrieval=True,
    ),
    "gcompris-animals": Info(
        "GCompris animal photographs",
        "eval",
        ("CC-BY-SA-4.0", "CC-BY-3.0", "CC-BY-2.0", "CC0-1.0", "LicenseRef-Public-Domain"),
        ("gcompris",),
        "Photographs of animals in nature and on farms, one name each. Licences differ by file: see ATTRIBUTION.tsv.",
        ("Under sixty photographs: one photograph is nearly two points of accuracy.",),
        labels={"animals": "concept"},
        photos=True,
    ),
    "gcompris-activities": Info(
        "GCompris photographs by activity",
        "eval",
        ("LicenseRef-Public-Domain", "CC0-1.0"),
        ("gcompris",),
        "Photographs of tools, fish, monuments and energy sources that are not in training, to be sorted by the "
        "activity they belong to, or by name.",
        ("Four activities: chance is 25%.", "Many photographs of one kind (hammers, fish) come from few authors."),
        labels={"activities": "category", "objects": "concept"},
        photos=True,
    ),
    "art4apps": Info(
        "art4apps drawings",
        "eval",
        ("CC-BY-SA-3.0",),
        ("pysiogame",),
        "Clean drawings with one word each in twelve categories; a style and words that training never shows together.",
        (
            "Several words fit some drawings (a mother is also a woman): top-5 says more than top-1.",
            "Verbs are drawn as people doing something.",
        ),
        labels={"words": "concept", "categories": "category"},
    ),
}
