"""Pairs with and without a shadow, in DESOBAv2's layout: what is composited, what is true, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers.making import encoded
from helpers.measured import metric_values
from helpers.published_sets import shadow_scene, write_desobav2
from pics_cli.core.evaluation.appearance_metrics import build_reference_gallery
from pics_cli.core.evaluation.baselines import paste_references
from pics_cli.core.evaluation.evaluator import EvaluationJob
from pics_cli.core.evaluation.example_sources import open_examples
from pics_cli.core.evaluation.run import EvaluationProgress, evaluate
from pics_cli.core.evaluation.shadow_examples import ShadowExamples
from pics_cli.core.recipes.base import Override
from pics_cli.core.recipes.evaluation import EvaluationRecipe, load_evaluation
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.errors import BadSample, PicsError


def shipped(root: Path, **values: object) -> EvaluationRecipe:
    overrides = [Override(key.replace("__", "."), value, "--set") for key, value in values.items()]
    return load_evaluation("desobav2", [Override("shadows.root", str(root), "--set"), *overrides])


def test_a_pair_is_one_object_and_its_true_shadow(tmp_path: Path) -> None:
    source = open_examples(shipped(write_desobav2(tmp_path)), 0.75)
    assert isinstance(source, ShadowExamples)
    assert len(source) == 2
    assert source.warnings == []
    with_shadow, without, post, shadow = shadow_scene(0)
    example = source[0]
    assert (example.key, example.paste_boxes, example.relation) == ("a", ((30, 20, 46, 71),), "unknown")
    assert np.abs(example.truth.astype(int) - with_shadow).mean() < 3
    assert example.shadow_masks is not None
    drawn = (shadow > 0) & (post == 0)
    assert np.count_nonzero(example.shadow_masks[0] != drawn) < 20
    far = cv2.dilate(post, np.ones((9, 9), np.uint8)) == 0
    assert np.abs(example.background.astype(int) - without)[far].mean() < 3  # the shadow is gone
    assert example.background[45, 38, 0] < 170  # and so is the post
    assert example.references[0].shape == (51, 16, 4)


def test_the_shadow_is_judged_by_the_true_background(tmp_path: Path) -> None:
    """A paste has no shadow, the truth has: the truth is right, what needs two objects is undefined."""
    source = open_examples(shipped(write_desobav2(tmp_path)), 0.75)
    example, gallery = source[0], build_reference_gallery(source.distractors(), 0)
    pasted = paste_references(example.background, example.paste_boxes, example.references, example.order)
    names = ["shadow", "lit", "missing", "order", "assignment", "leak", "psnr_overlap"]
    right, wrong = (metric_values(picture, example, gallery, names) for picture in (example.truth, pasted))
    assert right["shadow"] == 0
    assert wrong["shadow"] > 20
    assert wrong["lit"] < 2
    assert wrong["missing"] == 0
    assert np.isnan([right[name] for name in names[3:]]).all()


def test_the_shipped_recipe_is_measured(tmp_path: Path) -> None:
    """Bad pairs are counted, the others measured, by two ranks or one."""
    root = write_desobav2(tmp_path / "desobav2", ("a", "b", "c"))
    (root / "shadow_masks/b.jpg").unlink()
    recipe = shipped(root, methods=["paste"], metrics=["shadow", "psnr"])
    results = evaluate(EvaluationJob(recipe, tmp_path / "out"), Ranks(), EvaluationProgress())
    assert (results["cases"], results["measured"]) == (3, 2)
    assert recipe.shadows is not None
    again = replace(recipe, shadows=replace(recipe.shadows, root=str(root.rename(tmp_path / "moved"))))
    resumed = EvaluationJob(again, tmp_path / "out", resume=True)  # what the folder holds counts, not where it lies
    assert evaluate(resumed, Ranks(), EvaluationProgress())["measured"] == 2


SMALL = np.zeros((9, 8))
BAD: list[tuple[str, Callable[[Path], object], str]] = [
    ("missing_image", lambda root: (root / "shadowfree_imgs/a.jpg").unlink(), "shadowfree_imgs: no picture called a"),
    ("missing_image", lambda root: (root / "object_masks/a.jpg").unlink(), "object_masks: no picture called a"),
    ("empty_mask", lambda root: write(root / "shadow_masks/a.jpg", np.zeros((96, 96))), "no pixel of 128 or more"),
    (
        "size_mismatch",
        lambda root: write(root / "object_masks/a.jpg", np.zeros((9, 8))),
        "a.jpg: 8x9, its picture 96x96",
    ),
    (
        "size_mismatch",
        lambda root: write(root / "shadowfree_imgs/a.jpg", np.zeros((9, 8))),
        "the picture with the shadow",
    ),
    ("truncated_image", lambda root: cut(root / "shadow_imgs/a.jpg"), "shadow_imgs/a.jpg"),
]


def write(path: Path, values: np.ndarray) -> None:
    path.write_bytes(encoded(values.astype(np.uint8)))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:400])


@pytest.mark.parametrize(("reason", "damage", "words"), BAD)
def test_bad_pairs_are_told(tmp_path: Path, reason: str, damage: Callable[[Path], object], words: str) -> None:
    damage(write_desobav2(tmp_path))
    source = open_examples(shipped(tmp_path), 1.0)
    with pytest.raises(BadSample) as caught:
        source[0]
    assert caught.value.reason == reason
    assert words in caught.value.detail
    assert source[1].key == "b"


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"shadows__split": "val"}, "val.txt: no such list of pairs"),
    ({"shadows__object_masks": "masks"}, "masks: cannot read: no such file or directory"),
    ({"shadows__names": "object_masks/a.jpg"}, "a.jpg: no text"),
    ({"shadows__names": "empty.txt"}, "empty.txt: lists no pair"),
    ({"shadows__names": "outside.txt"}, "outside.txt: got '../a', expected names of files without folders"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED)
def test_what_cannot_be_read_is_named(tmp_path: Path, values: dict[str, object], words: str) -> None:
    write_desobav2(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "outside.txt").write_text("../a\n")
    with pytest.raises(PicsError) as caught:
        open_examples(shipped(tmp_path, **values), 1.0)
    assert words in caught.value.message


def test_names_may_have_endings_and_files_others(tmp_path: Path) -> None:
    """The lists of DESOBAv2 have names of either kind; masks are PNG files in copies of it."""
    write_desobav2(tmp_path, ("a",), "train")
    (tmp_path / "train.txt").write_text("a.jpg\r\na\r\n")
    mask = tmp_path / "object_masks/a.jpg"
    mask.with_suffix(".png").write_bytes(encoded((shadow_scene(0)[2]), "PNG"))
    mask.unlink()
    source = open_examples(shipped(tmp_path, shadows__split="train"), 1.0)
    assert (len(source), source[0].key) == (1, "a")
    assert "training split" in source.warnings[0]
