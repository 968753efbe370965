"""The two pure steps of a build: choose groups for a run of images, and turn a block of groups into a shard.

Both are functions of picklable arguments; any executor, on any machine that sees the files, may run them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from pics_cli.core.datasets.build_sample import build_sample
from pics_cli.core.datasets.compat import choose_compat_group
from pics_cli.core.datasets.pairs import Group, choose_group
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit, Reader
from pics_cli.core.datasets.scene import ItemId, Skip
from pics_cli.core.datasets.shard_folder import finish_shard
from pics_cli.core.runtime.engines import count_picture
from pics_cli.core.runtime.signals import process_pending_signals
from pics_cli.core.shards.samples import escape_key
from pics_cli.core.shards.shard_files import ShardWriter, shard_path
from pics_cli.errors import BadSample

_EXAMPLES = 3  # pictures named in the manifest for each reason


class Candidate(NamedTuple):
    """An image that passed the choice, the group chosen, and its boxes and areas as annotated."""

    item_id: ItemId
    group: Group
    geometry: tuple[float, ...]


@dataclass
class BuildStats:
    """What became of the images that gave no sample.

    Attributes:
        skipped: count by reason.
        examples: the first few images of each reason.
        bad: images that should have been readable: item, reason, detail.
        noted: of `build_sample.NOTES`, what was found in images that may have given a sample.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[ItemId]] = field(default_factory=dict)
    bad: list[dict[str, Any]] = field(default_factory=list)
    noted: Counter[str] = field(default_factory=Counter)

    @property
    def images(self) -> int:
        """How many they are."""
        return sum(self.skipped.values()) + len(self.bad)

    def skip(self, item_id: ItemId, reason: str) -> None:
        """Count an image that the rule leaves out."""
        self.add(BuildStats(Counter([reason]), {reason: [item_id]}))

    def fail(self, item_id: ItemId, error: BadSample) -> None:
        """Count an image that cannot be read."""
        self.bad.append({"item": item_id, "reason": error.reason, "detail": error.detail})

    def add(self, other: BuildStats) -> None:
        """Append the stats of later images."""
        self.skipped.update(other.skipped)
        for reason, item_ids in other.examples.items():
            examples = self.examples.setdefault(reason, [])
            examples.extend(item_ids[: _EXAMPLES - len(examples)])
        self.bad.extend(other.bad)
        self.noted.update(other.noted)

    def as_dict(self) -> dict[str, Any]:
        """As data for a stats file or manifest, in a fixed order."""
        return {
            "skipped": dict(sorted(self.skipped.items())),
            "examples": dict(sorted(self.examples.items())),
            "bad": self.bad,
            **({"noted": dict(sorted(self.noted.items()))} if self.noted else {}),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> BuildStats:
        """Inverse of `as_dict`; other keys are passed over."""
        examples = {reason: list(item_ids) for reason, item_ids in data["examples"].items()}
        return cls(Counter(data["skipped"]), examples, list(data["bad"]), Counter(data.get("noted", {})))


def choose_block(dataset: DatasetSplit, item_ids: Sequence[ItemId]) -> tuple[list[Candidate], BuildStats]:
    """Apply the recipe's rule to images, in order, without decoding one."""
    reader, recipe = _open_cached(dataset), dataset.recipe
    choose = choose_compat_group if recipe.compat else choose_group
    candidates, stats = [], BuildStats()
    for item_id in item_ids:
        process_pending_signals()
        try:
            scene = reader.scene(item_id)
            group = choose(scene, recipe.pairs)
        except BadSample as error:
            stats.fail(item_id, error)
            continue
        stats.noted.update(scene.notes)
        if isinstance(group, Skip):
            stats.skip(item_id, group.reason)
        else:
            geometry = [v for i in group for v in (*scene.instances[i].box, scene.instances[i].area)]
            candidates.append(Candidate(item_id, group, tuple(geometry)))
    return candidates, stats


def build_block(dataset: DatasetSplit, folder: Path, block: int, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Build one shard: decode, cut, write the tar, then its stats file. Returns the stats.

    The bytes are a function of the arguments (and library versions) alone. A block in which every image fails leaves
    its stats and no tar.
    """
    cv2.setNumThreads(1)  # blocks run side by side; threads inside them would only get in each other's way
    reader, recipe, stats = _open_cached(dataset), dataset.recipe, BuildStats()
    with ShardWriter(shard_path(folder, block)) as writer:
        for item_id, group, _ in candidates:
            kept = False
            try:
                scene = reader.scene(item_id)
                members = build_sample(scene, group, recipe, dataset.split, stats.noted)
                if isinstance(members, Skip):
                    stats.skip(item_id, members.reason)
                else:
                    writer.add(escape_key(scene.key), members)
                    kept = True
            except BadSample as error:
                stats.fail(item_id, error)
            count_picture(kept)
    origin = {"candidates": len(candidates), "candidates_sha256": digest_candidates(candidates)}
    return finish_shard(folder, block, writer, origin, stats.as_dict())


def digest_candidates(candidates: Sequence[Candidate]) -> str:
    """sha256 (hex) of what was chosen: other annotations give another one."""
    return hashlib.sha256(json.dumps(candidates).encode()).hexdigest()


_cached_reader: tuple[DatasetSplit, int, Reader] | None = None


def _open_cached(dataset: DatasetSplit) -> Reader:
    """This process's reader of the input: one at a time, opened on first use and when its file has changed."""
    global _cached_reader  # noqa: PLW0603  (a cache of one)
    raw = None if dataset.raw is None else dataset.raw.absolute()
    key = replace(dataset, raw=raw)
    if _cached_reader is None or _cached_reader[0] != key or _cached_reader[1] != _modified(_cached_reader[2]):
        reader = open_reader(dataset)
        _cached_reader = key, _modified(reader), reader
    return _cached_reader[2]


def _modified(reader: Reader) -> int:
    return max((path.stat().st_mtime_ns for path in reader.annotation_files), default=0)
