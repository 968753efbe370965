"""A correction carried out at the picture's own resolution, and a model that has one, end to end."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from composites import BOXES, SIZE, composed, make_sample, outside, run, scene
from pics_cli.core.conditioning.network_inputs import layer_painters
from pics_cli.core.images.geometry import Letterbox
from pics_cli.core.inference.paste import corrected, native
from pics_cli.core.inference.prepare import inputs_of, painters_of
from trainees import LAYERS, small


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 40), (30, 64), (20, 20), (200, 130)])
def test_at_the_windows_size_by_loops(width: int, height: int) -> None:
    """Logits enlarged bilinearly, then shares, one a pixel for all colours; the pictures were never resized."""
    seen, size = noise(height, width), 64
    logits = np.random.default_rng(1).normal(0, 3, (2, size, size)).astype(np.float32)
    residual = np.random.default_rng(2).normal(0, 20, (3, size, size)).astype(np.float32)
    gain = np.random.default_rng(3).normal(0, 0.3, (3, size, size)).astype(np.float32)
    inverted = np.full_like(seen, 255) - seen

    def invert(canvas: np.ndarray) -> None:
        canvas[:] = inverted

    found = corrected(seen, [lambda _: None, invert], logits, gain, residual)
    letterbox = Letterbox(width, height, size)
    for y in range(0, height, 7):
        for x in range(0, width, 5):
            powers = [math.exp(float(letterbox.inverse_map(one)[y, x])) for one in logits]
            added, light = (
                np.array([float(letterbox.inverse_map(one)[y, x]) for one in each]) for each in (residual, gain)
            )
            mixed = (powers[0] * seen[y, x] + powers[1] * inverted[y, x]) / sum(powers)
            expected = mixed * np.exp(light) + added
            assert np.abs(found[y, x] - np.clip(expected, 0, 255)).max() <= 0.51


@pytest.mark.parametrize(("width", "height", "size"), [(64, 40, 64), (130, 64, 65), (40, 40, 64)])
def test_enlarged_is_a_plane_where_the_square_is(width: int, height: int, size: int) -> None:
    """Of values that rise evenly, a pixel of the picture has the one of its middle; without a rim from the padding."""
    side = max(width, height)
    across = ((np.arange(size, dtype=np.float32) + 0.5) * side / size)[None].repeat(size, 0)
    found = Letterbox(width, height, size).inverse_map(across)
    assert found.shape == (height, width)
    left = (side - width) // 2
    expected = np.arange(width) + 0.5 + left
    inner = slice(2, -2)
    np.testing.assert_allclose(found[height // 2, inner], expected[inner], atol=1e-3 if side >= size else 0.1)


def test_untouched_where_nothing_is_added() -> None:
    """All of the background in its own light gives its very pixels, at any size: nothing is blurred."""
    seen = noise(150, 210)
    logits, nothing = np.zeros((3, 64, 64), np.float32), np.zeros((3, 64, 64), np.float32)
    logits[2] = 40
    boxes, references = [(10, 10, 100, 100), (60, 40, 200, 140)], [noise(40, 50, 1, 4), noise(30, 30, 2, 4)]
    paint = layer_painters(seen, boxes, references, hint="layers")
    assert np.array_equal(corrected(seen, paint, logits, nothing, nothing), seen)
    first = seen.copy()
    paint[0](first)
    assert np.array_equal(corrected(seen, paint, logits[::-1], nothing, nothing), first)


def test_at_the_networks_size_it_is_the_networks_picture() -> None:
    pipeline = small(**{**LAYERS, "steps": 1, "guidance": 1.0, "scheduler": "ddim"})
    background = cv2.GaussianBlur(noise(64, 64), (0, 0), 2)
    references = [noise(20, 30, 1, 4) | np.uint8(128), noise(30, 20, 2, 4) | np.uint8(128)]
    boxes = [(5, 8, 40, 50), (25, 20, 60, 60)]
    blends: list = []
    inputs = inputs_of(background, boxes, references, pipeline.config)
    made = pipeline([inputs], pipeline.noise(0, "a")[None, None], layer_blends=blends)[0, 0]
    paint = painters_of(background, boxes, references, pipeline.config)
    again = corrected(background, paint, *(each[0, 0].numpy() for each in blends[0]))
    assert np.abs(again.astype(int) - native(made, 64, 64)).max() <= 1
    assert (again != background).any()


@pytest.fixture(scope="module")
def layers_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layers") / "model"
    small(**{**LAYERS, "steps": 1, "guidance": 1.0, "scheduler": "ddim"}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_end_to_end(layers_model: Path, tmp_path: Path, mode: str) -> None:
    """A picture twice as large as the network's: nothing changes outside, and a batch is its samples alone."""
    make_sample(tmp_path / "in/a")
    make_sample(tmp_path / "in/b", [(0, 0, 40, 96), (30, 40, 120, 96)], seed=1)
    report = run(tmp_path / "in", tmp_path / "one", layers_model, mode=mode, num=2)
    assert (report.made, report.changed, report.failures) == (4, 0, [])
    run(tmp_path / "in", tmp_path / "both", layers_model, mode=mode, num=2, batch_size=2)
    alone, together = composed(tmp_path / "one"), composed(tmp_path / "both")
    assert alone.keys() == together.keys()
    for name, picture in alone.items():
        assert np.abs(picture.astype(int) - together[name]).max() <= 1
    before = np.asarray(scene())
    after = alone["composed_a.png"]
    assert np.array_equal(after[outside(BOXES, SIZE)], before[outside(BOXES, SIZE)])
    assert (after != before).any()


def test_order_is_the_users_where_given(layers_model: Path, tmp_path: Path) -> None:
    """The hint then shows no other, so that what the network takes of it cannot turn the order round."""
    make_sample(tmp_path / "in/a", [(0, 0, 90, 90), (20, 10, 120, 96)])
    pictures = {}
    for order in ("auto", (0, 1), (1, 0)):
        output = tmp_path / f"out{order}"
        run(tmp_path / "in", output, layers_model, order=order)
        pictures[order] = composed(output)["composed_a.png"]
    assert (pictures[0, 1] != pictures[1, 0]).any()
    assert (pictures["auto"] != pictures[0, 1]).any()
    assert (pictures["auto"] != pictures[1, 0]).any()
