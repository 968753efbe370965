"""The lighting of a sample: what its json holds, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pics_cli.core.images.lighting import Lighting, read_lighting
from pics_cli.errors import BadSample


def test_json_and_back() -> None:
    lighting = Lighting(azimuth=-75.5, elevation=40.25, radius=6.0, strength=0.7, pitch=22.0)
    assert read_lighting(json.loads(json.dumps({"light": lighting.to_json()}))) == lighting
    assert read_lighting({}) is None


@pytest.mark.parametrize(
    ("light", "words"),
    [
        ({"azimuth": 0}, "elevation"),
        ([1, 2], "list"),
        (
            {"azimuth": 0, "elevation": 91, "radius": 1, "strength": 0.5, "pitch": 0},
            "elevation is 91.0, expected 0 to 90",
        ),
        ({"azimuth": 0, "elevation": float("nan"), "radius": 1, "strength": 0.5, "pitch": 0}, "elevation is nan"),
        ({"azimuth": "west", "elevation": 1, "radius": 1, "strength": 0.5, "pitch": 0}, "west"),
    ],
)
def test_what_is_no_lighting_is_refused(light: Any, words: str) -> None:
    with pytest.raises(BadSample, match=words) as caught:
        read_lighting({"light": light})
    assert caught.value.reason == "bad_json"
