"""Which blocks of pictures a run makes, and which pictures of them."""

from __future__ import annotations

from collections.abc import Sequence

from pics_cli.core.annotate.job import Job
from pics_cli.core.annotate.labels import read_stats
from pics_cli.errors import PicsError


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
