"""Sheets as PNG files that say that they are sheets; see `runtime.outputs.refuse_other_picture`."""

from __future__ import annotations

from pathlib import Path

from pics_cli.core.images.image_io import RGB, encode_png
from pics_cli.core.runtime.files import AtomicFile, make_folder
from pics_cli.core.runtime.outputs import PNG_HEAD, SHEET_MARK


def write_sheet_file(path: Path, rgb: RGB) -> None:
    """Write a sheet, uint8 [H, W, 3], as a PNG file, whole or not at all; its folder is created where it is missing.

    Raises:
        PicsError: it cannot be written.
    """
    data = encode_png(rgb)
    make_folder(path.parent)
    with AtomicFile(path) as file:
        file.write(data[:PNG_HEAD] + SHEET_MARK + data[PNG_HEAD:])
