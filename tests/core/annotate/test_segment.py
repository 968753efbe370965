"""Batches of pictures and chunks of boxes against segment-anything's own predictor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from detection import tiny_sam
from making import smooth
from pics_cli.core.annotate.sam import TINY
from pics_cli.core.annotate.segment import Segmenter, make_ready
from pics_cli.errors import PicsError

SIZES = ((96, 128), (120, 80), (64, 64), (50, 200))


def boxes_of(height: int, width: int, count: int) -> np.ndarray:
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
    corners = [boxes_of(*size, 5) for size in SIZES]
    ready = [make_ready(rgb, each, TINY.side) for rgb, each in zip(pictures, corners, strict=True)]
    segmenter = Segmenter(sam, batch_images=images, batch_boxes=boxes, multimask=multimask, note=lambda _: None)
    seen = set()
    for rgb, each, found in zip(pictures, corners, segmenter(ready), strict=True):
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
    pictures = [make_ready(smooth(*size), boxes_of(*size, 3), TINY.side) for size in SIZES]
    segmenter = Segmenter(sam, batch_images=4, batch_boxes=64, multimask=True, note=lambda _: None)
    with torch.inference_mode():
        features = segmenter._encode(pictures)
        for feature, picture, size in zip(features, pictures, SIZES, strict=True):
            inside = segmenter._resize.apply_boxes(picture.boxes, picture.size)
            logits, _ = segmenter.logits(feature, torch.from_numpy(inside).float(), picture)
            for k, box in enumerate(picture.boxes):
                expected, _ = predicted(sam, smooth(*size), box, True)
                np.testing.assert_allclose(logits[k], expected, atol=1e-5)


def test_no_boxes() -> None:
    ready = make_ready(smooth(64, 64), np.zeros((0, 4)), TINY.side)
    segmenter = Segmenter(tiny_sam(), batch_images=2, batch_boxes=2, multimask=True, note=lambda _: None)
    (found,) = segmenter([ready])
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
def test_out_of_memory_halves_the_batch(part: str, argument: str | None) -> None:
    sam, said = tiny_sam(), list[str]()
    ready = [make_ready(smooth(*size), boxes_of(*size, 5), TINY.side) for size in SIZES]
    plain = Segmenter(sam, batch_images=4, batch_boxes=8, multimask=True, note=said.append)
    expected = list(plain(ready))
    assert not said
    short = Parts(sam, **{part: Short(getattr(sam, part), 2, argument)})
    found = list(Segmenter(short, batch_images=4, batch_boxes=8, multimask=True, note=said.append)(ready))
    flag = "--batch-images" if part == "image_encoder" else "--batch-boxes"
    assert said
    assert all(f"out of memory: going on with {flag}" in line for line in said)
    for ours, theirs in zip(found, expected, strict=True):
        assert np.mean(ours.masks != theirs.masks) < 1e-3
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
    none = Parts(sam, **{part: Short(getattr(sam, part), 0, argument)})
    with pytest.raises(PicsError, match=f"out of memory with {flag} 1"):
        list(Segmenter(none, batch_images=4, batch_boxes=8, multimask=True, note=said.append)(ready))
