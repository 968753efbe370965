"""What a job's blocks need of the machine that they run on, beside their arguments."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from pics_cli.core.runtime.files import as_remote

_SMALL_WEIGHTS = 500_000_000


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
        memory: bytes of main memory that a worker process is to have for itself; 0: it takes little.
    """

    reads: Sequence[Path] = ()
    writes: Sequence[Path] = ()
    versions: Callable[[], Mapping[str, str]] | None = None
    built: Sequence[BuiltOnce] = ()
    memory: int = 0


def installed_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of libraries, as far as they are installed; builds for a GPU and for none count as the same."""
    versions = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name).partition("+")[0]
    return versions


def existing_folder(path: Path) -> Path:
    """A folder, or the nearest one above it that exists; in a store, where folders need not, the folder itself."""
    if as_remote(path) is not None:
        return path
    return next((folder for folder in (path, *path.absolute().parents) if folder.is_dir()), path)


def worker_memory(weights: int) -> int:
    """Bytes of main memory that a worker with weights of so many bytes on disk is to have for itself.

    Of models small beside the libraries none, so that workers are as many as cores.
    """
    return weights * 3 // 2 + (2 << 30) if weights > _SMALL_WEIGHTS else 0
