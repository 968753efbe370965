"""Layout `published`, that of the research project's script: a json file of polygons for each image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pics_cli.core.datasets.labels import LabelledImage
from pics_cli.core.runtime.files import AtomicFile, make_folder
from pics_cli.core.segmentation.postprocessing import label_as_polygons
from pics_cli.errors import BadSample


def write_published(folder: Path, pictures: Sequence[LabelledImage], temporary: Path) -> dict[str, Any]:
    """Write `patchN/X.json` for each image `…/patchN/X.jpg`; `temporary`: see `AtomicFile`.

    Returns:
        Bytes of all files, and a sha256 of their contents in order.
    """
    total, digest = 0, hashlib.sha256()
    for picture in pictures:
        labels = [label_as_polygons(label, picture.height, picture.width) for label in picture.objects]
        data = json.dumps(
            {"image_id": picture.image_id, "annotations": [label for label in labels if label is not None]}
        ).encode()
        path = folder / label_name(picture.file_name)
        make_folder(path.parent)
        with AtomicFile(path, temporary) as file:
            file.write(data)
        total += len(data)
        digest.update(data)
    return {"bytes": total, "sha256": digest.hexdigest()}


def label_name(file_name: str) -> str:
    """`patchN/X.json` for the file name of an image.

    Raises:
        BadSample: `bad_name`: the path would be hidden or leave the label folder.
    """
    parts = PurePosixPath(file_name).parts[-2:]
    if not parts or any(part.startswith((".", "/")) or "\0" in part for part in parts):
        raise BadSample("bad_name", f"picture {file_name!r}: not a name that a label file can be called after")
    return str(PurePosixPath(*parts).with_suffix(".json"))
