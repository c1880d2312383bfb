"""The house: who may use whom, and how small the package is."""

import pytest

from tests.project.size import MOST_FILES, MOST_LINES, READINGS, ROOT, files, imported, reading, total

THE_ONE_DOOR = "mcliplib/cli"  # names the workshop's modules as strings, and imports them when they are asked for
ROOMS = (  # each uses only rooms above it, and its own
    {"layers", "errors", "files", "threads", "precision", "quiet", "_vision", "_torchvision_compat"},
    {"images", "image_encoder", "text_encoder", "vit", "model", "presets", "tokenizer", "preprocess", "factory", "hub",
     "checkpoints", "reparam"},
    {"data"},
    {"evaluate"},
    {"reinforce"},
    {"losses", "optimization", "train", "results"},
    {"latency", "export", "quantize", "search"},
    {"viz", "cli", "doctor"},
)  # fmt: skip


def room_of(name: str) -> int | None:
    """The place of a module's room in the order; None for the package itself."""
    parts = name.split(".")
    return next((place for place, room in enumerate(ROOMS) if len(parts) > 1 and parts[1] in room), None)


def test_the_package_never_uses_the_workshop() -> None:
    paths = files("mcliplib")
    assert [path for path in paths if any(name.split(".")[0] == "mcliplab" for name in imported(path))] == []
    named = {str(path.parent.relative_to(ROOT)) for path in paths if '"mcliplab' in path.read_text()}
    assert named == {THE_ONE_DOOR}


@pytest.mark.parametrize("path", files("mcliplib"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_uses_only_rooms_above_it(path) -> None:
    own = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if own is None:
        assert path.name in ("__init__.py", "__main__.py")
        return
    used = {name: room_of(name) for name in imported(path) if name.startswith("mcliplib.")}
    assert {name for name, place in used.items() if place is not None and place > own} == set()


def test_the_package_is_small() -> None:
    assert total(files("mcliplib")) <= MOST_LINES, "see `make size`"
    assert len(files("mcliplib")) <= MOST_FILES, "see `make size`"


@pytest.mark.parametrize("idea", READINGS)
def test_an_idea_is_read_in_few_files(idea: str) -> None:
    opened, most = reading(idea), READINGS[idea][2]
    assert 1 <= len(opened) <= most, opened
