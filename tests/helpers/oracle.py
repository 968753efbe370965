"""What samples must hold, written a second time: plain, slow, and without a line of the package.

Sources: COCO's formats as pycocotools defines them, the research builder's steps as reference/data.md tells them, with
the corrections that the design asks for (half-open boxes, tiny masks skipped, one rule for contained boxes).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools.coco import COCO

Bools = npt.NDArray[np.bool_]
RGB = npt.NDArray[np.uint8]
FloatBox = tuple[float, float, float, float]

# --- masks ------------------------------------------------------------------------------------------------------------


def unpack_counts(text: str | bytes) -> list[int]:
    """COCO's compressed run lengths: 5 bits a character from chr(48) on, bit 6 says more follow, the last one's fifth
    bit is the sign; from the fourth count on what is stored is the difference to the count two before."""
    data = text.encode() if isinstance(text, str) else text
    counts: list[int] = []
    at = 0
    while at < len(data):
        value, shift = 0, 0
        while True:
            char = data[at] - 48
            at += 1
            value |= (char & 31) << shift
            shift += 5
            if not char & 32:
                break
        if char & 16:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
    return counts


def pack_counts(counts: Sequence[int]) -> str:
    """Inverse of `unpack_counts`."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            char = value & 31
            value >>= 5
            more = value != (-1 if char & 16 else 0)
            text += chr(48 + char + (32 if more else 0))
            if not more:
                break
    return text


def runs_to_mask(counts: Sequence[int], height: int, width: int) -> Bools:
    """Runs of zeros and ones in turn, zeros first, down the columns."""
    flat: list[bool] = []
    for i, count in enumerate(counts):
        flat += [i % 2 == 1] * count
    assert len(flat) == height * width
    columns = [flat[x * height : (x + 1) * height] for x in range(width)]
    return np.array(columns, bool).T


def mask_to_runs(mask: Bools) -> list[int]:
    """Inverse of `runs_to_mask`."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def usable_parts(polygons: Sequence[Sequence[float]]) -> list[list[float]]:
    """Parts of three points or more."""
    return [list(part) for part in polygons if len(part) >= 6 and len(part) % 2 == 0]


def draw(segmentation: Any, height: int, width: int) -> Bools:
    """A segmentation over the whole frame: polygons by pycocotools, run lengths by loops of our own."""
    if isinstance(segmentation, dict):
        assert list(segmentation["size"]) == [height, width]
        counts = segmentation["counts"]
        return runs_to_mask(counts if isinstance(counts, list) else unpack_counts(counts), height, width)
    coco = COCO()
    coco.imgs = {0: {"height": height, "width": width}}
    return coco.annToMask({"image_id": 0, "segmentation": usable_parts(segmentation)}) == 1


def tight_box(mask: Bools) -> tuple[int, int, int, int]:
    """Half-open box of the set pixels."""
    rows, columns = [np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0)]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def art(text: str) -> Bools:
    """A mask drawn in text: `#` is set, `.` is not."""
    return np.array([[char == "#" for char in row] for row in text.split()])


# --- boxes and the choice ---------------------------------------------------------------------------------------------


def iou(a: FloatBox, b: FloatBox) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    if across <= 0 or down <= 0:
        return 0.0
    shared = across * down
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def iou_of_pixels(a: Sequence[int], b: Sequence[int], size: int) -> float:
    """IoU of two int boxes by counting cells of a square grid."""
    both = either = 0
    for y in range(size):
        for x in range(size):
            in_a = a[0] <= x < a[2] and a[1] <= y < a[3]
            in_b = b[0] <= x < b[2] and b[1] <= y < b[3]
            both += in_a and in_b
            either += in_a or in_b
    return both / either if either else 0.0


def inside(inner: Sequence[float], outer: Sequence[float]) -> bool:
    """No side of the inner box stands out by more than 2 px."""
    if inner[0] < outer[0] - 2:
        return False
    if inner[1] < outer[1] - 2:
        return False
    if inner[2] > outer[2] + 2:
        return False
    return not inner[3] > outer[3] + 2


def relation(a: Sequence[float], b: Sequence[float]) -> str:
    if inside(a, b) or inside(b, a):
        return "containing"
    gap_x = max(a[0], b[0]) - min(a[2], b[2])
    gap_y = max(a[1], b[1]) - min(a[3], b[3])
    if gap_x < 0 and gap_y < 0:
        return "overlapping"
    return "touching" if gap_x <= 2 and gap_y <= 2 else "apart"


@dataclass(frozen=True)
class Rule:
    """The part of a recipe that chooses."""

    objects: int = 2
    rule: str = "max_iou"
    ratio: float = 0.02
    contained: str = "drop"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    disagree: str = "drop"


@dataclass(frozen=True)
class Thing:
    """One annotated object."""

    box: FloatBox
    area: float
    category: str | None = None
    category_id: int | None = None
    annotation_id: int | None = None
    crowd: bool = False
    segmentation: Any = None
    source: str | None = None


def choose(things: Sequence[Thing], width: int, height: int, rule: Rule) -> tuple[int, ...] | str:
    """Indices of the group, or the reason why there is none."""
    if not things:
        return "no_annotations"
    large = []
    for i, thing in enumerate(things):
        if thing.crowd or thing.area <= rule.ratio * (width * height):
            continue
        if thing.box[2] <= thing.box[0] or thing.box[3] <= thing.box[1]:
            continue
        if (rule.include and thing.category not in rule.include) or thing.category in rule.exclude:
            continue
        large.append(i)
    if len(large) < rule.objects:
        return "too_few_objects"
    large = [i for i in large if things[i].segmentation is not None]
    if len(large) < rule.objects:
        return "no_masks"

    def legal(i: int, j: int) -> bool:
        a, b = things[i].box, things[j].box
        return rule.contained == "keep" or not (inside(a, b) or inside(b, a))

    if rule.objects == 1 or rule.rule == "largest":
        ranked = sorted(large, key=lambda i: -things[i].area)
        if rule.objects == 1:
            return (ranked[0],)
        pairs = [pair for pair in combinations(ranked, 2) if legal(*pair)]
        if not pairs:
            return "only_contained"
        taken = list(pairs[0])
        for i in ranked:
            if len(taken) < rule.objects and i not in taken and all(legal(i, j) for j in taken):
                taken.append(i)
        return tuple(taken) if len(taken) == rule.objects else "group_too_small"
    best, best_iou, overlap = None, 0.0, False
    for i, j in combinations(large, 2):
        value = iou(things[i].box, things[j].box)
        overlap = overlap or value > 0
        if legal(i, j) and value > best_iou:
            best, best_iou = (i, j), value
    if best is None:
        return "only_contained" if overlap else "no_overlap"
    group: tuple[int, ...] = best
    while len(group) < rule.objects:
        found, found_iou = None, 0.0
        for i in large:
            if i in group or not all(legal(i, j) for j in group):
                continue
            value = max(iou(things[i].box, things[j].box) for j in group)
            if value > found_iou:
                found, found_iou = i, value
        if found is None:
            return "group_too_small"
        group = (*group, found)
    return group


def contradiction(picture: Picture, group: Sequence[int], masks: Mapping[int, Bools], rule: Rule) -> Any:
    """What a chosen object's mask says against its annotation: the word, the object, what it counts as from then on."""
    for i in group:
        thing, pixels = picture.things[i], int(masks[i].sum())
        if pixels <= rule.ratio * (picture.width * picture.height):
            return "small_mask", i, replace(thing, area=pixels)
        x0, y0, x1, y1 = thing.box
        in_frame = (max(x0, 0), max(y0, 0), min(x1, picture.width), min(y1, picture.height))
        if rule.disagree == "drop" and iou(in_frame, tight_box(masks[i])) < 0.5:
            return "box_mask_disagree", i, replace(thing, crowd=True)
    for i, j in combinations(sorted(group), 2):
        if (masks[i] & masks[j]).sum() >= 0.8 * (masks[i] | masks[j]).sum():
            return "duplicate_object", j, replace(picture.things[j], crowd=True)
    return None


# --- patches and samples ----------------------------------------------------------------------------------------------


def cut_patch(rgb: RGB, mask: Bools, padding: float) -> RGB:
    """White outside the mask, crop, pad, square, 224."""
    x0, y0, x1, y1 = tight_box(mask)
    white = rgb.copy()
    white[~mask] = 255
    crop = white[y0:y1, x0:x1]
    for target in ("padding", "square"):
        height, width = crop.shape[:2]
        if target == "padding":
            down, across = int(height * padding), int(width * padding)
        else:
            down = across = max(height, width)
        top, left = (down - height) // 2, (across - width) // 2
        sides = ((top, down - height - top), (left, across - width - left), (0, 0))
        crop = np.pad(crop, sides, constant_values=255)
    return cv2.resize(crop, (224, 224), interpolation=cv2.INTER_LINEAR)


def read_rgb(data: bytes) -> RGB:
    """Pixels as the file stores them."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def read_mask(data: bytes) -> Bools:
    """A mask member, which must be a PNG of one bit a pixel."""
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode) == ("PNG", "1")
    return np.asarray(image)


def escape(key: str) -> str:
    """Letters, digits, `_`, `-` and `~` stay; every other byte becomes %XX."""
    return "".join(
        char if char.isascii() and (char.isalnum() or char in "_-~") else "".join(f"%{b:02X}" for b in char.encode())
        for char in key
    )


def read_tars(folder: Path) -> dict[str, dict[str, bytes]]:
    """Key to members of every sample in a folder's shards, in order; names are split at their first dot."""
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                key, _, extension = info.name.partition(".")
                members = samples.setdefault(key, {})
                file = tar.extractfile(info)
                assert extension not in members
                assert file is not None
                members[extension] = file.read()
    return samples


def write_tar(path: Path, samples: Mapping[str, Mapping[str, bytes]]) -> None:
    """A shard of samples as they are given."""
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for name, data in members.items():
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@dataclass
class Picture:
    """One picture of a split: its frame, its objects and the file it should be read from.

    Attributes:
        rgb: upright pixels where the file is not an upright RGB JPEG, so that it is encoded anew.
        fault: the reason for which it cannot be used at all.
    """

    key: str
    image_id: int | str
    width: int
    height: int
    things: list[Thing]
    path: Path
    rgb: RGB | None = None
    fault: str | None = None


@dataclass
class Expected:
    """What a build of some pictures must come to."""

    dataset: str
    split: str
    rule: Rule = field(default_factory=Rule)

    def compare(self, pictures: Iterable[Picture], out: Path) -> Counter[str]:
        """Assert that the shards and the manifest in `out` are what the pictures give; count what became of them."""
        manifest = json.loads((out / "manifest.json").read_text())
        samples = read_tars(out)
        outcome: Counter[str] = Counter()
        kept = []
        for picture in pictures:
            fate = picture.fault or self._check_picture(picture, samples.get(escape(picture.key)))
            outcome[fate] += 1
            if fate == "kept":
                kept.append(escape(picture.key))
        assert list(samples) == kept
        assert manifest["samples"] == len(kept)
        told = Counter({"kept": manifest["samples"]}) + Counter(manifest["skipped"])
        told += Counter(manifest["bad"]["pictures"])
        assert +outcome == +told
        assert sum(told.values()) == manifest["pictures"]
        return outcome

    def _check_picture(self, picture: Picture, members: Mapping[str, bytes] | None) -> str:
        first = ""  # of the contradictions: the choice is made again after each
        while True:
            group = choose(picture.things, picture.width, picture.height, self.rule)
            if isinstance(group, str):
                return first or group
            drawn = {i: draw(picture.things[i].segmentation, picture.height, picture.width) for i in group}
            found = None
            if all(mask.any() for mask in drawn.values()) and picture.path.exists():
                found = contradiction(picture, group, drawn, self.rule)
            if found is None:
                break
            reason, i, thing = found
            first = first or reason
            picture = replace(picture, things=[*picture.things[:i], thing, *picture.things[i + 1 :]])
        things, masks = [picture.things[i] for i in group], list(drawn.values())
        for reason, is_so in (
            ("empty_mask", any(not mask.any() for mask in masks)),
            ("tiny_mask", any(mask.sum() < 10 for mask in masks)),
            ("full_mask", any(mask.all() for mask in masks)),
            ("missing_image", not picture.path.exists()),
        ):
            if is_so:
                return reason
        assert members is not None, f"{picture.key}: should have been kept"
        self._check_members(picture, things, masks, members)
        return "kept"

    def _check_members(
        self, picture: Picture, things: list[Thing], masks: list[Bools], members: Mapping[str, bytes]
    ) -> None:
        count = len(things)
        assert list(members) == [
            "bg.jpg",
            *(f"{kind}{k}.png" for k in range(count) for kind in ("obj", "mask")),
            "json",
        ]
        if picture.rgb is None:
            assert members["bg.jpg"] == picture.path.read_bytes()
            rgb = read_rgb(members["bg.jpg"])
        else:
            rgb = picture.rgb
            self._check_encoded_anew(members["bg.jpg"], rgb)
            rgb = read_rgb(members["bg.jpg"])  # patches are cut from what is stored
        meta = json.loads(members["json"])
        pairs = meta.pop("pairs")
        paddings = [entry["patch"]["padding"] for entry in meta["objects"]]
        assert set(paddings) <= {1.1, 1.2, 1.3, 1.4}
        objects = []
        for k, (thing, mask, padding) in enumerate(zip(things, masks, paddings, strict=True)):
            assert np.array_equal(read_mask(members[f"mask{k}.png"]), mask), f"{picture.key}: mask{k}"
            patch = Image.open(io.BytesIO(members[f"obj{k}.png"]))
            assert (patch.format, patch.mode, patch.size) == ("PNG", "RGB", (224, 224))
            assert np.array_equal(np.asarray(patch), cut_patch(rgb, mask, padding)), f"{picture.key}: obj{k}"
            box = list(tight_box(mask))
            objects.append({
                "category": thing.category, "category_id": thing.category_id, "annotation_id": thing.annotation_id,
                "box": box, "annotated_box": list(thing.box), "area": thing.area, "pixels": int(mask.sum()),
                "mask": {"source": thing.source}, "patch": {"crop": box, "padding": padding},
            })  # fmt: skip
        assert meta == {
            "schema": 1, "dataset": self.dataset, "split": self.split, "image_id": picture.image_id,
            "width": picture.width, "height": picture.height, "objects": objects,
        }  # fmt: skip
        assert [entry["objects"] for entry in pairs] == [list(pair) for pair in combinations(range(count), 2)]
        for entry in pairs:
            a, b = (things[i].box for i in entry["objects"])
            assert abs(entry["iou"] - iou(a, b)) < 1e-9
            assert entry["relation"] == relation(a, b)

    @staticmethod
    def _check_encoded_anew(data: bytes, rgb: RGB) -> None:
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert image.getexif().get(0x0112, 1) == 1
        stored = np.asarray(image)
        assert stored.shape == rgb.shape
        # Quality 95 is close to the pixels on average, whatever the picture.
        assert np.abs(stored.astype(int) - rgb).mean() < 4


def coco_pictures(data: Mapping[str, Any], path_of: Any) -> list[Picture]:
    """Pictures of a COCO-style json, by id; `path_of` gives the file of an image record."""
    names = {entry["id"]: entry["name"] for entry in data.get("categories", ())}
    pictures = []
    for image in sorted(data["images"], key=lambda image: image["id"]):
        things = []
        for entry in data["annotations"]:
            if entry["image_id"] != image["id"]:
                continue
            x, y, w, h = map(float, entry["bbox"])
            shape = entry.get("segmentation") or None
            if shape is not None and (w <= 0 or h <= 0):  # no box: the mask's
                mask = draw(shape, image["height"], image["width"])
                x, y, w, h = map(float, (*tight_box(mask)[:2], *np.subtract(tight_box(mask)[2:], tight_box(mask)[:2])))
            source = None if shape is None else "rle" if isinstance(shape, dict) else "polygon"
            crowd = bool(entry.get("iscrowd") or entry.get("ignore"))
            category = names.get(entry["category_id"])
            things.append(
                Thing(
                    (x, y, x + w, y + h),
                    entry["area"] or entry["bbox"][2] * entry["bbox"][3],  # 0: not given
                    category,
                    entry["category_id"],
                    entry["id"],
                    crowd,
                    shape,
                    source,
                )
            )
        key = str(image["id"]).rjust(12, "0")
        pictures.append(Picture(key, image["id"], image["width"], image["height"], things, path_of(image)))
    return pictures


def label_pictures(labels: Path, images: Path) -> list[Picture]:
    """Pictures of a folder of label files, by path; pictures lie in a like folder."""
    pictures = []
    for path in sorted(labels.rglob("*.json"), key=lambda path: path.relative_to(labels).as_posix()):
        data = json.loads(path.read_text())
        name = path.relative_to(labels).as_posix().removesuffix(".json")
        picture = images / f"{name}.jpg"
        things = []
        for entry in data["annotations"]:
            shape = entry["segmentation"]
            if isinstance(shape, dict) or usable_parts(shape):
                x, y, w, h = map(float, entry["bbox"])
                things.append(Thing((x, y, x + w, y + h), entry["area"], segmentation=shape, source="sam"))
        with Image.open(picture) as image:
            width, height = image.size
        pictures.append(Picture(name, data.get("image_id", name), width, height, things, picture))
    return pictures
