"""The page on official checkpoints: its Python runs, from top to bottom, beside a file in the released format."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from book_pages import BOOK
from PIL import Image

import mcliplib

PAGE = (BOOK / "checkpoints.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_code_runs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mcliplib.create_model("mobileclip_s0")
    mcliplib.save_checkpoint(model, tmp_path / "mobileclip_s0.pt", format="mobileclip")
    Image.new("RGB", (300, 200), (200, 30, 30)).save(tmp_path / "photo.jpg")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    code += "\nassert probabilities.shape == (1, 2)\nassert mcliplib.load_model('again.pt').config == model.config"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr


def test_it_names_every_released_model() -> None:
    prefixes = {name.rpartition("_")[0] for name in mcliplib.list_models()}
    named = {f"{prefix}{suffix}" for prefix in prefixes for suffix in re.findall(r"`(_\w+)`", PAGE)}
    named |= set(re.findall(r"`(mobileclip2?_\w+)`", PAGE))
    own = {"mobileclip_nano", "mobileclip_pico"}
    assert set(mcliplib.list_models()) - own <= named
