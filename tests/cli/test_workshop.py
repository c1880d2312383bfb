"""The workshop's commands: there in a checkout; elsewhere one line says what they need."""

import argparse
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mcliplib import results
from mcliplib.cli import build_parser, main
from mcliplib.cli.common import command_line

ROOT = Path(__file__).parents[2]


def commands(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command of the workshop, as the whole command line registers them."""
    actions = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for name, below in (actions[0] if actions else {}).items():
        yield from commands(below, (*words, name))
    if not actions and parser.get_default("run").__module__.startswith("mcliplab."):
        yield words


WORKSHOP = list(commands(build_parser()))
WITH_ARGUMENTS = [
    ["teachers", "score", "--suite", "mini"],
    ["captioner", "train", "--output", "somewhere"],
    ["experiment", "--help"],
    ["experiment", "run", "efficiency", "--output", "runs", "--record"],
    ["data", "build", "--output", "data"],
    ["benchmark", "loader"],
    ["benchmark", "reinforce", "--record", "name"],
    ["benchmark", "train", "-h"],
    ["compact", "--input", "set", "--output", "small"],
    ["train", "--output", "{tmp}", "--record", "name"],
]


@pytest.fixture
def no_workshop(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("mcliplab.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mcliplab", None)


def test_the_commands_of_the_workshop_are_all_found() -> None:
    assert {"teachers", "captioner", "experiment", "compact", "data", "benchmark"} == {words[0] for words in WORKSHOP}
    assert {("experiment", "world"), ("experiment", "finetune"), ("data", "build")} <= set(WORKSHOP)
    assert {("benchmark", name) for name in ("int8", "memory", "released", "robustness", "search")} <= set(WORKSHOP)


@pytest.mark.parametrize("arguments", [*WORKSHOP, *WITH_ARGUMENTS], ids=" ".join)
def test_without_a_checkout_one_line_says_what_is_needed(
    arguments: Sequence[str], no_workshop: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(tmp=tmp_path) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"mcliplib {arguments[0]}: ")
    assert "checkout of the repository" in error
    assert len(error.splitlines()) == 1


def test_the_rest_works_without_it(no_workshop: None) -> None:
    assert main(["data", "list"]) == 0
    for arguments in (["--help"], ["benchmark", "latency", "--help"]):
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        assert exit.value.code == 0


def test_a_broken_workshop_is_not_taken_for_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mcliplab.experiments.cli", raising=False)
    monkeypatch.setitem(sys.modules, "mcliplab.experiments", None)
    with pytest.raises(ModuleNotFoundError):
        main(["experiment", "list"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "mcliplib", folder / "source/mcliplib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), "."]
    subprocess.run(build, cwd=folder / "source", check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    assert {path.name.split("-")[0] for path in wheel.iterdir()} == {"mcliplib"}
    assert (wheel / "mcliplib/py.typed").is_file()


def test_the_package_works_from_its_wheel(wheel: Path, tmp_path: Path) -> None:
    program = (
        "import mcliplib, torch\n"
        f"assert mcliplib.__file__.startswith({str(wheel)!r}), mcliplib.__file__\n"
        "model = mcliplib.create_model(pretrained='student')\n"
        "assert mcliplib.reparameterize(model).encode_image(torch.rand(1, 3, 64, 64)).shape[0] == 1\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(wheel)}, check=True)


@pytest.mark.parametrize("name", results.names())
def test_the_command_of_each_record_is_one_that_the_command_line_takes(name: str) -> None:
    program, *arguments = shlex.split(results.load(name)["command"])
    if program == "mcliplib":
        build_parser(arguments[0]).parse_args(arguments)
    else:
        assert program in ("make", "python")


@pytest.mark.parametrize(
    "typed",
    [
        "benchmark latency --model mobileclip_s0 --tune --rounds 3 --threads 2 --batch 1 --record a-name",
        "benchmark runtimes --tower text --record name",
        "benchmark int8 --model mobileclip_pico --random-weights --record name",
        "benchmark loader --data train tuxpaint-heldout --picture-size 0 --record name",
        "benchmark memory stream --samples 600 --folder 'a folder' --record name",
        "benchmark reinforce --captioner none --record name",
        "benchmark released --threads 1 --picture drawn.svg --record name",
        "benchmark robustness --kinds pictures lists --known one two --again --record name",
        "benchmark search --sizes 20,300 --record name",
        "benchmark train --teachers none --record name",
        "captioner score --seed 3 --threads 2 --record name",
        "experiment finetune --runs runs --variants plain --seeds 3 4 --threads 2 --record name",
        "teachers score --threads 2 --record name",
    ],
)
def test_a_recorded_command_is_what_was_typed(typed: str) -> None:
    arguments = shlex.split(typed)
    args = build_parser(arguments[0]).parse_args(arguments)
    program, *recorded = shlex.split(command_line(args))
    again = build_parser(arguments[0]).parse_args(recorded)
    assert program == "mcliplib"
    assert set(arguments) <= set(recorded)
    assert {name: value for name, value in vars(again).items() if name != "parser"} == {
        name: value for name, value in vars(args).items() if name != "parser"
    }


def test_a_recorded_command_holds_the_defaults_too() -> None:
    args = build_parser("teachers").parse_args(["teachers", "score", "--record", "name"])
    assert command_line(args) == "mcliplib teachers score --suite mini --record name --threads 1"
