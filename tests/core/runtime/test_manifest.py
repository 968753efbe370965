"""Manifests: what a complete one must say, of shards and of labels."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pics_cli.core.runtime.manifest import parse_manifest
from pics_cli.errors import PicsError

SHARDS = {"complete": True, "pictures": 3, "samples": 2}
LABELS = {"complete": True, "pictures": 3, "boxes": 7, "made_by": "annotate"}


@pytest.mark.parametrize("data", [SHARDS, LABELS, {"complete": False}])
def test_manifests_of_shards_and_labels(data: dict[str, Any]) -> None:
    assert parse_manifest(json.dumps(data).encode(), "manifest.json") == data


@pytest.mark.parametrize(
    ("data", "lost", "counted"),
    [(SHARDS, "pictures", "samples"), (SHARDS, "samples", "samples"), (LABELS, "boxes", "boxes")],
)
def test_complete_without_its_numbers(data: dict[str, Any], lost: str, counted: str) -> None:
    damaged = {key: value for key, value in data.items() if key != lost}
    with pytest.raises(PicsError, match=f"complete, but has no number of pictures or {counted}"):
        parse_manifest(json.dumps(damaged).encode(), "manifest.json")
