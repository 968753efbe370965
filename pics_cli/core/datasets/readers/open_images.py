"""Reader of Open Images (V5 to V7): masks, boxes and visual relationships from CSV files, a PNG for each mask.

Kuznetsova et al., "The Open Images Dataset V4", IJCV 2020; Benenson et al., "Large-scale interactive object
segmentation with human annotators", CVPR 2019. Boxes are in shares of the picture, masks of another size than it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pics_cli.core.datasets.readers.base import Reader, read_annotation
from pics_cli.core.datasets.readers.csv_index import CsvIndex, Row, open_csv_index
from pics_cli.core.datasets.readers.label_maps import decode_label_map, find_map
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import FloatBox, Instance, ItemId, KnownPair, PairRelation, Scene
from pics_cli.core.images.geometry import iou_of_two
from pics_cli.core.images.image_io import first_image_size
from pics_cli.core.images.masks import BoxMask, box_mask
from pics_cli.core.recipes.sources import OpenImagesSource
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.errors import BadSample, PicsError, read_error

_SIDES = ("XMin", "YMin", "XMax", "YMax")
_MASK_COLUMNS = ("MaskPath", "ImageID", "LabelName", "BoxID", *(f"Box{side}" for side in _SIDES))
_FLAGS = ("IsGroupOf", "IsDepiction", "IsInside")
_BOX_COLUMNS = ("ImageID", "LabelName", *_SIDES, *_FLAGS)
_RELATIONSHIP_COLUMNS = ("ImageID", "LabelName1", "LabelName2", *(f"{side}{k}" for k in (1, 2) for side in _SIDES))
# The name of the relationship has two spellings of its column.
_RELATIONSHIP_NAMES = ("RelationshipLabel", "RelationLabel")
# Boxes of one object in two files: written with other digits, so they are the same from this IoU on.
_SAME_BOX = 0.9
# Sides of a mask may differ from the picture's by a factor that is the same for both, within this many of its pixels.
_ROUNDING = 2.0


class OpenImagesReader(Reader):
    """Images that have masks, in the order of their ids, which are texts; see `Reader` for the attributes.

    Areas are those of the boxes, which hold the masks; the sizes of pictures are read from their files.
    """

    def __init__(self, files: SplitFiles, source: OpenImagesSource) -> None:
        self.annotations: Path = files.annotations
        self._files, self._masks = files, files._replace(image_patterns=source.masks)
        self._rules = source.relations
        self._index = open_csv_index(files.annotations, _MASK_COLUMNS, _check_mask, "masks")
        self._boxes, self._relationships = self._open_others(source)
        self.bad_records = BadRecords()
        self.source = {"format": "open_images"}
        for path, index in self._indexes:
            self.bad_records.add(index.bad_records, path.name)
            self.source[path.name] = index.source
        self._classes = _read_classes(files.find_names(source.classes, "classes", "classes"))
        self.categories = list(dict.fromkeys(self._classes.values()))

    def _open_others(self, source: OpenImagesSource) -> tuple[CsvIndex | None, CsvIndex | None]:
        """Boxes and relationships, as far as they are asked for."""
        self._indexes = [(self.annotations, self._index)]
        boxes = relationships = None
        if source.boxes:
            path = self._files.find_names(source.boxes, "boxes", "groups and depictions")
            boxes = open_csv_index(path, _BOX_COLUMNS, _check_box, "boxes")
            self._indexes.append((path, boxes))
        if source.relations:
            path = self._files.find_names(source.relationships, "relationships", "relationships of the objects")
            relationships = open_csv_index(path, _RELATIONSHIP_COLUMNS, _check_relationship, "relationships")
            self._indexes.append((path, relationships))
        return boxes, relationships

    @property
    def annotation_files(self) -> Sequence[Path]:
        """The files of masks, boxes and relationships."""
        return [path for path, _ in self._indexes]

    def __len__(self) -> int:
        return len(self._index.images)

    def item_ids(self, start: int, stop: int) -> Sequence[ItemId]:
        """Ids of the images start to stop."""
        return [image.decode() for image in self._index.images[start:stop].tolist()]

    def scene(self, item_id: ItemId) -> Scene:
        """The image of an id."""
        image = str(item_id)
        paths = self._files.image_paths(f"{image}.jpg")
        width, height = first_image_size(paths)
        rows = self._index.rows(image)
        boxes = [_box_of(row, "Box", "", width, height) for row in rows]
        instances = [self._instance(image, *entry, width, height) for entry in zip(rows, boxes, strict=True)]
        if self._boxes is not None:
            instances = _marked(instances, rows, self._boxes.rows(image), width, height)
        known = None
        if self._relationships is not None:
            known = self._known_pairs([row["LabelName"] for row in rows], boxes, image, width, height)
        return Scene(image, image, paths, width, height, tuple(instances), known_pairs=known)

    def _instance(self, image: str, row: Row, box: FloatBox, width: int, height: int) -> Instance:
        label = row["LabelName"]
        if (category := self._classes.get(label)) is None:
            raise BadSample("unknown_label", f"{self.annotations}: image {image}: no class is called {label}")
        area = (box[2] - box[0]) * (box[3] - box[1])
        # The archives of masks are named by the first digit of the image's id, in folders also as a capital letter.
        name = f"{image[0].upper()}/{image[0]}/{row['MaskPath']}"
        mask = partial(_read_mask, self._masks, name, width, height)
        return Instance(box, area, category, annotation_id=row["BoxID"], mask=mask, mask_source="parse")

    def _known_pairs(
        self, labels: Sequence[str], boxes: Sequence[FloatBox], image: str, width: int, height: int
    ) -> dict[tuple[int, int], KnownPair]:
        """Relationships of two objects that have masks; of several of one pair the one that the recipe names first."""
        assert self._relationships is not None
        found: dict[tuple[int, int], tuple[int, KnownPair]] = {}
        order = {name: rank for rank, name in enumerate(self._rules)}
        for row in self._relationships.rows(image):
            name = _relationship_name(row)
            if name not in order:
                continue
            ends = [
                _find_box(row[f"LabelName{k}"], _box_of(row, "", str(k), width, height), labels, boxes) for k in (1, 2)
            ]
            first, second = ends
            if first is None or second is None or first == second:
                continue
            rule = self._rules[name]
            relation = PairRelation(rule.relation, first if rule.subject == 1 else second)
            entry = order[name], KnownPair(relation=relation)
            pair = min(first, second), max(first, second)
            found[pair] = min(found.get(pair, entry), entry, key=lambda each: each[0])
        return {pair: known for pair, (_, known) in sorted(found.items())}


def _marked(
    instances: Sequence[Instance], rows: Sequence[Row], marks: Sequence[Row], width: int, height: int
) -> list[Instance]:
    """With groups marked as crowds, and depictions and things seen from inside as ignored."""
    marked = list(instances)
    labels, boxes = [row["LabelName"] for row in rows], [instance.box for instance in instances]
    for row in marks:
        at = _find_box(row["LabelName"], _box_of(row, "", "", width, height), labels, boxes)
        if at is not None:
            ignored = row["IsDepiction"] == "1" or row["IsInside"] == "1"
            crowd = row["IsGroupOf"] == "1"
            marked[at] = replace(marked[at], crowd=marked[at].crowd or crowd, ignored=marked[at].ignored or ignored)
    return marked


def _find_box(label: str, box: FloatBox, labels: Sequence[str], boxes: Sequence[FloatBox]) -> int | None:
    """The object of a box: the nearest of its label, else of any label; None where there is none."""
    overlaps = [iou_of_two(box, other) for other in boxes]
    near = [i for i, overlap in enumerate(overlaps) if overlap >= _SAME_BOX]
    return max(near, key=lambda i: (labels[i] == label, overlaps[i]), default=None)


def _box_of(row: Row, before: str, after: str, width: int, height: int) -> FloatBox:
    x0, y0, x1, y1 = (float(row[f"{before}{side}{after}"]) for side in _SIDES)
    return x0 * width, y0 * height, x1 * width, y1 * height


def _check_sides(row: Row, before: str = "", after: str = "") -> None:
    for low, high in (("XMin", "XMax"), ("YMin", "YMax")):
        names = f"{before}{low}{after}", f"{before}{high}{after}"
        try:
            start, stop = (float(row[name]) for name in names)
        except ValueError:
            start = stop = math.nan
        if not -0.01 <= start <= stop <= 1.01:
            texts = " and ".join(f"{name} {row[name][:20]!r}" for name in names)
            raise ValueError(f"{texts}, expected 0 <= {names[0]} <= {names[1]} <= 1")


def _check_mask(row: Row) -> bool:
    _check_sides(row, "Box")
    name = row["MaskPath"]
    if not name or "/" in name or "\\" in name:
        raise ValueError(f"MaskPath is {name[:60]!r}, expected the name of a file")
    return True


def _check_box(row: Row) -> bool:
    """Only boxes that are no single thing: a tenth of them."""
    _check_sides(row)
    for flag in _FLAGS:
        if row[flag] not in ("0", "1", "-1"):
            raise ValueError(f"{flag} is {row[flag][:20]!r}, expected 0, 1 or -1")
    return any(row[flag] == "1" for flag in _FLAGS)


def _check_relationship(row: Row) -> bool:
    """Not `is`, which says what something is made of or does."""
    name = _relationship_name(row)
    _check_sides(row, after="1")
    _check_sides(row, after="2")
    return name != "is"


def _relationship_name(row: Row) -> str:
    for column in _RELATIONSHIP_NAMES:
        if row.get(column):
            return row[column]
    raise ValueError(f"no {' or '.join(_RELATIONSHIP_NAMES)}")


def _read_mask(files: SplitFiles, name: str, width: int, height: int) -> BoxMask:
    """A mask at the size of its picture: what is at least half covered.

    Raises:
        BadSample: `missing_mask`, `bad_label_map`, or `size_mismatch` where it is of another aspect.
    """
    path = find_map(files, name)
    if not path.exists():
        raise BadSample("missing_mask", f"{path}: no such file")
    mask = decode_label_map(read_annotation(path), path, ("1", "L", "P")) != 0
    rows, columns = mask.shape
    if abs(rows * width - columns * height) > _ROUNDING * max(width, height, rows, columns):
        raise BadSample("size_mismatch", f"{path} is {columns}x{rows}, its picture {width}x{height}: another aspect")
    if mask.shape != (height, width):
        smaller = rows * columns > width * height
        covered = cv2.resize(
            mask.astype(np.uint8) * np.uint8(255), (width, height),
            interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR,
        )  # fmt: skip
        mask = covered >= 128
    return box_mask(mask)


def _read_classes(path: Path) -> dict[str, str]:
    """Names of the classes by label, of a CSV with a line of names of columns or without one."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines()) if row]
    except OSError as error:
        raise read_error(path, error) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise PicsError(f"{path}: no CSV: {error}", "expected lines such as /m/011k07,Tortoise") from None
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or not all(row):
            raise PicsError(f"{path}: line {number}: got {','.join(row)[:60]!r}, expected a label and its name")
    return {label: name for label, name in rows if label.startswith("/")}
