"""A build: what is to be built into which folder, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pics_cli.core.datasets.build_blocks import BuildStats
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.runtime.engines import PictureCounter
from pics_cli.core.runtime.progress import Progress


@dataclass(frozen=True)
class BuildJob:
    """One split of a raw dataset to be built into one folder.

    Attributes:
        dataset: the raw images.
        folder: of the shards.
        limit: number of images that are looked at, the first ones; None: all.
        max_bad: unreadable images and records that are tolerated; None: 1 % of the images, at least 100.
        overwrite: remove the shards that an earlier build left in the folder.
    """

    dataset: DatasetSplit
    folder: Path
    limit: int | None = None
    max_bad: int | None = None
    overwrite: bool = False


@dataclass
class BuildProgress(Progress):
    """How far a build is, in images.

    Attributes:
        settled: images decided upon, besides those in the blocks that run.
        kept_before: samples in the shards that earlier runs finished.
        resumed: shards that earlier runs finished.
        stats: why images gave no sample, so far, in no particular order.
        counter: images of the blocks that run.
    """

    settled: float = 0
    kept_before: int = 0
    resumed: int = 0
    stats: BuildStats = field(default_factory=BuildStats)
    counter: PictureCounter = field(default_factory=PictureCounter)

    @property  # type: ignore[misc]
    def done(self) -> float:
        return self.settled + self.counter.done

    @done.setter
    def done(self, value: float) -> None:
        self.settled = value

    @property
    def detail(self) -> str:
        """What it does besides building; images kept, skipped and bad."""
        words = [self.activity] if self.activity else []
        words.append(f"kept {self.kept_before + self.counter.kept:,}")
        skipped = self.stats.skipped.copy().most_common(3)  # a copy: the build goes on adding
        if skipped:
            words.append("skipped " + ", ".join(f"{count:,} {reason}" for reason, count in skipped))
        if self.stats.bad:
            words.append(f"bad {len(self.stats.bad):,}")
        if self.resumed:
            words.append(f"{self.resumed:,} shards were there")
        return "; ".join(words)
