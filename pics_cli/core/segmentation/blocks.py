"""Which blocks of pictures a run makes, and which pictures of them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from pics_cli.core.datasets.labels import Found, Labelled, read_stats
from pics_cli.core.segmentation.job import Job
from pics_cli.core.segmentation.preprocessing import Prepared
from pics_cli.errors import BadSample, PicsError


@dataclass
class Block:
    """A block in the making.

    Attributes:
        number: its own.
        rows: of its pictures that are to be made.
        stack: holds its lock.
        before: labels that were there, by row.
        waiting: labels of each row, as they come, or what is wrong with a picture.
        dropped: why boxes were left out.
    """

    number: int
    rows: list[int]
    stack: contextlib.ExitStack
    before: dict[int, Labelled] = field(default_factory=dict)
    waiting: dict[int, tuple[Prepared, Future[list[Found]]] | BadSample] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    def is_done(self) -> bool:
        """Whether nothing is being computed any more."""
        return len(self.waiting) == len(self.rows) and all(
            isinstance(each, BadSample) or each[1].done() for each in self.waiting.values()
        )


def blocks_of(job: Job, pictures: int, size: int) -> list[int]:
    """Blocks whose first picture lies in the range.

    Raises:
        PicsError: there is none.
    """
    low, high = job.rows
    stop = pictures if high is None else min(high, pictures)
    found = list(range(-(-low // size), -(-stop // size)))
    if not found:
        raise PicsError(
            f"--range {low}:{'' if high is None else high}: no block begins there; a block has {size} pictures",
            f"take multiples of {size} (source.sam.block of the recipe)",
        )
    return found


def rounded(job: Job, blocks: Sequence[int], pictures: int, size: int) -> str | None:
    """What the range comes to, where that is not what was asked for."""
    low, high = job.rows
    first, end = blocks[0] * size, min((blocks[-1] + 1) * size, pictures)
    if first == low and end == (pictures if high is None else min(high, pictures)):
        return None
    return f"blocks of {size} pictures belong to whoever has their first: this run has {first}:{end}"


def length(block: int, pictures: int, size: int) -> int:
    return min((block + 1) * size, pictures) - block * size


def is_due(job: Job, block: int) -> bool:
    """Whether a block is missing, or has pictures that could not be read."""
    stats = read_stats(job.state, block)
    return bool(stats and stats["bad"]) or (stats is None and not job.retry)


def rows_due(job: Job, block: int, pictures: int, size: int) -> list[int]:
    """Pictures of a block that are to be made: all of one that is missing, else those that failed."""
    stats = None if job.overwrite else read_stats(job.state, block)
    if stats is None:
        return list(range(block * size, block * size + length(block, pictures, size)))
    return [int(entry["item"]) for entry in stats["bad"]]


def pictures_at_once(job: Job, kind: str) -> int:
    """Pictures of a batch of the encoder on this kind of device, unless the user says another.

    On a CPU larger batches gain no time and take more memory.
    """
    return job.batch_images or (1 if kind == "cpu" else 4)
