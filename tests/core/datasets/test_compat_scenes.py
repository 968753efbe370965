"""`compat: true` equals an independent writing of the research code on random scenes of all six formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import compat_oracle
import oracle
from compat_oracle import Found, last_pixel_box
from compat_scenes import RAW
from making import build_folder

RATIO = 0.02
OVERLAPPING = [name for name in RAW if name != "viton_hd"]


@pytest.fixture(scope="module")
def raws(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Found]]:
    """By recipe, a raw folder and what the research code makes of it."""
    found = {}
    for name, write in RAW.items():
        raw = write(tmp_path_factory.mktemp(name))
        found[name] = raw, compat_oracle.READERS[name](raw, RATIO)
    return found


@pytest.mark.parametrize("recipe", RAW)
def test_build_equals_the_research_code(recipe: str, raws: dict[str, tuple[Path, Found]], tmp_path: Path) -> None:
    raw, found = raws[recipe]
    manifest, out = build_folder(recipe, raw, tmp_path / "out", compat=True, pairs__min_area_ratio=RATIO)
    compat_oracle.compare(found, out)
    assert manifest["samples"] == len(found) >= 12


@pytest.mark.parametrize("recipe", RAW)
def test_corrected_build_differs_on_these_scenes(
    recipe: str, raws: dict[str, tuple[Path, Found]], tmp_path: Path
) -> None:
    raw, found = raws[recipe]
    _, out = build_folder(recipe, raw, tmp_path / "out", pairs__min_area_ratio=RATIO)
    # Pictures are told apart by their masks: keys differ between the modes.
    samples = oracle.read_tars(out).values()
    corrected = [[oracle.read_mask(members[f"mask{k}.png"]) for k in (0, 1)] for members in samples]
    published = [[thing.mask for thing in chosen.things] for chosen in found.values()]
    shared = sum(any(all(map(np.array_equal, one, other)) for other in corrected) for one in published)
    assert len(corrected) >= 6
    assert shared < len(published)


@pytest.mark.parametrize("recipe", OVERLAPPING)
def test_scenes_hold_nested_pairs(recipe: str, raws: dict[str, tuple[Path, Found]]) -> None:
    _, found = raws[recipe]
    relations = [oracle.relation(*(thing.box for thing in chosen.things)) for chosen in found.values()]
    assert relations.count("containing") >= 3


def changed(recipe: str, raws: dict[str, tuple[Path, Found]]) -> int:
    """How many pictures the oracle, as it stands now, chooses otherwise for."""
    raw, before = raws[recipe]
    after = compat_oracle.READERS[recipe](raw, RATIO)
    same = [
        key
        for key in before.keys() & after.keys()
        if all(np.array_equal(*masks) for masks in zip(masks_of(before[key]), masks_of(after[key]), strict=True))
    ]
    return len(before.keys() | after.keys()) - len(same)


def masks_of(chosen: compat_oracle.Chosen) -> list[compat_oracle.Bools]:
    return [thing.mask for thing in chosen.things]


@pytest.mark.parametrize("recipe", OVERLAPPING)
def test_scenes_depend_on_the_containment_test(
    recipe: str, raws: dict[str, tuple[Path, Found]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat_oracle, "almost_contained", oracle.inside)
    assert changed(recipe, raws) >= 2


@pytest.mark.parametrize("recipe", RAW)
def test_scenes_depend_on_the_strict_threshold(
    recipe: str, raws: dict[str, tuple[Path, Found]], monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = compat_oracle.large
    monkeypatch.setattr(compat_oracle, "large", lambda things, rgb, ratio: strict(things, rgb, ratio * (1 - 1e-9)))
    assert changed(recipe, raws) >= 1


@pytest.mark.parametrize("recipe", RAW)
def test_scenes_hold_ties(recipe: str, raws: dict[str, tuple[Path, Found]], monkeypatch: pytest.MonkeyPatch) -> None:
    # With the candidates from last to first another pair is found first, not merely the same one in another order.
    forward = compat_oracle.large
    monkeypatch.setattr(compat_oracle, "large", lambda *arguments: forward(*arguments)[::-1])
    raw, before = raws[recipe]
    after = compat_oracle.READERS[recipe](raw, RATIO)
    pairs = [{mask.tobytes() for mask in masks_of(one[key])} for key in before for one in (before, after)]
    assert sum(a != b for a, b in zip(pairs[::2], pairs[1::2], strict=True)) >= 1


def test_scenes_depend_on_the_highest_number(
    raws: dict[str, tuple[Path, Found]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat_oracle, "numbers_of", lambda _: range(256))
    assert changed("mapillary_vistas", raws) >= 4


def test_patches_depend_on_the_lost_row_and_column(raws: dict[str, tuple[Path, Found]]) -> None:
    for _, found in raws.values():
        for chosen in found.values():
            for k, thing in enumerate(chosen.things):
                x0, y0, x1, y1 = last_pixel_box(thing.mask)
                assert oracle.tight_box(thing.mask) == (x0, y0, x1 + 1, y1 + 1)
                assert not np.array_equal(chosen.patch(k, 1.2), oracle.cut_patch(chosen.rgb, thing.mask, 1.2))
