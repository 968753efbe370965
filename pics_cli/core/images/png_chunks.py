"""Chunks of PNG files: made, and walked with their checksums compared."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Container, Iterator
from typing import IO

from isal import isal_zlib

from pics_cli.errors import BadSample

Chunk = tuple[bytes, bytes]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF_HEADER = b"Exif\0\0"
# Texts that say what an eXIf chunk could, and what may name an orientation that is not followed.
_RAW_EXIF, XMP_KEYWORD = b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file: length, name, data, checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def read_chunks(file: IO[bytes], only: Container[bytes] | None = None) -> Iterator[Chunk]:
    """Name and data of each chunk of a PNG file, from its signature on to its end; checksums are compared.

    Args:
        file: at its start.
        only: names of chunks to read; others are passed over, and their data is empty. None: all.

    Raises:
        BadSample: `unreadable_image`, `damaged_image` or `truncated_image`, when the walk comes to what is wrong.
    """
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise BadSample("unreadable_image", "no PNG")
    name = b""
    while name != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise BadSample("truncated_image", "PNG cut short: it has no end")
        length, name = struct.unpack(">I4s", head)
        if only is not None and name not in only:
            file.seek(length + 4, os.SEEK_CUR)
            yield name, b""
            continue
        rest = file.read(length + 4)
        if len(rest) < length + 4:
            raise BadSample("truncated_image", f"PNG cut short in its chunk {name!r}")
        data, check = rest[:-4], rest[-4:]
        if int.from_bytes(check, "big") != isal_zlib.crc32(data, isal_zlib.crc32(name)):
            raise BadSample("damaged_image", f"PNG damaged: the checksum of its chunk {name!r} does not fit")
        yield name, data


def check_png(data: bytes) -> list[Chunk]:
    """Compare the checksums of all chunks of a PNG file, which Pillow does not do for those of the pixels.

    Returns:
        Name and data of the chunks before the pixels.

    Raises:
        BadSample: `damaged_image` or `truncated_image`.
    """
    chunks, pixels = list[Chunk](), False
    for each in read_chunks(io.BytesIO(data)):
        pixels |= each[0] == b"IDAT"
        if not pixels:
            chunks.append(each)
    return chunks


def find_exif(file: IO[bytes]) -> bytes | None:
    """EXIF data of a PNG file, wherever it stands, without a pixel being read; empty: there is none.

    Returns:
        None where a text has it, or XMP data stands behind the pixels: Pillow knows both once it has decoded these.

    Raises:
        BadSample: see `read_chunks`.
    """
    pixels = False
    for name, data in read_chunks(file, (b"eXIf", b"tEXt", b"zTXt", b"iTXt")):
        pixels |= name == b"IDAT"
        if name == b"eXIf":
            return _EXIF_HEADER + data
        if data.startswith(_RAW_EXIF) or (pixels and data.startswith(XMP_KEYWORD)):
            return None
    return b""
