"""Pictures of a folder as cases: the truth, and nothing else is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pics_cli.core.data.pictures import decode_picture
from pics_cli.core.evaluation.case import Case
from pics_cli.core.evaluation.job import Peer
from pics_cli.core.evaluation.strata import UNKNOWN
from pics_cli.core.files import file_sha256
from pics_cli.errors import BadSample, PicsError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_PREFIX, _SHOWN = "composed_", 3


class FolderCases:
    """Reference pictures by their names without suffix, in their order; see `Cases`.

    Raises:
        PicsError: no such folder, or no picture in it.
    """

    warnings: Sequence[str] = ()

    def __init__(self, folder: Path) -> None:
        self.files = pictures(folder, "--reference")
        listing = "\n".join(f"{key}\0{file_sha256(path)}" for key, path in self.files.items())
        self.keys = list(self.files)
        self.provenance = {"kind": "pictures", "pictures": len(self.keys),
                           "listing": hashlib.sha256(listing.encode()).hexdigest()}  # fmt: skip

    def __len__(self) -> int:
        return len(self.keys)

    def case(self, number: int) -> Case:
        """The picture of that number."""
        key = self.keys[number]
        try:
            truth = decode_picture(self.files[key].read_bytes()).rgb
        except OSError as error:
            raise BadSample("unreadable_image", f"{self.files[key]}: {error}") from None
        return Case(
            key=key, background=np.zeros_like(truth), truth=truth, references=(), places=(), regions=(), order=(),
            visible=(), full=None, clean=False, wrong=(), front=None, relation=UNKNOWN,
        )  # fmt: skip

    def others(self) -> list[Case]:
        """None: there are no objects to tell apart."""
        return []


def pictures(folder: Path, flag: str) -> dict[str, Path]:
    """Picture files of a folder (or of `composed/` in it) by id, in order: their names, without `composed_`.

    Raises:
        PicsError: no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise PicsError(f"{flag} {folder}: no such folder", "name a folder of pictures called after their samples")
    place = folder / "composed" if (folder / "composed").is_dir() else folder
    files = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise PicsError(f"{flag} {folder}: no picture in it", f"expected files such as ID{SUFFIXES[0]}")
    return {path.stem.removeprefix(_PREFIX): path for path in files}


def check_common(cases: FolderCases, peers: Sequence[Peer]) -> None:
    """Raise PicsError for a folder that has no picture of the same name as any reference."""
    for peer in peers:
        found = list(pictures(peer.folder, "--input"))
        if not set(found) & set(cases.keys):
            ours, theirs = (", ".join(keys[:_SHOWN]) for keys in (cases.keys, found))
            raise PicsError(
                f"--input {peer.folder}: no sample in common with --reference: {theirs}, … against {ours}, …",
                "pictures are paired by their names without suffix",
            )
