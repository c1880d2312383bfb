"""The benchmark of search: what it records, and that the shipped student still finds what the record says."""

import pytest

from mcliplab.benchmarks.search import measure_finding
from mcliplib import results
from mcliplib.cli import main

SEEN = "emoji-fluent-seen"


def test_the_student_finds_what_the_record_says(tmp_path):
    recorded = results.load("search")["values"]["finding"][SEEN]
    found = measure_finding(tmp_path, SEEN, lambda _: None)
    assert found["captions"] == recorded["captions"] > 1000
    assert found["recall_at_10"] == pytest.approx(recorded["recall_at_10"], abs=0.02)
    shipped = results.load("student")["values"]["runs"]["nano-1000000-0"]["scores"][f"{SEEN}/retrieval"]
    assert found["recall_at_10"] == pytest.approx(shipped["text_to_image_r10"]["value"], abs=0.02)  # nothing is lost


@pytest.mark.slow
def test_it_is_measured_and_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path))
    options = ["--pictures", "30", "--released", "3", "--sizes", "20,300", "--queries", "6", "--record", "small"]
    assert main(["benchmark", "search", "--folder", str(tmp_path), *options]) == 0
    record = results.load("small")
    assert "--sizes 20,300 --queries 6" in record["command"]
    values = record["values"]
    assert set(values["finding"]) == {SEEN, "emoji-fluent-unseen"}
    assert values["indexing"]["pictures"] == 30
    assert (values["released"]["model"], values["released"]["pictures"]) == ("random:mobileclip_s0", 3)
    for size, ways in values["queries"].items():
        assert set(ways) == {"float32", "int8"}, size
        assert ways["float32"]["recall_texts"] == 1.0
        assert all(way["median_ms"] <= way["p90_ms"] and way["private_mb"] > 0 for way in ways.values())
