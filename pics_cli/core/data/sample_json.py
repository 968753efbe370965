"""The json of a sample: read, checked, and what of it says how the sample is put together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from pics_cli.errors import BadSample

SCHEMA = 1
# Wider padding than any recipe may ask for would only cost memory.
MAX_PADDING = 2.0


class Rle(msgspec.Struct):
    """COCO's compressed run lengths of a whole mask."""

    size: tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]]
    counts: str


class Geometry(msgspec.Struct):
    """How a patch was cut: which box of the picture, and by which ratio it was widened; null where nobody knows."""

    crop: tuple[int, int, int, int] | None = None
    padding: Annotated[float, msgspec.Meta(ge=1, le=MAX_PADDING)] | None = None


class _Mask(msgspec.Struct):
    rle: Rle | None = None


class Object(msgspec.Struct):
    """The part of an object's entry that the layouts rely on."""

    mask: _Mask
    patch: Geometry
    full: _Mask | None = None


def read_meta(members: Mapping[str, bytes]) -> tuple[dict[str, Any], list[Object]] | None:
    """The json of a sample as plain data, and its objects; None where it has none.

    Raises:
        BadSample: `bad_json`.
    """
    if "json" not in members:
        return None
    try:
        meta = json.loads(members["json"])
    except (ValueError, RecursionError) as error:
        raise BadSample("bad_json", str(error)) from None
    schema = meta.get("schema") if isinstance(meta, dict) else None
    if schema != SCHEMA:
        raise BadSample("bad_json", f"schema is {schema}, expected {SCHEMA}")
    if not isinstance(meta.get("objects"), list):
        raise BadSample("bad_json", "describes no list of objects")
    try:
        return meta, msgspec.convert(meta["objects"], list[Object])
    except msgspec.ValidationError as error:
        raise BadSample("bad_json", f"objects: {error}") from None
