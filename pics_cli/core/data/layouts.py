"""The two layouts of a sample in a shard, and the way from one to the other.

`published`: picture, patches and masks as members of their own. `compact`: the picture, and in the json the masks as
run lengths; patches are cut anew on reading. Both give the same sample bit for bit: a patch that cannot be cut anew
exactly (it was not made from the stored picture) stays a member in either layout.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from pics_cli.core.data.masks import BoxMask, box_mask, decode_mask_png, decode_segmentation
from pics_cli.core.data.patches import cut_patch
from pics_cli.core.data.pictures import RGB, encode_png
from pics_cli.core.geometry import Box
from pics_cli.errors import BadSample

SCHEMA = 1

Members = dict[str, bytes]
"""Extension (`bg.jpg`, `obj0.png`, …) to contents, in the order in which they are written."""


class Geometry(msgspec.Struct):
    """How a patch was cut: which box of the picture, and by which ratio it was widened."""

    crop: tuple[int, int, int, int]
    padding: Annotated[float, msgspec.Meta(ge=1, le=4)]


@dataclass
class Parts:
    """A sample between its layouts.

    Attributes:
        picture: bytes of `bg.jpg`.
        masks: of each object.
        meta: the json, without masks.
        patches: PNG bytes of each object's patch; None where it is to be cut from the picture, as the json says.
        full: masks with hidden parts, for the objects that have one.
        others: members that are the same in both layouts, such as `clean.jpg` and `alt0.png`.
    """

    picture: bytes
    masks: list[BoxMask]
    meta: dict[str, Any]
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
            members[f"obj{k}.png"] = patch if patch is not None else encode_png(cut_again(rgb, mask, parts.meta, k))
            members[f"mask{k}.png"] = mask.png()
            if k in parts.full:
                members[f"full{k}.png"] = parts.full[k].png()
    members.update(parts.others)
    members["json"] = json.dumps({**parts.meta, "objects": objects}, separators=(",", ":")).encode()
    return members


def unpack(members: Mapping[str, bytes]) -> Parts:
    """A sample of either layout, ours or (with an empty `meta`) the research project's.

    Raises:
        BadSample: a member is missing, unexpected or damaged.
    """
    meta = read_meta(members)
    count = count_objects(members, meta)
    parts = Parts(members["bg.jpg"], [], meta or {}, [])
    for k in range(count):
        entry = meta["objects"][k] if meta else {}
        parts.masks.append(_mask(members, f"mask{k}.png", entry.get("mask", {}).pop("rle", None)))
        parts.patches.append(members.get(f"obj{k}.png"))
        if f"full{k}.png" in members or "full" in entry:
            parts.full[k] = _mask(members, f"full{k}.png", (entry.pop("full", None) or {}).get("rle"))
    kinds = {"clean.jpg", *(f"alt{k}.png" for k in range(count))}
    parts.others = {name: data for name, data in members.items() if name in kinds}
    return parts


def cut_again(rgb: RGB, mask: BoxMask, meta: Mapping[str, Any], k: int) -> RGB:
    """The patch of object k as the json says that it was cut: uint8 [224, 224, 3].

    Raises:
        BadSample: `bad_json` where it does not say, or names a box outside the picture.
    """
    try:
        geometry = msgspec.convert(meta["objects"][k]["patch"], Geometry)
    except (msgspec.ValidationError, KeyError, TypeError) as error:
        raise BadSample("bad_json", f"objects[{k}].patch: {error}") from None
    crop: Box = geometry.crop
    if not (0 <= crop[0] <= crop[2] <= mask.width and 0 <= crop[1] <= crop[3] <= mask.height):
        raise BadSample("bad_json", f"objects[{k}].patch: crop {list(crop)} is no box of the picture")
    return cut_patch(rgb, mask, geometry.padding, crop).rgb


def read_meta(members: Mapping[str, bytes]) -> dict[str, Any] | None:
    """The json of a sample, None where it has none.

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
    objects = meta.get("objects")
    if not isinstance(objects, list) or not all(isinstance(entry, dict) for entry in objects):
        raise BadSample("bad_json", "describes no list of objects")
    if not all(isinstance(entry.get("mask"), dict) for entry in objects):
        raise BadSample("bad_json", "an object without mask")
    found: dict[str, Any] = meta
    return found


def count_objects(members: Mapping[str, bytes], meta: Mapping[str, Any] | None) -> int:
    """K of a sample whose members are complete, in either layout.

    Raises:
        BadSample: `missing_member`, `extra_member` or `bad_json`.
    """
    packed = {k for k, entry in enumerate(meta["objects"]) if "rle" in entry["mask"]} if meta else set[int]()
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
    if meta is not None and len(meta["objects"]) != count:
        raise BadSample("bad_json", f"describes {len(meta['objects'])} objects, the sample holds {count}")
    return count


def _mask(members: Mapping[str, bytes], name: str, rle: Any) -> BoxMask:
    if name in members:
        return box_mask(decode_mask_png(members[name]))
    try:
        height, width = rle["size"]
        return decode_segmentation(rle, height, width)
    except (TypeError, KeyError, ValueError, MemoryError) as error:
        raise BadSample("bad_json", f"run lengths in place of {name}: {error}") from None
