"""Reader of YOLO's segmentation labels, one text file a picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

from pics_cli.core.datasets.readers.base import FolderReader
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.datasets.scene import Instance, ItemId, Scene
from pics_cli.core.images.image_io import first_image_size
from pics_cli.core.images.masks import decode_segmentation, segmentation_area
from pics_cli.core.recipes.base import read_recipe
from pics_cli.core.recipes.sources import YoloSource
from pics_cli.core.runtime.files import read_file
from pics_cli.errors import BadSample, PicsError, read_error

# How far a share of the picture may lie outside it: rounding, as YOLO's own trainers allow.
_SLACK = 0.01
_CLASS_LIST = "classes.txt"  # labelling tools put it among the labels


class YoloReader(FolderReader):
    """Images in the order of their label files' names; a line is a class and an outline, or a box without a mask."""

    def __init__(self, files: SplitFiles, source: YoloSource) -> None:
        super().__init__(files, "yolo_seg", ".txt", "name the folder that holds the label files")
        self.categories = _read_names(files, source)

    @cached_property
    def _names(self) -> list[str]:
        return [name for name in super()._names if name.rpartition("/")[2] != _CLASS_LIST]

    def scene(self, item_id: ItemId) -> Scene:
        """The image of a label file."""
        path, paths = self._path(item_id), self._image_paths(item_id)
        try:
            lines = self._read(item_id).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise BadSample("bad_annotation_file", f"{path}: no text: {error.reason}") from None
        width, height = first_image_size(paths)
        instances = []
        for line in dict.fromkeys(filter(str.strip, lines)):  # repeated lines are one object
            try:
                instances.append(self._instance(line, width, height))
            except ValueError as error:
                number = lines.index(line) + 1
                raise BadSample("bad_annotation_file", f"{path}: line {number}: {error}") from None
        key = self._key(item_id)
        return Scene(key, key, paths, width, height, tuple(instances))

    def _instance(self, line: str, width: int, height: int) -> Instance:
        category, *shares = map(float, line.split())
        if category not in range(len(self.categories)):
            raise ValueError(f"class {category:g}, expected one of the {len(self.categories)} that are named")
        if outside := [share for share in shares if not -_SLACK <= share <= 1 + _SLACK]:
            raise ValueError(f"got {outside[0]:g}, expected shares of the picture from 0 to 1")
        number, name = int(category), self.categories[int(category)]
        if len(shares) == 4:  # centre and size: a box
            x, y, w, h = shares
            box = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
            return Instance(box, w * width * h * height, name, number)
        if len(shares) < 6 or len(shares) % 2:
            raise ValueError(f"{len(shares)} numbers behind the class, expected x, y of three points or more")
        xs, ys = [share * width for share in shares[::2]], [share * height for share in shares[1::2]]
        outline = [value for point in zip(xs, ys, strict=True) for value in point]
        return Instance(
            box=(min(xs), min(ys), max(xs), max(ys)),
            area=segmentation_area([outline], height, width),
            category=name,
            category_id=number,
            mask=partial(decode_segmentation, [outline], height, width),
            mask_source="polygon",
        )


def _read_names(files: SplitFiles, source: YoloSource) -> Sequence[str]:
    """Names of the classes 0, 1, …

    Raises:
        PicsError: no file has them, or it cannot be read.
    """
    path = files.find_names(source.names, "names", "classes")
    if path.suffix == ".txt":
        try:
            lines = read_file(path).decode("utf-8-sig").rstrip().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise (read_error(path, error) if isinstance(error, OSError) else PicsError(f"{path}: {error}")) from None
        classes = [line.strip() for line in lines] or [""]
        if "" in classes:  # were it passed over, all that follow would have the number of another
            number = classes.index("")
            raise PicsError(
                f"{path}: line {number + 1} is empty, expected the name of class {number}", "write it there"
            )
        return classes
    names = read_recipe(path).get("names")
    if isinstance(names, dict) and {str(key) for key in names} == {str(i) for i in range(len(names))}:
        by_key = {int(key): name for key, name in names.items()}
        names = [by_key[i] for i in range(len(by_key))]
    if not isinstance(names, list) or not names:
        raise PicsError(f"{path}: names: expected a list, or a mapping from 0, 1, … to names", "write them there")
    return [str(name) for name in names]
