"""References without alpha: which way each is cut out, and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from helpers.composites import thing
from helpers.photographs import photograph
from pics_cli.core.inference import cutout
from pics_cli.core.inference.cutout import Cutout, ReferenceCutter
from pics_cli.core.model.config import HintKind
from pics_cli.core.segmentation import checkpoints, sam
from pics_cli.errors import BadSample, PicsError

Bytes = npt.NDArray[np.uint8]
PHOTOGRAPH, TRUTH = photograph(160, shadow=0.4)
WITH_ALPHA, ON_WHITE = np.asarray(thing(0)), np.asarray(thing(0, alpha=False))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no weights of Segment Anything lie."""
    monkeypatch.chdir(tmp_path)


def cutter(value: Cutout = "auto", hint: HintKind = "layers") -> ReferenceCutter:
    return ReferenceCutter(value, hint, torch.device("cpu"))


@pytest.mark.parametrize("value", ["auto", "grabcut", "none"])
def test_what_has_alpha_or_shows_nothing_stays(value: Cutout) -> None:
    cut = cutter(value)(WITH_ALPHA, "a.png")
    assert (cut.method, cut.note) == ("alpha", None)
    assert cut.picture is WITH_ALPHA
    white = np.full((20, 30, 3), 255, np.uint8)
    assert cutter(value)(white, "a.png").picture is white
    empty = np.zeros((20, 30, 4), np.uint8)
    assert cutter(value)(empty, "a.png").picture is empty


def test_the_background_that_a_cut_out_was_made_from_leaves_its_rim() -> None:
    axis = np.arange(96) - 47.5
    alpha = np.clip(40 - np.hypot(axis[:, None], axis), 0, 4)[..., None] / 4
    own = np.broadcast_to(np.array([90.0, 40, 50]) + 20 * np.sin(axis / 9)[:, None, None], (96, 96, 3))

    def cut_from(background: float) -> Bytes:
        seen = alpha * own + (1 - alpha) * background
        return np.rint(np.dstack([seen, 255 * alpha])).astype(np.uint8)

    soft = (alpha[..., 0] > 0) & (alpha[..., 0] < 1)
    for background in (255, 0):
        reference = cut_from(background)
        cut = cutter()(reference, "a.png")
        assert cut.method == "alpha"
        np.testing.assert_array_equal(cut.picture[~soft], reference[~soft])
        np.testing.assert_array_equal(cut.picture[..., 3], reference[..., 3])
        before, after = (np.abs(picture[soft][:, :3] - own[soft]).mean() for picture in (reference, cut.picture))
        assert after < 0.1 * before
        assert cutter("none")(reference, "a.png").picture is reference
    clean = np.rint(np.dstack([own, 255 * alpha])).astype(np.uint8)
    assert cutter()(clean, "a.png").picture is clean


@pytest.mark.parametrize("colour", [(230, 60, 50), (70, 64, 60)])
@pytest.mark.parametrize("fringe", [None, 255])
def test_a_drop_shadow_keeps_its_colours(colour: tuple[int, int, int], fringe: int | None) -> None:
    """Black of falling opacity below the object, and a rim of white around it, or none."""
    axis = np.arange(160) - 70.0
    alpha = np.clip(40.5 - np.hypot(axis[:, None], axis), 0, 1)[..., None]
    y, x = axis[:, None], axis
    shadow = (0.5 * np.clip((72 - y) / 20, 0, 1) * ((abs(x) < 30) & (y > 0)))[..., None]
    own = np.full((160, 160, 3), colour, np.float64)
    opacity = alpha + (1 - alpha) * shadow
    seen = own if fringe is None else alpha * own + (1 - alpha) * fringe
    shown = np.where(shadow > 0, alpha * own / np.maximum(opacity, 1e-6), seen)
    reference = np.rint(np.dstack([shown, 255 * opacity])).astype(np.uint8)
    cut = cutter()(reference, "a.png").picture
    changed = (cut != reference).any(axis=2)
    assert not changed[shadow[..., 0] > 0].any()
    rim = (alpha[..., 0] > 0.1) & (alpha[..., 0] < 0.9) & (y < 0)
    off = np.abs(cut[rim][:, :3] - np.array(colour, np.float64)).mean()
    assert off < 12 if fringe is None else off < 0.25 * np.abs(reference[rim][:, :3] - np.array(colour)).mean()


def test_a_plain_background_goes_softly() -> None:
    cut = cutter()(ON_WHITE, "a.png")
    assert (cut.method, cut.note) == ("plain", None)
    np.testing.assert_allclose(cut.picture[..., 3], WITH_ALPHA[..., 3], atol=3)
    solid = WITH_ALPHA[..., 3] == 255
    np.testing.assert_array_equal(cut.picture[solid][:, :3], WITH_ALPHA[solid][:, :3])
    opaque = np.dstack([ON_WHITE, np.full(ON_WHITE.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(cutter()(opaque, "a.png").picture, cut.picture)


@pytest.mark.parametrize(("value", "note"), [("auto", True), ("grabcut", False)])
def test_a_photograph_is_cut_by_grabcut_and_told(value: Cutout, note: bool) -> None:
    cut = cutter(value)(PHOTOGRAPH, "my/dog.jpg")
    assert cut.method == "grabcut"
    assert np.abs(cut.picture[..., 3] / 255 - TRUTH).mean() < 0.02
    told = "my/dog.jpg has neither alpha nor a plain background: cut out of its photograph by GrabCut"
    assert cut.note == (told if note else None)


def test_none_leaves_everything_and_warns_of_photographs() -> None:
    cut = cutter("none")(PHOTOGRAPH, "dog.jpg")
    assert cut.picture is PHOTOGRAPH
    assert cut.note == "dog.jpg is a photograph with its background, taken as it is (--cutout none)"
    cut = cutter("none")(ON_WHITE, "dog.jpg")
    assert cut.picture is ON_WHITE
    assert cut.note is None


def test_models_that_paste_nothing_see_references_as_published() -> None:
    published = cutter("auto", "background")
    assert published.description == "none"
    for reference in (PHOTOGRAPH, ON_WHITE, WITH_ALPHA):
        cut = published(reference, "a.png")
        assert cut.picture is reference
        assert cut.note is None
    assert cutter("grabcut", "background")(PHOTOGRAPH, "a.png").method == "grabcut"


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        (np.full((60, 60, 3), 120, np.uint8), "no object found by its background's colour"),
        (np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8), "no object found by GrabCut"),
    ],
)
def test_what_cannot_be_cut_out_is_told(reference: Bytes, text: str) -> None:
    with pytest.raises(BadSample) as caught:
        cutter()(reference, "a/b.png")
    assert caught.value.reason == "uncut_reference"
    assert caught.value.detail.startswith("a/b.png: ")
    assert text in caught.value.detail
    assert caught.value.detail.endswith("give it an alpha channel, or take it as it is with --cutout none")


def test_an_object_that_is_everything_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for left, share in ((0, "100%"), (20, "88%")):
        mask = np.ones((160, 160), np.bool_)
        mask[:, :left] = False
        monkeypatch.setattr(cutout, "grab_cut", lambda _, mask=mask: (mask, 1.0))
        with pytest.raises(BadSample) as caught:
            cutter()(PHOTOGRAPH, "b.png")
        assert f"b.png: GrabCut takes {share} of the picture for the object; give" in caught.value.detail


def test_values() -> None:
    with pytest.raises(PicsError, match="cutout: got magic, expected one of auto, grabcut, sam, none"):
        cutter("magic")  # type: ignore[arg-type]
    with pytest.raises(PicsError, match="--cutout sam: no weights of Segment Anything in checkpoints/") as caught:
        cutter("sam")
    assert "sam_vit_b_01ec64.pth and put it there, or take --cutout grabcut" in str(caught.value.hint)
    assert [cutter(value).description for value in ("auto", "grabcut", "none")] == ["auto (grabcut)", "grabcut", "none"]


def test_segment_anything_where_its_weights_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny network of random weights: it is loaded, asked for a box around what GrabCut finds, and its mask taken."""
    torch.manual_seed(0)
    monkeypatch.setitem(checkpoints.CHECKPOINTS, "vit_b", "tiny.pth")
    monkeypatch.setitem(sam.SHAPES, "vit_b", sam.TINY)
    Path("checkpoints").mkdir()
    torch.save(sam.build_sam(sam.TINY).state_dict(), "checkpoints/tiny.pth")
    ours = cutter()
    assert ours.description == "auto (sam vit_b)"
    seen = []

    class Marked:
        """In place of the predictor's masks: the lower half of the box that it is asked for."""

        def __init__(self, network: Any, **_: object) -> None:
            assert network.image_encoder.img_size == sam.TINY.side

        def __call__(self, pictures):
            (picture,) = pictures
            x0, y0, x1, y1 = (int(value) for value in picture.boxes[0])
            seen.append((x0, y0, x1, y1))
            mask = np.zeros(picture.size, np.bool_)
            mask[(y0 + y1) // 2 : y1, x0:x1] = True
            yield type("Found", (), {"masks": mask[None]})

    monkeypatch.setattr("pics_cli.core.segmentation.segmenter.Segmenter", Marked)
    cut = ours(PHOTOGRAPH, "dog.jpg")
    assert cut.method == "sam"
    assert cut.note is not None
    assert cut.note.endswith("by Segment Anything (vit_b)")
    rows, columns = np.nonzero(TRUTH > 0.5)
    around = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    np.testing.assert_allclose(seen[0], around, atol=10)
    assert (cut.picture[..., 3] >= 128).mean() == pytest.approx(
        0.5 * (around[2] - around[0]) * (around[3] - around[1]) / 160**2, rel=0.25
    )
    assert cutter()(ON_WHITE, "a.png").method == "plain"


def test_the_real_predictor_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever random weights see."""
    torch.manual_seed(0)
    monkeypatch.setitem(checkpoints.CHECKPOINTS, "vit_b", "tiny.pth")
    monkeypatch.setitem(sam.SHAPES, "vit_b", sam.TINY)
    Path("checkpoints").mkdir()
    torch.save(sam.build_sam(sam.TINY).state_dict(), "checkpoints/tiny.pth")
    ours = cutter("sam")
    mask = ours._segment(PHOTOGRAPH, (20, 20, 140, 140), "dog.jpg")
    assert mask.shape == (160, 160)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, ours._segment(PHOTOGRAPH, (20, 20, 140, 140), "dog.jpg"))
