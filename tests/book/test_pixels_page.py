"""The page on pixels: its table is what the presets do, and what it says of open_clip is so."""

import re

import open_clip
import pytest
import torch
from book_pages import BOOK

import mcliplib
from mcliplib.presets import OPENAI, PRESETS, ZERO_ONE

PAGE = (BOOK / "pixels.md").read_text(encoding="utf-8")


def rows() -> dict[str, list[str]]:
    """Side, pixels and resizing in the table, by preset."""
    table = re.search(r"\{list-table\}.*?::::", PAGE, re.DOTALL)
    assert table
    found = {}
    for names, *cells in re.findall(r"\* - (MobileCLIP.*)\n  - (.*)\n  - (.*)\n  - (.*)\n", table[0]):
        family, *sizes = names.replace("(LT)", "").replace(",", "").split()
        for size in dict.fromkeys(sizes):
            found[f"{family}_{size.replace('-', '')}".lower()] = cells
    return found


def test_the_table_is_what_the_presets_do() -> None:
    shown = rows()
    assert set(shown) == set(PRESETS) - {"mobileclip_nano", "mobileclip_pico"}
    for name, (side, pixels, resizing) in shown.items():
        config = PRESETS[name]
        assert config.image.image_size == int(side)
        assert config.pixels.interpolation == resizing
        wanted = ZERO_ONE if pixels == "plain" else OPENAI
        assert (config.pixels.mean, config.pixels.std) == (wanted.mean, wanted.std)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileCLIP-S1", "MobileCLIP2-S0"])
def test_open_clip_keeps_openais_pixels_for_a_local_file_unless_told(name: str, tmp_path) -> None:
    torch.save(open_clip.create_model(name).state_dict(), tmp_path / "local.pt")
    settings = re.search(r"image_mean=(\(.*?\)),\s*image_std=(\(.*?\)),", PAGE)
    assert settings
    mean, std = (tuple(map(int, value.strip("()").split(","))) for value in settings.groups())
    silent = open_clip.create_model_and_transforms(name, pretrained=str(tmp_path / "local.pt"))[2]
    cured = open_clip.create_model_and_transforms(
        name, pretrained=str(tmp_path / "local.pt"), image_mean=mean, image_std=std
    )[2]
    assert silent.transforms[-1].mean == OPENAI.mean
    assert (cured.transforms[-1].mean, cured.transforms[-1].std) == ((0, 0, 0), (1, 1, 1))
    ours = mcliplib.get_preprocess(name.lower().replace("-", "_"))
    assert (ours.config.mean, ours.config.std) == ((0, 0, 0), (1, 1, 1))
