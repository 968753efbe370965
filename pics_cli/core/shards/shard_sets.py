"""Which shards a recipe means, how many samples they hold, and whether they can be trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pics_cli.core.recipes.training_sections import AugmentSettings, DataSettings, TrainingSet
from pics_cli.core.runtime.engines import available_cores, local_executor
from pics_cli.core.runtime.manifest import MANIFEST, read_manifest
from pics_cli.core.shards.layouts import unpack
from pics_cli.core.shards.remote import count_samples, fetch, remote_shards
from pics_cli.core.shards.shard_urls import expand, is_address, is_pipe, is_wild, matching
from pics_cli.core.shards.tar_index import SampleIndex, index_shard, is_indexed, read_sample
from pics_cli.errors import BadSample, PicsError

Split = Literal["train", "val"]
Say = Callable[[str], None]

# Indexing fewer shards than this is done before other processes have started.
_MANY = 8
# Fetched shards that are read side by side: few enough for the cache, enough to mix.
WINDOW = 8
# Samples of a set that are looked at; one that can be read will do.
_LOOKS = 8
_AGAIN = "build or download it again"


@dataclass(frozen=True)
class Shards:
    """A set's shards of one split.

    Attributes:
        name: of the set.
        repeat: how often each sample is seen in an epoch.
        augment: how its references are varied; None: as the recipe says for all.
        sources: local files, or addresses.
        counts: samples of each.
        remote: the sources are addresses, to be fetched.
        hashes: sha256 of each shard where a manifest says it, else None.
        contents_sha256: of the shards' names, samples and (where known) contents: the same wherever they lie.
    """

    name: str
    repeat: float
    augment: AugmentSettings | None
    sources: list[str | Path]
    counts: list[int]
    remote: bool
    hashes: list[str | None]

    @property
    def samples(self) -> int:
        """Of all shards together."""
        return sum(self.counts)

    @property
    def contents_sha256(self) -> str:
        """Identity of what the shards hold."""
        names = [str(source).rpartition("/")[2] for source in self.sources]
        text = json.dumps([*zip(names, self.counts, self.hashes, strict=True)])
        return hashlib.sha256(text.encode()).hexdigest()


class _Missing(Exception):
    """No shard of a set is there; says where it was looked for."""


@dataclass
class _Found:
    """A set's shards, before they are counted: source, samples, sha256; None where nobody says."""

    name: str
    given: TrainingSet
    files: list[tuple[str | Path, int | None, str | None]]
    remote: bool = False


def resolve(
    data: DataSettings,
    split: Split,
    *,
    allow_missing: bool = False,
    allow_pipe: bool = False,
    say: Say = lambda _: None,
) -> list[Shards]:
    """Find the shards of every set of the mixture, count their samples and look at the first ones.

    Args:
        data: the recipe's.
        split: `train`; or `val`, which only sets with `{split}` in their shards can have, and no set must.
        allow_missing: leave out sets of which there is no shard.
        allow_pipe: run the commands of `pipe:` sets.
        say: told what is left out, and what takes a while.

    Raises:
        PicsError: with all that was found wrong with the sets: missing ones, unfinished builds, listed shards that are
            not there or of another size, shards of another layout; a command that is not allowed.
    """
    found, missing, faults = list[_Found](), list[str](), list[PicsError]()
    for name, given in data.sets.items():
        if split == "val" and "{split}" not in given.shards:
            continue
        try:
            found.append(_find(name, given, data, split, allow_pipe))
        except _Missing as where:
            if split == "train":
                missing.append(_told(name, given, data, str(where)))
        except PicsError as error:
            faults.append(error)
    if missing and not allow_missing:
        hint = "name the folder they lie in with --data-root DIR, or leave these sets out with --allow-missing"
        faults.append(PicsError("\n".join(missing), hint))
    for line in missing if allow_missing else ():
        say(f"left out: {line.splitlines()[0]}")
    _raise(faults)
    if split == "train" and not found:
        raise PicsError("\n".join(missing), "there is nothing to train on: name the folder with --data-root DIR")
    counted = _count(found, data.cache_gb, say)
    for shards in counted:
        try:
            _look(shards, data.cache_gb)
        except PicsError as error:
            faults.append(error)
    _raise(faults)
    return counted


def local_path(shards: Shards, shard: int, cache_gb: float) -> Path:
    """Where a shard can be read; fetched first where it is not on this machine.

    Raises:
        PicsError: it cannot be fetched.
    """
    source = shards.sources[shard]
    return fetch(str(source), cache_gb, shards.hashes[shard]) if shards.remote else Path(source)


def checked_index(shards: Shards, shard: int, path: Path) -> SampleIndex:
    """Offsets of a shard's samples.

    Raises:
        PicsError: it cannot be read, or holds another number of samples than was counted.
    """
    index = index_shard(path)
    if len(index) - 1 != shards.counts[shard]:
        expected = f"expected {shards.counts[shard]:,}"
        raise PicsError(f"{shards.sources[shard]}: holds {len(index) - 1:,} samples, {expected}", _AGAIN)
    return index


def _find(name: str, given: TrainingSet, data: DataSettings, split: Split, allow_pipe: bool) -> _Found:
    text = given.shards.replace("{split}", split)
    if is_pipe(text):
        if not allow_pipe:
            raise PicsError(
                f"data.sets.{name}.shards: {text} runs a command, which needs --allow-pipe",
                "give --allow-pipe if you trust the recipe",
            )
        return _Found(name, given, [(each, None, None) for each in expand(text)], remote=True)
    if is_address(text):
        listed = remote_shards(text)
        if listed is None:
            raise _Missing(f"{text}: not there")
        return _Found(name, given, [*listed], remote=True)
    try:
        files = _local(str(Path(data.root) / text))
    except PicsError as error:
        raise PicsError(f"{name}: {error.message}", error.hint) from None
    return _Found(name, given, [*files])


def _local(text: str) -> list[tuple[Path, int | None, str | None]]:
    """The local shards that a name means, with samples and sha256 where a manifest says them."""
    names = expand(text)
    if len(names) == 1 and not is_wild(text) and not text.endswith(".tar"):
        return _folder(Path(names[0]))
    if is_wild(text):
        paths = [path for each in names for path in matching(each)]
        if not paths:
            raise _Missing(f"{text}: no such file")
    else:
        paths = [Path(each) for each in names]
        gone = [path for path in paths if not path.is_file()]
        if len(gone) == len(paths):
            raise _Missing(f"{text}: no such file" + (f"s ({len(paths):,} named)" if len(paths) > 1 else ""))
        if gone:
            raise PicsError(
                f"{gone[0]}: no such file; {len(gone):,} of {len(paths):,} named shards are missing", _AGAIN
            )
    manifests = {folder: _manifest(folder) for folder in {path.parent for path in paths}}
    return [_listed(path, manifests[path.parent].get(path.name)) for path in paths]


def _folder(folder: Path) -> list[tuple[Path, int | None, str | None]]:
    if not folder.is_dir():
        raise _Missing(f"{folder}: " + ("no folder" if folder.exists() else "no such folder"))
    manifest = _manifest(folder)
    paths = {path.name: path for path in sorted(folder.glob("*.tar")) if path.is_file()}
    if not paths and not manifest:
        raise _Missing(f"{folder}: no .tar shard in it")
    if manifest:
        if gone := [name for name in manifest if name not in paths]:
            named = f"{len(gone):,} of {len(manifest):,} shards in {MANIFEST} are missing"
            raise PicsError(f"{folder / gone[0]}: no such file; {named}", _AGAIN)
        if more := [name for name in paths if name not in manifest]:
            raise PicsError(f"{paths[more[0]]}: not in {MANIFEST}", "move it to a folder of its own")
    return [_listed(path, manifest.get(name)) for name, path in paths.items()]


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """What the folder's manifest says of each shard; {} without one."""
    manifest = read_manifest(folder)
    if manifest is None:
        return {}
    if not manifest["complete"]:
        raise PicsError(f"{folder}: its build was not finished", "run the same `pics build-shards` again: it resumes")
    return {shard["file"]: shard for shard in manifest.get("shards", [])}


def _listed(path: Path, entry: dict[str, Any] | None) -> tuple[Path, int | None, str | None]:
    if entry is None:
        return path, None, None
    if (size := path.stat().st_size) != entry["bytes"]:
        raise PicsError(f"{path}: {size:,} bytes, {MANIFEST} says {entry['bytes']:,}", _AGAIN)
    return path, entry["samples"], entry["sha256"]


def _count(found: Sequence[_Found], cache_gb: float, say: Say) -> list[Shards]:
    """Samples of every shard: as a manifest says, else from its index, which is made here."""
    unknown = [
        Path(source) for each in found if not each.remote for source, samples, _ in each.files if samples is None
    ]
    fresh = [path for path in unknown if not is_indexed(path)]
    workers = min(available_cores(), len(fresh)) if len(fresh) >= _MANY else 1
    if fresh:
        say(f"counting the samples of {len(fresh):,} shards without a {MANIFEST}, once")
    with local_executor(max(workers, 1)) as executor:
        for future in [executor.submit(index_shard, path) for path in fresh]:
            future.result()
    counted = []
    for each in found:
        fetched = [source for source, samples, _ in each.files if samples is None] if each.remote else []
        if fetched:
            say(f"{each.name}: fetching {len(fetched):,} shards without a {MANIFEST} to count their samples")
        shards = Shards(each.name, each.given.repeat, each.given.augment, [file[0] for file in each.files], [],
                        each.remote, [file[2] for file in each.files])  # fmt: skip
        for shard, (_, samples, _) in enumerate(each.files):
            if samples is not None:
                shards.counts.append(samples)
            elif each.remote:
                shards.counts.append(count_samples(str(shards.sources[shard]), cache_gb))
            else:
                shards.counts.append(len(index_shard(Path(shards.sources[shard]))) - 1)
        counted.append(shards)
    return counted


def _look(shards: Shards, cache_gb: float) -> None:
    """Raise PicsError where none of a set's first samples is one."""
    first = next((shard for shard, samples in enumerate(shards.counts) if samples), None)
    if first is None:
        raise PicsError(f"{shards.name}: its shards hold no sample", _AGAIN)
    path = local_path(shards, first, cache_gb)
    index, why = checked_index(shards, first, path), ""
    for start, stop in zip(index[:_LOOKS].tolist(), index[1 : _LOOKS + 1].tolist(), strict=False):
        try:
            _, members = read_sample(path, start, stop)
            unpack(members)
            return
        except BadSample as error:
            why = why or f"{error.reason}: {error.detail}"
    raise PicsError(
        f"{shards.name}: {shards.sources[first]}: its samples are none of pics: {why}",
        "a sample is KEY.bg.jpg, KEY.obj0.png, KEY.mask0.png, …: see docs/data.md",
    )


def _told(name: str, given: TrainingSet, data: DataSettings, where: str) -> str:
    """Lines on a set that is not there: where it was looked for, and how to come by it."""
    lines = [f"{name}: {where}"]
    if given.recipe:
        out = f" --out {Path(data.root) / given.shards.replace('{split}', 'train')}"
        lines.append(f"  build it: pics build-shards {given.recipe} --raw DIR{'' if _special(given.shards) else out}")
    if given.fetch:
        lines.append(f"  or fetch it: {given.fetch}")
    return "\n".join(lines)


def _special(text: str) -> bool:
    """Whether shards are named by anything but their folder."""
    return is_address(text) or is_wild(text) or text.endswith(".tar")


def _raise(faults: Sequence[PicsError]) -> None:
    if faults:
        hints = dict.fromkeys(error.hint for error in faults if error.hint)
        raise PicsError("\n".join(error.message for error in faults), "; ".join(hints) or None)
