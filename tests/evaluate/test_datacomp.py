"""Sets in CLIP_benchmark's layout: our exports score as the sets themselves, and as CLIP_benchmark scores them."""

import io
import json
import re

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

import mcliplib
from mcliplib.cli import main
from mcliplib.cli.evaluate import find_encoder
from mcliplib.data import write_shard
from mcliplib.data.export_clip_benchmark import export_clip_benchmark
from mcliplib.errors import UserError, WriteError
from mcliplib.evaluate import ModelEncoder, datacomp, evaluate_suite, layout
from mcliplib.evaluate.features import FeatureCache
from mcliplib.evaluate.scores import DRAWING_TEMPLATES, PHOTO_TEMPLATES
from mcliplib.reinforce.sources import open_fs
from tests.evaluate.test_clip_benchmark import Lookup, with_numpy_of_today  # noqa: F401 (a fixture)

SETS = ("art4apps", "gcompris-animals", "tuxpaint-heldout")


@pytest.fixture(scope="module")
def student():
    return ModelEncoder(mcliplib.load_model("student"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("exported")
    for name in SETS:
        export_clip_benchmark(name, root, {True: PHOTO_TEMPLATES, False: DRAWING_TEMPLATES})
    return root


class Colours:
    """An encoder that knows red from green and blue, and counts what it is asked."""

    identity = {"sha256": "of a paint box"}  # noqa: RUF012

    def __init__(self):
        self.asked = 0

    def encode_images(self, images):
        self.asked += len(images)
        mean = torch.stack([torch.tensor(np.asarray(image)).float().mean((0, 1)) for image in images])
        return torch.nn.functional.normalize(mean, dim=-1)

    def encode_texts(self, texts):
        return torch.stack(
            [torch.tensor([float(name in text.lower()) for name in ("red", "green", "blue")]) for text in texts]
        )


def picture(red, green, blue, form="png"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (red, green, blue)).save(file, form)
    return file.getvalue()


RED, GREEN, BLUE = picture(200, 9, 5), picture(5, 200, 9), picture(9, 5, 200)


def make(root, name, samples, *, classes="red\ngreen\nblue\n", kind=None):
    """A set of one shard."""
    folder = root / name
    write_shard(folder / "test" / "0.tar", [(f"s{at:07d}", members) for at, members in enumerate(samples)])
    (folder / "test" / "nshards.txt").write_text("1\n")
    (folder / "classnames.txt").write_text(classes)
    (folder / "zeroshot_classification_templates.txt").write_text("a {c} wall.\n{c}\n")
    if kind:
        (folder / "dataset_type.txt").write_text(kind)
    return folder


def numbers(*values):
    file = io.BytesIO()
    np.save(file, np.array(values))
    return file.getvalue()


def evaluated(root, suite, encoder=None, **more):
    return next(iter(datacomp.evaluate_root(encoder or Colours(), str(root), suite, **more)))


@pytest.mark.parametrize("name", SETS)
def test_an_export_scores_as_the_set_itself(student, exported, name):
    for task, scores in evaluate_suite(student, name).items():
        kind = task.partition("/")[2]
        folder = name if (exported / f"wds_{name}").is_dir() else f"{name}-{kind}"
        metrics = evaluated(exported, folder, student)["metrics"]
        if kind == "retrieval":
            assert metrics["text_retrieval_recall@5"] == pytest.approx(float(scores["image_to_text_r5"]))
            assert metrics["mean_recall@1"] == pytest.approx(
                (scores["image_to_text_r1"] + scores["text_to_image_r1"]) / 2
            )
        else:
            assert metrics["main_metric"] == metrics["acc1"] == pytest.approx(float(scores["top1"]))
            assert metrics["acc5"] == pytest.approx(float(scores["top5"]))


@pytest.mark.parametrize("name", ["art4apps-categories", "tuxpaint-heldout"])
def test_clip_benchmark_reads_our_exports_and_scores_them_the_same(student, exported, name):
    from clip_benchmark.datasets.builder import build_dataset
    from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

    pictures = []
    task = "zeroshot_retrieval" if name == "tuxpaint-heldout" else "zeroshot_classification"
    dataset = build_dataset(
        f"wds/{name}", root=str(exported / f"wds_{name}"), transform=pictures.append, split="test", task=task
    )
    answers = [answer for _, answer in dataset]
    images = student.encode_images(pictures)
    texts: list[str] = []

    def tokens(names):
        texts.extend(names)
        return torch.arange(len(texts) - len(names), len(texts))

    class Model(Lookup):
        def encode_text(self, rows):
            return student.encode_texts([texts[row] for row in rows])

    class Loader(list):
        pass

    model, ours = Model(images, None), evaluated(exported, name, student)["metrics"]
    loader = Loader([(torch.arange(len(images)), torch.tensor(answers) if dataset.classes else answers)])
    loader.dataset = dataset  # type: ignore[attr-defined]
    if dataset.classes:
        theirs = zeroshot_classification.evaluate(
            model, loader, tokens, dataset.classes, dataset.templates, "cpu", amp=False
        )
        wanted = {one: theirs[one] for one in ("acc1", "acc5", "mean_per_class_recall")}
    else:
        wanted = zeroshot_retrieval.evaluate(model, loader, tokens, "cpu", amp=False, recall_k_list=[1, 5, 10])
    assert {one: ours[one] for one in wanted} == pytest.approx(wanted)


def test_each_set_is_scored_by_its_own_metric(tmp_path):
    """Three of four walls are hits: both red ones, and one of the two green ones, which are a group of their own."""
    samples = [
        {"png": RED, "cls": b"0", "npy": numbers(0, 7)},
        {"png": RED, "cls": b"0", "npy": numbers(0, 7)},
        {"png": GREEN, "cls": b"1", "npy": numbers(1, 7)},
        {"png": RED, "cls": b"1", "npy": numbers(1, 7)},
    ]
    for key in ("vtab-pets", "cifar10", "fairness-geode", "wilds-fmow", "wilds-iwildcam"):
        make(tmp_path, f"wds_{key}_test", samples)
    assert evaluated(tmp_path, "vtab/pets")["metrics"]["main_metric"] == pytest.approx(0.75)
    assert evaluated(tmp_path, "cifar10")["metrics"]["main_metric"] == 0.75
    assert evaluated(tmp_path, "fairness/geode")["metrics"]["main_metric"] == 0.5
    assert evaluated(tmp_path, "wilds/fmow")["metrics"]["acc_worst_region"] == 0.5
    assert evaluated(tmp_path, "wilds/iwildcam")["metrics"]["main_metric"] == pytest.approx((0.8 + 2 / 3) / 2)
    others = [{**one, "npy": numbers(5)} if one["png"] == RED and one["cls"] == b"1" else one for one in samples]
    make(tmp_path, "wds_wilds-fmow_test", others)
    assert evaluated(tmp_path, "wilds/fmow")["metrics"]["main_metric"] == 1, "other regions do not count"


def test_associations_of_many_candidates_count(tmp_path):
    """Of a cue's ten candidates two are right: the red one is found, the green one is behind all blue ones."""

    def about(instance, cue, associated):
        return json.dumps({"instance": instance, "cue": cue, "associated": associated}).encode()

    easy = [{"png": RED, "json": about(1, "red", True)}, {"png": BLUE, "json": about(1, "red", False)}]
    hard = [{"png": BLUE, "json": about("b", "Red", False)}] * 8
    hard += [{"png": one, "json": about("b", "Red", True)} for one in (RED, GREEN)]
    make(tmp_path, "wds_misc-winogavil", easy + hard, kind="association")
    metrics = evaluated(tmp_path, "misc/winogavil")["metrics"]
    assert metrics["main_metric"] == pytest.approx(1 / 3)
    assert metrics["avg_jaccard_score"] == pytest.approx(2 / 3)


def test_a_missing_set_is_reported_and_never_averaged_away(tmp_path, capsys):
    make(tmp_path, "wds_cifar10_test", [{"png": RED, "cls": b"0"}, {"png": GREEN, "cls": b"2"}])
    output = tmp_path / "results.jsonl"
    command = [
        "evaluate",
        "--model",
        "student",
        "--suite",
        "datacomp38",
        "--root",
        str(tmp_path),
        "--output",
        str(output),
    ]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "no average: 37 of the 38 sets are missing" in told
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(lines) == 38
    assert [one["key"] for one in lines if one["metrics"]["main_metric"] is not None] == ["cifar10"]
    assert (
        main(["evaluate", "--results", str(output), "--against", "published", "--published-model", "mobileclip_s0"])
        == 0
    )
    told = capsys.readouterr().out
    assert "93.18" in told
    assert "58." in told.splitlines()[-3], "the published average of the 38"
    assert main(["evaluate", "--results", str(output), "--against", "published", "--published-model", "resnet"]) == 2
    assert "no published results of 'resnet'" in capsys.readouterr().err


def test_the_published_table_is_of_the_suite():
    table = json.loads(datacomp.PUBLISHED.read_text())
    keys = {task.key for task in datacomp.SUITE}
    assert len(keys) == len(datacomp.SUITE) == 38
    for model, row in table.items():
        assert keys <= set(row), model
    lines = [
        {"key": key, "dataset": key, "metrics": {"main_metric": value}}
        for key, value in table["mobileclip2_s0"].items()
    ]
    assert len(lines) == 48
    assert datacomp.average(lines) == pytest.approx(sum(table["mobileclip2_s0"][key] for key in keys) / 38)


def test_what_differs_by_more_than_its_interval_is_marked():
    def line(key, value, low, high):
        return {"key": key, "dataset": key, "metrics": {"main_metric": value}, "interval": [low, high]}

    told = datacomp.beside_published([line("cifar10", 0.93, 0.92, 0.94), line("mnist", 0.5, 0.4, 0.6)], "mobileclip_s0")
    marks = {row.split()[0]: row.rstrip().endswith("*") for row in told.splitlines()[1:3]}
    assert marks == {"cifar10": False, "mnist": True}
    assert "1 sets" in told


def test_a_second_run_asks_the_model_nothing(tmp_path):
    folder = make(tmp_path, "wds_walls", [{"png": RED, "cls": b"0"}, {"png": GREEN, "cls": b"2"}])
    cache, encoder = FeatureCache(tmp_path / "cache", 1 << 20), Colours()
    first = evaluated(tmp_path, "walls", encoder, cache=cache)
    assert evaluated(tmp_path, "walls", encoder, cache=cache) == first
    assert encoder.asked == 2
    make(tmp_path, "wds_walls", [{"png": RED, "cls": b"0"}, {"png": BLUE, "cls": b"2"}])
    assert evaluated(tmp_path, "walls", encoder, cache=cache)["metrics"]["acc1"] == 1, "another shard, other features"
    (folder / "classnames.txt").write_text("red\nblue\ngreen\n")
    assert evaluated(tmp_path, "walls", encoder, cache=cache)["metrics"]["acc1"] == 0.5, "other classes too"
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"damaged")
    asked = encoder.asked
    evaluated(tmp_path, "walls", encoder, cache=cache)
    assert encoder.asked == asked + 2


def test_other_weights_have_other_features(student, tmp_path):
    cache, other = FeatureCache(tmp_path, 1), ModelEncoder(mcliplib.load_model("student"))
    assert cache.path(other, "set") == cache.path(student, "set")
    with torch.no_grad():
        next(other.model.parameters()).add_(1e-3)
    assert cache.path(other, "set") != cache.path(student, "set")


def test_the_cache_is_bounded(tmp_path):
    cache = FeatureCache(tmp_path, 3000)
    for at in range(5):
        cache.put(tmp_path / f"{at}.safetensors", {"images": torch.zeros(250)})
    assert [file.stem for file in sorted(tmp_path.iterdir())] == ["3", "4"]


def test_a_url_is_read_shard_by_shard(tmp_path):
    make(tmp_path, "wds_walls", [{"png": RED, "cls": b"0"}, {"png": GREEN, "cls": b"2"}])
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "wds_walls"), "/sets/wds_walls", recursive=True)
    try:
        assert evaluated("memory://sets", "walls") == evaluated(tmp_path, "walls")
        assert evaluated("memory://sets/{name}/", "walls") == evaluated(tmp_path, "walls")
        with pytest.raises(UserError, match=r"wds_seas/test/nshards.txt; name the folder or URL"):
            evaluated("memory://sets", "seas")
    finally:
        memory.rm("/sets", recursive=True)


def hurt(folder, name, content):
    (folder / name).write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda at: (at / "classnames.txt").unlink(), r"classnames.txt: is missing, empty"),
        (lambda at: hurt(at, "classnames.txt", b"red\n\xff\xfe\n"), r"classnames.txt: is not UTF-8 \(byte 4\)"),
        (lambda at: hurt(at, "classnames.txt", b"x" * (5 << 20)), r"classnames.txt: has more than the"),
        (lambda at: hurt(at, "classnames.txt", b"red\n"), r"0.tar: s0000001.cls: '2' is not one of the 1 classes"),
        (lambda at: hurt(at, "zeroshot_classification_templates.txt", b"a wall\n"), r"'a wall' has no \{c\}"),
        (lambda at: hurt(at, "dataset_type.txt", b"captioning"), r"dataset_type.txt: 'captioning' is not"),
        (lambda at: hurt(at, "test/nshards.txt", b"-1"), r"nshards.txt: must hold a number"),
        (lambda at: hurt(at, "test/nshards.txt", b"2"), r"1.tar: is missing \(1 of the 2 shards"),
        (lambda at: (at / "test/nshards.txt").unlink(), r"nshards.txt: is missing"),
        (lambda at: hurt(at, "test/0.tar", (at / "test/0.tar").read_bytes()[:2600]), r"0.tar: .*breaks off.*fetch it"),
        (lambda at: hurt(at, "test/0.tar", b"no tar at all" * 100), r"0.tar is not a readable tar shard"),
        (lambda at: hurt(at, "dataset_type.txt", b"retrieval"), r"s0000000.txt: is missing or empty"),
    ],
)  # fmt: skip
def test_damage_is_one_error_that_names_the_file(tmp_path, harm, message):
    harm(make(tmp_path, "wds_walls", [{"png": RED, "cls": b"0"}, {"png": GREEN, "cls": b"2"}]))
    with pytest.raises(UserError, match=message):
        evaluated(tmp_path, "walls")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"cls": b"-1"}, "'-1' is not one of"),
        ({"cls": b"7" * 5000}, "is not one of"),
        ({"cls": "٣".encode()}, "is not one of"),
        ({"cls": b"0"}, "npy: holds no numbers"),
        ({"cls": b"0", "npy": b"\x93NUMPY"}, "npy: holds no numbers"),
        ({"cls": b"0", "npy": numbers(np.nan)}, "npy: holds no numbers"),
    ],
)
def test_answers_that_are_none(tmp_path, members, message):
    make(tmp_path, "wds_geode_test", [{"png": RED, **members}])
    with pytest.raises(UserError, match=message):
        evaluated(tmp_path, "fairness/geode")


def test_a_few_broken_pictures_are_counted_and_many_are_an_error(tmp_path):
    good, broken = {"png": RED, "cls": b"0"}, {"png": RED[:40], "cls": b"0"}
    make(tmp_path, "wds_walls", [good] * 150 + [broken] + [{"cls": b"0"}])
    with pytest.raises(UserError, match=r"1% of the samples cannot be used"):
        evaluated(tmp_path, "walls")
    make(tmp_path, "wds_walls", [good] * 150 + [broken])
    line = evaluated(tmp_path, "walls")
    assert (line["n"], line["skipped"], line["metrics"]["acc1"]) == (150, 1, 1.0)


def test_pictures_in_memory_are_bounded(tmp_path, monkeypatch):
    batches = []
    encoder = Colours()
    encode = encoder.encode_images
    encoder.encode_images = lambda images: batches.append(len(images)) or encode(images)
    make(tmp_path, "wds_walls", [{"png": RED, "cls": b"0"}] * 10)
    monkeypatch.setattr(layout, "_MOST_PIXELS", 200)  # pictures have 64
    evaluated(tmp_path, "walls", encoder)
    assert batches == [4, 4, 2]


def test_a_presets_name_is_no_trained_model(tmp_path, capsys):
    make(tmp_path, "wds_walls", [{"png": RED, "cls": b"0"}])
    command = ["evaluate", "--model", "mobileclip_pico", "--suite", "walls", "--root", str(tmp_path)]
    assert main(command) == 2
    assert "without trained weights" in capsys.readouterr().err
    assert main([*command, "--random-weights"]) == 0
    assert main(["evaluate", "--model", "student", "--suite", "datacomp38"]) == 2
    assert "need --root" in capsys.readouterr().err


@pytest.mark.slow
def test_any_open_clip_model_is_evaluated(tmp_path):
    import open_clip

    torch.manual_seed(0)
    torch.save(open_clip.create_model("ViT-S-32-alt").state_dict(), tmp_path / "small.pt")
    encoder = find_encoder(f"open_clip:ViT-S-32-alt/{tmp_path / 'small.pt'}")
    make(tmp_path, "wds_walls", [{"png": RED, "cls": b"0"}, {"png": GREEN, "cls": b"1"}])
    cache = FeatureCache(tmp_path / "cache", 1 << 24)
    assert evaluated(tmp_path, "walls", encoder, cache=cache)["n"] == 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_command_exports_and_refuses_what_has_no_task(tmp_path, capsys):
    command = ["data", "export", "--layout", "clip-benchmark", "--output", str(tmp_path), "--set"]
    assert main([*command, "gcompris-animals"]) == 0
    assert (tmp_path / "wds_gcompris-animals" / "test" / "0.tar").is_file()
    assert main([*command, "gcompris-train"]) == 2
    assert "has no evaluation task" in capsys.readouterr().err


def about(instance, associated):
    return json.dumps({"instance": instance, "cue": "red", "associated": associated}).encode()


def test_a_cue_without_a_right_candidate_is_left_out_and_told(tmp_path):
    candidates = [{"png": BLUE, "json": about(1, False)}] * 11
    right = [{"png": BLUE, "json": about(2, False)}] * 9 + [{"png": RED, "json": about(2, True)}]
    make(tmp_path, "wds_winogavil", candidates + right, kind="association")
    line = evaluated(tmp_path, "misc/winogavil")
    assert (line["metrics"]["main_metric"], line["n"]) == (1.0, 1)
    assert line["notes"] == ["1 of 2 cues have no right candidate and are left out"]
    make(tmp_path, "wds_winogavil", candidates, kind="association")
    with pytest.raises(UserError, match="jaccard_score_10-12 cannot be had from its 11 pictures"):
        evaluated(tmp_path, "misc/winogavil")


def test_a_set_of_none_but_other_regions_is_an_error(tmp_path):
    make(tmp_path, "wds_fmow", [{"png": RED, "cls": b"0", "npy": numbers(5)}])
    with pytest.raises(UserError, match="wilds/fmow: its metric acc_worst_region cannot be had from its 1 pictures"):
        evaluated(tmp_path, "wilds/fmow")


def test_blank_lines_at_the_end_of_a_list_are_no_classes(tmp_path):
    samples = [{"png": RED, "cls": b"0"}, {"png": BLUE, "cls": b"2"}]
    make(tmp_path, "wds_walls", samples, classes="red\ngreen\nblue\n\n \n")
    assert evaluated(tmp_path, "walls")["metrics"]["acc1"] == 1
    make(tmp_path, "wds_walls", samples, classes="red\n\nblue\n")
    with pytest.raises(UserError, match="has an empty line"):
        evaluated(tmp_path, "walls")


def test_class_names_that_are_there_twice_are_told(tmp_path, capsys):
    """As ImageNet's "missile" and "sunglasses": the two classes tie, and a tie is a miss."""
    samples = [{"png": RED, "cls": b"0"}, {"png": GREEN, "cls": b"1"}]
    make(tmp_path, "wds_walls", samples, classes="red\ngreen\nblue\nred\n")
    line = evaluated(tmp_path, "walls")
    assert line["metrics"]["acc1"] == 0.5
    assert line["notes"] == ["several classes have one name, and ties count as wrong: red"]
    assert "notes" not in evaluated(make(tmp_path, "wds_plain", samples).parent, "plain")
    command = ["evaluate", "--model", "mobileclip_pico", "--random-weights", "--suite", "walls", "--root"]
    assert main([*command, str(tmp_path)]) == 0
    assert "note: walls: several classes have one name" in capsys.readouterr().out


def test_a_damaged_set_does_not_end_the_others(tmp_path, capsys):
    good = [{"png": RED, "cls": b"0"}, {"png": GREEN, "cls": b"1"}]
    hurt(make(tmp_path, "wds_cifar10", good), "test/0.tar", b"no tar at all" * 100)
    make(tmp_path, "wds_mnist", good)
    lines = {one["key"]: one for one in datacomp.evaluate_root(Colours(), str(tmp_path))}
    assert [*lines] == [task.key for task in datacomp.SUITE]
    assert "0.tar is not a readable tar shard" in lines["cifar10"]["fault"]
    assert lines["mnist"]["metrics"]["main_metric"] == 1
    output = tmp_path / "results.jsonl"
    command = ["evaluate", "--model", "mobileclip_pico", "--random-weights", "--root", str(tmp_path)]
    assert main([*command, "--output", str(output)]) == 1, "--root alone means the 38"
    told = capsys.readouterr()
    assert re.search(r"^cifar10 +damaged$", told.out, re.MULTILINE)
    assert re.search(r"^mnist +\d", told.out, re.MULTILINE)
    assert "cifar10 is damaged: " in told.err
    assert main(["evaluate", "--results", str(output)]) == 1


def test_a_cache_that_cannot_be_written_is_no_fault_of_a_set(tmp_path):
    make(tmp_path, "wds_mnist", [{"png": RED, "cls": b"0"}])
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError):
        list(datacomp.evaluate_root(Colours(), str(tmp_path), cache=FeatureCache(tmp_path / "file", 1 << 20)))


def test_a_root_without_any_set_is_an_error(tmp_path, capsys):
    command = ["evaluate", "--model", "mobileclip_pico", "--random-weights", "--suite", "datacomp38", "--root"]
    output = tmp_path / "results.jsonl"
    assert main([*command, str(tmp_path / "typo"), "--output", str(output)]) == 2
    assert "typo: has no folder of the 38 sets" in capsys.readouterr().err
    assert not output.exists()


def test_a_model_without_published_results_is_refused_before_the_work(tmp_path, capsys):
    make(tmp_path, "wds_mnist", [{"png": RED, "cls": b"0"}])
    command = ["evaluate", "--model", "mobileclip_pico", "--random-weights", "--root", str(tmp_path)]
    assert main([*command, "--against", "published"]) == 2
    told = capsys.readouterr().err
    assert "no published results of 'mobileclip_pico'" in told
    assert "1 of 38" not in told


def test_results_without_intervals_show_none(tmp_path, capsys):
    path = tmp_path / "results.jsonl"
    line = {"key": "mnist", "dataset": "MNIST", "metrics": {"main_metric": 0.5}}
    path.write_text(json.dumps(line) + "\n")
    assert main(["evaluate", "--results", str(path)]) == 0
    assert re.search(r"^mnist +50\.0%$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(
    "change",
    [{"interval": [0.1]}, {"interval": "x"}, {"interval": [None, 1]}, {"skipped": "x"}, {"notes": 3}, {"key": 5},
     {"metrics": {"main_metric": "x"}}],
)  # fmt: skip
def test_results_that_are_none_are_refused(tmp_path, change):
    path = tmp_path / "results.jsonl"
    line = {"key": "mnist", "dataset": "MNIST", "metrics": {"main_metric": 0.5}, "interval": [0.4, 0.6]}
    path.write_text(json.dumps(line) + "\n" + json.dumps({**line, **change}) + "\n")
    with pytest.raises(UserError, match=r"results.jsonl, line 2: is not a result .*; name a file that"):
        datacomp.read_results(path)


def test_too_many_broken_pictures_name_no_option_that_is_not_there(tmp_path):
    make(tmp_path, "wds_walls", [{"png": RED, "cls": b"0"}, {"png": RED[:40], "cls": b"0"}])
    with pytest.raises(UserError, match="Fetch the set again") as told:
        evaluated(tmp_path, "walls")
    assert "max_skipped" not in str(told.value)


def test_a_missing_package_of_a_protocol_is_named(monkeypatch):
    def lacking(url):
        raise ImportError('HTTPFileSystem requires "requests" and "aiohttp" to be installed')

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacking)
    with pytest.raises(UserError, match=r"aiohttp.*; try: pip install 'fsspec\[http\]'$"):
        evaluated("https://example.org/sets", "walls")
    with pytest.raises(UserError, match=r"; try: pip install 'fsspec\[s3\]'$"):
        open_fs("s3://bucket/a.tar")


def test_the_address_that_clip_benchmark_documents_is_understood(monkeypatch):
    asked = []
    monkeypatch.setattr(layout, "url_to_fs", lambda url: asked.append(url) or (fsspec.filesystem("memory"), "gone"))
    documented = "https://huggingface.co/datasets/clip-benchmark/wds_{dataset_cleaned}/tree/main"
    assert layout.open_set(documented, ["wds_vtab-cifar10"]) is None
    assert layout.open_set(documented.replace("wds_{dataset_cleaned}", "{name}"), ["wds_vtab-cifar10"]) is None
    assert asked == ["https://huggingface.co/datasets/clip-benchmark/wds_vtab-cifar10/resolve/main"] * 2
