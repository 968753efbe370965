"""Label maps are tabulated as counting pixel by pixel does; masks become run lengths as pycocotools makes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from helpers import oracle
from pics_cli.core.datasets.readers import label_maps
from pics_cli.core.datasets.readers.label_maps import region_mask, tabulate
from pics_cli.core.images.masks import box_mask, decode_segmentation


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.uint8, np.uint16]),
    st.sampled_from([1, 3, 12]),
    st.booleans(),
)
def test_areas_and_boxes_equal_counting(
    shape: tuple[int, int], seed: int, dtype: type[np.unsignedinteger], kinds: int, smooth: bool
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, np.iinfo(dtype).max, kinds, endpoint=True)
    picture = values[rng.integers(0, kinds, shape)].astype(dtype)
    if smooth:
        picture = np.repeat(np.repeat(picture, 5, axis=0), 7, axis=1)
    objects = np.zeros(np.iinfo(dtype).max + 1, np.uint16)
    wanted = sorted(set(values[: (kinds + 1) // 2].tolist()))
    objects[wanted] = np.arange(1, len(wanted) + 1)
    found = tabulate(picture, objects)
    expected = [value for value in wanted if (picture == value).any()]
    assert list(found) == [wanted.index(value) + 1 for value in expected]
    for value, region in zip(expected, found.values(), strict=True):
        mask = picture == value
        assert region.area == mask.sum()
        assert region.box == oracle.tight_box(mask)
        assert np.array_equal(region_mask(picture, region.box, [value]).full(), mask)
    everywhere = (0, 0, picture.shape[1], picture.shape[0])
    assert np.array_equal(region_mask(picture, everywhere, wanted).full(), np.isin(picture, wanted))


def test_bands_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(0).integers(0, 4, (50, 31)).astype(np.uint8)
    picture[:, 10:20] = 2
    whole = tabulate(picture, np.arange(256, dtype=np.uint16))
    for pixels in (1, 31, 100, 31 * 7):
        monkeypatch.setattr(label_maps, "_BAND_PIXELS", pixels)
        assert tabulate(picture, np.arange(256, dtype=np.uint16)) == whole


def test_value_65535_and_none_wanted() -> None:
    picture = np.full((3, 4), 65535, np.uint16)
    objects = np.zeros(1 << 16, np.uint16)
    assert tabulate(picture, objects) == {}
    objects[65535] = 65535
    assert tabulate(picture, objects) == {65535: (12, (0, 0, 4, 3))}


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]),
)
def test_run_lengths_equal_pycocotools(shape: tuple[int, int], seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
    mask[y : y + rng.integers(1, 31), x : x + rng.integers(1, 31)] = True
    mask &= rng.random(shape) < share
    packed = box_mask(mask).rle()
    assert packed == {
        "size": list(shape),
        "counts": coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode(),
    }
    assert np.array_equal(decode_segmentation(packed, *shape).full(), mask)
    assert oracle.unpack_counts(packed["counts"]) == oracle.mask_to_runs(mask) or not mask.any()


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_window_is_the_part_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((20, 24)) < 0.02
    x0, x1 = sorted(rng.integers(0, 25, 2).tolist())
    y0, y1 = sorted(rng.integers(0, 21, 2).tolist())
    assert np.array_equal(box_mask(mask).window((x0, y0, x1, y1)), mask[y0:y1, x0:x1])
