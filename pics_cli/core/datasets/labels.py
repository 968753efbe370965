"""Label files: one compressed JSON-lines file for each block of pictures, and a stats file that says it is finished.

A line is a picture with all of its boxes, in their order, each with its whole mask. Pictures that could not be read
have no line; the stats file lists them.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from pics_cli.core.datasets.json_records import JSON_ERRORS
from pics_cli.core.runtime.files import AtomicFile
from pics_cli.errors import BadSample, PicsError

SCHEMA = 1
# Where manifest and stats lie in a folder whose files others read, of one json a picture.
HIDDEN_FOLDER = ".pics"
BLOCK_FILE_NAME = re.compile(r"([0-9]{5,})\.jsonl\.gz")
LABEL_FILE_NAMES = re.compile(r"[0-9]{5,}\.(jsonl\.gz|stats\.json|tmp)|manifest\.(json|tmp)")
_LEVEL = 6

Corners = tuple[float, float, float, float]


class MaskAnnotation(msgspec.Struct, gc=False):
    """A box and its mask.

    Attributes:
        id, category, category_id: of the box, as annotated.
        box: as annotated, float `x0, y0, x1, y1`, half-open.
        counts: COCO's compressed run lengths of the whole mask, whose size is the picture's.
        tight: int box of the mask, all 0 where it is empty.
        area: its pixels.
        score: IoU that the model expects.
        stability: IoU of the masks at a higher and a lower threshold.
        agreement: IoU of `tight` with the annotated box inside the picture.
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
    """A picture and its masks.

    Attributes:
        image_id, file_name, url: as the dataset has them.
        width, height: of the picture.
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
    return any(BLOCK_FILE_NAME.fullmatch(path.name) for path in folder.iterdir())


def block_path(folder: Path, block: int) -> Path:
    """`00007.jsonl.gz`."""
    return folder / f"{block:05d}.jsonl.gz"


def stats_path(folder: Path, block: int) -> Path:
    """`00007.stats.json`: its presence says that the block is finished."""
    return folder / f"{block:05d}.stats.json"


def write_block(path: Path, pictures: Iterable[LabelledImage], temporary: Path | None = None) -> dict[str, Any]:
    """Write a block, whole or not at all; its bytes are a function of the pictures alone.

    Args:
        path: of the file.
        pictures: in their order.
        temporary: as that of `AtomicFile`.

    Returns:
        Bytes and sha256 of the file.
    """
    data = gzip.compress(b"".join(_ENCODER.encode(each) + b"\n" for each in pictures), _LEVEL, mtime=0)
    with AtomicFile(path, temporary) as file:
        file.write(data)
    return {"bytes": file.bytes, "sha256": file.sha256}


def read_block(path: Path) -> list[LabelledImage]:
    """The pictures of a block.

    Raises:
        BadSample: `bad_annotation_file`.
    """
    try:
        lines = gzip.decompress(path.read_bytes()).splitlines()
    except (OSError, EOFError, zlib.error) as error:
        raise BadSample("bad_annotation_file", f"{path}: {error}") from None
    try:
        return [_DECODER.decode(line) for line in lines]
    except JSON_ERRORS as error:
        raise BadSample("bad_annotation_file", f"{path}: {error}") from None


def finished_stats(folder: Path, blocks: int) -> list[dict[str, Any]]:
    """Stats of the finished ones among so many blocks, in their order.

    Raises:
        PicsError: as `read_stats`.
    """
    # Listed once: asking for each of a hundred thousand that are not there takes seconds.
    numbers = sorted(int(found.group(1)) for path in folder.iterdir() if (found := _STATS.fullmatch(path.name)))
    return [stats for number in numbers if number < blocks and (stats := read_stats(folder, number))]


def read_stats(folder: Path, block: int) -> dict[str, Any] | None:
    """Stats of a finished block, None where it is not finished.

    Raises:
        PicsError: they are there and cannot be read.
    """
    path = stats_path(folder, block)
    try:
        stats: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PicsError(f"{path}: cannot be read: {error}", "remove it: the block is then made again") from None
    return stats
