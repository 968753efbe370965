"""`compat: true` equals an independent writing of the research code on random scenes of all six formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import research_builder
from helpers import oracle
from helpers.compat_making import compare, research_choices
from helpers.compat_scenes import RAW
from helpers.making import build_folder
from research_builder import Chosen, cut_patch, last_pixel_box

Choices = dict[str, Chosen]

RATIO = 0.02
OVERLAPPING = [name for name in RAW if name != "viton_hd"]


@pytest.fixture(scope="module")
def raws(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Choices]]:
    """By recipe, a raw folder and what the research code makes of it."""
    choices = {}
    for name, write in RAW.items():
        raw = write(tmp_path_factory.mktemp(name))
        choices[name] = raw, research_choices(name, raw, RATIO)
    return choices


@pytest.mark.parametrize("recipe", RAW)
def test_build_equals_the_research_code(recipe: str, raws: dict[str, tuple[Path, Choices]], tmp_path: Path) -> None:
    raw, found = raws[recipe]
    manifest, out = build_folder(recipe, raw, tmp_path / "out", compat=True, pairs__min_area_ratio=RATIO)
    compare(found, out)
    assert manifest["samples"] == len(found) >= 12


@pytest.mark.parametrize("recipe", RAW)
def test_corrected_build_differs_on_these_scenes(
    recipe: str, raws: dict[str, tuple[Path, Choices]], tmp_path: Path
) -> None:
    raw, found = raws[recipe]
    _, out = build_folder(recipe, raw, tmp_path / "out", pairs__min_area_ratio=RATIO)
    # Pictures are told apart by their masks: keys differ between the modes.
    samples = oracle.read_tars(out).values()
    corrected = [[oracle.read_mask(members[f"mask{k}.png"]) for k in (0, 1)] for members in samples]
    published = [chosen.masks for chosen in found.values()]
    shared = sum(any(all(map(np.array_equal, one, other)) for other in corrected) for one in published)
    assert len(corrected) >= 6
    assert shared < len(published)


@pytest.mark.parametrize("recipe", OVERLAPPING)
def test_scenes_hold_nested_pairs(recipe: str, raws: dict[str, tuple[Path, Choices]]) -> None:
    _, found = raws[recipe]
    relations = [oracle.relation(*chosen.boxes) for chosen in found.values()]
    assert relations.count("containing") >= 3


def changed(recipe: str, raws: dict[str, tuple[Path, Choices]]) -> int:
    """How many pictures the oracle, as it stands now, chooses otherwise for."""
    raw, before = raws[recipe]
    after = research_choices(recipe, raw, RATIO)
    same = [
        key
        for key in before.keys() & after.keys()
        if all(np.array_equal(*masks) for masks in zip(before[key].masks, after[key].masks, strict=True))
    ]
    return len(before.keys() | after.keys()) - len(same)


@pytest.mark.parametrize("recipe", OVERLAPPING)
def test_scenes_depend_on_the_containment_test(
    recipe: str, raws: dict[str, tuple[Path, Choices]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(research_builder, "almost_contained", oracle.inside)
    assert changed(recipe, raws) >= 2


@pytest.mark.parametrize("recipe", RAW)
def test_scenes_depend_on_the_strict_threshold(
    recipe: str, raws: dict[str, tuple[Path, Choices]], monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = research_builder.large
    monkeypatch.setattr(research_builder, "large", lambda things, rgb, ratio: strict(things, rgb, ratio * (1 - 1e-9)))
    assert changed(recipe, raws) >= 1


@pytest.mark.parametrize("recipe", RAW)
def test_scenes_hold_ties(recipe: str, raws: dict[str, tuple[Path, Choices]], monkeypatch: pytest.MonkeyPatch) -> None:
    # With the candidates from last to first another pair is found first, not merely the same one in another order.
    forward = research_builder.large
    monkeypatch.setattr(research_builder, "large", lambda *arguments: forward(*arguments)[::-1])
    raw, before = raws[recipe]
    after = research_choices(recipe, raw, RATIO)
    pairs = [{mask.tobytes() for mask in one[key].masks} for key in before for one in (before, after)]
    assert sum(a != b for a, b in zip(pairs[::2], pairs[1::2], strict=True)) >= 1


def test_scenes_depend_on_the_highest_number(
    raws: dict[str, tuple[Path, Choices]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(research_builder, "instance_numbers", lambda _: range(256))
    assert changed("mapillary_vistas", raws) >= 4


def test_patches_depend_on_the_lost_row_and_column(raws: dict[str, tuple[Path, Choices]]) -> None:
    for _, found in raws.values():
        for chosen in found.values():
            for mask in chosen.masks:
                x0, y0, x1, y1 = last_pixel_box(mask)
                assert oracle.tight_box(mask) == (x0, y0, x1 + 1, y1 + 1)
                corrected = oracle.cut_patch(chosen.image, mask.astype(bool), 1.2)
                assert not np.array_equal(cut_patch(chosen.image, mask, 1.2), corrected)
