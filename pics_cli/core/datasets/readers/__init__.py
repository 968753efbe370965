"""Readers: one file per annotation format, each a subclass of `Reader`."""

from __future__ import annotations

from dataclasses import replace

from pics_cli.core.datasets.labels import has_label_blocks
from pics_cli.core.datasets.readers.base import DatasetSplit, Reader
from pics_cli.core.datasets.readers.cityscapes import CityscapesReader
from pics_cli.core.datasets.readers.coco import CocoReader
from pics_cli.core.datasets.readers.compat import open_compat_reader
from pics_cli.core.datasets.readers.instaorder import InstaOrderReader
from pics_cli.core.datasets.readers.joined import JoinedReader
from pics_cli.core.datasets.readers.labelme import LabelMeReader
from pics_cli.core.datasets.readers.open_images import OpenImagesReader
from pics_cli.core.datasets.readers.panoptic import PanopticReader
from pics_cli.core.datasets.readers.parse_map import ParseMapReader
from pics_cli.core.datasets.readers.sam_labels import LabelBlockReader, LabelFileReader
from pics_cli.core.datasets.readers.scalabel import ScalabelReader
from pics_cli.core.datasets.readers.split_files import SplitFiles, find_split_files
from pics_cli.core.datasets.readers.vistas import VistasReader
from pics_cli.core.datasets.readers.voc import VocReader
from pics_cli.core.datasets.readers.yolo import YoloReader
from pics_cli.core.recipes.sources import (
    CityscapesSource,
    FileSource,
    InstaOrderSource,
    LabelMeSource,
    OpenImagesSource,
    PanopticSource,
    ParseMapSource,
    RenderedSource,
    ScalabelSource,
    SynthSource,
    VistasSource,
    VocSource,
    YoloSource,
)
from pics_cli.core.runtime.extras import require
from pics_cli.core.runtime.storage import local_folder
from pics_cli.errors import read_error


def open_reader(dataset: DatasetSplit, as_given: bool = False) -> Reader:
    """Open the reader that a recipe asks for.

    Args:
        dataset: the recipe, a split of it and the raw folder.
        as_given: boxes and areas are those of the annotation, also where the masks show that they are wrong.

    Raises:
        PicsError: the folder or its annotations are missing, unreadable or of another dataset;
            or a package that draws scenes is.
    """
    source = dataset.recipe.source
    if isinstance(source, SynthSource):
        from pics_cli.core.datasets.readers.drawn_scenes import DrawnSceneReader

        return DrawnSceneReader(dataset.recipe, dataset.split)
    if isinstance(source, RenderedSource):
        require("render", "format rendered")
        from pics_cli.core.datasets.readers.rendered_scenes import RenderedSceneReader

        try:  # Mitsuba opens its files itself
            raw = None if dataset.raw is None else local_folder(dataset.raw)
        except OSError as error:
            raise read_error(f"raw folder {dataset.raw}", error) from None
        return RenderedSceneReader(replace(dataset, raw=raw))
    files = find_split_files(source, dataset.split, dataset.raw, dataset.recipe.name)
    paths = (files.annotations, *files.more)
    trusting = as_given or dataset.recipe.compat or dataset.recipe.pairs.box_mask_disagree == "keep"
    parts = [files._replace(annotations=path, more=()) for path in paths]
    readers = [_open_files(source, part, dataset.recipe.compat, trusting) for part in parts]
    reader = readers[0] if len(readers) == 1 else JoinedReader(files.root, readers)
    reader.unread = files.unread
    return reader


def _open_files(source: FileSource, files: SplitFiles, compat: bool, trusting: bool) -> Reader:
    """The reader of one annotation file, or of one folder of them."""
    if compat and (reader := open_compat_reader(source, files)):
        return reader
    match source:
        case ParseMapSource():
            return ParseMapReader(files, source)
        case CityscapesSource():
            return CityscapesReader(files, source)
        case VistasSource():
            return VistasReader(files, source)
        case LabelMeSource():
            return LabelMeReader(files)
        case YoloSource():
            return YoloReader(files, source)
        case VocSource():
            return VocReader(files, source)
        case PanopticSource():
            return PanopticReader(files, source)
        case OpenImagesSource():
            return OpenImagesReader(files, source)
        case InstaOrderSource():
            return InstaOrderReader(files, source, trusting)
    if files.annotations.is_dir():
        return LabelBlockReader(files, source.sam) if has_label_blocks(files.annotations) else LabelFileReader(files)
    if isinstance(source, ScalabelSource):
        return ScalabelReader(files)
    return CocoReader(files, trusting)
