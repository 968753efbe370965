"""Clean-up against segment-anything's own, run lengths there and back, and what a label says of its mask."""

from __future__ import annotations

import gzip
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.utils.amg import remove_small_regions

from pics_cli.core.datasets.labels import LabelledImage, read_block, write_block
from pics_cli.core.datasets.scene import FloatBox
from pics_cli.core.images.masks import box_mask, decode_segmentation
from pics_cli.core.recipes.sources import SamSettings
from pics_cli.core.segmentation.boxes import AnnotatedBox, clip_boxes
from pics_cli.core.segmentation.postprocessing import (
    clean_mask,
    label_as_polygons,
    label_statistics,
    make_labels,
    pack_masks,
)
from pics_cli.errors import BadSample

HEIGHT, WIDTH = 40, 56


def ragged(seed: int, coarse: int = 4) -> np.ndarray:
    """A mask with holes and islands, away from the picture's border."""
    rng = np.random.default_rng(seed)
    mask = cv2.resize(rng.random((HEIGHT // coarse, WIDTH // coarse)).astype(np.float32), (WIDTH, HEIGHT)) > 0.55
    mask[:2], mask[-2:], mask[:, :2], mask[:, -2:] = False, False, False, False
    return mask


@given(st.integers(0, 10_000), st.integers(0, 60), st.integers(0, 60))
def test_clean_as_segment_anything_does(seed: int, holes: int, islands: int) -> None:
    mask = ragged(seed)
    expected = mask
    if holes and mask.any():
        expected, _ = remove_small_regions(expected, holes, "holes")
    if islands and mask.any():
        expected, _ = remove_small_regions(expected, islands, "islands")
    assert np.array_equal(clean_mask(box_mask(mask), holes, islands).full(), expected)


def test_what_is_around_a_small_mask_is_no_hole() -> None:
    mask = np.zeros((9, 9), np.bool_)
    mask[4, 4] = True
    assert np.array_equal(clean_mask(box_mask(mask), 1000, 1000).full(), mask)


SHAPES = {
    "empty": np.zeros((HEIGHT, WIDTH), np.bool_),
    "full": np.ones((HEIGHT, WIDTH), np.bool_),
    "ring": ragged(1),
    "parts": ragged(2),
    "corner": np.pad(np.ones((3, 4), np.bool_), ((0, HEIGHT - 3), (0, WIDTH - 4))),
}


def labels() -> tuple[list, list[AnnotatedBox], np.ndarray]:
    masks = np.stack(list(SHAPES.values()))
    boxes = [AnnotatedBox(n, name, n, (1.5, 2.0, 30.0, 33.0), name == "ring") for n, name in enumerate(SHAPES)]
    _, corners, _ = clip_boxes(boxes, WIDTH, HEIGHT)
    scores = [0.1, 0.95, 0.8, 0.71, 0.69]
    return make_labels(pack_masks(masks), scores, [0.5] * 5, boxes, corners, SamSettings(tiny=20)), boxes, corners


def test_each_box_has_its_own_label() -> None:
    """An empty mask among them moves no other; holes and parts come back."""
    found, boxes, _ = labels()
    for each, given_, mask in zip(found, boxes, SHAPES.values(), strict=True):
        assert (each.id, each.category, each.box) == (given_.id, given_.category, given_.box)
        again = decode_segmentation({"size": [HEIGHT, WIDTH], "counts": each.counts}, HEIGHT, WIDTH)
        assert np.array_equal(again.full(), mask)
        assert (each.area, each.tight) == (int(mask.sum()), box_mask(mask).box)
    assert [each.score for each in found] == [0.1, 0.95, 0.8, 0.71, 0.69]
    assert [each.flags for each in found] == [
        ["empty", "low_score"], ["border"], ["crowd"], [], ["tiny", "border", "low_score"],
    ]  # fmt: skip


def test_agreement_by_counting_pixels() -> None:
    found, boxes, corners = labels()
    for each, cut in zip(found, corners, strict=True):
        x0, y0, x1, y1 = each.tight
        fine = np.zeros((2 * HEIGHT, 2 * WIDTH, 2), np.bool_)  # half pixels: the boxes end on them
        fine[2 * y0 : 2 * y1, 2 * x0 : 2 * x1, 0] = True
        a, b, c, d = (int(2 * value) for value in cut)
        fine[b:d, a:c, 1] = True
        either = fine.any(axis=2).sum()
        assert each.agreement == pytest.approx(fine.all(axis=2).sum() / either, abs=1e-4)
    assert boxes


def test_count() -> None:
    found, _, _ = labels()
    told = label_statistics(found, 20)
    assert told["boxes"] == 5
    assert told["flags"] == {"border": 2, "crowd": 1, "empty": 1, "low_score": 2, "tiny": 1}
    assert sum(told["scores"]) == 5
    assert (told["scores"][2], told["scores"][19]) == (1, 1)


def test_polygons_have_every_part() -> None:
    found, _, _ = labels()
    assert label_as_polygons(found[0], HEIGHT, WIDTH) is None
    ring = label_as_polygons(found[2], HEIGHT, WIDTH)
    assert ring is not None
    x0, y0, x1, y1 = found[2].tight
    assert ring["bbox"] == [x0, y0, x1 - x0, y1 - y0]
    assert all(len(part) >= 6 for part in ring["segmentation"])


def test_a_block_there_and_back(tmp_path: Path) -> None:
    found, _, _ = labels()
    pictures = [
        LabelledImage(7, "a/b.jpg", "", WIDTH, HEIGHT, found),
        LabelledImage("x", "c.jpg", "u", WIDTH, HEIGHT, []),
    ]
    path = tmp_path / "00000.jsonl.gz"
    first = write_block(path, pictures)
    assert read_block(path) == pictures
    assert write_block(path, pictures) == first
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BadSample, match=r"00000\.jsonl\.gz"):
        read_block(path)


def test_a_block_that_unpacks_to_more_than_labels_take(tmp_path: Path) -> None:
    path = tmp_path / "00000.jsonl.gz"
    path.write_bytes(gzip.compress(bytes(1 << 21)))
    with pytest.raises(BadSample, match="unpacks to over 100 times its size, no labels"):
        read_block(path)


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10)),
        ((-5, -5, 10, 10), (0, 0, 10, 10)),
        ((50, 30, 90, 90), (50, 30, 56, 40)),
        ((5, 5, 5, 9), "no_size"),
        ((9, 5, 5, 9), "no_size"),
        ((float("nan"), 5, 5, 9), "no_size"),
        ((56, 5, 60, 9), "outside"),
        ((-9, 5, 0.5, 9), "outside"),
        ((3, 3, 3.4, 3.4), (3, 3, 3.4, 3.4)),
    ],
)
def test_inside(box: FloatBox, kept: str | FloatBox) -> None:
    boxes, corners, reasons = clip_boxes([AnnotatedBox(1, None, None, box, False)], WIDTH, HEIGHT)
    if isinstance(kept, str):
        assert (boxes, reasons) == ([], [kept])
    else:
        assert not reasons
        assert corners.tolist() == [list(kept)]
