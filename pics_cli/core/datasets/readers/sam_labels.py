"""Readers of masks made from boxes: the label blocks of `pics annotate`, and json files of one image each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import msgspec

from pics_cli.core.datasets.labels import (
    HIDDEN_FOLDER,
    LabelledImage,
    MaskAnnotation,
    block_path,
    finished_stats,
    read_block,
)
from pics_cli.core.datasets.readers.base import FolderReader, Reader
from pics_cli.core.datasets.readers.scalabel_index import Coordinate
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import Instance, ItemId, Scene
from pics_cli.core.images.image_io import first_image_size
from pics_cli.core.images.masks import decode_segmentation, has_polygon, segmentation_area
from pics_cli.core.recipes.sources import SamSettings
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.core.runtime.manifest import read_manifest
from pics_cli.core.runtime.storage import list_folder
from pics_cli.errors import BadSample, PicsError


class _Label(msgspec.Struct, gc=False):
    bbox: tuple[Coordinate, Coordinate, Coordinate, Coordinate]
    area: float | None = None
    segmentation: list[list[float]] | dict[str, Any] | None = None


class _LabelFile(msgspec.Struct, gc=False):
    annotations: list[_Label]
    image_id: int | str | None = None


_DECODER = msgspec.json.Decoder(_LabelFile)


class LabelFileReader(FolderReader):
    """Images in the order of their label files' names, as the research SAM script writes them.

    Raises:
        PicsError: `pics annotate` is not done with them.
    """

    def __init__(self, files: SplitFiles) -> None:
        super().__init__(files, "labels", ".json", "run `pics annotate` to make them")
        manifest = read_manifest(files.annotations / HIDDEN_FOLDER)
        if manifest is not None and not manifest["complete"]:
            raise PicsError(
                f"{files.annotations}: labels of {manifest.get('pictures', 0):,} pictures, and the rest is missing",
                "finish them: run the same `pics annotate` again",
            )

    def scene(self, item_id: ItemId) -> Scene:
        """The image of a label file."""
        labels = self._decode(item_id, _DECODER)
        name = str(item_id).removesuffix(".json")
        paths = self._image_paths(item_id)
        width, height = first_image_size(paths)
        instances = []
        for label in labels.annotations:
            segmentation = label.segmentation
            if not segmentation or (isinstance(segmentation, list) and not has_polygon(segmentation)):
                continue
            area = segmentation_area(segmentation, height, width) if label.area is None else label.area
            (x, y, w, h), mask = label.bbox, partial(decode_segmentation, segmentation, height, width)
            instances.append(Instance((x, y, x + w, y + h), area, mask=mask, mask_source="sam"))
        image_id = labels.image_id if labels.image_id is not None else name
        return Scene(self._key(item_id), image_id, paths, width, height, tuple(instances))

    def _image_paths(self, item_id: ItemId) -> tuple[Path, ...]:
        return self._files.image_paths(f"{str(item_id).removesuffix('.json')}.jpg")


class LabelBlockReader(Reader):
    """Images in the order of the dataset, named by block and line; see `Reader` for the attributes.

    Masks that are empty are left out; those below the recipe's `sam.min_score` and `sam.min_agreement`, are
    never objects.
    """

    def __init__(self, files: SplitFiles, options: SamSettings) -> None:
        self.annotations: Path = files.annotations
        self._files, self._options = files, options
        self._cached_block: tuple[str, list[LabelledImage]] | None = None
        self.bad_records = BadRecords()

    @cached_property
    def _block_stats(self) -> list[dict[str, Any]]:
        """Stats of the finished blocks, in order."""
        there = list_folder(self.annotations)
        finished = [
            stats
            for stats in finished_stats(self.annotations)
            if block_path(self.annotations, stats["block"]).name in there
        ]
        manifest = read_manifest(self.annotations) or {}
        if not manifest.get("complete"):
            raise PicsError(
                f"{self.annotations}: labels of {len(finished)} blocks, and the rest is missing",
                "finish them: run the same `pics annotate` again",
            )
        existing = {block_path(self.annotations, stats["block"]).name for stats in finished}
        if missing := [entry["file"] for entry in manifest.get("blocks", ()) if entry["file"] not in existing]:
            raise PicsError(
                f"{self.annotations / missing[0]}: no such file, or not finished; {len(missing)} of the manifest's "
                "blocks are gone",
                "remove their .stats.json where they are left, and run the same `pics annotate` again",
            )
        return finished

    @cached_property
    def _item_ids(self) -> list[str]:
        return [f"{stats['block']:05d}/{line}" for stats in self._block_stats for line in range(stats["pictures"])]

    @property
    def source(self) -> dict[str, Any]:  # type: ignore[override]
        """How many blocks, and a hash of theirs."""
        text = "\n".join(stats["sha256"] for stats in self._block_stats)
        return {"format": "sam", "files": len(self._block_stats), "listing": hashlib.sha256(text.encode()).hexdigest()}

    @property
    def categories(self) -> Sequence[str]:  # type: ignore[override]
        """As the dataset has them."""
        names: list[str] = (read_manifest(self.annotations) or {}).get("categories", [])
        return names

    def __len__(self) -> int:
        return len(self._item_ids)

    def item_ids(self, start: int, stop: int) -> Sequence[ItemId]:
        """Block and line of the images start to stop."""
        return self._item_ids[start:stop]

    def scene(self, item_id: ItemId) -> Scene:
        """The image of a line."""
        block, _, line = str(item_id).partition("/")
        path = block_path(self.annotations, int(block))
        if self._cached_block is None or self._cached_block[0] != block:
            self._cached_block = block, read_block(path)
        try:
            image = self._cached_block[1][int(line)]
        except IndexError:
            raise BadSample("bad_annotation_file", f"{path}: has no line {line}") from None
        height, width = image.height, image.width
        instances = tuple(self._instance(label, height, width) for label in image.objects if label.area)
        paths = self._files.image_paths(image.file_name, image.url)
        folders, slash, name = image.file_name.rpartition("/")
        stem = f"{folders}{slash}{name.rpartition('.')[0] or name}"
        key = f"{image.image_id:012d}" if isinstance(image.image_id, int) else stem
        return Scene(key, image.image_id, paths, width, height, instances)

    def _instance(self, label: MaskAnnotation, height: int, width: int) -> Instance:
        weak = label.score < self._options.min_score or label.agreement < self._options.min_agreement
        x0, y0, x1, y1 = label.tight
        return Instance(
            box=(float(x0), float(y0), float(x1), float(y1)),
            area=float(label.area),
            category=label.category,
            category_id=label.category_id,
            annotation_id=label.id,
            ignored=weak,
            crowd="crowd" in label.flags,
            mask=partial(decode_segmentation, {"size": [height, width], "counts": label.counts}, height, width),
            mask_source="sam",
            score=label.score,
        )
