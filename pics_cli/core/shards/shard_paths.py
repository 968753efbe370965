"""How users name shards, and the shards that a name means: folders, files with ranges and wildcards, on this machine or
in a store; URLs, commands."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pics_cli.core.runtime.manifest import MANIFEST, read_manifest
from pics_cli.core.runtime.storage import Entry, is_address, is_remote, list_folder, location
from pics_cli.core.shards.shard_files import REBUILD_HINT
from pics_cli.errors import PicsError

PIPE = "pipe:"
_RANGE = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")
_MAX_SHARDS = 1_000_000


class ListedShard(NamedTuple):
    """A shard before it is opened.

    Attributes:
        source: local path; or URL, address of a store or command.
        samples, sha256: as a manifest says; None without one.
        bytes: its size, but of URLs and commands.
    """

    source: str | Path
    samples: int | None = None
    sha256: str | None = None
    bytes: int | None = None


class MissingShardsError(PicsError):
    """No shard of the given name exists; the message says where they were expected."""


def is_pipe(name: str) -> bool:
    """Whether this is a command whose output is a shard."""
    return name.startswith(PIPE)


def is_url(name: str) -> bool:
    """Whether this is an http(s) URL."""
    return name.startswith(("http://", "https://"))


def is_store(name: str) -> bool:
    """Whether this is an address of a store, such as s3://bucket/folder."""
    return is_address(name) and not is_url(name) and not is_pipe(name)


def join_root(root: str, name: str) -> str:
    """A name of shards below the folder or address `root`, where it is not complete by itself."""
    if is_pipe(name) or is_address(name):
        return name
    return f"{root.rstrip('/')}/{name}" if is_address(root) and not name.startswith("/") else str(Path(root) / name)


def is_pattern(name: str) -> bool:
    """Whether a file name has * or ? in it."""
    return "*" in name or "?" in name


def expand_ranges(name: str) -> list[str]:
    """Replace `{00000..00010}` by each of its numbers, as wide as written; several are combined, the last fastest.

    Raises:
        PicsError: a range that runs backwards or names more than a million shards; other braces, but in a command.
    """
    pieces = _RANGE.split(name)
    literals = pieces[::3]
    if not is_pipe(name) and re.search(r"[{}]", "".join(literals)):
        raise PicsError(
            f"{name}: braces are for {{split}} and for ranges of numbers such as {{00000..00010}}",
            "write other files as sets of their own",
        )
    choices, total = list[list[str]](), 1
    for first, last in zip(pieces[1::3], pieces[2::3], strict=True):
        count = int(last) - int(first) + 1
        total *= count
        if count < 1 or total > _MAX_SHARDS:
            raise PicsError(
                f"{name}: {{{first}..{last}}} names {max(total, 0):,} shards, expected 1 to {_MAX_SHARDS:,}"
            )
        choices.append([f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)])
    return [
        "".join(itertools.chain(*zip(literals, (*numbers, ""), strict=True))) for numbers in itertools.product(*choices)
    ]


def glob_files(pattern: str) -> list[Path]:
    """Files that match a pattern with * and ?, in order of their names; hidden ones match none, as in a shell."""
    if is_store(pattern):
        parts = pattern.split("/")
        fixed = next(i for i, part in enumerate(parts) if is_pattern(part))
        anchor, relative = location("/".join(parts[:fixed])), "/".join(parts[fixed:])
    else:
        anchor = Path(Path(pattern).anchor)
        relative = pattern.removeprefix(Path(pattern).anchor)
    relative = re.sub(r"\[", "[[]", relative)  # which Path.glob takes for a choice of letters
    paths = [path for path in anchor.glob(relative) if not path.name.startswith(".")]
    return sorted(_file_sizes(paths))


def tar_files(folder: Path) -> list[Path]:
    """The .tar files of a folder in order of their names, without the hidden ones that macOS leaves beside them."""
    try:
        listed = list_folder(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = [name for name, entry in listed.items() if name.endswith(".tar") and not entry.is_dir]
    return sorted(folder / name for name in names if not name.startswith("."))


def list_shards(name: str) -> list[ListedShard]:
    """The shards of a folder, a .tar file, a range or a pattern, on this machine or in a store; samples and sha256
    where a manifest says them.

    Raises:
        MissingShardsError: none of them exists.
        PicsError: some are missing, of another size than their manifest says, or not in it; an unfinished build; a
            store that cannot be reached or refuses.
    """
    names = expand_ranges(name)
    if len(names) == 1 and not is_pattern(name) and not name.endswith(".tar"):
        return _list_folder(location(names[0]))
    if is_pattern(name):
        paths = [path for pattern in names for path in glob_files(pattern)]
        if not paths:
            raise MissingShardsError(f"{name}: no such file")
    else:
        paths = [location(path) for path in names]
        sizes = _file_sizes(paths)
        missing = [path for path in paths if path not in sizes]
        if len(missing) == len(paths):
            raise MissingShardsError(f"{name}: no such file" + (f"s ({len(paths):,} named)" if len(paths) > 1 else ""))
        if missing:
            count = f"{len(missing):,} of {len(paths):,} named shards are missing"
            raise PicsError(f"{missing[0]}: no such file; {count}", REBUILD_HINT)
    manifests = {folder: manifest_entries(folder) for folder in {path.parent for path in paths}}
    sizes = _file_sizes(paths)
    return [_listed(path, sizes[path], manifests[path.parent].get(path.name)) for path in paths]


def _list_folder(folder: Path) -> list[ListedShard]:
    if not folder.is_dir():
        raise MissingShardsError(f"{folder}: " + ("no folder" if folder.exists() else "no such folder"))
    manifest = manifest_entries(folder)
    paths = {path.name: path for path in tar_files(folder)}
    if not paths and not manifest:
        raise MissingShardsError(f"{folder}: no .tar shard in it")
    if manifest:
        if missing := [name for name in manifest if name not in paths]:
            count = f"{len(missing):,} of {len(manifest):,} shards in {MANIFEST} are missing"
            raise PicsError(f"{folder / missing[0]}: no such file; {count}", REBUILD_HINT)
        if unlisted := [name for name in paths if name not in manifest]:
            raise PicsError(f"{paths[unlisted[0]]}: not in {MANIFEST}", "move it to a folder of its own")
    sizes = _file_sizes(list(paths.values()))
    return [_listed(path, sizes[path], manifest.get(name)) for name, path in paths.items()]


def _file_sizes(paths: Sequence[Path]) -> dict[Path, int]:
    """Bytes of those paths that are files; the folders of a store are listed, and not asked file by file."""
    sizes, listings = dict[Path, int](), dict[Path, dict[str, Entry]]()
    for path in paths:
        if not is_remote(path):
            if path.is_file():
                sizes[path] = path.stat().st_size
            continue
        if path.parent not in listings:
            try:
                listings[path.parent] = list_folder(path.parent)
            except FileNotFoundError:
                listings[path.parent] = {}
        entry = listings[path.parent].get(path.name)
        if entry is not None and not entry.is_dir:
            sizes[path] = entry.size
    return sizes


def manifest_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """The shards of the folder's manifest by file name; {} without one.

    Raises:
        PicsError: a build that was not finished.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return {}
    if not manifest["complete"]:
        raise PicsError(f"{folder}: its build was not finished", "run the same `pics build-shards` again: it resumes")
    return {entry["file"]: entry for entry in manifest.get("shards", [])}


def _listed(path: Path, size: int, entry: dict[str, Any] | None) -> ListedShard:
    source = str(path) if is_remote(path) else path
    if entry is None:
        return ListedShard(source, bytes=size)
    if size != entry["bytes"]:
        raise PicsError(f"{path}: {size:,} bytes, {MANIFEST} says {entry['bytes']:,}", REBUILD_HINT)
    return ListedShard(source, entry["samples"], entry["sha256"], size)
