"""The two pure steps of a build: choose groups for a run of pictures, and turn a block of groups into a shard.

Both are functions of picklable arguments; any executor, on any machine that sees the files, may run them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from pics_cli.core.datasets.assemble import build_sample
from pics_cli.core.datasets.job import Input
from pics_cli.core.datasets.pairs import Group, choose
from pics_cli.core.datasets.readers import Reader, open_reader
from pics_cli.core.datasets.scene import Item, Skip
from pics_cli.core.recipes.base import digest
from pics_cli.core.recipes.dataset import dataset_identity
from pics_cli.core.runtime.engines import count_picture
from pics_cli.core.runtime.files import write_json
from pics_cli.core.runtime.signals import process_pending_signals
from pics_cli.core.shards.samples import escape_key
from pics_cli.core.shards.shard_files import ShardWriter, shard_path, stats_path
from pics_cli.errors import BadSample

EXAMPLES = 3


class Candidate(NamedTuple):
    """A picture that passed the choice, the group chosen, and its boxes and areas as annotated."""

    item: Item
    group: Group
    shape: tuple[float, ...]


@dataclass
class Outcome:
    """What became of the pictures that gave no sample.

    Attributes:
        skipped: count by reason.
        examples: the first few pictures of each reason.
        bad: pictures that should have been readable: item, reason, detail.
    """

    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Item]] = field(default_factory=dict)
    bad: list[dict[str, Any]] = field(default_factory=list)

    def skip(self, item: Item, reason: str) -> None:
        self.skipped[reason] += 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(item)

    def fail(self, item: Item, error: BadSample) -> None:
        self.bad.append({"item": item, "reason": error.reason, "detail": error.detail})

    def add(self, other: Outcome) -> None:
        """Append an outcome of later pictures."""
        self.skipped.update(other.skipped)
        for reason, items in other.examples.items():
            shown = self.examples.setdefault(reason, [])
            shown.extend(items[: EXAMPLES - len(shown)])
        self.bad.extend(other.bad)

    def plain(self) -> dict[str, Any]:
        """As data for a stats file or manifest, in a fixed order."""
        return {
            "skipped": dict(sorted(self.skipped.items())),
            "examples": dict(sorted(self.examples.items())),
            "bad": self.bad,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Outcome:
        """Inverse of `plain`."""
        examples = {reason: list(items) for reason, items in plain["examples"].items()}
        return cls(Counter(plain["skipped"]), examples, list(plain["bad"]))


def choose_block(source: Input, items: Sequence[Item]) -> tuple[list[Candidate], Outcome]:
    """Apply the recipe's rule to pictures, in order, without decoding one."""
    reader = _reader(source)
    candidates, outcome = [], Outcome()
    for item in items:
        process_pending_signals()
        try:
            scene = reader.scene(item)
            chosen = choose(scene, source.recipe.pairs, source.recipe.compat)
        except BadSample as error:
            outcome.fail(item, error)
            continue
        if isinstance(chosen, Skip):
            outcome.skip(item, chosen.reason)
        else:
            shape = [v for i in chosen for v in (*scene.instances[i].box, scene.instances[i].area)]
            candidates.append(Candidate(item, chosen, tuple(shape)))
    return candidates, outcome


def build_block(source: Input, folder: Path, block: int, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Build one shard: decode, cut, write the tar, then its stats file. Returns the stats.

    The bytes are a function of the arguments (and library versions) alone. A block in which every picture fails leaves
    its stats and no tar.
    """
    cv2.setNumThreads(1)  # blocks run side by side; threads inside them would only get in each other's way
    reader, recipe, outcome = _reader(source), source.recipe, Outcome()
    path = shard_path(folder, block)
    with ShardWriter(path) as writer:
        for item, group, _ in candidates:
            try:
                scene = reader.scene(item)
                members = build_sample(scene, group, recipe, source.split)
                if not isinstance(members, Skip):
                    writer.add(escape_key(scene.key), members)
            except BadSample as error:
                outcome.fail(item, error)
                count_picture(kept=False)
                continue
            if isinstance(members, Skip):
                outcome.skip(item, members.reason)
            count_picture(kept=not isinstance(members, Skip))
    summary = writer.summary
    if not writer.samples:
        path.unlink(missing_ok=True)
        summary = {"samples": 0, "bytes": None, "sha256": None}
    made_from = {"candidates": len(candidates), "candidates_sha256": digest_candidates(candidates)}
    stats = {"block": block, **made_from, **summary, **outcome.plain()}
    write_json(stats_path(folder, block), stats)
    return stats


def digest_candidates(candidates: Sequence[Candidate]) -> str:
    """sha256 (hex) of what was chosen: other annotations give another one."""
    return hashlib.sha256(json.dumps(candidates).encode()).hexdigest()


_opened: tuple[str, int, Reader] | None = None


def _reader(source: Input) -> Reader:
    """This process's reader of the input: one at a time, opened on first use and when its file has changed."""
    global _opened  # noqa: PLW0603  (a cache of one)
    key = digest({**dataset_identity(source.recipe), "split": source.split, "raw": str(source.raw)})
    if _opened is None or _opened[0] != key or _opened[1] != _changed(_opened[2]):
        reader = open_reader(source.recipe, source.split, source.raw)
        _opened = key, _changed(reader), reader
    return _opened[2]


def _changed(reader: Reader) -> int:
    return reader.place.stat().st_mtime_ns if reader.place else 0
