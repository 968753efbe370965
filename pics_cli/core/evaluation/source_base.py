"""What all sources of examples have in common."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pics_cli.core.evaluation.examples import Example
from pics_cli.core.runtime.files import file_sha256
from pics_cli.core.runtime.storage import map_files
from pics_cli.errors import BadSample

NUM_DISTRACTORS = 24


class ExampleSource(ABC):
    """Examples by number, the same in every process.

    Attributes:
        provenance: plain data that identify this source.
        folders: on this machine that it reads.
        warnings: for readers of the results.
    """

    provenance: Mapping[str, Any]
    folders: Collection[Path] = ()
    warnings: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, number: int) -> Example:
        """Raises BadSample."""

    def distractors(self) -> list[Example]:
        """Examples whose references `identity` draws from, however many are measured: the first that can be read."""
        return list(islice(readable_examples(self, range(len(self))), NUM_DISTRACTORS))


def readable_examples(source: ExampleSource, numbers: Iterable[int]) -> Iterator[Example]:
    """The examples of these numbers that can be read."""
    for number in numbers:
        with contextlib.suppress(BadSample):
            yield source[number]


def hash_listing(files: Mapping[str, Path]) -> str:
    """sha256 of the names of some files and of what is in each, in hex."""
    hashes = map_files(file_sha256, list(files.values()))
    listing = "\n".join(f"{name}\0{sha256}" for name, sha256 in zip(files, hashes, strict=True))
    return hashlib.sha256(listing.encode()).hexdigest()
