"""Plans, runs that are done once, and how many times more samples a baseline needs."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mcliplab.experiments import Times, efficiency, gather, load_plan, main_scores, plan_names, run_plan
from mcliplab.experiments import runner as module
from mcliplab.experiments.data import PlanData
from mcliplab.experiments.noise import with_wrong_captions, wrong_captions
from mcliplab.experiments.plan import Plan
from mcliplib import results
from mcliplib.checkpoints import load_model
from mcliplib.cli import main
from mcliplib.data import load_samples
from mcliplib.errors import UserError
from mcliplib.results import hardware
from mcliplib.train.data import load_reinforced
from mcliplib.train.settings import TrainSettings

PLAN = """
about: Is a test worth its time?
base: {preset: mobileclip_pico, data: [gcompris-animals], batch_size: 8, image_size: 32, warmup_steps: 2}
variants: {slow: {learning_rate: 1.0e-4}, quick: {learning_rate: 2.0e-3}}
budgets: [16, 32]
seeds: [0]
holdout: 0.5
pictures: 0.9
baseline: slow
"""


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path / "results"))
    path = tmp_path / "tiny.yaml"
    path.write_text(PLAN)
    return path


@given(st.sets(st.text(max_size=4)), st.sampled_from([0.0, 0.3, 1.0]))
def test_wrong_captions_are_passed_on_in_a_ring(keys, share):
    of = wrong_captions(keys, share)
    assert sorted(of) == sorted(of.values())
    assert of == wrong_captions(sorted(keys, reverse=True), share)
    assert len(of) in {0.0: [0], 0.3: range(len(keys) + 1), 1.0: [len(keys)]}[share]
    assert len(of) < 2 or all(key != source for key, source in of.items())


def test_a_wrong_caption_comes_with_its_keywords():
    samples = load_samples("emoji-noto")
    said = {(one.caption, tuple(one.meta["keywords"])) for one in samples}
    wrong = with_wrong_captions(samples, 1.0)
    assert [one.key for one in wrong] == [one.key for one in samples]
    assert {(one.caption, tuple(one.meta["keywords"])) for one in wrong} == said
    assert all(new.image is old.image for new, old in zip(wrong, samples, strict=True))


def test_plain_and_reinforced_training_see_the_same_wrong_captions():
    base = {"preset": "mobileclip_pico", "batch_size": 8, "data": ["train"]}
    variants = {"plain": {}, "reinforced": {"reinforced": True, "data": ["train-reinforced"]}}
    plan = Plan("wrong", "", base, variants, (8,), (0,), wrong_captions=0.5)
    plain, reinforced = (PlanData(plan).of(run.settings).samples for run in plan.runs())
    right = {one.key: one for one in load_reinforced("train-reinforced").samples}
    assert len(right) == len(plain)
    captions = {one.key: one.caption for one in plain}
    assert captions == {one.key: one.caption for one in reinforced}
    teachers = with_wrong_captions(load_samples("train"), 0.5)  # what teachers of these captions are trained on
    assert captions == {one.key: one.caption for one in teachers}
    changed = [one for one in reinforced if one.caption != right[one.key].caption]
    assert 0.45 < len(changed) / len(right) < 0.52
    by_caption = {str(one.caption): one.text_emb[0] for one in right.values()}
    for one in changed[::100]:
        assert torch.allclose(one.text_emb[0], by_caption[str(one.caption)], atol=0.1)
        assert torch.equal(one.text_emb[1:], right[one.key].text_emb[1:])
        assert torch.equal(one.image_emb, right[one.key].image_emb)


@pytest.mark.parametrize("name", plan_names())
def test_the_experiments_of_the_package_are_whole(name):
    plan = load_plan(name)
    runs = list(plan.runs())
    planned = sum(len(plan.budgets_of(variant)) for variant in plan.variants) * len(plan.seeds)
    assert len({run.name for run in runs}) == len(runs) == planned
    assert len({json.dumps(run.as_json(), sort_keys=True) for run in runs}) == len(runs)


def test_all_are_listed_with_what_is_recorded(capsys):
    assert main(["experiment", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == plan_names()
    assert all(" runs recorded. " in line for line in lines)


def test_a_record_of_something_else_is_named(plan):
    results.record(plan.stem, {"plain": {}}, unit="", n=1, seeds=[0], command="mcliplib", seconds=1.0)
    with pytest.raises(UserError, match=r"\.json: is no experiment's record"):
        gather(load_plan(str(plan)), None)


def test_a_plan_may_have_the_base_of_another(plan):
    plan.write_text("\n".join("base: efficiency" if line.startswith("base:") else line for line in PLAN.splitlines()))
    assert {run.settings.batch_size for run in load_plan(str(plan)).runs()} == {256}
    plan.write_text(plan.read_text().replace("base: efficiency", "base: efficency"))
    with pytest.raises(UserError, match="no experiment 'efficency'"):
        load_plan(str(plan))


def test_a_variant_may_have_budgets_of_its_own(plan):
    plan.write_text(PLAN.replace("slow: {", "slow: {budgets: [16, 64], "))
    assert [run.name for run in load_plan(str(plan)).runs()] == ["slow-16-0", "quick-16-0", "quick-32-0", "slow-64-0"]


@pytest.mark.parametrize(
    ("line", "instead", "message"),
    [
        ("budgets: [16, 32]", "budgets: 1000", "budgets must be a list of different whole numbers from 0, got 1000"),
        ("seeds: [0]", "seeds: 3", "seeds must be a list of different whole numbers"),
        ("slow: {", "slow: {budgets: 16, ", "budgets of the variant slow must be a list"),
        ("slow: {learning_rate: 1.0e-4}", "slow: fast", "the variant slow must hold settings, got 'fast'"),
        ("base: {", "base: tiny #", "base must be settings, or the name of another experiment"),
        ("holdout: 0.5", "holdout: half", "holdout must be a share from 0 to 1, got 'half'"),
        ("holdout: 0.5", "wrong_captions: 50", "wrong_captions must be a share from 0 to 1, got 50"),
        ("seeds: [0]\n", "", "missing: seeds"),
        ("about:", "budget: [1]\nabout:", "unknown: budget"),
    ],
)
def test_what_is_wrong_in_a_plan_is_named(plan, line, instead, message):
    assert line in PLAN
    plan.write_text(PLAN.replace(line, instead))
    with pytest.raises(UserError, match=message):
        load_plan(str(plan))


def test_a_variant_may_change_nothing(plan):
    plan.write_text(PLAN.replace("slow: {learning_rate: 1.0e-4}", "slow: "))
    assert next(load_plan(str(plan)).runs()).settings.learning_rate == TrainSettings().learning_rate


def test_results_need_a_folder(plan, tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert main(["experiment", "run", str(plan), "--output", str(tmp_path / "taken")]) == 2
    assert "taken: cannot be written" in capsys.readouterr().err


def test_each_run_is_done_once_and_what_was_interrupted_goes_on(plan, tmp_path, monkeypatch):
    output, done = tmp_path / "out", []

    def stop_after_two(*args, original=module.train, **keywords):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(args[1].name)
        return original(*args, **keywords)

    monkeypatch.setattr(module, "train", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        run_plan(load_plan(str(plan)), output)
    assert sorted(path.stem for path in output.glob("*.json")) == ["quick-16-0", "slow-16-0"]
    monkeypatch.undo()
    monkeypatch.setenv("MCLIPLIB_RESULTS", str(tmp_path / "results"))
    before = (output / "slow-16-0.json").read_text()
    assert main(["experiment", "run", str(plan), "--output", str(output), "--variants", "quick", "--record"]) == 0
    assert not (output / "slow-32-0.json").exists()
    assert main(["experiment", "run", str(plan), "--output", str(output), "--share", "2/2", "--record"]) == 0
    assert main(["experiment", "run", str(plan), "--output", str(output), "--record"]) == 0
    assert (output / "slow-16-0.json").read_text() == before
    values = json.loads((tmp_path / "results/tiny.json").read_text())["values"]
    assert (values["planned"], values["done"]) == (4, 4)
    assert set(values["runs"]["slow-32-0"]["scores"]) == {"heldout/retrieval"}
    assert values["runs"]["slow-32-0"]["curve"]["samples"][0] == 8
    assert load_model(output / "slow-32-0.safetensors").config.name == "mobileclip_pico"
    row = values["summary"]["slow"]["32"]["mean"]
    assert row["lowest"] == row["mean"] == row["highest"] == main_scores(values["runs"]["slow-32-0"]["scores"])["mean"]
    assert {*values["efficiency"]} == {"quick"}  # in samples of the baseline
    worth = values["efficiency"]["quick"]["mean"]["32"]
    assert worth["times"] == worth["lowest"] == worth["highest"]  # one seed
    assert values["runs"]["slow-32-0"]["hardware"] == hardware()
    assert len(gather(load_plan(str(plan)), None)) == 4  # a new checkout goes on from the record
    other = json.loads(before)
    other["settings"]["seed"] = 9
    (output / "slow-16-0.json").write_text(json.dumps(other))  # of something else: the record's is there
    (output / "notes.json").write_text("[]")  # no run's
    assert len(gather(load_plan(str(plan)), output)) == 4
    plan.write_text(PLAN.replace("2.0e-3", "3.0e-3"))
    assert set(gather(load_plan(str(plan)), output)) == {"slow-16-0", "slow-32-0"}  # other settings, other results


def test_a_record_to_which_nothing_came_stays(plan, tmp_path, capsys):
    run = ["experiment", "run", str(plan), "--record", "--output"]
    assert main([*run, str(tmp_path / "out")]) == 0
    record = tmp_path / "results/tiny.json"
    record.write_text(record.read_text().replace('"hardware": "', '"hardware": "another machine, '))
    before = record.read_text()
    assert main([*run, str(tmp_path / "elsewhere")]) == 0
    assert "name another folder in MCLIPLIB_RESULTS" in capsys.readouterr().err
    assert not list((tmp_path / "elsewhere").iterdir())
    assert record.read_text() == before


def test_a_result_is_of_its_data_and_knows_no_newer_settings(plan, monkeypatch):
    run = next(load_plan(str(plan)).runs())
    older = {name: value for name, value in run.as_json().items() if name != "multi_positive"}
    result = {"settings": older, "data_sha256": module._shards_sha256(run.settings.data)}
    assert module._fits(result, run)
    assert not module._fits({**result, "data_sha256": "of another version"}, run)
    assert not module._fits({**result, "settings": {**older, "seed": 1}}, run)
    monkeypatch.setattr(module, "_shards_sha256", lambda names: None)  # the data are not here
    assert module._fits(result, run)


def test_a_reinforced_result_is_also_of_the_pictures_that_its_set_does_not_hold(tmp_path):
    pictures, answers = tmp_path / "pictures.tar", tmp_path / "set" / "shard.tar"
    answers.parent.mkdir()
    answers.write_bytes(b"answers")
    manifest = {"status": "complete", "identity": {}, "inputs": [], "shards": [], "skipped": []}
    manifest |= {"counts": {"samples": 0, "reasons": {}}, "images": [str(pictures)]}
    (answers.parent / "manifest.json").write_text(json.dumps(manifest))
    names = (str(answers),)

    def content():
        module._shards_sha256.cache_clear()
        return module._shards_sha256(names)

    assert content() is None, "the pictures are not here"
    found = set()
    for now in (b"some", b"others"):
        pictures.write_bytes(now)
        found.add(content())
    assert len(found - {None}) == 2


def test_held_out_concepts_are_not_trained_on(plan):
    data = PlanData(load_plan(str(plan)))
    run = next(load_plan(str(plan)).runs())
    trained = {one.caption for one in data.of(run.settings).samples}
    assert trained
    assert not trained & {one.caption for one in data._validation}


def test_plain_and_reinforced_runs_train_on_the_same_few_pictures():
    """A plan may use a share of the pictures; which ones depends on their keys alone."""
    base = {"preset": "mobileclip_pico", "batch_size": 8}
    variants = {"plain": {"data": ["gcompris-train"]}, "reinforced": {"data": ["train-reinforced"], "reinforced": True}}
    data = PlanData(Plan("few", "", base, variants, (8,), (0,), pictures=0.25, holdout=0.1))
    plain, reinforced = (
        {one.key: str(one.caption) for one in data.of(run.settings).samples} for run in data.plan.runs()
    )
    assert 0 < len(plain) < 0.5 * 99
    assert plain.items() <= reinforced.items()
    assert 1500 < len(reinforced) < 2100
    assert len({one.caption for one in data._validation}) > 300  # of all concepts
    assert not {one.caption for one in data._validation} & {*reinforced.values()}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("about: Is", "abuot: Is"),
        ("budgets: [16, 32]", ""),
        ("learning_rate", "learning_rat"),
        ("seeds: [0]", "seeds: [0]\nsede: 1"),
        ("baseline: slow", "baseline: fast"),
    ],
)
def test_bad_plans_are_refused_before_anything_runs(plan, changed, message, capsys):
    plan.write_text(PLAN.replace(changed, message))
    assert main(["experiment", "show", str(plan)]) == 2
    assert "tiny" in capsys.readouterr().err


def test_unknown_experiment_and_share(capsys, tmp_path):
    assert main(["experiment", "show", "efficency"]) == 2
    assert "ablations, augmentations, efficiency, " in capsys.readouterr().err
    assert main(["experiment", "run", "efficiency", "--output", str(tmp_path), "--variants", "palin"]) == 2
    assert "no variant palin in efficiency; there is plain, reinforced" in capsys.readouterr().err
    for share in ("0/2", "3/2", "one", "1"):
        assert main(["experiment", "run", "efficiency", "--output", str(tmp_path), "--share", share]) == 2


def test_efficiency_by_hand():
    plain = {100: [0.10], 1000: [0.20], 10_000: [0.20]}
    better = {50: [0.05], 100: [0.15], 200: [0.05, 0.15], 1000: [0.30]}
    less, half, equal, never = (one.times for one in efficiency(better, plain))
    assert less == Times(2.0, "at most")  # the baseline's smallest budget was more than enough
    assert (half.value, half.sign) == (
        pytest.approx(math.sqrt(10)),
        "",
    )  # half way in the logarithm: 316 samples for 100
    assert (equal.value, equal.sign) == (pytest.approx(0.5), "")
    assert never == Times(10.0, "at least")  # as far as was looked
    assert (str(half), str(never)) == ("3.2", "at least 10.0")
    assert [one.times for one in efficiency(plain, plain)] == [
        Times(1.0),
        Times(1.0),
        Times(0.1),
    ]  # 0.2 was there earlier


def test_interval_of_efficiency_by_hand():
    plain = {100: [0.0, 0.1, 0.2], 1000: [0.2, 0.3, 0.4]}
    (found,) = efficiency({100: [0.15, 0.2, 0.25]}, plain)
    assert (found.times.value, found.times.sign) == (pytest.approx(math.sqrt(10)), "")
    assert found.lowest == Times(1.0, "at most")  # 0.15 against a baseline of 0.2
    assert found.highest == Times(10.0, "at least")  # 0.25 against one that ends at 0.2
    assert found.interval() == "at most 1.0 to at least 10.0"
    (never,) = efficiency({100: [0.5, 0.6]}, plain)
    assert never.interval() == "at least 10.0"


@given(
    scores=st.lists(st.floats(0, 1), min_size=3, max_size=3), plain=st.lists(st.floats(0, 1), min_size=9, max_size=9)
)
def test_interval_holds_the_mean(scores, plain):
    (found,) = efficiency({100: scores}, {10: plain[:3], 100: plain[3:6], 1000: plain[6:]})
    assert found.lowest.value * (1 - 1e-9) <= found.times.value <= found.highest.value * (1 + 1e-9)


def test_a_baseline_that_gets_worse_counts_as_its_best():
    overtrained = {100: [0.1], 1000: [0.3], 10_000: [0.2]}
    (found,) = efficiency({100: [0.25]}, overtrained)
    assert not found.times.sign
    assert 1 < found.times.value < 10


def test_one_number_a_task():
    scores = {
        "a/words": {"top1": {"value": 0.2}, "top5": {"value": 0.9}},
        "b/retrieval": {
            f"{way}_r{depth}": {"value": value}
            for depth, values in ((1, (0.1, 0.5)), (5, (0.4, 0.6)))
            for way, value in zip(("image_to_text", "text_to_image"), values, strict=True)
        },
        "c/kinds": {"top1": {"value": 0.7}},  # too few for a top-5
    }
    assert main_scores(scores) == pytest.approx({"a/words": 0.2, "b/retrieval": 0.3, "c/kinds": 0.7, "mean": 0.4})
    assert main_scores(scores, depth=5) == pytest.approx({"a/words": 0.9, "b/retrieval": 0.5, "mean": 0.7})
