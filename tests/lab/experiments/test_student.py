"""The shipped student: small, loadable by name, and as good as its record says."""

import json

import pytest

import mcliplib
from mcliplib import results
from mcliplib.checkpoints import read_header
from mcliplib.data import data_root, list_datasets
from mcliplib.evaluate import evaluate_suite

PATH = data_root() / "student" / "model.safetensors"


@pytest.fixture(scope="module")
def run():
    return results.load("student")["values"]["runs"]["reinforced-1000000-0"]


def test_it_is_small_and_says_what_it_is():
    header = read_header(PATH)
    assert PATH.stat().st_size < 4e6
    assert header["licence"] == "MIT"
    assert json.loads(header["config"])["name"] == "mobileclip_pico"


@pytest.mark.parametrize("name", list_datasets("eval"))
def test_its_scores_are_those_of_the_record(run, name):
    model = mcliplib.create_model("mobileclip_pico", pretrained=PATH)
    for task, row in evaluate_suite(model, name).items():
        for metric, score in row.items():
            assert float(score) == pytest.approx(run["scores"][task][metric]["value"], abs=0.02)
