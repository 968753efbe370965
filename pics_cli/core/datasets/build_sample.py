"""A scene and the group chosen from it become the members of a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from pics_cli.core.datasets.compat import compat_crop
from pics_cli.core.datasets.pairs import FAULTS, Group, find_fault
from pics_cli.core.datasets.rechoice import Rechoice
from pics_cli.core.datasets.scene import SCENE_NOTES, DrawnImage, FloatBox, Instance, KnownPair, Scene, Skip
from pics_cli.core.images.cutouts import cut_patch, padding_ratios
from pics_cli.core.images.geometry import Box, box_relation, iou_of_two
from pics_cli.core.images.image_io import decode_image, encode_jpeg, encode_png
from pics_cli.core.images.masks import BoxMask
from pics_cli.core.recipes.dataset import DatasetRecipe
from pics_cli.core.shards.layouts import SCHEMA_VERSION, Members, PatchGeometry, SampleParts, pack_sample
from pics_cli.errors import BadSample

_MIN_MASK_PIXELS = 10
# What is counted about samples that are made all the same; the texts explain the words to the user.
NOTES = (
    FAULTS
    | SCENE_NOTES
    | {"turned_by_exif": "pictures that EXIF data turns: their annotations must be of the upright picture"}
)


def build_sample(
    scene: Scene, group: Group, recipe: DatasetRecipe, split: str, notes: Counter[str] | None = None
) -> Members | Skip:
    """Decode a chosen group and cut its patches.

    Args:
        scene: the image.
        group: what was chosen by its annotation; chosen again where masks contradict it.
        recipe, split: of the dataset.
        notes: what of `NOTES` was found is counted here.

    Raises:
        BadSample: image or mask cannot be read, or they do not fit each other.
    """
    notes = Counter[str]() if notes is None else notes
    drawn = scene.draw() if scene.draw else None
    data = drawn.image if drawn else scene.read_image()
    picture = decode_image(data, (scene.width, scene.height))
    if picture.turned:
        notes["turned_by_exif"] += 1
    settled = _settle(scene, group, recipe, notes)
    if isinstance(settled, Skip):
        return settled
    group, instances, masks = settled
    if not recipe.compat and any(mask.area < _MIN_MASK_PIXELS for mask in masks):
        return Skip("tiny_mask")
    if any(mask.area == mask.width * mask.height for mask in masks):
        return Skip("full_mask")
    crops = [compat_crop(mask) if recipe.compat else mask.box for mask in masks]
    ratios = padding_ratios(recipe.patches.padding, recipe.seed, scene.key, len(group))
    # Patches are cut from the stored image, so that reading gives them again; in compat from the source, as published.
    stored, rgb = picture.source, picture.rgb
    patches: list[bytes | None] = [None] * len(masks)
    if stored is None:
        stored = encode_jpeg(rgb)
        if recipe.compat:
            patches = [encode_png(cut_patch(rgb, *cut).rgb) for cut in zip(masks, ratios, crops, strict=True)]
        else:
            rgb = decode_image(stored).rgb
    meta = {
        "schema": SCHEMA_VERSION, "dataset": recipe.name, "split": split, "image_id": scene.image_id,
        "width": scene.width, "height": scene.height,
        "objects": [_describe(*parts) for parts in zip(instances, masks, crops, ratios, strict=True)],
        "pairs": box_pairs([instance.box for instance in instances]),
    }  # fmt: skip
    geometry = [PatchGeometry(crop, ratio) for crop, ratio in zip(crops, ratios, strict=True)]
    parts = SampleParts(stored, masks, meta, geometry, patches)
    if drawn:
        _add_ground_truth(parts, drawn, group)
    elif scene.known_pairs:
        _add_known_pairs(parts.metadata, scene.known_pairs, group)
    return pack_sample(parts, recipe.shards.layout, rgb)


def _add_ground_truth(parts: SampleParts, drawn: DrawnImage, group: Group) -> None:
    """What only the generator of a drawn image knows; instances become the sample's objects."""
    number = {instance: k for k, instance in enumerate(group)}
    parts.amodal_masks = {k: drawn.amodal_masks[instance] for instance, k in number.items()}
    parts.extra_members = {"clean.jpg": drawn.clean}
    parts.extra_members |= {
        f"alt{k}.png": encode_png(drawn.alternate_views[instance]) for instance, k in number.items()
    }
    parts.metadata["order"] = [number[instance] for instance in drawn.order if instance in number]
    parts.metadata["light"] = drawn.lighting.to_json()
    for pair in parts.metadata["pairs"]:
        low, high = sorted(group[k] for k in pair["objects"])
        pair["relation"], subject = drawn.relations[low, high]
        pair["subject"] = number[subject]


def _add_known_pairs(metadata: dict[str, Any], known: Mapping[tuple[int, int], KnownPair], group: Group) -> None:
    """What people say of a pair; instances become the sample's objects."""
    low, high = sorted(group)
    pair = known[low, high]
    if pair.front is not None:
        metadata["order"] = sorted(range(2), key=lambda k: group[k] != pair.front)
    if pair.relation is not None:
        (entry,) = metadata["pairs"]
        entry["relation"], entry["subject"] = pair.relation.relation, group.index(pair.relation.subject)


def box_pairs(boxes: Sequence[FloatBox]) -> list[dict[str, Any]]:
    """IoU and relation of every two boxes, as the json of a sample gives them."""
    return [
        {"objects": [i, j], "iou": float(iou_of_two(a, b)), "relation": box_relation(a, b)}
        for (i, a), (j, b) in combinations(enumerate(boxes), 2)
    ]


def _settle(
    scene: Scene, group: Group, recipe: DatasetRecipe, notes: Counter[str]
) -> tuple[Group, list[Instance], list[BoxMask]] | Skip:
    """A group and its objects with their masks; another group where the annotation contradicts the masks of the first.

    Masks are decoded for what was chosen alone, so that a choice costs no drawing.
    """
    masks: dict[int, BoxMask] = {}
    trusted = recipe.compat or scene.draw is not None
    instances: Sequence[Instance] = scene.instances
    rechoice, first_fault = None, ""
    while True:
        masks |= {i: _decode_mask(instances[i]) for i in group if i not in masks}
        fault = None if trusted else find_fault(instances, group, masks, recipe.pairs)
        if fault is None:
            return group, [instances[i] for i in group], [masks[i] for i in group]
        reason, faulty, mended = fault
        notes[reason] += 1
        first_fault = first_fault or reason
        rechoice = rechoice or Rechoice(scene, recipe.pairs)
        rechoice.mend(faulty, mended)
        instances, chosen = rechoice.instances, rechoice.choose()
        if isinstance(chosen, Skip):
            return Skip(first_fault)
        group = chosen


def _decode_mask(instance: Instance) -> BoxMask:
    if instance.mask is None:
        raise BadSample("bad_mask", "the chosen object has no mask")
    mask = instance.mask()
    if not mask.area:
        what = f"annotation {instance.annotation_id}" if instance.annotation_id is not None else "a chosen object"
        raise BadSample("empty_mask", f"{what}: area {instance.area:g} annotated, but its mask has no pixel inside")
    return mask


def _describe(instance: Instance, mask: BoxMask, crop: Box, padding: float) -> dict[str, Any]:
    return {
        "category": instance.category, "category_id": instance.category_id, "annotation_id": instance.annotation_id,
        "box": list(mask.box), "annotated_box": list(instance.box), "area": instance.area, "pixels": mask.area,
        "mask": {"source": instance.mask_source} | ({} if instance.score is None else {"score": instance.score}),
        "patch": {"crop": list(crop), "padding": padding},
    }  # fmt: skip
