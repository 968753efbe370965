"""Layouts of a sample in a shard: tar members to the parts of a sample, and back.

`published`: picture, patches and masks are members of their own. `compact`: masks are run lengths in the json, and
patches are cut anew on reading. Both give the same sample bit for bit: a patch that cannot be cut anew exactly (it
was not made from the stored picture) stays a member in either layout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from pics_cli.core.images.cutouts import cut_patch
from pics_cli.core.images.image_io import RGB, encode_png, upright_size
from pics_cli.core.images.masks import BoxMask, decode_box_mask, decode_segmentation
from pics_cli.core.runtime.files import load_json
from pics_cli.errors import BadSample

SCHEMA_VERSION = 1
# Wider padding than any recipe may ask for would only cost memory.
MAX_PADDING = 2.0

Members = dict[str, bytes]
"""Extension (`bg.jpg`, `obj0.png`, …) to contents, in the order in which they are written."""


class _Rle(msgspec.Struct):
    """COCO's compressed run lengths of a whole mask; `size` is (height, width)."""

    size: tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]]
    counts: str


class PatchGeometry(msgspec.Struct):
    """How a patch was cut: the box of the picture, and the ratio by which it was padded; None where unknown."""

    crop: tuple[int, int, int, int] | None = None
    padding: Annotated[float, msgspec.Meta(ge=1, le=MAX_PADDING)] | None = None


class _MaskEntry(msgspec.Struct):
    rle: _Rle | None = None


class _ObjectEntry(msgspec.Struct):
    """The part of an object's entry in the json that the layouts rely on."""

    mask: _MaskEntry
    patch: PatchGeometry
    full: _MaskEntry | None = None


@dataclass
class SampleParts:
    """A sample independent of its layout, its pictures still encoded.

    Attributes:
        image: bytes of `bg.jpg`.
        masks: of each object; of the picture's size, neither empty nor all of it.
        metadata: the json, without masks; empty where the sample has none.
        geometry: how each object's patch was cut.
        patches: PNG bytes of each object's patch; None where it is to be cut from the picture, as `geometry` says.
        amodal_masks: masks with hidden parts (`full{k}.png`) by object, for those that have one.
        extra_members: members that are the same in both layouts: `clean.jpg`, `alt{k}.png`.
    """

    image: bytes
    masks: list[BoxMask]
    metadata: dict[str, Any]
    geometry: list[PatchGeometry]
    patches: list[bytes | None]
    amodal_masks: dict[int, BoxMask] = field(default_factory=dict)
    extra_members: Members = field(default_factory=dict)


def pack_sample(parts: SampleParts, layout: str, rgb: RGB) -> Members:
    """The tar members of a sample.

    Args:
        parts: the sample.
        layout: `published` or `compact`.
        rgb: the decoded picture, uint8 [H, W, 3].
    """
    members, objects = {"bg.jpg": parts.image}, list(parts.metadata["objects"])
    for k, (mask, patch) in enumerate(zip(parts.masks, parts.patches, strict=True)):
        amodal = parts.amodal_masks.get(k)
        if layout == "compact":
            objects[k] = {**objects[k], "mask": {**objects[k]["mask"], "rle": mask.rle()}}
            if amodal is not None:
                objects[k]["full"] = {"rle": amodal.rle()}
            if patch is not None:
                members[f"obj{k}.png"] = patch
        else:
            cut = patch if patch is not None else encode_png(recut_patch(rgb, mask, parts.geometry[k], k))
            members[f"obj{k}.png"] = cut
            members[f"mask{k}.png"] = mask.png()
            if amodal is not None:
                members[f"full{k}.png"] = amodal.png()
    members.update(parts.extra_members)
    members["json"] = json.dumps({**parts.metadata, "objects": objects}, separators=(",", ":")).encode()
    return members


def unpack_sample(members: Mapping[str, bytes]) -> SampleParts:
    """The parts of a sample of either layout, ours or (without metadata) the research project's.

    Sizes are compared with the picture's before anything is decoded.

    Raises:
        BadSample: a member is missing, unexpected or damaged, or does not fit the picture.
    """
    metadata, objects = _parse_metadata(members) or ({}, None)
    count = _count_objects(members, objects)
    size = upright_size(members["bg.jpg"])
    parts = SampleParts(members["bg.jpg"], [], metadata, [], [])
    for k in range(count):
        entry = objects[k] if objects else None
        mask = _decode_mask(members, f"mask{k}.png", entry.mask.rle if entry else None, size)
        if not mask.area:
            raise BadSample("empty_mask", f"mask{k}.png has no pixel set")
        if mask.area == size[0] * size[1]:
            raise BadSample("full_mask", f"mask{k}.png covers the whole picture")
        parts.masks.append(mask)
        parts.patches.append(members.get(f"obj{k}.png"))
        parts.geometry.append(entry.patch if entry else PatchGeometry())
        amodal_rle = entry.full.rle if entry and entry.full else None
        if f"full{k}.png" in members or amodal_rle:
            parts.amodal_masks[k] = _decode_mask(members, f"full{k}.png", amodal_rle, size)
        if entry:
            metadata["objects"][k]["mask"].pop("rle", None)
            metadata["objects"][k].pop("full", None)
    extra_names = {"clean.jpg", *(f"alt{k}.png" for k in range(count))}
    parts.extra_members = {name: data for name, data in members.items() if name in extra_names}
    return parts


def recut_patch(rgb: RGB, mask: BoxMask, geometry: PatchGeometry, k: int) -> RGB:
    """Cut the patch of object k from the picture as its metadata says: uint8 [224, 224, 3].

    Raises:
        BadSample: `bad_json` where the geometry is missing, or names a box outside the picture.
    """
    crop, padding = geometry.crop, geometry.padding
    if crop is None or padding is None:
        raise BadSample("bad_json", f"there is no obj{k}.png, and objects[{k}].patch does not say how it was cut")
    x0, y0, x1, y1 = crop
    # The published crop of a mask one pixel wide has no width, but never neither width nor height.
    if not (0 <= x0 <= x1 <= mask.width and 0 <= y0 <= y1 <= mask.height and (x1 > x0 or y1 > y0)):
        raise BadSample("bad_json", f"objects[{k}].patch: crop {list(crop)} is no box of the picture")
    return cut_patch(rgb, mask, padding, crop).rgb


def _parse_metadata(members: Mapping[str, bytes]) -> tuple[dict[str, Any], list[_ObjectEntry]] | None:
    """The json of a sample as plain data, and its objects; None where it has none."""
    if "json" not in members:
        return None
    try:
        metadata = load_json(members["json"])
    except ValueError as error:
        raise BadSample("bad_json", str(error)) from None
    schema = metadata.get("schema") if isinstance(metadata, dict) else None
    if schema != SCHEMA_VERSION:
        raise BadSample("bad_json", f"schema is {schema}, expected {SCHEMA_VERSION}")
    if not isinstance(metadata.get("objects"), list):
        raise BadSample("bad_json", "describes no list of objects")
    try:
        return metadata, msgspec.convert(metadata["objects"], list[_ObjectEntry])
    except msgspec.ValidationError as error:
        raise BadSample("bad_json", f"objects: {error}") from None


def _count_objects(members: Mapping[str, bytes], objects: Sequence[_ObjectEntry] | None) -> int:
    """K of a sample whose members are complete, in either layout."""
    with_rle = {k for k, entry in enumerate(objects or ()) if entry.mask.rle}
    count = max(with_rle, default=-1) + 1
    while f"obj{count}.png" in members or f"mask{count}.png" in members:
        count += 1
    required = {"bg.jpg"}
    optional = {"json", "clean.jpg", *(f"{kind}{k}.png" for kind in ("alt", "full") for k in range(count))}
    for k in range(max(1, count)):
        if k in with_rle:
            optional.add(f"obj{k}.png")
        else:
            required |= {f"obj{k}.png", f"mask{k}.png"}
    if missing := sorted(required - members.keys()):
        raise BadSample("missing_member", f"no {', '.join(missing)}")
    if extra := sorted(members.keys() - required - optional):
        raise BadSample("extra_member", f"unexpected {', '.join(extra)}")
    if objects is not None and len(objects) != count:
        raise BadSample("bad_json", f"describes {len(objects)} objects, the sample holds {count}")
    return count


def _decode_mask(members: Mapping[str, bytes], name: str, rle: _Rle | None, size: tuple[int, int]) -> BoxMask:
    """A mask from its member, else from the json; of the picture's (width, height)."""
    if name in members:
        return decode_box_mask(members[name], name, size)
    if rle is None:
        raise BadSample("missing_member", f"no {name}")
    height, width = rle.size
    if (width, height) != size:
        raise BadSample("mask_size", f"{name} is {width}x{height}, its picture {size[0]}x{size[1]} (width x height)")
    return decode_segmentation({"size": [height, width], "counts": rle.counts}, height, width)
