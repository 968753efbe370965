"""The sets of shards of a training recipe: found, counted and checked before a run starts."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pics_cli.core.recipes.base import find_recipe, read_recipe
from pics_cli.core.recipes.training_sections import AugmentSettings, DataSettings, TrainingSet
from pics_cli.core.runtime.engines import available_cores, local_executor
from pics_cli.core.runtime.manifest import MANIFEST
from pics_cli.core.shards.layouts import unpack_sample
from pics_cli.core.shards.remote import count_samples, fetch_shard, list_remote_shards
from pics_cli.core.shards.shard_files import REBUILD_HINT
from pics_cli.core.shards.shard_paths import (
    ListedShard,
    MissingShardsError,
    expand_ranges,
    is_pattern,
    is_pipe,
    is_store,
    is_url,
    join_root,
    list_shards,
)
from pics_cli.core.shards.tar_index import SampleIndex, index_shard, is_indexed, read_sample
from pics_cli.errors import BadSample, PicsError

logger = logging.getLogger(__name__)

Split = Literal["train", "val"]

# Fewer shards than this are indexed faster than other processes start.
_MIN_PARALLEL = 8
# Shards of a windowed set that are read at a time: few enough for the cache, enough to mix.
SHARD_WINDOW = 8
# The first samples of a set that are tried; one of them must be readable.
_CHECKED_SAMPLES = 8


@dataclass(frozen=True)
class ShardSet:
    """The shards of a set and split.

    Attributes:
        name: of the set.
        repeat: how often each sample is seen in an epoch.
        augment: how its references are varied; None: as the recipe says for all.
        sources: local files, or URLs, addresses of a store and commands.
        counts: samples of each.
        remote: the sources are to be fetched.
        hashes: sha256 of each shard where a manifest says it, else None.
        windowed: they are read a few at a time, `SHARD_WINDOW`: the cache does not hold all of them, or nobody knows.
    """

    name: str
    repeat: float
    augment: AugmentSettings | None
    sources: list[str | Path]
    counts: list[int]
    remote: bool
    hashes: list[str | None]
    windowed: bool = False

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(self.counts)

    @property
    def contents_sha256(self) -> str:
        """Hash of the shards' names, samples and (where known) contents: the same wherever they lie."""
        names = [str(source).rpartition("/")[2] for source in self.sources]
        text = json.dumps([*zip(names, self.counts, self.hashes, strict=True)])
        return hashlib.sha256(text.encode()).hexdigest()

    def local_path(self, shard: int, cache_gb: float) -> Path:
        """The file of a shard; fetched first where it is not on this machine.

        Raises:
            PicsError: it cannot be fetched.
        """
        source = self.sources[shard]
        return fetch_shard(str(source), cache_gb, self.hashes[shard]) if self.remote else Path(source)

    def load_index(self, shard: int, path: Path) -> SampleIndex:
        """Offsets of the samples of a shard, whose file is `path`.

        Raises:
            PicsError: it cannot be read, or holds another number of samples than was counted.
        """
        index = index_shard(path)
        if len(index) - 1 != self.counts[shard]:
            expected = f"expected {self.counts[shard]:,}"
            raise PicsError(f"{self.sources[shard]}: holds {len(index) - 1:,} samples, {expected}", REBUILD_HINT)
        return index


@dataclass(frozen=True)
class _ListedSet:
    """The shards of a set before they are counted."""

    name: str
    settings: TrainingSet
    shards: list[ListedShard]
    remote: bool = False

    @property
    def fetched_bytes(self) -> float:
        """Room that its shards take in the cache; infinite where nobody knows."""
        sizes = [math.inf if shard.bytes is None else shard.bytes for shard in self.shards]
        return sum(sizes) if self.remote else 0


def resolve_shard_sets(
    data: DataSettings, split: Split, *, allow_missing: bool = False, allow_pipe: bool = False
) -> list[ShardSet]:
    """Find the shards of every set of the mixture, count their samples and try to read the first ones.

    Args:
        data: the recipe's.
        split: `train`; or `val`, which only sets with `{split}` in their shards can have, and no set must.
        allow_missing: leave out sets of which no shard exists.
        allow_pipe: run the commands of `pipe:` sets.

    Raises:
        PicsError: with all that is wrong with the sets: missing ones, unfinished builds, listed shards that are missing
            or of another size, shards of another layout; a command that is not allowed.
    """
    listed_sets, missing, errors = list[_ListedSet](), list[str](), list[PicsError]()
    for name, settings in data.sets.items():
        if split == "val" and "{split}" not in settings.shards:
            continue
        try:
            listed_sets.append(_list_shards(name, settings, data, split, allow_pipe))
        except MissingShardsError as error:
            if split == "train":
                missing.append(_missing_text(name, settings, data, error.message))
        except PicsError as error:
            errors.append(error)
    if missing and not allow_missing:
        hint = "name the folder they lie in with --data-root DIR, or leave these sets out with --allow-missing"
        errors.append(PicsError("\n".join(missing), hint))
    for text in missing if allow_missing else ():
        logger.warning("left out: %s", text.splitlines()[0])
    _raise_all(errors)
    if split == "train" and not listed_sets:
        raise PicsError("\n".join(missing), "there is nothing to train on: name the folder with --data-root DIR")
    shard_sets = _count(listed_sets, data.cache_gb)
    for shard_set in shard_sets:
        try:
            _check_layout(shard_set, data.cache_gb)
        except PicsError as error:
            errors.append(error)
    _raise_all(errors)
    return shard_sets


def _list_shards(name: str, settings: TrainingSet, data: DataSettings, split: Split, allow_pipe: bool) -> _ListedSet:
    text = join_root(data.root, settings.shards.replace("{split}", split))
    if is_pipe(text):
        if not allow_pipe:
            raise PicsError(
                f"data.sets.{name}.shards: {text} runs a command, which needs --allow-pipe",
                "give --allow-pipe if you trust the recipe",
            )
        return _ListedSet(name, settings, [ListedShard(command) for command in expand_ranges(text)], remote=True)
    if is_url(text):
        return _ListedSet(name, settings, list_remote_shards(text), remote=True)
    try:
        return _ListedSet(name, settings, list_shards(text), remote=is_store(text))
    except MissingShardsError:
        raise
    except PicsError as error:
        raise PicsError(f"{name}: {error.message}", error.hint) from None


def _count(listed_sets: Sequence[_ListedSet], cache_gb: float) -> list[ShardSet]:
    """Number of samples of every shard: from its manifest, else from its index, which is made now."""
    unindexed = [
        Path(shard.source)
        for listed in listed_sets
        if not listed.remote
        for shard in listed.shards
        if shard.samples is None and not is_indexed(Path(shard.source))
    ]
    if unindexed:
        logger.info("counting the samples of %s shards without a %s, once", f"{len(unindexed):,}", MANIFEST)
    with local_executor(min(available_cores(), len(unindexed)) if len(unindexed) >= _MIN_PARALLEL else 1) as executor:
        for future in [executor.submit(index_shard, path) for path in unindexed]:
            future.result()
    known = [listed.fetched_bytes for listed in listed_sets if listed.fetched_bytes < math.inf]
    fit = sum(known) <= cache_gb * 1e9
    shard_sets = []
    for listed in listed_sets:
        uncounted = sum(shard.samples is None for shard in listed.shards)
        if listed.remote and uncounted:
            text = "%s: fetching %s shards without a %s to count their samples"
            logger.info(text, listed.name, f"{uncounted:,}", MANIFEST)
        counts = []
        for source, samples, *_ in listed.shards:
            if samples is not None:
                counts.append(samples)
            elif listed.remote:
                counts.append(count_samples(str(source), cache_gb))
            else:
                counts.append(len(index_shard(Path(source))) - 1)
        shard_sets.append(
            ShardSet(
                name=listed.name,
                repeat=listed.settings.repeat,
                augment=listed.settings.augment,
                sources=[shard.source for shard in listed.shards],
                counts=counts,
                remote=listed.remote,
                hashes=[shard.sha256 for shard in listed.shards],
                windowed=listed.remote and not (fit and listed.fetched_bytes < math.inf),
            )
        )
    return shard_sets


def _check_layout(shards: ShardSet, cache_gb: float) -> None:
    """Refuse a set of which none of the first samples can be read.

    Raises:
        PicsError: that, or a set without samples.
    """
    first = next((shard for shard, samples in enumerate(shards.counts) if samples), None)
    if first is None:
        raise PicsError(f"{shards.name}: its shards hold no sample", REBUILD_HINT)
    path = shards.local_path(first, cache_gb)
    reason = ""
    for start, stop in pairwise(shards.load_index(first, path)[: _CHECKED_SAMPLES + 1].tolist()):
        try:
            _, members = read_sample(path, start, stop)
            unpack_sample(members)
            return
        except BadSample as error:
            reason = reason or f"{error.reason}: {error.detail}"
    raise PicsError(
        f"{shards.name}: {shards.sources[first]}: its samples are none of pics: {reason}",
        "a sample is KEY.bg.jpg, KEY.obj0.png, KEY.mask0.png, …",
    )


def _missing_text(name: str, settings: TrainingSet, data: DataSettings, where: str) -> str:
    """Lines on a missing set: where it was expected, how to build and to fetch it."""
    lines = [f"{name}: {where}"]
    if settings.recipe:
        names_files = is_url(settings.shards) or is_pattern(settings.shards) or settings.shards.endswith(".tar")
        out = "" if names_files else f" --out {join_root(data.root, settings.shards.replace('{split}', 'train'))}"
        raw = "" if _is_drawn(settings.recipe) else " --raw DIR"
        lines.append(f"  build it: pics build-shards {settings.recipe}{raw}{out}")
    if settings.fetch:
        lines.append(f"  or fetch it: {settings.fetch}")
    return "\n".join(lines)


def _is_drawn(recipe: str) -> bool:
    """Whether a dataset recipe reads no raw dataset."""
    try:
        source = read_recipe(find_recipe(recipe)).get("source")
    except PicsError:
        return False
    return isinstance(source, dict) and source.get("format") == "synth"


def _raise_all(errors: Sequence[PicsError]) -> None:
    if errors:
        hints = dict.fromkeys(error.hint for error in errors if error.hint)
        raise PicsError("\n".join(error.message for error in errors), "; ".join(hints) or None)
