"""Several annotation files of one split, read one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from pics_cli.core.datasets.readers.base import Reader
from pics_cli.core.datasets.scene import ItemId, Scene
from pics_cli.core.runtime.bad_samples import BadRecords


class JoinedReader(Reader):
    """The images of several readers; each is named by its file, since files number their images alike.

    Args:
        root: the dataset's folder, relative to which files are named.
        readers: of one file each.
    """

    def __init__(self, root: Path, readers: Sequence[Reader]) -> None:
        self._readers, self.bad_records = readers, BadRecords()
        self._files = [path for reader in readers for path in reader.annotation_files]
        places = [reader.annotations.relative_to(root) for reader in readers if reader.annotations]
        self._names = [place.with_suffix("").as_posix() for place in places]
        if len(set(self._names)) < len(places):
            self._names = [place.as_posix() for place in places]
        self.annotations = self._files[0]
        self.source: dict[str, Any] = {"format": "joined", "files": [reader.source for reader in readers]}
        for name, reader in zip(self._names, readers, strict=True):
            self.bad_records.add(reader.bad_records, name)
        self.categories = list(dict.fromkeys(name for reader in readers for name in reader.categories))
        crowds = [reader.crowds for reader in readers if reader.crowds]
        self.crowds = (sum(marked for marked, _ in crowds), sum(of for _, of in crowds)) if crowds else None

    @property
    def annotation_files(self) -> Sequence[Path]:
        """The files, in the order in which they are read."""
        return self._files

    def __len__(self) -> int:
        return sum(map(len, self._readers))

    def item_ids(self, start: int, stop: int) -> Sequence[ItemId]:
        """Ids of the images start to stop: `FILE#ID`, or `FILE#=ID` where ID is a text."""
        ids: list[ItemId] = []
        lengths = list(map(len, self._readers))
        for number, (reader, end, length) in enumerate(zip(self._readers, accumulate(lengths), lengths, strict=True)):
            low, high = max(start, end - length), min(stop, end)
            if low < high:
                own = reader.item_ids(low - end + length, high - end + length)
                ids += [f"{number}#{'=' * isinstance(item, str)}{item}" for item in own]
        return ids

    def scene(self, item_id: ItemId) -> Scene:
        """The image of that id."""
        number, _, own = str(item_id).partition("#")
        scene = self._readers[int(number)].scene(own[1:] if own.startswith("=") else int(own))
        return replace(scene, key=f"{self._names[int(number)]}/{scene.key}")
