"""Pictures on disk by the examples they show: those of other methods, and reference pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pics_cli.core.evaluation.examples import Example
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.stored_image import decode_stored, to_srgb
from pics_cli.core.runtime.files import file_sha256, read_file
from pics_cli.core.runtime.storage import list_folder
from pics_cli.errors import BadSample, PicsError, reason_of

logger = logging.getLogger(__name__)

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class ExternalResults:
    """Pictures that another method made of the same examples: its name, and the folder they lie in."""

    name: str
    folder: Path

    @cached_property
    def files(self) -> dict[str, Path]:
        """By key, as they are when first asked for; see `find_pictures`."""
        return find_pictures(self.folder, "--input")

    def warn_of_other_names(self, keys: Sequence[str]) -> None:
        """Warn, before the work, where the pictures seem to be called after something else than the first examples."""
        if keys and not self.files.keys() & set(keys):
            logger.warning(
                "--input %s: no picture of the first cases, called %s; it has %s",
                self.folder, ", ".join(keys), ", ".join(list(self.files)[: len(keys)]),
            )  # fmt: skip

    def sha256(self, key: str) -> str | None:
        """Of the picture of an example; None where there is none."""
        return file_sha256(self.files[key]) if key in self.files else None

    def read(self, example: Example, _seed: int = 0) -> RGB:
        """The picture of an example.

        Raises:
            BadSample: there is none, or it is damaged or of another size than the truth.
        """
        if example.key not in self.files:
            raise BadSample("no_picture", f"{self.folder}: no {example.key}.png")
        path = self.files[example.key]
        rgb = read_picture(path)
        if rgb.shape != example.truth.shape:
            own, truth = ("x".join(str(side) for side in image.shape[1::-1]) for image in (rgb, example.truth))
            raise BadSample("other_size", f"{path}: {own}, the truth is {truth}")
        return rgb


def read_picture(path: Path) -> RGB:
    """A picture file as it looks: uint8 [H, W, 3] in sRGB, whatever its colour profile.

    Raises:
        BadSample: it cannot be read, or is damaged.
    """
    try:
        return to_srgb(decode_stored(read_file(path)))
    except OSError as error:
        raise BadSample("unreadable_image", f"{path}: {reason_of(error)}") from None
    except BadSample as error:
        raise BadSample(error.reason, f"{path}: {error.detail}") from None


def find_pictures(folder: Path, flag: str) -> dict[str, Path]:
    """Picture files of a folder (or of `composed/` in it) by key, sorted: their names, without `composed_`.

    Raises:
        PicsError: no such folder, no picture in it, or two of one key.
    """
    if not folder.is_dir():
        raise PicsError(f"{flag} {folder}: no such folder", "name a folder of pictures called after their samples")
    directory = folder / "composed" if (folder / "composed").is_dir() else folder
    entries = list_folder(directory)
    files = [
        path
        for name in sorted(entries)
        if not entries[name].is_dir and (path := directory / name).suffix.lower() in _SUFFIXES
    ]
    if not files:
        raise PicsError(f"{flag} {folder}: no picture in it", f"expected files such as ID{_SUFFIXES[0]}")
    pictures = dict[str, Path]()
    for path in files:
        key = path.stem.removeprefix("composed_")
        if (other := pictures.setdefault(key, path)) is not path:
            raise PicsError(
                f"{flag} {folder}: both {other.name} and {path.name} are pictures of {key}",
                "remove one of them: a picture is called after its sample, with composed_ before it or not",
            )
    return pictures
