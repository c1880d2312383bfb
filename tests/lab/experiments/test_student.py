"""The shipped student: small, loadable by name, and as good as its record says."""

import json

import pytest

import mcliplib
from mcliplib import results
from mcliplib.checkpoints import read_header
from mcliplib.data import list_datasets
from mcliplib.errors import UserError
from mcliplib.evaluate import evaluate_suite
from mcliplib.hub import locate

PATH = locate("student")


@pytest.fixture(scope="module")
def run():
    return results.load("student")["values"]["runs"]["nano-1000000-0"]


def test_it_is_small_and_says_what_it_is():
    header = read_header(PATH)
    assert PATH.stat().st_size < 8e6
    assert header["licence"] == "MIT"
    assert json.loads(header["config"])["name"] == "mobileclip_nano"


@pytest.mark.parametrize("name", list_datasets("eval"))
def test_its_scores_are_those_of_the_record(run, name):
    model = mcliplib.create_model(pretrained="student")
    for task, row in evaluate_suite(model, name).items():
        for metric, score in row.items():
            assert float(score) == pytest.approx(run["scores"][task][metric]["value"], abs=0.02)


def test_it_needs_no_other_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student").mkdir()  # a folder of that name is asked for as ./student
    model = mcliplib.create_model(pretrained="student")
    assert not model.training
    assert mcliplib.create_model(model.config.name, pretrained="student").config == model.config
    with pytest.raises(UserError, match="is a folder without"):
        mcliplib.create_model(pretrained="./student")
    with pytest.raises(UserError, match="holds mobileclip_"):
        mcliplib.create_model("mobileclip_s0", pretrained="student")
    with pytest.raises(ValueError, match="name a model"):
        mcliplib.create_model()
