"""Bodies of revolution: their segments follow their outlines, and handles stay out of hollows."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from pics_cli.core.scenes.drawn.revolution import SurfaceOfRevolution
from pics_cli.core.scenes.drawn.shapes import FAMILIES, build_shape
from pics_cli.core.scenes.drawn.spheres import Tube

CASES = [
    (category, family) for category, pools in FAMILIES.items() for families in pools.values() for family in families
]
PARAMETERS = ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (1.0, 0.0, 1.0), (0.2, 0.9, 0.6))


@pytest.mark.parametrize(("category", "family"), CASES)
def test_segments_follow_the_outline_without_a_gap(category: str, family: str) -> None:
    for parameters in PARAMETERS:
        for solid in build_shape(family, parameters).solids:
            if not isinstance(solid, SurfaceOfRevolution):
                continue
            for inner, curve in ((False, solid.outer), (True, solid.inner)):
                segments = [segment for segment in solid.segments if segment.inner == inner]
                if curve is None:
                    assert not segments
                    continue
                assert segments[0].low == pytest.approx(curve[0, 0], abs=1e-6)
                assert segments[-1].high == pytest.approx(curve[-1, 0], abs=1e-6)
                for a, b in pairwise(segments):
                    assert a.high == pytest.approx(b.low, abs=2e-6)
                # Points of the outline, and between two of them, but for flat parts, their chord, which is off itself.
                rows = curve.tolist()
                chords = [((a[0] + b[0]) / 2, (a[1] + b[1]) / 2) for a, b in pairwise(rows) if b[0] - a[0] > 0.02]
                for z, r, slack in [*((z, r, 0.003) for z, r, _, _ in rows), *((z, r, 0.03) for z, r in chords)]:
                    radii = [
                        math.sqrt(max(s.alpha + (s.beta + s.gamma * z) * z, 0))
                        for s in segments
                        if s.low - 1e-6 <= z <= s.high + 1e-6
                    ]
                    assert min(abs(radius - r) for radius in radii) < slack, (parameters, z, r, radii)


@pytest.mark.parametrize("family", ["mug", "teacup"])
def test_handles_do_not_stick_through_the_wall(family: str) -> None:
    for parameters in PARAMETERS:
        shape = build_shape(family, parameters)
        (handle,) = (solid for solid in shape.solids if isinstance(solid, Tube))
        assert shape.cavity is not None
        for x, _, z in handle.centres.tolist():
            for angle in np.linspace(-math.pi / 2, math.pi / 2, 13).tolist():
                height, away = z + handle.radius * math.sin(angle), x - handle.radius * math.cos(angle)
                if height < shape.cavity[-1, 0]:
                    assert away > np.interp(height, shape.cavity[:, 0], shape.cavity[:, 1]) - 0.002
