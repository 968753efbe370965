"""Samples to pictures in memory; a model that blends layers at the picture's own resolution, end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from helpers.composites import BOXES, SIZE, composed, make_sample, mask_of, outside, run, scene, thing
from helpers.trainees import CORRECTING, LAYERS, SHADOWS, small
from pics_cli.core.images.geometry import Letterbox
from pics_cli.core.images.lighting import Lighting
from pics_cli.core.images.stored_image import StoredImage, to_srgb
from pics_cli.core.inference.batch_compositor import DenoisingStep
from pics_cli.core.inference.blend import blend_layers
from pics_cli.core.inference.composite import CompositeResult, composite
from pics_cli.core.inference.layers import merge, values_differing
from pics_cli.core.inference.prepare import window_inputs, window_paste
from pics_cli.core.inference.sample import CompositeOptions, CompositeSample, Mode
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.errors import BadSample

ONE_STEP = CompositeOptions(steps=1)


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def sample(name: str, boxes: tuple = BOXES, **fields: object) -> CompositeSample:
    references = tuple(np.asarray(thing(k)) for k in range(len(boxes)))
    return CompositeSample(name, np.asarray(scene(seed=len(name))), boxes, references, **fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> PicsModel:
    torch.set_num_threads(1)
    return PicsModel.from_pretrained(tiny_model)


@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_samples_of_any_kind_in_their_order(tiny: PicsModel, mode: Mode) -> None:
    """Batches of what is alike give what each sample alone gives; backgrounds stay as they are."""
    options = replace(ONE_STEP, mode=mode)
    samples = [
        sample("a", candidates=(0, 2)), sample("bb", candidates=(1, 2)), sample("c", order=(1, 0)),
        sample("d", order=(0, 1)), sample("e", (*BOXES, (4, 60, 40, 92))),
    ]  # fmt: skip
    before = [one.background.copy() for one in samples]
    batches, steps = list[list[str]](), list[DenoisingStep]()
    results = list(
        composite(
            tiny, iter(samples), options, batch_size=2,
            callback_on_batch_start=lambda batch: batches.append([one.name for one in batch]),
            callback_on_step_end=steps.append,
        )
    )  # fmt: skip
    assert batches == [["a", "bb"], ["c", "d"], ["e"]]
    names = [(one.sample.name, one.candidate) for one in results]
    assert names == [("a", 0), ("a", 2), ("bb", 1), ("bb", 2), ("c", 0), ("d", 0), ("e", 0)]
    passes = [("a", "bb"), ("c", "d"), ("e",)]
    if mode == "sequential":
        passes = [*[("a", "a"), ("bb", "bb")] * 2, *[("c", "d")] * 2, *[("e",)] * 3]
    assert [(step.samples, step.number, step.count) for step in steps] == [(names, 1, 1) for names in passes]
    assert len(steps[0].latents) == (4 if mode == "parallel" else 2)
    assert 0 < steps[0].timestep < 1000
    for one, background in zip(samples, before, strict=True):
        np.testing.assert_array_equal(one.background, background)
        for n in one.candidates:
            (alone,) = composite(tiny, [replace(one, candidates=(n,))], options)
            (together,) = (each for each in results if (each.sample.name, each.candidate) == (one.name, n))
            assert np.abs(alone.image.astype(int) - together.image).max() <= 1
            assert (together.changed_outside, together.unguided, alone.order) == (0, [], together.order)
            assert (together.image != background).any()
    assert [one.order for one in results[-3:-1]] == [[1, 0], [0, 1]]


@pytest.mark.parametrize(("kind", "mode"), [("RGB", "parallel"), ("RGBA", "sequential"), ("16-bit", "parallel")])
def test_what_is_kept_is_stored_as_it_was(kind: str, mode: Mode) -> None:
    """By a model that casts shadows, which fall behind it as well; in whatever depth, and with alpha."""
    rng = np.random.default_rng(0)
    values = np.asarray(scene())
    if kind == "RGBA":
        values = np.dstack([values, rng.integers(0, 256, values.shape[:2], np.uint8)])
    elif kind == "16-bit":
        values = values.astype(np.uint16) * 257 - rng.integers(0, 257, values.shape, np.uint16) // 2
    stored = StoredImage(values)
    keep = np.asarray(mask_of((40, 0, 60, 90))) | (rng.random(SIZE[::-1]) < 0.02)
    one = replace(sample("a"), background=to_srgb(stored), stored=stored, keep=keep)
    options = CompositeOptions(steps=1, mode=mode, light=(90.0, 40.0, 5.0), shadow_room=0.3)
    (result,) = composite(small(**SHADOWS), [one], options)
    assert result.stored.pixels.dtype == values.dtype
    changed = (result.stored.pixels != values).any(2)
    assert (np.count_nonzero(changed[keep]), result.changed_outside) == (0, 0)
    (freely,) = composite(small(**SHADOWS), [replace(one, keep=None)], options)
    far = cv2.distanceTransform((~keep).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) >= 2
    assert (freely.stored.pixels != values).any(2)[keep].any(), "it would have changed"
    if mode == "parallel":
        np.testing.assert_array_equal(result.stored.pixels[far], freely.stored.pixels[far])


@pytest.mark.parametrize(
    ("hint", "mode"),
    [("background", "parallel"), ("overlay", "parallel"), ("layers", "parallel"), ("layers", "sequential")],
)
def test_layers_of_results_recombine(tiny: PicsModel, hint: str, mode: Mode) -> None:
    """Of every kind of model: 0 differing values in 12; objects lie where they are seen."""
    overlay = {**CORRECTING, "hint": "overlay", "fill": 0.75}
    model = tiny if hint == "background" else small(1, **(SHADOWS if hint == "layers" else overlay))
    keep = np.asarray(mask_of((40, 0, 45, 90)))
    results = list[CompositeResult]()
    for kind, channels in (("uint8", 3), ("uint8", 4), ("uint16", 3)):
        rng = np.random.default_rng(channels)
        stored = StoredImage(rng.integers(0, np.iinfo(kind).max, (*SIZE[::-1], channels), kind))
        one = replace(sample("a"), background=to_srgb(stored), stored=stored, keep=keep, order=(1, 0))
        results += composite(model, [one], replace(ONE_STEP, mode=mode), layers=True)
    for result in results:
        layers = result.layers
        assert values_differing(merge(layers), result.stored.pixels) == 0
        alphas = {layer.name: layers.whole(layer.pixels)[..., 3] > 0 for layer in layers.stack if layer.name != "shade"}
        assert list(alphas) == ["light", "object_1", "object_0", "darker", "lighter"]
        behind, front = alphas["object_1"], alphas["object_0"]
        for seen, box in ((front, BOXES[0]), (behind, BOXES[1])):
            assert not (seen & (outside([box]) | keep)).any()
            assert seen[(box[1] + box[3]) // 2, (box[0] + box[2]) // 2]
        if hint == "background":  # which takes objects for all that changed of their regions
            assert front[30:66, 50:70].mean() > 0.9
            assert not behind[30:66, 50:70].any()
    (without,) = composite(model, [sample("a")], replace(ONE_STEP, mode=mode))
    with pytest.raises(ValueError, match="made without"):
        without.layers  # noqa: B018


def test_noise_is_of_seed_and_name_or_as_given(tiny: PicsModel) -> None:
    def image(one: CompositeSample, options: CompositeOptions = ONE_STEP, **more: object) -> np.ndarray:
        (result,) = composite(tiny, [one], options, **more)  # type: ignore[arg-type]
        return result.image

    one = sample("a")
    first = image(one)
    np.testing.assert_array_equal(first, image(one))
    assert (first != image(replace(one, name="b"))).any()
    assert (first != image(one, replace(ONE_STEP, seed=1))).any()
    np.testing.assert_array_equal(
        first, image(replace(one, name="b"), noise=lambda _, n, step: tiny.noise(0, "a", n, step))
    )


def test_explanations(tiny: PicsModel) -> None:
    def results(mode: Mode, boxes: tuple = BOXES) -> list[CompositeResult]:
        samples = [sample("a", boxes, candidates=(0, 1))]
        return list(composite(tiny, samples, replace(ONE_STEP, mode=mode), explain=True))

    first, second = results("parallel")
    assert first.explanation is second.explanation
    explanation = first.explanation
    assert explanation is not None
    assert explanation.alpha is not None
    assert explanation.alpha.shape == (2, 128, 128)
    overlap = ~np.isnan(explanation.alpha[0])
    assert overlap.any()
    np.testing.assert_allclose(explanation.alpha.sum(0)[overlap], 1, atol=1e-4)
    assert {int(code) for code in np.unique(explanation.cover_codes[0])} == {0, 1, 2, 3}
    (apart, _) = results("parallel", ((0, 0, 40, 40), (70, 50, 110, 90)))
    assert apart.explanation is not None
    assert apart.explanation.alpha is not None
    assert np.isnan(apart.explanation.alpha).all()
    (alone, _) = results("sequential")
    assert alone.explanation is not None
    assert (alone.explanation.alpha, alone.explanation.cover_codes) == (None, [])


def test_bad_samples_are_raised_or_handled(tiny: PicsModel) -> None:
    empty = np.zeros((9, 9, 4), np.uint8)
    bad = [
        (sample("bad", order=(0, 1, 2)), "order"),
        (replace(sample("bad"), references=(empty, empty)), "empty_reference"),
        (CompositeSample("bad", noise(1000, 1000), ((3, 3, 4, 4), (10, 10, 900, 900)), (noise(9, 9), noise(9, 9))),
         "tiny_region"),
    ]  # fmt: skip
    for one, reason in bad:
        with pytest.raises(BadSample, match=reason):
            list(composite(tiny, [one], ONE_STEP))
    handled = list[tuple[str, str]]()
    results = list(
        composite(
            tiny, [sample("a"), *(one for one, _ in bad), sample("c")], ONE_STEP, batch_size=2,
            handle_error=lambda one, error: handled.append((one.name, error.reason)),
        )
    )  # fmt: skip
    assert [one.sample.name for one in results] == ["a", "c"]
    assert handled == [("bad", reason) for _, reason in bad]


def test_errors_of_the_samples_iterator_are_raised(tiny: PicsModel) -> None:
    def read() -> object:
        yield sample("a")
        raise OSError("gone")

    results = composite(tiny, read(), ONE_STEP)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="gone"):
        list(results)


def test_an_opaque_reference_is_one_on_white(tiny: PicsModel) -> None:
    on_white = np.asarray(thing(0, alpha=False))
    opaque = np.dstack([on_white, np.full(on_white.shape[:2], 255, np.uint8)])
    first, second = (
        next(composite(tiny, [CompositeSample("a", np.asarray(scene()), BOXES[:1], (one,))], ONE_STEP)).image
        for one in (on_white, opaque)
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("shadows", [False, True])
def test_at_the_networks_size_it_is_the_networks_picture(shadows: bool) -> None:
    pipeline = small(**{**LAYERS, "steps": 1, "guidance": 1.0, "scheduler": "ddim", "shadows": shadows, "fill": 0.75})
    lighting = Lighting(azimuth=-70, elevation=40, radius=4, strength=0.8, pitch=25) if shadows else None
    background = cv2.GaussianBlur(noise(64, 64), (0, 0), 2).astype(np.uint8)
    references = [noise(20, 30, 1, 4) | np.uint8(128), noise(30, 20, 2, 4) | np.uint8(128)]
    boxes = [(5, 8, 40, 50), (25, 20, 60, 60)]
    blends: list = []
    inputs = window_inputs(background, boxes, references, pipeline.config, lighting=lighting)
    made = pipeline([inputs], pipeline.noise(0, "a")[None, None], layer_blends=blends)[0, 0]
    paste = window_paste(background, boxes, references, pipeline.config, lighting=lighting)
    assert paste.part == (5, 8, 60, 60)
    logits, gain, residual, *strength = (each[0, 0].numpy() for each in blends[0] if each is not None)
    assert bool(strength) == shadows
    density = (strength[0], paste.shadows) if strength else ()
    again = blend_layers(background, paste.part, paste.paint(), logits, gain, residual, [paste.part], *density)
    tolerance = 3 if shadows else 1  # the network's shadow maps have 8 bits
    assert np.abs(again.astype(int) - Letterbox(64, 64, 64).inverse(made)[8:60, 5:60]).max() <= tolerance
    assert (again != background[8:60, 5:60]).any()


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
    assert (report.written, report.changed, report.failures) == (4, 0, [])
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


@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_grain_is_matched_unless_told_otherwise(layers_model: Path, tmp_path: Path, mode: Mode) -> None:
    """A clean object on a grainy background: inside the regions alone, of the sample's own, and of each candidate."""
    model = PicsModel.from_pretrained(layers_model)
    flat = np.full((96, 120, 3), 120) + np.random.default_rng(0).normal(0, 8, (96, 120, 3))
    picture = np.zeros((60, 60, 4), np.uint8)
    cv2.circle(picture, (30, 30), 28, (150, 90, 60, 255), -1)
    one = CompositeSample("a", flat.astype(np.uint8), ((2, 2, 92, 92),), (picture,), candidates=(0, 1))
    options = replace(ONE_STEP, mode=mode)
    nothing = model.noise(0, "a")
    plain, _ = composite(model, [one], replace(options, match="none"), noise=lambda *_: nothing)
    first, second = composite(model, [one], options, noise=lambda *_: nothing)
    again = next(composite(model, [replace(one, candidates=(0,))], options, noise=lambda *_: nothing))
    # One picture or two in a batch: sums may be rounded otherwise.
    assert np.abs(first.image.astype(int) - again.image).max() <= 1
    assert (first.changed_outside, second.changed_outside) == (0, 0)
    inside = np.s_[30:64, 30:64]
    grain = (first.image[inside].astype(float) - plain.image[inside]).std()
    assert grain > 1
    assert (first.image[inside] != second.image[inside]).any()
    other = next(composite(model, [replace(one, candidates=(0,))], replace(options, seed=1), noise=lambda *_: nothing))
    assert (first.image[inside] != other.image[inside]).any()
