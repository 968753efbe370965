"""Index of a COCO panoptic json: where the records of each image stand, so that a worker reads single ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from pics_cli.core.datasets.json_records import read_arrays
from pics_cli.core.datasets.json_scanner import JSON_ERRORS
from pics_cli.core.datasets.readers.coco_records import BAD_RECORD
from pics_cli.core.datasets.readers.index_cache import INDEX_METADATA, SpanIndex, open_cached_index
from pics_cli.core.images.image_files import MAX_PIXELS
from pics_cli.core.runtime.bad_samples import BadRecords

_VERSION = "panoptic 1"
MAX_SEGMENT = (1 << 24) - 1

_Id = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 17)]


class PanopticImage(msgspec.Struct, gc=False):
    """One image."""

    id: _Id
    file_name: str
    width: _Side
    height: _Side


class Segment(msgspec.Struct, gc=False):
    """One segment of an image, by its id in the PNG."""

    id: Annotated[int, msgspec.Meta(ge=1, le=MAX_SEGMENT)]
    category_id: int
    iscrowd: int | bool | None = 0


class PanopticAnnotation(msgspec.Struct, gc=False):
    """The segments of an image, and their PNG."""

    image_id: _Id
    file_name: str
    segments_info: Annotated[list[Segment], msgspec.Meta(max_length=(1 << 16) - 1)]


class Category(msgspec.Struct):
    """Things are countable, stuff is not."""

    id: int
    name: str
    isthing: int | bool


_IMAGE, _ANNOTATION = msgspec.json.Decoder(PanopticImage), msgspec.json.Decoder(PanopticAnnotation)


class PanopticIndex(SpanIndex):
    """A panoptic json opened through its index.

    Attributes:
        image_id: int64 [images], sorted.
        categories: by id.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path, folder)
        self.categories = {entry["id"]: Category(**entry) for entry in self.metadata["categories"]}
        self.image_id: npt.NDArray[np.int64] = np.load(folder / "image_id.npy", mmap_mode="r")

    def records(self, image_id: int) -> tuple[PanopticImage, PanopticAnnotation | None]:
        """An image, and its segments where it has any."""
        start, length, annotation_start, annotation_length = self._spans[self.image_id.searchsorted(image_id)].tolist()
        image = _IMAGE.decode(self.read(start, length))
        if not annotation_length:
            return image, None
        return image, _ANNOTATION.decode(self.read(annotation_start, annotation_length))


def open_panoptic_index(path: Path) -> PanopticIndex:
    """Open the index of a panoptic json, building it first where the cache has none for this very file.

    Raises:
        PicsError: the json cannot be read, or the cache folder not written.
    """
    return open_cached_index(path, _VERSION, _build_index, lambda folder: PanopticIndex(path, folder))


def _build_index(path: Path, folder: Path, source: dict[str, Any]) -> None:
    bad_records, categories = BadRecords(), dict[int, Category]()
    spans: dict[str, dict[int, tuple[int, int]]] = {"images": {}, "annotations": {}}
    types = {"images": msgspec.Raw, "annotations": msgspec.Raw, "categories": Category}
    for batch in read_arrays(path, types):
        reason, errors = BAD_RECORD[batch.section], list(batch.errors)
        if batch.section == "categories":
            categories.update((record.id, record) for record in batch.records)
        else:
            found = spans[batch.section]
            for record in batch.records:
                offset, length = batch.span(record)
                try:
                    image_id = _image_id(batch.section, record)
                except (*JSON_ERRORS, ValueError) as error:
                    errors.append(f"byte {offset:,}: {error}")
                    continue
                if found.setdefault(image_id, (offset, length)) != (offset, length):
                    errors.append(f"byte {offset:,}: image id {image_id} given twice")
        bad_records.extend(reason, errors)
    images, annotations = spans["images"], spans["annotations"]
    unknown = (f"annotation of image id {i}, which is not listed" for i in annotations if i not in images)
    bad_records.extend("unknown_image", unknown)
    ids = sorted(images)
    np.save(folder / "image_id.npy", np.array(ids, np.int64))
    rows = [(*images[i], *annotations.get(i, (0, 0))) for i in ids]
    np.save(folder / "spans.npy", np.array(rows, np.int64).reshape(-1, 4))
    plain = [msgspec.to_builtins(category) for category in categories.values()]
    metadata = {"source": source, "categories": plain, "bad": bad_records.as_dict()}
    (folder / INDEX_METADATA).write_text(json.dumps(metadata))


def _image_id(section: str, record: msgspec.Raw) -> int:
    """The id of an image's record, or of the image that an annotation is of; what cannot be used raises."""
    if section == "annotations":
        annotation = _ANNOTATION.decode(record)
        if len({segment.id for segment in annotation.segments_info}) < len(annotation.segments_info):
            raise ValueError(f"image id {annotation.image_id}: a segment id given twice")
        return annotation.image_id
    image = _IMAGE.decode(record)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"image id {image.id}: claims {image.width} x {image.height} pixels")
    return image.id
