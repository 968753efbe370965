"""Batches of pictures and chunks of boxes against segment-anything's own predictor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.utils.transforms import ResizeLongestSide

from helpers.detection import tiny_sam
from helpers.making import smooth
from pics_cli.core.segmentation.preprocessing import resize_for_sam
from pics_cli.core.segmentation.sam import TINY
from pics_cli.core.segmentation.segmenter import ImageMasks, Segmenter
from pics_cli.errors import BadSample, PicsError

SIZES = ((96, 128), (120, 80), (64, 64), (50, 200))


def box_source_of(height: int, width: int, count: int) -> np.ndarray:
    rng = np.random.default_rng([height, width])
    corners = np.sort(rng.random((count, 2, 2)), axis=1) * (width - 8, height - 8)
    corners[:, 1] += 8
    return corners.reshape(count, 4)


def predicted(sam: Any, rgb: np.ndarray, box: np.ndarray, multimask: bool) -> tuple[np.ndarray, float]:
    """Logits of the best mask, and its score."""
    predictor = SamPredictor(sam)
    predictor.set_image(rgb)
    logits, scores, _ = predictor.predict(box=box, multimask_output=multimask, return_logits=True)
    best = int(np.argmax(scores))
    return logits[best], float(scores[best])


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize(("images", "boxes"), [(1, 1), (3, 2), (4, 64)])
def test_as_the_predictor(multimask: bool, images: int, boxes: int) -> None:
    """Bit for bit, but for pixels whose logit is within 1e-4 of the threshold; scores to 1e-5."""
    sam = tiny_sam()
    pictures = [smooth(*size, seed) for seed, size in enumerate(SIZES)]
    corners = [box_source_of(*size, 5) for size in SIZES]
    ready = [resize_for_sam(rgb, each, TINY.side) for rgb, each in zip(pictures, corners, strict=True)]
    segmenter = Segmenter(sam, batch_images=images, batch_boxes=boxes, multimask=multimask)
    seen = set()
    for rgb, each, found in zip(pictures, corners, segmenter(ready), strict=True):
        assert isinstance(found, ImageMasks)
        assert found.masks.shape == (5, *rgb.shape[:2])
        for k, box in enumerate(each):
            logits, score = predicted(sam, rgb, box, multimask)
            clear = np.abs(logits) > 1e-4
            assert clear.mean() > 0.99
            assert np.array_equal(found.masks[k][clear], (logits > 0)[clear])
            assert found.scores[k] == pytest.approx(score, abs=1e-5)
            high, low = (logits > 1).sum(), (logits > -1).sum()
            assert found.stability[k] == pytest.approx(high / low if low else 0, abs=1e-3)
            seen.add(0 < found.masks[k].mean() < 1)
    assert True in seen


def test_logits_of_a_batch() -> None:
    sam = tiny_sam()
    pictures = [resize_for_sam(smooth(*size), box_source_of(*size, 3), TINY.side) for size in SIZES]
    segmenter = Segmenter(sam, batch_images=4, batch_boxes=64, multimask=True)
    with torch.inference_mode():
        features = segmenter._encode(pictures)
        for feature, picture, size in zip(features, pictures, SIZES, strict=True):
            inside = segmenter._resize.apply_boxes(picture.boxes, picture.size)
            logits, _ = segmenter.logits(feature, torch.from_numpy(inside).float(), picture)
            for k, box in enumerate(picture.boxes):
                expected, _ = predicted(sam, smooth(*size), box, True)
                np.testing.assert_allclose(logits[k], expected, atol=1e-5)


def test_no_boxes() -> None:
    ready = resize_for_sam(smooth(64, 64), np.zeros((0, 4)), TINY.side)
    segmenter = Segmenter(tiny_sam(), batch_images=2, batch_boxes=2, multimask=True)
    (found,) = segmenter([ready])
    assert isinstance(found, ImageMasks)
    assert found.masks.shape == (0, 64, 64)
    assert len(found.scores) == len(found.stability) == 0


class Short:
    """Part of a model that runs out of memory with more than so many at a time."""

    def __init__(self, part: Any, most: int, argument: str | None = None) -> None:
        self.part, self.most, self.argument, self.img_size = part, most, argument, TINY.side

    def __call__(self, *args: Any, **given: Any) -> Any:
        if len(given[self.argument] if self.argument else args[0]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return self.part(*args, **given)

    def parameters(self) -> Any:
        return self.part.parameters()


class Parts:
    """A model with some of its parts replaced."""

    def __init__(self, sam: Any, **parts: Any) -> None:
        self.__dict__.update(parts)
        self._sam = sam

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sam, name)


@pytest.mark.parametrize(("part", "argument"), [("image_encoder", None), ("mask_decoder", "sparse_prompt_embeddings")])
def test_out_of_memory_halves_the_batch(caplog: pytest.LogCaptureFixture, part: str, argument: str | None) -> None:
    sam = tiny_sam()
    ready = [resize_for_sam(smooth(*size), box_source_of(*size, 5), TINY.side) for size in SIZES]
    plain = Segmenter(sam, batch_images=4, batch_boxes=8, multimask=True)
    expected = list(plain(ready))
    assert not caplog.messages
    short = Parts(sam, **{part: Short(getattr(sam, part), 2, argument)})
    found = list(Segmenter(short, batch_images=4, batch_boxes=8, multimask=True)(ready))
    flag = "--batch-images" if part == "image_encoder" else "--batch-boxes"
    assert caplog.messages
    assert all(line.startswith("out of memory: ") and f"on with {flag} " in line for line in caplog.messages)
    for ours, theirs in zip(found, expected, strict=True):
        assert isinstance(ours, ImageMasks)
        assert isinstance(theirs, ImageMasks)
        assert np.mean(ours.masks != theirs.masks) < 1e-3
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
    none = Segmenter(
        Parts(sam, **{part: Short(getattr(sam, part), 0, argument)}), batch_images=4, batch_boxes=8, multimask=True,
    )  # fmt: skip
    if part == "image_encoder":
        with pytest.raises(PicsError, match=f"out of memory with {flag} 1"):
            list(none(ready))
    else:  # the picture is at fault, not the run
        assert {isinstance(each, BadSample) and each.reason for each in none(ready)} == {"too_large"}


def test_a_large_picture_slows_no_other_down(caplog: pytest.LogCaptureFixture) -> None:
    """Boxes at a time are halved for the picture that asks for it."""
    sam = tiny_sam()
    calls = list[int]()

    class Counting(Short):
        def __call__(self, *args: Any, **given: Any) -> Any:
            calls.append(len(given["sparse_prompt_embeddings"]))
            self.most = 2 if len(calls) < 5 else 9
            return super().__call__(*args, **given)

    short = Parts(sam, mask_decoder=Counting(sam.mask_decoder, 2, "sparse_prompt_embeddings"))
    ready = [resize_for_sam(smooth(*size), box_source_of(*size, 5), TINY.side) for size in SIZES[:2]]
    found = list(Segmenter(short, batch_images=2, batch_boxes=8, multimask=True)(ready))
    assert [isinstance(each, ImageMasks) and len(each.masks) for each in found] == [5, 5]
    assert calls == [5, 2, 2, 1, 5]
    assert len(caplog.messages) == 1


@pytest.mark.filterwarnings("ignore")
def test_scores_that_are_no_numbers_stop_the_run() -> None:
    sam = tiny_sam()
    with torch.no_grad():
        next(sam.mask_decoder.iou_prediction_head.parameters()).fill_(float("nan"))
    segmenter = Segmenter(sam, batch_images=1, batch_boxes=8, multimask=True)
    with pytest.raises(PicsError, match="scores are no numbers"):
        list(segmenter([resize_for_sam(smooth(64, 64), box_source_of(64, 64, 2), TINY.side)]))


@pytest.mark.parametrize("size", [*SIZES, (1024, 640), (7, 300), (3, 2)])
def test_pictures_are_resized_as_segment_anything_does(size: tuple[int, int]) -> None:
    rgb = smooth(*size)
    for side in (TINY.side, 1024):
        ours = resize_for_sam(rgb, np.zeros((0, 4)), side).rgb
        np.testing.assert_array_equal(ours, ResizeLongestSide(side).apply_image(rgb))


def test_too_thin_a_picture_is_bad() -> None:
    with pytest.raises(BadSample, match="1x2049"):
        resize_for_sam(np.zeros((2049, 1, 3), np.uint8), np.zeros((0, 4)), 1024)
