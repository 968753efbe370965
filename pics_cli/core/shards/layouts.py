"""The two layouts of a sample in a shard, and the way from one to the other.

`published`: picture, patches and masks as members of their own. `compact`: the picture, and in the json the masks as
run lengths; patches are cut anew on reading. Both give the same sample bit for bit: a patch that cannot be cut anew
exactly (it was not made from the stored picture) stays a member in either layout.
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


Members = dict[str, bytes]
"""Extension (`bg.jpg`, `obj0.png`, …) to contents, in the order in which they are written."""


@dataclass
class Parts:
    """A sample between its layouts.

    Attributes:
        picture: bytes of `bg.jpg`.
        masks: of each object; of the picture's size, neither empty nor all of it.
        meta: the json, without masks.
        geometry: how each object's patch was cut.
        patches: PNG bytes of each object's patch; None where it is to be cut from the picture, as `geometry` says.
        full: masks with hidden parts, for the objects that have one.
        others: members that are the same in both layouts, such as `clean.jpg` and `alt0.png`.
    """

    picture: bytes
    masks: list[BoxMask]
    meta: dict[str, Any]
    geometry: list[Geometry]
    patches: list[bytes | None]
    full: dict[int, BoxMask] = field(default_factory=dict)
    others: Members = field(default_factory=dict)


def pack(parts: Parts, layout: str, rgb: RGB) -> Members:
    """The members of a sample in a layout.

    Args:
        parts: the sample.
        layout: `published` or `compact`.
        rgb: the decoded picture, uint8 [H, W, 3].
    """
    members, objects = {"bg.jpg": parts.picture}, list(parts.meta["objects"])
    for k, (mask, patch) in enumerate(zip(parts.masks, parts.patches, strict=True)):
        if layout == "compact":
            objects[k] = {**objects[k], "mask": {**objects[k]["mask"], "rle": mask.rle()}}
            if k in parts.full:
                objects[k]["full"] = {"rle": parts.full[k].rle()}
            if patch is not None:
                members[f"obj{k}.png"] = patch
        else:
            cut = patch if patch is not None else encode_png(cut_again(rgb, mask, parts.geometry[k], k))
            members[f"obj{k}.png"] = cut
            members[f"mask{k}.png"] = mask.png()
            if k in parts.full:
                members[f"full{k}.png"] = parts.full[k].png()
    members.update(parts.others)
    members["json"] = json.dumps({**parts.meta, "objects": objects}, separators=(",", ":")).encode()
    return members


def unpack(members: Mapping[str, bytes]) -> Parts:
    """A sample of either layout, ours or (with an empty `meta`) the research project's.

    Sizes are compared with the picture's before anything is decoded.

    Raises:
        BadSample: a member is missing, unexpected or damaged, or does not fit the picture.
    """
    meta, objects = read_meta(members) or ({}, None)
    count = count_objects(members, objects)
    size = upright_size(members["bg.jpg"])
    parts = Parts(members["bg.jpg"], [], meta, [], [])
    for k in range(count):
        entry = objects[k] if objects else None
        mask = _mask(members, f"mask{k}.png", entry.mask.rle if entry else None, size)
        if mask.area in (0, size[0] * size[1]):
            empty = ("empty_mask", f"mask{k}.png has no pixel set")
            raise BadSample(*(empty if not mask.area else ("full_mask", f"mask{k}.png covers the whole picture")))
        parts.masks.append(mask)
        parts.patches.append(members.get(f"obj{k}.png"))
        parts.geometry.append(entry.patch if entry else Geometry())
        hidden = entry.full.rle if entry and entry.full else None
        if f"full{k}.png" in members or hidden:
            parts.full[k] = _mask(members, f"full{k}.png", hidden, size)
        if entry:
            meta["objects"][k]["mask"].pop("rle", None)
            meta["objects"][k].pop("full", None)
    kinds = {"clean.jpg", *(f"alt{k}.png" for k in range(count))}
    parts.others = {name: data for name, data in members.items() if name in kinds}
    return parts


def cut_again(rgb: RGB, mask: BoxMask, geometry: Geometry, k: int) -> RGB:
    """The patch of object k as the json says that it was cut: uint8 [224, 224, 3].

    Raises:
        BadSample: `bad_json` where it does not say, or names a box outside the picture.
    """
    crop, padding = geometry.crop, geometry.padding
    if crop is None or padding is None:
        raise BadSample("bad_json", f"there is no obj{k}.png, and objects[{k}].patch does not say how it was cut")
    x0, y0, x1, y1 = crop
    # The published crop of a mask one pixel wide has no width, but never neither width nor height.
    if not (0 <= x0 <= x1 <= mask.width and 0 <= y0 <= y1 <= mask.height and (x1 > x0 or y1 > y0)):
        raise BadSample("bad_json", f"objects[{k}].patch: crop {list(crop)} is no box of the picture")
    return cut_patch(rgb, mask, padding, crop).rgb


def count_objects(members: Mapping[str, bytes], objects: Sequence[Object] | None) -> int:
    """K of a sample whose members are complete, in either layout.

    Raises:
        BadSample: `missing_member`, `extra_member` or `bad_json`.
    """
    packed = {k for k, entry in enumerate(objects or ()) if entry.mask.rle}
    count = max(packed, default=-1) + 1
    while f"obj{count}.png" in members or f"mask{count}.png" in members:
        count += 1
    kept = [k for k in range(max(1, count)) if k not in packed]
    wanted = {"bg.jpg", *(f"{kind}{k}.png" for kind in ("obj", "mask") for k in kept)}
    if missing := sorted(wanted - members.keys()):
        raise BadSample("missing_member", f"no {', '.join(missing)}")
    optional = {"json", "clean.jpg", *(f"{kind}{k}.png" for kind in ("alt", "full") for k in range(count))}
    if extra := sorted(members.keys() - wanted - optional - {f"obj{k}.png" for k in packed}):
        raise BadSample("extra_member", f"unexpected {', '.join(extra)}")
    if objects is not None and len(objects) != count:
        raise BadSample("bad_json", f"describes {len(objects)} objects, the sample holds {count}")
    return count


def _mask(members: Mapping[str, bytes], name: str, rle: Rle | None, size: tuple[int, int]) -> BoxMask:
    """A mask from its member, else from the json; of the picture's (width, height)."""
    if name in members:
        return decode_box_mask(members[name], name, size)
    if rle is None:
        raise BadSample("missing_member", f"no {name}")
    height, width = rle.size
    if (width, height) != size:
        raise BadSample("mask_size", f"{name} is {width}x{height}, its picture {size[0]}x{size[1]} (width x height)")
    return decode_segmentation({"size": [height, width], "counts": rle.counts}, height, width)
