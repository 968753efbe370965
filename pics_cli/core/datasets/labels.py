"""Label files of `pics annotate`: a compressed JSON-lines file per block of images, and a stats file that says that the
block is finished.

A line is an image with all of its boxes, in their order, and their whole masks. Images that could not be read have no
line; the stats file lists them.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from pics_cli.core.datasets.json_scanner import JSON_ERRORS
from pics_cli.core.runtime.files import AtomicFile, load_json, read_file
from pics_cli.core.runtime.storage import map_files
from pics_cli.errors import BadSample, PicsError, reason_of

SCHEMA = 1
# Holds manifest and stats of a folder whose files other programs read, of one json an image.
HIDDEN_FOLDER = ".pics"
_BLOCK_FILE_NAME = re.compile(r"([0-9]{5,})\.jsonl\.gz")
LABEL_FILE_NAMES = re.compile(r"[0-9]{5,}\.(jsonl\.gz|stats\.json|([0-9]+\.)?tmp)|manifest\.(json|tmp)")
_LEVEL = 6
# Labels shrink to a third or so; what unpacks to more than this many times its size is something else.
_MAX_RATIO = 100

Corners = tuple[float, float, float, float]


class MaskAnnotation(msgspec.Struct, gc=False):
    """A box and its mask.

    Attributes:
        id, category, category_id: of the box, as annotated.
        box: as annotated, float `x0, y0, x1, y1`, half-open.
        counts: COCO's compressed run lengths of the whole mask, whose size is the image's.
        tight: int box of the mask, all 0 where it is empty.
        area: its pixels.
        score: IoU that the model expects.
        stability: IoU of the masks at a higher and a lower threshold.
        agreement: IoU of `tight` with the annotated box inside the image.
        flags: of `empty`, `tiny`, `border`, `low_score`, `crowd`, `unknown_category`, `clipped`.
    """

    id: int | str | None
    category: str | None
    category_id: int | None
    box: Corners
    counts: str
    tight: tuple[int, int, int, int]
    area: int
    score: float
    stability: float
    agreement: float
    flags: list[str]


class LabelledImage(msgspec.Struct, gc=False):
    """An image and its masks.

    Attributes:
        image_id, file_name, url: as the dataset has them.
        width, height: of the image.
        objects: in the order of its boxes.
    """

    image_id: int | str
    file_name: str
    url: str
    width: int
    height: int
    objects: list[MaskAnnotation]


_STATS = re.compile(r"(\d{5,})\.stats\.json")
_ENCODER, _DECODER = msgspec.json.Encoder(), msgspec.json.Decoder(LabelledImage)


def has_label_blocks(folder: Path) -> bool:
    """Whether a folder holds blocks of labels, and not one json an image."""
    return any(_BLOCK_FILE_NAME.fullmatch(path.name) for path in folder.iterdir())


def block_path(folder: Path, block: int) -> Path:
    """`00007.jsonl.gz`."""
    return folder / f"{block:05d}.jsonl.gz"


def stats_path(folder: Path, block: int) -> Path:
    """`00007.stats.json`: its presence says that the block is finished."""
    return folder / f"{block:05d}.stats.json"


def write_block(path: Path, images: Iterable[LabelledImage], temporary: Path | None = None) -> dict[str, Any]:
    """Write a block, whole or not at all; its bytes are a function of the images alone.

    Args:
        path: of the file.
        images: in their order.
        temporary: as that of `AtomicFile`.

    Returns:
        Bytes and sha256 of the file.
    """
    data = gzip.compress(b"".join(_ENCODER.encode(image) + b"\n" for image in images), _LEVEL, mtime=0)
    with AtomicFile(path, temporary) as file:
        file.write(data)
    return {"bytes": file.bytes, "sha256": file.sha256}


def read_block(path: Path) -> list[LabelledImage]:
    """The images of a block.

    Raises:
        BadSample: `bad_annotation_file`.
    """
    try:
        packed = read_file(path)
        limit = _MAX_RATIO * len(packed)
        with gzip.open(io.BytesIO(packed)) as file:
            data = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadSample("bad_annotation_file", f"{path}: {error}") from None
    if len(data) > limit:
        raise BadSample("bad_annotation_file", f"{path}: unpacks to over {_MAX_RATIO} times its size, no labels")
    lines = data.splitlines()
    try:
        return [_DECODER.decode(line) for line in lines]
    except JSON_ERRORS as error:
        raise BadSample("bad_annotation_file", f"{path}: {error}") from None


def finished_stats(folder: Path, blocks: int | None = None) -> list[dict[str, Any]]:
    """Stats of the finished blocks, of the first so many where a number is given, in their order.

    Raises:
        PicsError: as `read_stats`.
    """
    # Listed once: asking for a hundred thousand that do not exist takes seconds.
    numbers = sorted(int(match.group(1)) for path in folder.iterdir() if (match := _STATS.fullmatch(path.name)))
    wanted = numbers if blocks is None else [number for number in numbers if number < blocks]
    found = map_files(lambda path: read_stats(folder, int(path.name.partition(".")[0])), [
        stats_path(folder, number) for number in wanted
    ])  # fmt: skip
    return [stats for stats in found if stats]


def read_stats(folder: Path, block: int) -> dict[str, Any] | None:
    """Stats of a finished block, None where it is not finished.

    Raises:
        PicsError: they exist and cannot be read.
    """
    path = stats_path(folder, block)
    try:
        stats: dict[str, Any] = load_json(read_file(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PicsError(
            f"{path}: cannot be read: {reason_of(error)}", "remove it: the block is then made again"
        ) from None
    return stats
