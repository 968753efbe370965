"""What runs that build parts of one folder share: the choice of the whole split, made once by whoever comes first.

Which candidates a shard holds depends on all pictures before them, so every run with `--range` needs the choice from
the first picture on. The file lies in the folder of the shards until these are complete: a line of JSON for what it was
made from, one for each shard, and a last one for the rest.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pics_cli.core.datasets.build_blocks import BuildStats, Candidate, digest_candidates
from pics_cli.core.runtime.files import AtomicFile, load_json, open_file
from pics_cli.core.runtime.locks import InUse, single_writer
from pics_cli.errors import PicsError, read_error

CHOICE = ".choice.jsonl"
_LOCK, _TEMPORARY = ".choice.lock", ".choice.tmp"
_WAIT = 0.5


class Choice(NamedTuple):
    """What was chosen.

    Attributes:
        blocks: of the range, each with its number and its candidates.
        digests: number of candidates and their sha256, of each block of the split.
        unchosen: why the other images were left out.
    """

    blocks: list[tuple[int, list[Candidate]]]
    digests: list[tuple[int, str]]
    unchosen: BuildStats


def range_run(folder: Path) -> AbstractContextManager[None]:
    """A lock that says that a run with a range works in the folder, among others; to be held while it does."""
    return single_writer(folder, f".{socket.gethostname()}-{os.getpid()}.run.lock")


def refuse_while_ranges_run(folder: Path) -> None:
    """Called by the holder of a folder's lock, who wants the folder alone.

    Raises:
        InUse: a run with a range works in it.
    """
    for path in folder.glob(".*.run.lock"):
        with single_writer(folder, path.name):  # takes over those of processes that are gone
            pass


def remove_leftovers(folder: Path) -> None:
    """Remove what runs with a range no longer need once the shards are complete: the choice, locks of those killed."""
    for path in folder.glob(".*.lock"):
        with suppress(InUse), single_writer(folder, path.name):
            pass
    (folder / CHOICE).unlink(missing_ok=True)


def share_choice(
    folder: Path,
    origin: dict[str, Any],
    make: Callable[[], Iterable[tuple[list[Candidate], BuildStats]]],
    size: int,
    wait: Callable[[], None],
) -> None:
    """Write the choice into the folder unless it is there; where another run is at it, wait for its end.

    Args:
        folder: of the shards.
        origin: what the choice is a function of, as plain data.
        make: gives candidates of consecutive images, and why others gave none.
        size: candidates of a shard.
        wait: called now and then while another run is choosing.

    Raises:
        PicsError: as `make` raises it; the folder cannot be written to.
    """
    while True:
        if _is_of(folder, origin):
            return
        try:
            with single_writer(folder, _LOCK):
                if not _is_of(folder, origin):
                    _write(folder, origin, make(), size)
                return
        except InUse:
            wait()
            time.sleep(_WAIT)


def read_choice(folder: Path, low: int, high: int | None) -> Choice:
    """The blocks from `low` on and below `high`, of all if None; those that the split does not have are left out.

    Raises:
        PicsError: the file cannot be read.
    """
    path = folder / CHOICE
    try:
        with open_file(path) as file:
            next(file)
            blocks, last = list[tuple[int, list[Candidate]]](), b""
            for number, line in enumerate(file):
                if last and low < number <= (number if high is None else high):
                    blocks.append((number - 1, _candidates(last)))
                last = line
            summary = load_json(last)
            digests = [(count, digest) for count, digest in summary["digests"]]
            return Choice(blocks, digests, BuildStats.from_dict(summary["unchosen"]))
    except OSError as error:
        raise read_error(path, error) from None
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise PicsError(f"{path}: damaged: {error}", "remove it and run the same command again") from None


def _write(
    folder: Path, origin: dict[str, Any], chosen: Iterable[tuple[list[Candidate], BuildStats]], size: int
) -> None:
    unchosen, digests = BuildStats(), list[tuple[int, str]]()
    with AtomicFile(folder / CHOICE, folder / _TEMPORARY) as file:
        file.write(_line(origin))
        for block in _blocks(chosen, size, unchosen):
            file.write(_line(block))
            digests.append((len(block), digest_candidates(block)))
        file.write(_line({"digests": digests, "unchosen": unchosen.as_dict()}))


def _blocks(
    chosen: Iterable[tuple[list[Candidate], BuildStats]], size: int, unchosen: BuildStats
) -> Iterator[list[Candidate]]:
    """Candidates in runs of one size, the last one shorter."""

    def one_by_one() -> Iterator[Candidate]:
        for candidates, skipped in chosen:
            unchosen.add(skipped)
            yield from candidates

    rest = one_by_one()
    while block := list(islice(rest, size)):
        yield block


def _is_of(folder: Path, origin: dict[str, Any]) -> bool:
    try:
        with open_file(folder / CHOICE) as file:
            return next(file, b"") == _line(origin)
    except OSError:
        return False


def _line(data: Any) -> bytes:
    return (json.dumps(data) + "\n").encode()


def _candidates(line: bytes) -> list[Candidate]:
    return [Candidate(item, tuple(group), tuple(geometry)) for item, group, geometry in load_json(line)]
