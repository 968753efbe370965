"""What a build would take (`pics build-shards --plan`): a few blocks of pictures are built and thrown away."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pics_cli.core.datasets.build import check_recipe, image_count
from pics_cli.core.datasets.build_blocks import build_block, choose_block
from pics_cli.core.datasets.build_job import BuildJob
from pics_cli.core.datasets.build_schedule import LONGEST_RUN
from pics_cli.core.datasets.readers.base import Reader
from pics_cli.core.runtime.cluster_model import MOST_BLOCKS, Ratio, Work, ratio_of_blocks, sample_blocks
from pics_cli.core.runtime.progress import Progress
from pics_cli.errors import BadSample

# Pictures of a block that is tried.
_PICTURES = 8


class TriedBlock(NamedTuple):
    """What a block of pictures took.

    Attributes:
        pictures: that were looked at.
        candidates: of them, that passed the choice.
        samples: of them, that became samples.
        cpu: seconds of one core.
        reading: seconds of waiting for picture files.
        read, written: bytes of pictures, and of the shard.
    """

    pictures: int
    candidates: int
    samples: int
    cpu: float
    reading: float
    read: int
    written: int


@dataclass(frozen=True)
class BuildPlan:
    """What was measured, of a picture unless said otherwise.

    Attributes:
        pictures: of the whole job.
        shard_size: candidates of a shard.
        tried: the blocks.
    """

    pictures: int
    shard_size: int
    tried: Sequence[TriedBlock]

    def per_picture(self, *columns: str) -> Ratio:
        """The sum of these columns of the blocks, for each picture."""
        amounts = [float(sum(getattr(block, name) for name in columns)) for block in self.tried]
        return ratio_of_blocks(amounts, [block.pictures for block in self.tried])

    @property
    def sample_bytes(self) -> Ratio:
        """Bytes of the shards for each sample."""
        return ratio_of_blocks([block.written for block in self.tried], [block.samples for block in self.tried])

    @property
    def reading_rate(self) -> float | None:
        """Bytes a second that one process reads pictures with; None where it reads none."""
        seconds, size = sum(block.reading for block in self.tried), sum(block.read for block in self.tried)
        return size / seconds if size else None

    @property
    def shards(self) -> int:
        """How many shards there will be, about."""
        return max(1, -(-round(self.per_picture("candidates").of(self.pictures).value) // self.shard_size))

    @property
    def work(self) -> Work:
        """The whole job, for the model of a cluster."""
        share = self.per_picture("candidates").value
        block = self.shard_size / share if share else float(self.pictures)
        return Work(
            items=self.pictures, seconds=self.per_picture("cpu", "reading").value,
            read=self.per_picture("read").value, written=self.per_picture("written").value,
            block=block, calls=1 / block + 1 / LONGEST_RUN,
        )  # fmt: skip


def plan_build(job: BuildJob, reader: Reader, progress: Progress) -> BuildPlan:
    """Build blocks of pictures that are spread over the split, in a temporary folder, and measure.

    Raises:
        PicsError: dataset and recipe are not what they should be.
    """
    check_recipe(job.dataset, reader)
    pictures, tried = image_count(job, reader), list[TriedBlock]()
    progress.total = min(pictures, MOST_BLOCKS * _PICTURES)
    with tempfile.TemporaryDirectory(prefix="pics-plan-") as folder:
        _try_block(job, reader, Path(folder), range(1))  # loads libraries, opens what is kept open
        for items in sample_blocks(pictures, _PICTURES):
            tried.append(_try_block(job, reader, Path(folder), items))
            progress.done += len(items)
    progress.total = round(progress.done)
    return BuildPlan(pictures, job.dataset.recipe.shards.size, tried)


def _try_block(job: BuildJob, reader: Reader, folder: Path, items: range) -> TriedBlock:
    """Choose, read and build as a worker does, its own waiting for files apart."""
    start = time.process_time()
    candidates, _ = choose_block(job.dataset, reader.item_ids(items.start, items.stop))
    cpu = time.process_time() - start
    reading, read = 0.0, 0
    for candidate in candidates:
        with contextlib.suppress(BadSample):
            scene = reader.scene(candidate.item_id)
            if scene.draw is None:
                begin = time.perf_counter()
                read += len(scene.read_image())
                reading += time.perf_counter() - begin
    start = time.process_time()
    stats = build_block(job.dataset, folder, 0, candidates)  # which finds the files in memory
    cpu += time.process_time() - start
    return TriedBlock(len(items), len(candidates), stats["samples"], cpu, reading, read, stats["bytes"] or 0)
