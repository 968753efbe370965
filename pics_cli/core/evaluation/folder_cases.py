"""Pictures of a folder as cases: the truth, and nothing else is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pics_cli.core.data.pictures import decode_picture
from pics_cli.core.evaluation.case import Case
from pics_cli.core.evaluation.job import Peer
from pics_cli.core.evaluation.picture_folder import pictures
from pics_cli.core.evaluation.strata import UNKNOWN
from pics_cli.core.files import file_sha256
from pics_cli.errors import BadSample, PicsError

_SHOWN = 3


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


def check_common(cases: FolderCases, peers: Sequence[Peer]) -> None:
    """Raise PicsError for a folder that has no picture of the same name as any reference."""
    for peer in peers:
        found = list(peer.files)
        if not set(found) & set(cases.keys):
            ours, theirs = (", ".join(keys[:_SHOWN]) for keys in (cases.keys, found))
            raise PicsError(
                f"--input {peer.folder}: no sample in common with --reference: {theirs}, … against {ours}, …",
                "pictures are paired by their names without suffix",
            )
