"""Sheets as files: drawn anew over sheets, never over another picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pics_cli.core.images.image_io import write_png
from pics_cli.core.images.sheet_files import write_sheet_file
from pics_cli.core.runtime.outputs import refuse_other_picture
from pics_cli.errors import PicsError


def test_a_sheet_is_drawn_anew(tmp_path: Path) -> None:
    sheet = tmp_path / "new/sheet.png"
    refuse_other_picture("--sheet", sheet)
    for level in (10, 250):
        rgb = np.full((20, 30, 3), level, np.uint8)
        write_sheet_file(sheet, rgb)
        with Image.open(sheet) as image:
            image.verify()
        with Image.open(sheet) as image:
            assert image.info["Software"] == "pics sheet"
            assert np.array_equal(np.asarray(image), rgb)
        refuse_other_picture("--sheet", sheet)


def test_another_picture_stays(tmp_path: Path) -> None:
    photo, empty = tmp_path / "photo.png", tmp_path / "empty.png"
    write_png(photo, np.zeros((20, 30, 3), np.uint8))
    empty.touch()
    for path in (photo, empty):
        with pytest.raises(PicsError, match="is there already, and is no sheet that pics drew") as caught:
            refuse_other_picture("--contact-sheet", path)
        assert caught.value.message.startswith(f"--contact-sheet {path}: ")
