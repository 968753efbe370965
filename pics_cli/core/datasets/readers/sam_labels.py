"""Reader of the labels that `pics annotate` writes: a compressed file for each block of pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import msgspec

from pics_cli.core.datasets.labels import BLOCK, Found, Labelled, block_path, read_block, read_stats
from pics_cli.core.datasets.readers.files import FolderReader, ImagePaths, Place
from pics_cli.core.datasets.readers.frame_index import Coordinate
from pics_cli.core.datasets.readers.json_records import JSON_FAULTS
from pics_cli.core.datasets.scene import Instance, Item, Scene
from pics_cli.core.images.image_io import first_image_size
from pics_cli.core.images.masks import decode_segmentation, has_polygon, segmentation_area
from pics_cli.core.recipes.dataset import SamSettings
from pics_cli.core.runtime.manifest import read_manifest
from pics_cli.errors import BadSample, PicsError


class _Label(msgspec.Struct, gc=False):
    bbox: tuple[Coordinate, Coordinate, Coordinate, Coordinate]
    area: float | None = None
    segmentation: list[list[float]] | dict[str, Any] | None = None


class _Labels(msgspec.Struct, gc=False):
    annotations: list[_Label]
    image_id: int | str | None = None


_DECODER = msgspec.json.Decoder(_Labels)


class LabelReader(FolderReader):
    """Pictures in the order of their label files' names; see `Reader` for the attributes."""

    format = "labels"

    def __init__(self, place: Place, compat: bool) -> None:
        super().__init__(place, ".json", compat, "run `pics annotate` to make them")

    def scene(self, item: Item) -> Scene:
        """The picture of a label file."""
        data = self._read(item)
        try:
            labels = _DECODER.decode(data)
        except JSON_FAULTS as error:
            raise BadSample("bad_annotation_file", f"{self.place / str(item)}: {error}") from None
        name = str(item).removesuffix(".json")
        files = self._paths.files(f"{name}.jpg")
        width, height = first_image_size(files)
        instances = []
        for label in labels.annotations:
            if not label.segmentation or (isinstance(label.segmentation, list) and not has_polygon(label.segmentation)):
                continue
            area = segmentation_area(label.segmentation, height, width) if label.area is None else label.area
            (x, y, w, h), mask = label.bbox, partial(decode_segmentation, label.segmentation, height, width)
            instances.append(
                Instance(
                    box=(x, y, x + w, y + h),
                    area=area,
                    mask=mask,
                    mask_source="sam",
                )
            )
        image_id = labels.image_id if labels.image_id is not None else name
        return Scene(self._key(item, files), image_id, files, width, height, tuple(instances))


class LabelBlockReader:
    """Pictures in the order of the dataset, named by block and line; see `Reader` for the attributes.

    Masks that are empty are left out; crowds, and those below the recipe's `sam.min_score` and `sam.min_agreement`, are
    never objects.
    """

    def __init__(self, place: Place, options: SamSettings) -> None:
        self.place = place.path
        self._paths, self._options = ImagePaths(place), options
        self._held: tuple[str, list[Labelled]] | None = None
        self.bad: dict[str, Any] = {"counts": {}, "lines": []}

    @cached_property
    def _blocks(self) -> list[dict[str, Any]]:
        """Stats of the finished blocks, in order."""
        numbers = sorted(int(match.group(1)) for path in self.place.iterdir() if (match := BLOCK.fullmatch(path.name)))
        found = [stats for number in numbers if (stats := read_stats(self.place, number))]
        manifest = read_manifest(self.place) or {}
        if not manifest.get("complete"):
            raise PicsError(
                f"{self.place}: labels of {len(found)} blocks, and the rest is missing",
                "finish them: run the same `pics annotate` again",
            )
        there = {block_path(self.place, stats["block"]).name for stats in found}
        if gone := [entry["file"] for entry in manifest.get("blocks", ()) if entry["file"] not in there]:
            raise PicsError(
                f"{self.place / gone[0]}: no such file, or not finished; {len(gone)} of the manifest's blocks are gone",
                "remove their .stats.json where they are left, and run the same `pics annotate` again",
            )
        return found

    @cached_property
    def _items(self) -> list[str]:
        return [f"{stats['block']:05d}/{line}" for stats in self._blocks for line in range(stats["pictures"])]

    @property
    def source(self) -> dict[str, Any]:
        """What tells this input from another: how many blocks, and a hash of theirs."""
        text = "\n".join(stats["sha256"] for stats in self._blocks)
        return {"format": "sam", "files": len(self._blocks), "listing": hashlib.sha256(text.encode()).hexdigest()}

    @property
    def categories(self) -> Sequence[str]:
        """As the dataset has them."""
        names: list[str] = (read_manifest(self.place) or {}).get("categories", [])
        return names

    def __len__(self) -> int:
        return len(self._items)

    def items(self, start: int, stop: int) -> Sequence[Item]:
        """Names of the pictures start to stop: block and line."""
        return self._items[start:stop]

    def scene(self, item: Item) -> Scene:
        """The picture of a line."""
        block, _, line = str(item).partition("/")
        if self._held is None or self._held[0] != block:
            self._held = block, read_block(block_path(self.place, int(block)))
        try:
            picture = self._held[1][int(line)]
        except IndexError:
            raise BadSample(
                "bad_annotation_file", f"{block_path(self.place, int(block))}: has no line {line}"
            ) from None
        height, width = picture.height, picture.width
        instances = tuple(self._instance(each, height, width) for each in picture.objects if each.area)
        files = self._paths.files(picture.file_name, picture.url)
        key = f"{picture.image_id:012d}" if isinstance(picture.image_id, int) else _stem(picture.file_name)
        return Scene(key, picture.image_id, files, width, height, instances)

    def _instance(self, found: Found, height: int, width: int) -> Instance:
        weak = found.score < self._options.min_score or found.agreement < self._options.min_agreement
        x0, y0, x1, y1 = found.tight
        return Instance(
            box=(float(x0), float(y0), float(x1), float(y1)),
            area=float(found.area),
            category=found.category,
            category_id=found.category_id,
            annotation_id=found.id,
            ignored=weak or "crowd" in found.flags,
            mask=partial(decode_segmentation, {"size": [height, width], "counts": found.counts}, height, width),
            mask_source="sam",
            score=found.score,
        )


def _stem(name: str) -> str:
    folders, _, last = name.rpartition("/")
    return (f"{folders}/" if folders else "") + (last.rpartition(".")[0] or last)
