"""Plans that would write outside their folder, lead in a circle, or are none."""

from pathlib import Path

import pytest

from mcliplab.experiments import load_plan
from mcliplib.errors import UserError

GOOD = "about: x\nbase: {}\nvariants: {one: {}}\nbudgets: [64]\nseeds: [0]\n"
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("one", '"../../x"'), "is no name of a file"),
        (GOOD.replace("one", "/tmp/x"), "is no name of a file"),
        (GOOD + "seeds: [1]\n", "'seeds' twice"),
        (GOOD.replace("{one: {}}", "{}"), "at least one"),
        (GOOD.replace("{one: {}}", "{1: {}, '1': {}}"), "twice"),
        (GOOD.replace("[64]", "[64, 64]"), "different whole numbers"),
        (GOOD.replace("[0]", "[-1]"), "whole numbers"),
        (GOOD.replace("base: {}", "base: ../../etc/passwd"), "is no name of a file"),
        (GOOD.replace("about: x", "about: [x]"), "about: must be str"),
        (BOMB, "aliases"),
        ("[" * 10_000, "is not YAML"),
        ("\udcff", "is not YAML"),
        ("a: !!python/object/apply:os.system [true]", "is not YAML"),
        ("? [a]\n: b", "is not YAML"),
    ],
)
def test_plans_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=rf"plan\.yaml.*{message}") as caught:
        load_plan(str(path))
    assert "\n" not in str(caught.value)


def test_plans_that_name_each_other(tmp_path: Path) -> None:
    for one, other in ("ab", "ba"):
        (tmp_path / f"{one}.yaml").write_text(GOOD.replace("{}\nvar", f"{tmp_path}/{other}.yaml\nvar"))
    with pytest.raises(UserError, match=r"a\.yaml.* leads back to where it began"):
        load_plan(str(tmp_path / "a.yaml"))
