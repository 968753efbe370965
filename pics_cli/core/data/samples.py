"""A sample: scene and group to the members of a shard, and members back to arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from pics_cli.core.data.masks import BoxMask, Mask, decode_mask_png
from pics_cli.core.data.pairs import Group
from pics_cli.core.data.patches import Patch, cut_patch, padding_ratios
from pics_cli.core.data.pictures import RGB, decode_picture, encode_jpeg, encode_png, read_first
from pics_cli.core.data.scene import Instance, Scene, Skip
from pics_cli.core.geometry import box_iou, relation
from pics_cli.errors import BadSample

SCHEMA = 1
MIN_MASK_PIXELS = 10

Members = dict[str, bytes]
"""Extension (`bg.jpg`, `obj0.png`, …) to contents, in the order in which they are written."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A decoded sample.

    Attributes:
        background: uint8 RGB [H, W, 3].
        references: K patches, uint8 RGB [224, 224, 3].
        masks: K target masks, bool [H, W].
        meta: the json of the sample, None in the research project's shards.
    """

    key: str
    background: RGB
    references: tuple[RGB, ...]
    masks: tuple[Mask, ...]
    meta: dict[str, Any] | None


def escape_key(key: str) -> str:
    """A key that holds no dot and no slash, reversibly: webdataset splits names at the first dot."""
    return quote(key, safe="", errors="surrogateescape").replace(".", "%2E")


def unescape_key(key: str) -> str:
    """Inverse of `escape_key`."""
    return unquote(key, errors="surrogateescape")


def build_sample(scene: Scene, group: Group, seed: int, dataset: str, split: str) -> Members | Skip:
    """Decode a chosen group and cut its patches.

    Raises:
        BadSample: picture or mask cannot be read, or they do not fit each other.
    """
    instances = [scene.instances[i] for i in group]
    picture = decode_picture(read_first(scene.files), (scene.width, scene.height))
    masks = [_decode_mask(instance) for instance in instances]
    if any(mask.area < MIN_MASK_PIXELS for mask in masks):
        return Skip("tiny_mask")
    if any(mask.area == mask.width * mask.height for mask in masks):
        return Skip("full_mask")
    ratios = padding_ratios(seed, scene.key, len(group))
    patches = [cut_patch(picture.rgb, mask, ratio) for mask, ratio in zip(masks, ratios, strict=True)]
    members = {"bg.jpg": picture.source or encode_jpeg(picture.rgb)}
    for k, (mask, patch) in enumerate(zip(masks, patches, strict=True)):
        members[f"obj{k}.png"] = encode_png(patch.rgb)
        members[f"mask{k}.png"] = mask.png()
    meta = {
        "schema": SCHEMA, "dataset": dataset, "split": split, "image_id": scene.image_id,
        "width": scene.width, "height": scene.height,
        "objects": [_describe(*parts) for parts in zip(instances, masks, patches, strict=True)],
        "pairs": _pairs(instances),
    }  # fmt: skip
    members["json"] = json.dumps(meta, separators=(",", ":")).encode()
    return members


def decode_sample(key: str, members: Mapping[str, bytes]) -> Sample:
    """Decode the members of a sample, ours or the research project's, in any order.

    Raises:
        BadSample: a member is missing or damaged, or a mask does not fit its picture.
    """
    count = count_objects(members)
    try:
        meta = json.loads(members["json"]) if "json" in members else None
    except ValueError as error:
        raise BadSample("bad_json", str(error)) from None
    background = decode_picture(members["bg.jpg"]).rgb
    references, masks = [], []
    for k in range(count):
        try:
            references.append(decode_picture(members[f"obj{k}.png"]).rgb)
        except BadSample as error:
            raise BadSample("bad_reference", f"obj{k}.png: {error.detail}") from None
        mask = decode_mask_png(members[f"mask{k}.png"])
        if mask.shape != background.shape[:2]:
            raise BadSample(
                "mask_size", f"mask{k}.png is {_size(mask)}, its picture {_size(background)} (width x height)"
            )
        if not mask.any():
            raise BadSample("empty_mask", f"mask{k}.png has no pixel set")
        if mask.all():
            raise BadSample("full_mask", f"mask{k}.png covers the whole picture")
        masks.append(mask)
    return Sample(key, background, tuple(references), tuple(masks), meta)


def count_objects(members: Mapping[str, bytes]) -> int:
    """K of a sample whose members are complete.

    Raises:
        BadSample: `missing_member` or `extra_member`.
    """
    count = 0
    while f"obj{count}.png" in members or f"mask{count}.png" in members:
        count += 1
    wanted = {"bg.jpg", *(f"{kind}{k}.png" for kind in ("obj", "mask") for k in range(max(1, count)))}
    if missing := sorted(wanted - members.keys()):
        raise BadSample("missing_member", f"no {', '.join(missing)}")
    optional = {"json", "clean.jpg", *(f"{kind}{k}.png" for kind in ("alt", "full") for k in range(count))}
    if extra := sorted(members.keys() - wanted - optional):
        raise BadSample("extra_member", f"unexpected {', '.join(extra)}")
    return count


def _decode_mask(instance: Instance) -> BoxMask:
    if instance.mask is None:
        raise BadSample("bad_mask", "the chosen object has no mask")
    mask = instance.mask()
    if not mask.area:
        what = f"annotation {instance.annotation_id}" if instance.annotation_id is not None else "a chosen object"
        raise BadSample("empty_mask", f"{what}: area {instance.area:g} annotated, but its mask has no pixel inside")
    return mask


def _describe(instance: Instance, mask: BoxMask, patch: Patch) -> dict[str, Any]:
    return {
        "category": instance.category, "category_id": instance.category_id, "annotation_id": instance.annotation_id,
        "box": list(mask.box), "annotated_box": list(instance.box), "area": instance.area, "pixels": mask.area,
        "mask": {"source": instance.mask_source},
        "patch": {"crop": list(patch.crop), "padding": patch.padding},
    }  # fmt: skip


def _pairs(instances: list[Instance]) -> list[dict[str, Any]]:
    boxes = np.array([instance.box for instance in instances], np.float64)
    iou = box_iou(boxes, boxes)
    return [
        {"objects": [i, j], "iou": float(iou[i, j]), "relation": relation(boxes[i], boxes[j])}
        for i, j in combinations(range(len(instances)), 2)
    ]


def _size(array: Mask | RGB) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
