"""An index of real pictures, made by the shipped student: what it finds, and what an update touches."""

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mcliplib
from mcliplib.checkpoints import load_model, save_checkpoint
from mcliplib.errors import MissingFileError, UserError
from mcliplib.evaluate import ModelEncoder
from mcliplib.images import read_picture
from mcliplib.search import Index, Text, search_model
from mcliplib.search.index import HOME
from tests.conftest import refused

SIDE = 2 * load_model("student").config.image.image_size  # to which pictures are read


def names(hits) -> list[str]:
    return [one.path.name for one in hits]


def test_texts_and_pictures_find_what_the_model_says(photos):
    """Against the model alone: its features of the same pictures, one by one, not folded."""
    index = Index.build("student", photos)
    encoder = ModelEncoder(load_model("student"))
    paths = sorted(photos.rglob("*.webp"))
    features = torch.cat([encoder.encode_images([read_picture(path, side=SIDE).image]) for path in paths])
    expected = (features @ encoder.encode_texts(["a penguin"])[0]).tolist()
    hits = index.query("a penguin", k=100)
    assert len(hits) == len(index) == 12
    found = {one.path: one.score for one in hits}
    assert [found[path] for path in paths] == pytest.approx(expected, abs=1e-4)
    assert [one.score for one in hits] == sorted(found.values(), reverse=True)
    assert index.query("a penguin", k=3) == hits[:3]


def test_a_picture_finds_itself_however_it_is_given(photos):
    index = Index.build("student", photos)
    path = photos / "deeper/04.webp"
    for query in (path, str(path), read_picture(path, side=SIDE).image):
        best = index.query(query, k=1)[0]
        assert best.path == path
        assert best.score == pytest.approx(1.0, abs=1e-5)


def test_a_text_that_is_a_files_name_can_still_be_a_text(photos, monkeypatch):
    monkeypatch.chdir(photos)
    index = Index.build("student", ".")
    assert index.query("00.webp", k=1)[0].score == pytest.approx(1.0, abs=1e-5)
    assert index.query(Text("00.webp"), k=1)[0].score < 0.95


def test_a_weighted_query_is_the_sum_of_its_parts(photos):
    index = Index.build("student", photos)
    encoder, path = ModelEncoder(load_model("student")), photos / "00.webp"
    bird, snow = encoder.encode_texts(["a bird", "snow"])
    total = bird + 0.5 * encoder.encode_images([read_picture(path, side=SIDE).image])[0] - 0.25 * snow
    hits = index.query([("a bird", 1.0), (path, 0.5), ("snow", -0.25)], k=12)
    alone = {one.path: encoder.encode_images([read_picture(one.path, side=SIDE).image])[0] for one in hits}
    for one in hits:
        assert one.score == pytest.approx(float(alone[one.path] @ total / total.norm()), abs=1e-4)
    with pytest.raises(UserError, match="cancel"):
        index.query([("a bird", 1.0), ("a bird", -1.0)])
    with pytest.raises(UserError, match="cancel"):
        index.query([("a bird", float("inf"))])
    with pytest.raises(UserError, match="empty"):
        index.query([])
    with pytest.raises(UserError, match="at least 1"):
        index.query("a bird", k=0)


def test_an_update_touches_what_is_new_changed_or_gone_and_nothing_else(photos, contents, put, counted):
    index = Index.build("student", photos)
    assert index.report == (12, 0, 0, ())
    assert counted.take() == (12, 12)
    chunk = next(index.path.glob("0*.safetensors"))
    before = chunk.stat()
    assert index.update() == (0, 0, 0, ())
    assert counted.take() == (0, 0)
    assert chunk.stat().st_ino == before.st_ino, "nothing was to be written"

    put(photos / "new/20.webp", contents[20])
    put(photos / "00.webp", contents[21], mtime=1_600_000_001)
    (photos / "03.webp").unlink()
    os.utime(photos / "06.webp", (1_700_000_000, 1_700_000_000))  # touched, and still the same picture
    assert index.update() == (1, 1, 1, ())
    assert counted.take() == (2, 2)
    assert {one.path.relative_to(photos) for one in index.query("x", k=99)} == {
        path.relative_to(photos) for path in photos.rglob("*.webp")
    }
    assert index.query(photos / "00.webp", k=1)[0].score == pytest.approx(1.0, abs=1e-5)
    assert Index.open(photos).query("a horse", k=99) == index.query("a horse", k=99)


def test_a_change_within_the_clocks_step_is_seen(photos, tmp_path):
    """A file of the same size and time as the one that was indexed a moment ago."""
    folder, now = tmp_path / "flags", time.time_ns()
    folder.mkdir()
    for round_, colour in enumerate(("red", "blue")):
        Image.new("RGB", (60, 60), colour).save(folder / "flag.bmp")
        os.utime(folder / "flag.bmp", ns=(now, now))
        assert Index.build("student", folder).report == (1 - round_, round_, 0, ())


def test_a_file_replaced_while_it_is_read_is_indexed_as_it_is_then(photos, contents, put, monkeypatch):
    import mcliplib.search.index as module

    real, done = module.read_bytes, []

    def replacing(path: Path, most: int) -> bytes:
        if path.name == "00.webp" and not done:
            done.append(put(path, contents[30], mtime=1_600_000_007))
        return real(path, most)

    monkeypatch.setattr(module, "read_bytes", replacing)
    index = Index.build("student", photos)
    assert done
    index.update()
    assert index.query(photos / "00.webp", k=1)[0].score == pytest.approx(1.0, abs=1e-5)


def test_a_file_that_goes_while_others_are_read_is_no_error(photos, monkeypatch):
    import mcliplib.search.index as module

    real = module.read_bytes

    def vanishing(path: Path, most: int) -> bytes:
        if path.name == "00.webp":
            path.unlink(missing_ok=True)
        return real(path, most)

    monkeypatch.setattr(module, "read_bytes", vanishing)
    index = Index.build("student", photos)
    assert len(index) == 11
    assert index.report == (11, 0, 0, ())


def test_broken_pictures_are_named_and_not_tried_again_until_they_change(photos, contents, put, counted):
    put(photos / "bad.png", b"no picture")
    put(photos / "cut.webp", contents[1][: len(contents[1]) // 2])
    index = Index.build("student", photos)
    assert index.report is not None
    assert index.report.broken == (("bad.png", "corrupt image"), ("cut.webp", "corrupt image"))
    assert len(index) == 12
    assert counted.take() == (14, 12)
    assert Index.build("student", photos).report == (0, 0, 0, index.report.broken)
    assert counted.take() == (0, 0)
    put(photos / "cut.webp", contents[1], mtime=1_600_000_009)
    (photos / "bad.png").unlink()
    assert index.update() == (0, 1, 1, ())
    assert len(index) == 13


def test_a_picture_that_may_not_be_read_is_named_and_tried_again(photos, monkeypatch):
    """Permissions change without a trace in the file's time."""
    import mcliplib.search.index as module

    real = module.read_bytes

    def refusing(path: Path, most: int) -> bytes:
        if path.name == "00.webp":
            raise UserError(f"{path}: cannot be read") from PermissionError(13, "Permission denied")
        return real(path, most)

    monkeypatch.setattr(module, "read_bytes", refusing)
    index = Index.build("student", photos)
    assert index.report is not None
    assert [path for path, _ in index.report.broken] == ["00.webp"]
    assert "Permission denied" in index.report.broken[0][1]
    monkeypatch.setattr(module, "read_bytes", real)
    assert index.update() == (1, 0, 0, ())


def test_photographs_are_upright(tmp_path, colourful):
    """One is stored upright, one lies on its side and says so."""
    folder = tmp_path / "photos"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    colourful.save(folder / "upright.png")
    colourful.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.png", exif=exif)
    colourful.transpose(Image.Transpose.ROTATE_90).save(folder / "lying.png")
    scores = {one.path.name: one.score for one in Index.build("student", folder).query(colourful)}
    assert scores["turned.png"] == pytest.approx(scores["upright.png"], abs=1e-6)
    assert scores["lying.png"] < scores["upright.png"] - 1e-3


def test_hidden_ones_links_and_odd_files(photos, contents, put):
    for hidden in (".thumb.webp", ".cache/a.webp", "._00.webp", "__MACOSX/a.webp"):
        put(photos / hidden, contents[0])
    put(photos / "notes.txt", b"text")
    (photos / "loop").symlink_to(photos, target_is_directory=True)
    (photos / "deeper/up").symlink_to("..", target_is_directory=True)
    (photos / "nothing.webp").symlink_to("gone.webp")
    (photos / "itself.webp").symlink_to("itself.webp")
    os.mkfifo(photos / "pipe.webp")
    (photos / "folder.webp").mkdir()
    (photos / "linked.webp").symlink_to("00.webp")
    index = Index.build("student", photos)
    assert index.report == (13, 0, 0, ())
    assert {"00.webp", "linked.webp"} == set(names(index.query(photos / "00.webp", k=2)))


@pytest.mark.parametrize("name", ["two\nlines.webp", " space .webp", "tab\t.WEBP", '"quoted"\\.webp', "é/ü/😀.webp"])
def test_any_name(tmp_path, contents, put, name):
    path = put(tmp_path / "photos" / name, contents[0])
    index = Index.build("student", tmp_path / "photos")
    assert [one.path for one in index.query(path)] == [path]
    assert index.update() == (0, 0, 0, ())


def test_a_name_that_is_no_utf8(tmp_path, contents, put):
    path = put(Path(os.fsdecode(bytes(tmp_path) + b"/photos-\xff/\xfe\xe9.webp")), contents[0])
    index = Index.build("student", path.parent)
    assert [one.path for one in index.query(path)] == [path]
    assert Index.open(path.parent).update() == (0, 0, 0, ())


def test_an_empty_folder_and_one_that_becomes_empty(tmp_path, photos):
    (tmp_path / "empty").mkdir()
    index = Index.build("student", tmp_path / "empty")
    assert len(index) == 0
    assert index.query("a bird") == []
    index = Index.build("student", photos)
    for path in photos.rglob("*.webp"):
        path.unlink()
    assert index.update() == (0, 0, 12, ())
    assert index.query("a bird") == []
    assert list(index.path.glob("0*")) == []


def test_a_folder_that_is_gone_costs_no_vector(photos, tmp_path):
    index = Index.build("student", photos, path=tmp_path / "index")
    hits = index.query("a bird")
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(MissingFileError, match="no such folder"):
        index.update()
    with pytest.raises(MissingFileError, match="no such folder"):
        Index.build("student", photos)
    assert Index.open(tmp_path / "index").query("a bird") == hits
    (tmp_path / "elsewhere").rename(photos)
    assert index.update() == (0, 0, 0, ())


def test_what_cannot_be_listed_stays_in_the_index(photos, monkeypatch):
    """A share that is away for a moment; run as root, no permission would do it."""
    index, real = Index.build("student", photos), os.scandir

    def failing(path):
        if os.fspath(path).endswith("deeper"):
            raise OSError(5, "Input/output error", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", failing)
    assert index.update() == (0, 0, 0, ())
    assert len(index) == 12


def test_an_index_moves_with_its_folder(photos, tmp_path):
    Index.build("student", photos)
    photos.rename(tmp_path / "moved")
    index = Index.build(None, tmp_path / "moved")
    assert index.report == (0, 0, 0, ())
    assert index.query("a bird", k=1)[0].path.parent.is_relative_to(tmp_path / "moved")


def test_where_nothing_can_be_written_the_index_may_lie_elsewhere(photos, tmp_path):
    (photos / HOME).write_text("a file where the index would be")
    with pytest.raises(UserError, match=r"--index PATH"):
        Index.build("student", photos)
    index = Index.build("student", photos, path=tmp_path / "index")
    assert len(index) == 12
    with pytest.raises(UserError, match="is the index of"):
        Index.build("student", tmp_path, path=tmp_path / "index")


def test_another_model_is_told(photos, tmp_path):
    index = Index.build("student", photos)
    with pytest.raises(UserError, match=r"was made by mobileclip_nano from student .*asked with mobileclip_pico"):
        Index.build("random:mobileclip_pico", photos)
    changed = load_model("student")
    with torch.no_grad():
        changed.text_encoder.embedding.weight[5] += 1e-3  # a word among thousands, by a little
    with pytest.raises(UserError, match="was made by"):
        Index.open(photos, changed)
    other = Index.build("random:mobileclip_pico", photos, path=tmp_path / "other")
    assert other.model.dim != index.model.dim
    again = Index.build("random:mobileclip_pico", photos, rebuild=True)
    assert again.report == (12, 0, 0, ())
    assert len(again.query("a bird")) == 12


def test_the_weights_of_an_index_may_change_behind_its_back(photos, tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(search_model("student"), path)
    assert Index.build(path, photos).query("a bird")
    save_checkpoint(search_model("random:mobileclip_pico"), path)
    with pytest.raises(UserError, match="was made by"):
        Index.open(photos).query("a bird")


def test_a_model_in_memory_must_be_given_again(photos):
    model = load_model("student")
    hits = Index.build(model, photos).query("a bird")
    with pytest.raises(UserError, match=r"pass it: open\(path, model"):
        Index.open(photos).query("a bird")
    assert Index.open(photos, model).query("a bird") == hits
    assert Index.build("student", photos).query("a bird") == hits, "the same weights by another name"
    with refused(RuntimeError, "train mode"):
        Index.build(load_model("student").train(), photos, rebuild=True)


def test_weights_that_are_none_are_refused(photos):
    with pytest.raises(UserError, match="is a model without weights"):
        Index.build("mobileclip_s0", photos)
    with pytest.raises(UserError, match="unknown model"):
        Index.build("random:mobileclip_s9", photos)
    before = torch.random.get_rng_state()
    one, two = search_model("random:mobileclip_pico"), search_model("random:mobileclip_pico")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert torch.equal(before, torch.random.get_rng_state())


def test_int8_is_a_quarter_and_finds_the_same(photos, tmp_path):
    full = Index.build("student", photos, path=tmp_path / "full")
    small = Index.build("student", photos, path=tmp_path / "small", dtype="int8")
    exact = {one.path: one.score for one in full.query("a bird", k=12)}
    assert {one.path: one.score for one in small.query("a bird", k=12)} == pytest.approx(exact, abs=0.01)
    assert small.query(photos / "00.webp", k=1)[0].score == pytest.approx(1.0, abs=0.005)
    with pytest.raises(UserError, match="its vectors are int8, not float32"):
        Index.build("student", photos, path=tmp_path / "small", dtype="float32")
    (photos / "00.webp").unlink()
    assert small.update() == (0, 0, 1, ())
    kept = {path: score for path, score in exact.items() if path.name != "00.webp"}
    assert {one.path: one.score for one in small.query("a bird", k=12)} == pytest.approx(kept, abs=0.01)


def test_importing_the_package_does_not_import_search():
    import subprocess
    import sys

    code = "import sys, mcliplib; print([one for one in ('mcliplib.search', 'usearch', 'torch') if one in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "mcliplib.search" not in out
    assert "usearch" not in out
    assert mcliplib.search.Index is Index


def test_progress_tells_how_many_are_done(photos):
    told = []
    Index.build("student", photos, progress=lambda *one: told.append(one))
    assert told[-1] == ("pictures", 12, 12)
    assert re.fullmatch(r"[0-9a-f]{64}", Index.open(photos).model.sha256)
    assert np.isfinite(Index.open(photos).query("x", k=1)[0].score)
