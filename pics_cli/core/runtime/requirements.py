"""What a job's blocks need of the machine that they run on, beside their arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class BuiltOnce(Protocol):
    """A file or folder outside the job's own that is made from its input once and copied to machines that lack it.

    Picklable: the same object finds the same thing on every machine.
    """

    @property
    def path(self) -> Path:
        """What it is made from."""

    def is_here(self, verify: bool) -> bool:
        """Whether this machine has it, and, to `verify`, undamaged.

        Raises:
            PicsError: its input is another one here.
        """

    def pack(self) -> Iterator[tuple[str, bytes]]:
        """This machine's, in named pieces of some megabytes."""

    def unpack(self, pieces: Iterable[tuple[str, bytes]]) -> None:
        """Put another machine's into place."""


@dataclass(frozen=True)
class Requirements:
    """What a machine must have to run a job's blocks; an engine of several machines checks each before its first block.

    Attributes:
        reads: files and folders that exist there as they do here.
        writes: folders of this machine that are the same ones there, and can be written to.
        versions: of the libraries that the results depend on, by name; picklable.
        built: what is copied to machines that lack it.
    """

    reads: Sequence[Path] = ()
    writes: Sequence[Path] = ()
    versions: Callable[[], Mapping[str, str]] | None = None
    built: Sequence[BuiltOnce] = ()
