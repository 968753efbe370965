"""Metrics without a truth in closed form, and the ranks that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pics_cli.core.evaluation.candidates import judge, measure, rank
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask
from pics_cli.core.inference.pick import PastedScene, Score, reasons

H, W = 80, 100
RED, BLUE = (200, 40, 40), (40, 60, 210)
GREY: RGB = np.full((H, W, 3), 100, np.uint8)


def disc(x: int, y: int, radius: int) -> Mask:
    rows, columns = np.mgrid[:H, :W]
    inside: Mask = (rows - y) ** 2 + (columns - x) ** 2 <= radius**2
    return inside


def painted(rgb: RGB, *areas: tuple[Mask, tuple[int, int, int]]) -> RGB:
    out = rgb.copy()
    for mask, colour in areas:
        out[mask] = colour
    return out


DISCS = [disc(40, 36, 18), disc(58, 40, 18)]
INSIDE = np.zeros((H, W), np.bool_)
INSIDE[10:70, 10:90] = True
ALPHAS = np.stack(DISCS).astype(np.uint8) * np.uint8(255)
PASTES = painted(GREY, (DISCS[0], RED), (DISCS[1], BLUE)), painted(GREY, (DISCS[1], BLUE), (DISCS[0], RED))
SCENE = PastedScene(GREY, INSIDE, ALPHAS, PASTES, True)
BELOW = INSIDE & ~DISCS[0] & ~DISCS[1]
BELOW[:44] = BELOW[66:] = BELOW[:, :20] = BELOW[:, 80:] = False
GROUND = INSIDE & ~disc(40, 36, 22) & ~disc(58, 40, 22)
OFFSET = painted(PASTES[0], (INSIDE & ~DISCS[0] & ~DISCS[1], (110, 110, 110)))


@pytest.mark.parametrize(
    ("picture", "values"),
    [
        # Nothing but the paste.
        (PASTES[0], {"seam": 0, "order": 1, "leak": 0, "contact": 0, "copy_paste": 1, "likeness": 1}),
        (PASTES[1], {"seam": 0, "order": 0, "leak": 0, "contact": 0, "copy_paste": 1, "likeness": 1}),
        # In another light, and with a shadow at its feet: all of the ground is a shade of itself.
        (
            painted(PASTES[0] - np.uint8(10), (BELOW, (70, 70, 70)), (~INSIDE, (100, 100, 100))),
            {"order": 1, "leak": 0, "contact": 1, "copy_paste": 0, "likeness": 1},
        ),
        # Nothing is there.
        (GREY, {"seam": 0, "leak": 0, "contact": 0, "copy_paste": 0}),
        # The regions can be told from the rest, by 10 levels.
        (OFFSET, {"seam": 10, "leak": 10, "contact": 0}),
        # A shadow that lies apart from them.
        (painted(PASTES[0], (INSIDE & (np.mgrid[:H, :W][0] > 64), (60, 60, 60))), {"leak": 0, "contact": 0}),
    ],
)
def test_values(picture: RGB, values: dict[str, float]) -> None:
    measured = measure(picture, SCENE)
    assert {name: measured[name] for name in values} == pytest.approx(values, abs=0.011)


def test_another_colour_on_the_ground_is_no_shadow() -> None:
    """Of (100, 100, 160) over 100 the nearest shade is 1, and 60 / 3 are left."""
    half = GROUND & (np.cumsum(GROUND).reshape(H, W) * 2 <= GROUND.sum())
    leak = measure(painted(PASTES[0], (half, (100, 100, 160))), SCENE)["leak"]
    assert leak == pytest.approx(20 * half.sum() / GROUND.sum(), abs=1)


def test_likeness_falls_with_what_is_painted_over() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    broken = np.where(np.any(ALPHAS > 0, axis=0)[..., None], noise, PASTES[0])
    like = [measure(picture, SCENE)["likeness"] for picture in (PASTES[0], GREY, broken)]
    assert like[0] == 1
    assert max(like[1] or 0, like[2] or 0) < 0.6


def test_what_is_not_known_is_not_measured() -> None:
    assert measure(PASTES[0], SCENE._replace(is_ordered=False))["order"] is None
    nothing = SCENE._replace(alphas=ALPHAS[:0], pastes=(GREY, GREY), is_ordered=False)
    measured = measure(OFFSET, nothing)
    assert {name for name, value in measured.items() if value is not None} == {"seam"}
    full = SCENE._replace(inside=np.any(ALPHAS > 0, axis=0))
    assert (measure(PASTES[0], full)["leak"], measure(PASTES[0], full)["contact"]) == (None, None)


def scores(*rows: Sequence[float | None]) -> list[Score]:
    names = ("seam", "order", "leak", "contact", "copy_paste", "likeness", "lamp")
    return rank([dict(zip(names, (*row, None)[:7], strict=True)) for row in rows])


def test_ranks() -> None:
    first, second, third = scores((1, 0.5, 2, 1, 0.1, 0.9), (2, 0.9, 1, 1, 0.2, 0.9), (1, None, 3, 0, 0.3, 0.9))
    assert [first.candidate, second.candidate, third.candidate] == [0, 1, 2]
    # Order, which one of them has none of, has no part in it; equal values share their ranks.
    assert first.ranks == {"seam": 1.5, "leak": 2, "contact": 1.5, "copy_paste": 1, "likeness": 2}
    assert second.ranks == {"seam": 3, "leak": 1, "contact": 1.5, "copy_paste": 2, "likeness": 2}
    assert (first.mean_rank, second.mean_rank) == (1.6, 1.9)
    assert second.metrics == {"seam": 2, "order": 0.9, "leak": 1, "contact": 1, "copy_paste": 0.2, "likeness": 0.9}
    assert reasons([first, second, third]) == (
        "seam 1 (best), leak 2 (place 2), contact 1 (best), copy-paste 0.1 (best); all alike: likeness 0.9"
    )
    alike = scores(*[(1, None, 2, 1, 0.1, 0.9)] * 3)
    assert [(one.candidate, one.rank) for one in alike] == [(0, 1), (1, 2), (2, 3)]
    assert reasons(alike) == "all alike: seam 1, leak 2, contact 1, copy-paste 0.1, likeness 0.9"
    assert [one.candidate for one in scores((3, *[None] * 5), (1, *[None] * 5), (2, *[None] * 5))] == [1, 2, 0]
    assert [one.candidate for one in scores((None,) * 6, (None,) * 6)] == [0, 1]


def test_the_harmonised_composite_is_picked() -> None:
    shaded = painted(PASTES[0] - np.uint8(10), (BELOW, (70, 70, 70)), (~INSIDE, (100, 100, 100)))
    shaded[GROUND & ~BELOW] = 100
    pictures = [PASTES[0], GREY, OFFSET, shaded, PASTES[1]]
    assert judge(SCENE, pictures, [None] * 5)[0].candidate == 3
    first, second = judge(SCENE, [shaded, shaded], [90.4, 20.0])
    assert (first.candidate, first.metrics["lamp"], second.metrics["lamp"]) == (1, 20, 90)
