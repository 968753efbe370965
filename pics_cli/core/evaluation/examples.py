"""An example: a true picture of K objects, which methods composite again, with all that is known of it.

H, W: height and width of the picture; h, w: those of an object's reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.evaluation.pixel_metrics import MIN_DIFFERENT_PIXELS
from pics_cli.core.evaluation.subsets import estimate_relation, most_overlapping_pair
from pics_cli.core.images.cutouts import paste_object
from pics_cli.core.images.geometry import Box, clip_box, order_by_lower_edge, scale_box
from pics_cli.core.images.image_io import RGB, decode_image
from pics_cli.core.images.inpainting import fill_hole
from pics_cli.core.images.masks import Mask, box_mask
from pics_cli.core.loading.augment import cut_reference
from pics_cli.core.loading.training_sample import alternate_view
from pics_cli.core.recipes.sources import Pool
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import RenderedScene, render_scene
from pics_cli.core.scenes.drawn.spec import ScenePlan, SceneSettings
from pics_cli.core.shards.layouts import SampleParts, unpack_sample
from pics_cli.core.shards.samples import decode_clean_background, depth_order

Reference = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Overlap:
    """Two objects, one behind the other, so that their order shows.

    Attributes:
        where: both are, bool [H, W]; of a photograph, where the object in front probably hides the other.
        wrong_orders: the truth with the two in another order, uint8 [H, W, 3]; of one object inside another, with
            either wholly in front.
    """

    where: Mask
    wrong_orders: tuple[RGB, ...]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A picture of K objects whose truth is known. Pictures of which nothing else is known have K = 0.

    Attributes:
        key: its name, by which results are paired.
        background: uint8 [H, W, 3], without the objects: what every method is given.
        truth: uint8 [H, W, 3].
        references: of each object, uint8 [h, w, 4] with alpha or [h, w, 3] on white.
        paste_boxes: box of each object, with its hidden parts where they are known.
        regions: where each object may be painted: its paste box grown by 1 / object scale, clipped to the picture.
        given_boxes, given_regions: as paste boxes and regions, which are the true ones; models are given these instead;
            empty: they are given the true ones. See `coarse_regions`.
        order: back to front, guessed from the regions: what every method is given.
        visible_masks: what is seen of each object in the truth, bool [H, W].
        full_masks: with the parts that other objects hide; None where they are not known.
        shadow_masks: where each object's shadow falls in the truth, bool [H, W], as a data set says it; None where none
            does. Of a true background, what darkens it is the shadow.
        true_background: whether the background is the true picture without objects and their shadows, not inpainted.
        overlaps: every two objects that overlap, where the true order is known.
        pasted_orders: the truth's order in the light of the references, where those of `overlaps` are pasted.
        front_to_back: the true order; None where it is not known.
        relation: how the two objects that overlap most stand to each other, by the data or estimated; see `subsets`.
        iou: of the two paste boxes that overlap most.
    """

    key: str
    background: RGB
    truth: RGB
    references: tuple[Reference, ...] = ()
    paste_boxes: tuple[Box, ...] = ()
    regions: tuple[Box, ...] = ()
    given_boxes: tuple[Box, ...] = ()
    given_regions: tuple[Box, ...] = ()
    order: tuple[int, ...] = ()
    visible_masks: tuple[Mask, ...] = ()
    full_masks: tuple[Mask, ...] | None = None
    shadow_masks: tuple[Mask, ...] | None = None
    true_background: bool = False
    overlaps: tuple[Overlap, ...] = ()
    pasted_orders: tuple[RGB, ...] = ()
    front_to_back: tuple[int, ...] | None = None
    relation: str
    iou: float = 0.0

    @cached_property
    def inside(self) -> Mask:
        """Union of the regions, bool [H, W]."""
        return region_counts(self.regions, *self.truth.shape[:2]) > 0

    @cached_property
    def allowed(self) -> Mask:
        """Where methods may change the picture: the union of the regions that models are given, bool [H, W]."""
        return region_counts(self.given_regions or self.regions, *self.truth.shape[:2]) > 0

    @cached_property
    def seen(self) -> Mask:
        """What is seen of any object in the truth, bool [H, W]."""
        seen: Mask = np.any(self.visible_masks, axis=0)
        return seen

    @property
    def wrong_orders(self) -> tuple[RGB, ...]:
        """The truth with two objects in another order, those of all overlaps."""
        return tuple(chain.from_iterable(overlap.wrong_orders for overlap in self.overlaps))

    @cached_property
    def overlap(self) -> Mask:
        """Where at least two regions overlap, bool [H, W]."""
        return region_counts(self.regions, *self.truth.shape[:2]) > 1


def region_counts(boxes: Sequence[Box], height: int, width: int) -> npt.NDArray[np.int32]:
    """How many boxes cover each pixel, int32 [H, W]."""
    counts = np.zeros((height, width), np.int32)
    for x0, y0, x1, y1 in boxes:
        counts[y0:y1, x0:x1] += 1
    return counts


def reverse_objects(example: Example) -> Example:
    """The same example with its objects listed the other way round."""
    last = len(example.references) - 1
    front = example.front_to_back
    return replace(
        example,
        references=example.references[::-1],
        paste_boxes=example.paste_boxes[::-1],
        regions=example.regions[::-1],
        given_boxes=example.given_boxes[::-1],
        given_regions=example.given_regions[::-1],
        order=tuple(last - k for k in example.order),
        visible_masks=example.visible_masks[::-1],
        full_masks=None if example.full_masks is None else example.full_masks[::-1],
        shadow_masks=None if example.shadow_masks is None else example.shadow_masks[::-1],
        front_to_back=None if front is None else tuple(last - k for k in front),
    )


def draw_example(
    settings: SceneSettings, seed: int, index: int, object_scale: float, pool: Pool = "held_out"
) -> Example:
    """Draw a scene, number `index` of a seed; a function of its arguments alone.

    Raises:
        PicsError: no room for the objects.
    """
    plan = plan_scene(settings, pool, seed, index)
    scene = render_scene(plan)
    boxes = tuple(box_mask(mask).box for mask in scene.full_masks)
    regions = tuple(clip_box(scale_box(box, 1 / object_scale), settings.size, settings.size) for box in boxes)
    a, b, iou = most_overlapping_pair(boxes)
    return Example(
        key=f"{index:08d}",
        background=scene.clean,
        truth=scene.image,
        references=scene.alternates,
        paste_boxes=boxes,
        regions=regions,
        order=tuple(order_by_lower_edge(regions)),
        visible_masks=scene.masks,
        full_masks=scene.full_masks,
        true_background=True,
        overlaps=tuple(_drawn_overlaps(plan, scene)),
        front_to_back=tuple(scene.order),
        relation=next(pair.relation for pair in scene.pairs if pair.objects == (a, b)),
        iou=iou,
    )


def _drawn_overlaps(plan: ScenePlan, scene: RenderedScene) -> Iterator[Overlap]:
    """Every two objects whose full masks overlap, with the scene drawn anew with the hindmost right before the other.

    And as they are, where one holds the other: then neither is wholly in front.
    """
    for pair in scene.pairs:
        front, behind = sorted(pair.objects, key=scene.order.index)
        where = scene.full_masks[front] & scene.full_masks[behind]
        if where.any():
            others = [k for k in scene.order if k != behind]
            place = others.index(front)
            orders = [[*others[:place], behind, *others[place:]]]
            orders += [list(scene.order)] if pair.relation == "containing" else []
            yield Overlap(where, tuple(render_scene(plan, order).image for order in orders))


def example_from_sample(key: str, members: Mapping[str, bytes], object_scale: float) -> Example:
    """A shard's sample, its members by extension and of either layout, as an example.

    References are the objects' other views where the sample has them, else cut from the picture itself. The background
    is the picture without objects where the sample has one, else the picture with its regions inpainted smoothly from
    what surrounds them.

    Raises:
        BadSample: a member is missing or damaged.
    """
    parts = unpack_sample(members)
    truth = decode_image(parts.image).rgb
    height, width = truth.shape[:2]
    count = len(parts.masks)
    whole_masks = [parts.amodal_masks.get(k, mask) for k, mask in enumerate(parts.masks)]
    references = tuple(
        cut_reference(truth, mask) if (view := alternate_view(parts, k)) is None else view
        for k, mask in enumerate(parts.masks)
    )
    boxes = tuple(mask.box for mask in whole_masks)
    regions = tuple(clip_box(scale_box(box, 1 / object_scale), width, height) for box in boxes)
    visible = tuple(mask.full() for mask in parts.masks)
    full = tuple(mask.full() for mask in whole_masks) if len(parts.amodal_masks) == count else None
    known_order = depth_order(parts.metadata, count)
    front = None if known_order is None else tuple(known_order)
    a, b, iou = most_overlapping_pair(boxes)
    relation = _stated_relation(parts, a, b) or estimate_relation(boxes, visible)
    clean = decode_clean_background(parts, (width, height))
    background = fill_hole(truth, region_counts(regions, height, width) > 0) if clean is None else clean
    example = Example(
        key=key, background=background, truth=truth, references=references, paste_boxes=boxes, regions=regions,
        order=tuple(order_by_lower_edge(regions)), visible_masks=visible, full_masks=full,
        true_background=clean is not None, front_to_back=front, relation=relation, iou=iou,
    )  # fmt: skip
    return with_guessed_order(with_pasted_orders(example))


def _stated_relation(parts: SampleParts, a: int, b: int) -> str | None:
    """The relation of two objects that a generator or people say, not that of their boxes; None where there is none."""
    for entry in parts.metadata.get("pairs") or ():
        if sorted(entry.get("objects", ())) == [a, b] and "subject" in entry:
            return str(entry.get("relation"))
    return None


def with_pasted_orders(example: Example) -> Example:
    """With the truth in other orders, where they are known: a reference pasted over where two objects are.

    That is with the hindmost in front; of an object inside another with either in front, for the truth is neither. A
    reference has another light than the scene, and a result has either: each is pasted as it is, and with the colours
    that the truth has where it is seen alone.
    """
    full, front, truth = example.full_masks, example.front_to_back, example.truth
    if full is None or front is None or len(full) != 2 or not (both := full[0] & full[1]).any():
        return example
    right, wrong = truth.copy(), []
    for k, visible in enumerate(example.visible_masks):
        pasted = truth.copy()
        paste_object(pasted, example.paste_boxes[k], example.references[k])
        right[visible] = pasted[visible]
        if example.relation == "containing" or k == front[1]:
            lit = np.clip(pasted * _gain(pasted, truth, visible & ~both), 0, 255).astype(np.uint8)
            wrong += [np.where(both[..., None], picture, truth) for picture in (pasted, lit)]
    return replace(example, overlaps=(Overlap(both, tuple(wrong)),), pasted_orders=(right,))


def with_guessed_order(example: Example) -> Example:
    """Of a photograph of two objects whose order people say: the truth with the hindmost one in front, as guessed.

    It probably goes on where the convex hull of what is seen of it meets the object before it, in colours filled
    smoothly from what is seen of it.
    """
    front, visible = example.front_to_back, example.visible_masks
    if example.full_masks is not None or front is None or len(front) != 2 or not visible[front[1]].any():
        return example
    behind = visible[front[1]]
    outline = cv2.convexHull(cv2.findNonZero(behind.view(np.uint8)))
    hull = cv2.fillConvexPoly(np.zeros(behind.shape, np.uint8), outline, 1).view(np.bool_)
    covered = hull & visible[front[0]] & ~behind
    wrong = np.where(covered[..., None], fill_hole(example.truth, ~behind), example.truth)
    return replace(example, overlaps=(Overlap(covered, (wrong,)),)) if covered.any() else example


def _gain(picture: RGB, truth: RGB, where: Mask) -> npt.NDArray[np.float64]:
    """Factor on each colour from a picture to the truth, [3] in 0.2..5; 1 where too few pixels tell it."""
    if np.count_nonzero(where) < MIN_DIFFERENT_PIXELS:
        return np.ones(3)
    gain: npt.NDArray[np.float64] = np.clip(truth[where].sum(0) / np.maximum(picture[where].sum(0), 1), 0.2, 5.0)
    return gain
