"""The shipped data sets: nothing leaks, the cards tell the truth, licences are there, the size stays small."""

import hashlib
import json
from collections import Counter

import imagehash
import numpy as np
import pytest
from PIL import Image

from mcliplab.datasets.fingerprint import fingerprints, near_duplicates
from mcliplib.data import ReadReport, Sample, data_root, get_card, list_datasets, load_samples, shard_paths

SETS = list_datasets()
MEGABYTE = 1_000_000
ALLOWED = {
    *("Apache-2.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0"),
    *("GPL-2.0-only", "LicenseRef-Public-Domain", "MIT"),
}
COPYLEFT = {"GPL-2.0-only", "CC-BY-SA-3.0", "CC-BY-SA-4.0"}


@pytest.fixture(scope="module")
def samples() -> dict[str, list[Sample]]:
    return {name: load_samples(name) for name in SETS}


def of_role(samples: dict[str, list[Sample]], role: str) -> list[Sample]:
    return [sample for name in list_datasets(role) for sample in samples[name]]


def test_the_sets_of_the_plan_are_there() -> None:
    train = ["emoji-noto", "emoji-openmoji", "emoji-twemoji", "gcompris-train", "openclipart", "tuxpaint-train"]
    assert set(train) <= set(list_datasets("train"))
    evaluation = ["art4apps", "emoji-fluent-seen", "emoji-fluent-unseen", "gcompris-activities", "gcompris-animals"]
    assert {*evaluation, "tuxpaint-heldout"} <= set(list_datasets("eval"))
    assert 8_000 <= sum(get_card(name)["count"] for name in train) <= 10_000
    assert get_card("emoji-fluent-seen")["count"] >= 1_300
    assert get_card("emoji-fluent-unseen")["count"] == 200
    assert get_card("tuxpaint-heldout")["count"] >= 230


def test_no_image_crosses_from_training_to_evaluation(samples: dict[str, list[Sample]]) -> None:
    train, evaluation = of_role(samples, "train"), of_role(samples, "eval")
    same = near_duplicates(
        fingerprints([sample.image for sample in evaluation]), fingerprints([sample.image for sample in train])
    )
    crossing = [(evaluation[i].key, train[j].key) for i, j in np.argwhere(same)]
    assert crossing == []


def test_no_image_crosses_by_an_independent_hash(samples: dict[str, list[Sample]]) -> None:
    """imagehash's own perceptual hash over its colour hash: exact agreement in both never happens."""

    def print_of(sample: Sample) -> tuple[str, str]:
        return str(imagehash.phash(sample.image)), str(imagehash.colorhash(sample.image))

    train = {print_of(sample): sample.key for sample in of_role(samples, "train")}
    met = {sample.key: train.get(print_of(sample)) for sample in of_role(samples, "eval")}
    assert {key: other for key, other in met.items() if other} == {}


def test_no_pair_and_no_bytes_cross(samples: dict[str, list[Sample]]) -> None:
    train, evaluation = of_role(samples, "train"), of_role(samples, "eval")
    assert not {s.meta["sha256"] for s in train} & {s.meta["sha256"] for s in evaluation}
    assert not {s.meta["source"] for s in train} & {s.meta["source"] for s in evaluation}


def test_unseen_concepts_are_nowhere_in_training(samples: dict[str, list[Sample]]) -> None:
    unseen = samples["emoji-fluent-unseen"]
    train = of_role(samples, "train")
    assert not {s.caption.lower() for s in unseen} & {s.caption.lower() for s in train}
    assert not {s.meta["code"] for s in unseen} & {s.meta.get("code") for s in train}
    seen = {s.meta["code"] for s in samples["emoji-fluent-seen"]}
    assert seen <= {s.meta.get("code") for s in train}


def test_the_leak_check_can_fail(samples: dict[str, list[Sample]]) -> None:
    """A training image passed off as evaluation is caught, also scaled, re-encoded and reframed; colour counts."""
    image = samples["openclipart"][100].image
    smaller = image.resize((50, 50))
    framed = Image.new("RGB", (120, 110), "white")
    framed.paste(image, (30, 20))
    prints = fingerprints([image])
    assert near_duplicates(fingerprints([smaller, framed]), prints).all()
    red, blue = (Image.new("RGB", (64, 64), "white") for _ in range(2))
    for picture, colour in ((red, "red"), (blue, "blue")):
        picture.paste(colour, (12, 12, 52, 52))
    assert not near_duplicates(fingerprints([red]), fingerprints([blue])).any()


@pytest.mark.parametrize("name", SETS)
def test_card_agrees_with_shards(name: str, samples: dict[str, list[Sample]]) -> None:
    card, folder = get_card(name), data_root() / name
    assert card["name"] == name
    assert card["count"] == len(samples[name]) == sum(shard["samples"] for shard in card["shards"])
    for shard in card["shards"]:
        content = (folder / shard["file"]).read_bytes()
        assert len(content) == shard["bytes"]
        assert hashlib.sha256(content).hexdigest() == shard["sha256"]
    assert card["unique_captions"] == len({sample.caption for sample in samples[name]})
    assert card["licences"] == dict(Counter(sample.meta["licence"] for sample in samples[name]))
    assert len({sample.key for sample in samples[name]}) == card["count"]
    for task, facts in card["tasks"].items():
        if facts["kind"] == "zero-shot":
            assert {sample.meta[facts["label_field"]] for sample in samples[name]} == set(facts["classes"]), task
        else:
            assert card["unique_captions"] == card["count"], "retrieval needs one right answer"
    assert card["limits"]
    assert all(source["sha256"] and source["version"] for source in card["sources"])


@pytest.mark.parametrize("name", SETS)
def test_licences_are_allowed_and_carried_along(name: str) -> None:
    card, folder = get_card(name), data_root() / name
    assert set(card["licences"]) <= ALLOWED
    text = (folder / card["licence_file"]).read_text(encoding="utf-8")
    assert len(text) > 150
    for licence in card["licences"]:
        words = {"GPL-2.0-only": "GNU GENERAL PUBLIC LICENSE", "CC-BY-SA-3.0": "ShareAlike 3.0", "MIT": "Permission is"}
        assert words.get(licence, licence) in text or licence in ("Apache-2.0", "LicenseRef-Public-Domain")
    if set(card["licences"]) & COPYLEFT:
        assert len(text) > 10_000, "a copyleft set carries the full text"
    rows = (folder / card["attribution_file"]).read_text(encoding="utf-8").splitlines()
    assert len(rows) == card["count"] + 1
    assert all(len(row.split("\t")) == 4 for row in rows)
    assert (folder / "README.md").read_text(encoding="utf-8").startswith(f"# {card['title']}")


def test_training_has_only_public_domain_photos_of_gcompris(samples: dict[str, list[Sample]]) -> None:
    kinds = {sample.meta["licence"] for sample in samples["gcompris-train"]}
    assert kinds <= {"CC0-1.0", "LicenseRef-Public-Domain"}
    assert "animals" not in {sample.meta["category"] for sample in samples["gcompris-train"]}


def test_every_sample_is_whole(samples: dict[str, list[Sample]]) -> None:
    report = ReadReport()
    everything = load_samples(["train", "eval"], report=report)
    assert report.read == len(everything) == sum(len(part) for part in samples.values())
    assert not report.skipped
    assert not report.broken_shards
    for sample in everything:
        assert sample.image.mode == "RGB"
        assert 64 <= min(sample.image.size) <= max(sample.image.size) <= 192
        assert sample.caption == sample.caption.strip()
        assert "\ufffd" not in sample.caption
        assert {"uid", "sha256", "category", "style", "keywords", "source", "licence", "author"} <= set(sample.meta)
        assert np.asarray(sample.image).std() > 2, f"{sample.key} is blank"


def test_flags_keycaps_skin_tones_and_the_mouse_wheel_are_out(samples: dict[str, list[Sample]]) -> None:
    emojis = [sample for name in SETS if name.startswith("emoji-") for sample in samples[name]]
    captions = [sample.caption for sample in emojis]
    assert not [caption for caption in captions if caption.startswith(("flag:", "keycap")) or "skin tone" in caption]
    assert "emoji-openmoji:scroll" not in {sample.meta["source"] for sample in emojis}
    assert "scroll" not in {sample.caption for sample in samples["emoji-openmoji"]}


def test_size_budget() -> None:
    """All sets together; results and caches are not data sets."""
    files = [file for name in SETS for file in (data_root() / name).iterdir()]
    assert sum(file.stat().st_size for file in files) < 15 * MEGABYTE
    listed = {path for name in SETS for path in shard_paths(name)}
    assert {file for file in files if file.name.endswith(".tar.gz")} == listed, "a stray shard"


def test_cards_name_no_address_of_a_registry() -> None:
    for name in SETS:
        text = json.dumps(get_card(name))
        assert "://" not in text
