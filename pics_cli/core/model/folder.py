"""Model folders that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from pics_cli.core.files import make_folder, sync_folder
from pics_cli.errors import PicsError, writing_failed


def check_new(out: Path) -> None:
    """Refuse to write where something is already.

    Raises:
        PicsError: it exists.
    """
    if out.exists():
        raise PicsError(f"{out}: exists already", "choose another name, or remove it first")


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which gets the name `out` at the end of the block, or goes with all in it on a failure.

    Raises:
        PicsError: `out` exists, or it cannot be written.
    """
    check_new(out)
    make_folder(out.absolute().parent)
    folder = out.with_name(f"{out.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir()
        yield folder
        folder.rename(out)
        sync_folder(out.absolute().parent)
    except OSError as error:
        raise writing_failed(out, error) from None
    except SafetensorError as error:
        raise PicsError(f"{out}: cannot write: {error}", "is the disk full?") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
