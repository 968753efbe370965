"""Samples of shards as cases: each picture to be rebuilt from its references."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.evaluation.descriptor import describe
from pics_cli.core.evaluation.job import Peer, pictures
from pics_cli.core.evaluation.pixel_metrics import union
from pics_cli.core.evaluation.subsets import UNKNOWN, judged_relation, nearest
from pics_cli.core.images.cutouts import OPAQUE_ALPHA, cut_out, paste_object
from pics_cli.core.images.geometry import Box, box_iou, clip_box, order_by_lower_edge, scale_box
from pics_cli.core.images.image_io import RGB, decode_image
from pics_cli.core.images.inpainting import fill_hole
from pics_cli.core.images.masks import Mask
from pics_cli.core.loading.augment import cut_reference
from pics_cli.core.loading.training_sample import alternate_view
from pics_cli.core.recipes.dataset import Pool
from pics_cli.core.runtime.files import file_sha256
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import render_scene
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.core.shards.layouts import SampleParts, unpack_sample
from pics_cli.core.shards.samples import decode_clean_background, depth_order
from pics_cli.errors import BadSample, PicsError

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Case:
    """A picture of K objects whose truth is known.

    Attributes:
        key: its name, by which results are paired.
        background: uint8 [H, W, 3], without the objects: what every method is given.
        truth: uint8 [H, W, 3].
        references: of each object, uint8 [h, w, 4] with alpha or [h, w, 3] on white.
        places: box of each object, with its hidden parts where they are known.
        regions: where each may be painted: the places grown, inside the picture.
        order: back to front as a guess by the regions: what every method is given.
        visible: what is seen of each object in truth, bool [H, W].
        full: with the parts that other objects hide; None where nobody knows them.
        clean: whether the background is the true picture without objects and their shadows, not filled in.
        wrong: the truth with the objects in other orders, where it is known and they overlap.
        front: the true order, front to back; None where nobody knows it.
        relation: how the two objects that overlap most stand to each other: one of synth's where the data says it,
            else by boxes and masks, see `strata`.
        iou: of the two places that overlap most.
    """

    key: str
    background: RGB
    truth: RGB
    references: tuple[Bytes, ...]
    places: tuple[Box, ...]
    regions: tuple[Box, ...]
    order: tuple[int, ...]
    visible: tuple[Mask, ...]
    full: tuple[Mask, ...] | None
    clean: bool
    wrong: tuple[RGB, ...]
    front: tuple[int, ...] | None
    relation: str
    iou: float = 0.0


def turned(case: Case) -> Case:
    """The same case with its objects listed the other way round."""
    count = len(case.references)
    return replace(
        case,
        references=case.references[::-1],
        places=case.places[::-1],
        regions=case.regions[::-1],
        order=tuple(count - 1 - k for k in case.order),
        visible=case.visible[::-1],
        full=None if case.full is None else case.full[::-1],
        front=None if case.front is None else tuple(count - 1 - k for k in case.front),
    )


def reference_descriptors(references: Sequence[Bytes]) -> npt.NDArray[np.float32]:
    """Of pictures with alpha or on white: float32 [K, d]."""
    cuts = [each if each.shape[2] == 4 else cut_out(each) for each in references]
    return np.stack([describe(each[..., :3], each[..., 3] >= OPAQUE_ALPHA) for each in cuts])


# Numbers of the scenes whose objects are only there to be told apart from: beyond those that are measured.
_OTHERS, OTHER_SCENES = 10_000_000, 24


def make_case(style: SceneSettings, seed: int, index: int, fill: float, pool: Pool = "held_out") -> Case:
    """Draw a scene; a function of its arguments alone.

    Args:
        style: of two objects.
        seed, index: which scene.
        fill: share of a region's sides that the object's place takes.
        pool: of shapes, colours and textures.

    Raises:
        PicsError: no room for the objects.
    """
    plan = plan_scene(style, pool, seed, index)
    scene = render_scene(plan)
    (pair,) = scene.pairs
    places = tuple(bounds(mask) for mask in scene.full_masks)
    size = style.size
    regions = tuple(clip_box(scale_box(place, 1 / fill), size, size) for place in places)
    orders = [scene.order[::-1]] + ([scene.order] if pair.relation == "containing" else [])
    overlap = bool(np.any(scene.full_masks[0] & scene.full_masks[1]))
    wrong = tuple(render_scene(plan, order).image for order in orders) if overlap else ()
    return Case(
        key=f"{index:08d}",
        background=scene.clean,
        truth=scene.image,
        references=scene.alternates,
        places=places,
        regions=regions,
        order=tuple(order_by_lower_edge(regions)),
        visible=scene.masks,
        full=scene.full_masks,
        clean=True,
        wrong=wrong,
        front=tuple(scene.order),
        relation=pair.relation,
        iou=float(box_iou(*(np.array([place], np.float64) for place in places))[0, 0]),
    )


def bounds(mask: Mask) -> Box:
    """Box of a mask's set pixels."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x, y, x + width, y + height


def other_cases(style: SceneSettings, seed: int, fill: float, pool: Pool = "held_out") -> list[Case]:
    """Scenes that are not measured: their objects are there to be told apart from."""
    found = []
    for number in range(OTHER_SCENES):
        with contextlib.suppress(PicsError):  # no room for the objects
            found.append(make_case(style, seed, _OTHERS + number, fill, pool))
    return found


CONTAINING = "containing"


def case_of(key: str, members: Mapping[str, bytes], fill: float) -> Case:
    """A sample as a case.

    References are the objects seen differently where the sample has that, else cut from the picture itself. The
    background is the picture without objects where the sample has one, else the picture with its regions filled
    smoothly from what surrounds them.

    Args:
        key: of the sample.
        members: by extension, of either layout.
        fill: share of a region's sides that the object's place takes.

    Raises:
        BadSample: a member is missing or damaged.
    """
    parts = unpack_sample(members)
    truth = decode_image(parts.image).rgb
    height, width = truth.shape[:2]
    masks = parts.masks
    shown = [parts.amodal_masks.get(k, mask) for k, mask in enumerate(masks)]
    references = tuple(_reference(parts, truth, k) for k in range(len(masks)))
    places = tuple(each.box for each in shown)
    regions = tuple(clip_box(scale_box(place, 1 / fill), width, height) for place in places)
    visible = tuple(mask.full() for mask in masks)
    full = tuple(each.full() for each in shown) if len(parts.amodal_masks) == len(masks) else None
    order = depth_order(parts.metadata, len(masks))
    front = None if order is None else tuple(order)
    *pair, iou = nearest(places)
    relation = (_relation(parts, pair) if front is not None else None) or judged_relation(places, visible)
    clean = decode_clean_background(parts, (width, height))
    background = fill_hole(truth, union(regions, height, width)) if clean is None else clean
    wrong = () if full is None or front is None else _wrong(truth, places, references, full, front, relation)
    return Case(
        key=key, background=background, truth=truth, references=references, places=places, regions=regions,
        order=tuple(order_by_lower_edge(regions)), visible=visible, full=full, clean=clean is not None, wrong=wrong,
        front=front, relation=relation, iou=iou,
    )  # fmt: skip


def _reference(parts: SampleParts, truth: RGB, k: int) -> Bytes:
    other = alternate_view(parts, k)
    return cut_reference(truth, parts.masks[k]) if other is None else other


def _relation(parts: SampleParts, pair: Sequence[int]) -> str | None:
    """What a drawn sample says of two of its objects."""
    for entry in parts.metadata.get("pairs") or ():
        if sorted(entry.get("objects", ())) == sorted(pair):
            return str(entry.get("relation"))
    return None


def _wrong(
    truth: RGB,
    places: Sequence[Box],
    references: Sequence[Bytes],
    full: Sequence[Mask],
    front: tuple[int, ...],
    relation: str,
) -> tuple[RGB, ...]:
    """The truth with two objects in other orders, drawn with their references where both are.

    The other one in front; of an object inside another either one in front, for the truth is neither.
    """
    if len(places) != 2:
        return ()
    both = full[0] & full[1]
    if not both.any():
        return ()
    found = []
    for k in front if relation == CONTAINING else front[1:]:
        pasted = truth.copy()
        paste_object(pasted, places[k], references[k])
        found.append(np.where(both[..., None], pasted, truth))
    return tuple(found)


_SHOWN = 3


class FolderCases:
    """Reference pictures by their names without suffix, in their order; see `Cases`.

    Raises:
        PicsError: no such folder, or no picture in it.
    """

    warnings: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        self.files = pictures(folder, "--reference")
        listing = "\n".join(f"{key}\0{file_sha256(path)}" for key, path in self.files.items())
        self.keys = list(self.files)
        self.provenance = {"kind": "pictures", "pictures": len(self.keys),
                           "listing": hashlib.sha256(listing.encode()).hexdigest()}  # fmt: skip

    def __len__(self) -> int:
        return len(self.keys)

    def case(self, number: int) -> Case:
        """The picture of that number."""
        key = self.keys[number]
        try:
            truth = decode_image(self.files[key].read_bytes()).rgb
        except OSError as error:
            raise BadSample("unreadable_image", f"{self.files[key]}: {error}") from None
        return Case(
            key=key, background=np.zeros_like(truth), truth=truth, references=(), places=(), regions=(), order=(),
            visible=(), full=None, clean=False, wrong=(), front=None, relation=UNKNOWN,
        )  # fmt: skip

    def others(self) -> list[Case]:
        """None: there are no objects to tell apart."""
        return []


def check_common(cases: FolderCases, peers: Sequence[Peer]) -> None:
    """Raise PicsError for a folder that has no picture of the same name as any reference."""
    for peer in peers:
        found = list(peer.files)
        if not set(found) & set(cases.keys):
            ours, theirs = (", ".join(keys[:_SHOWN]) for keys in (cases.keys, found))
            raise PicsError(
                f"--input {peer.folder}: no sample in common with --reference: {theirs}, … against {ours}, …",
                "pictures are paired by their names without suffix",
            )
