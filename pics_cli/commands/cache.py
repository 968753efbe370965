"""`pics cache`: what the cache holds, and its removal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pics_cli import console
from pics_cli.errors import PicsError

if TYPE_CHECKING:
    from pics_cli.commands.results import CacheKind
    from pics_cli.core.runtime.caches import CacheEntry

_DAY = 86400.0


def cache(
    action: Annotated[Literal["ls", "clean"], typer.Argument(help="Show what it holds, or remove it.")],
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Only what was made, or used, so long ago.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Show or clean the cache: PICS_CACHE, else ~/.cache/pics.

    It holds indexes of annotation files and shards, what was fetched from stores, and checkpoints that were converted:
    all of it is made again when it is needed. While a command uses the cache, nothing is removed. The hub's cache is
    shown and left alone, since other programs use it, too: `hf cache` cleans it.
    """
    from pics_cli.commands.results import Cache
    from pics_cli.core.runtime.caches import clean_cache, folder_size, hub_cache, list_cache
    from pics_cli.core.runtime.files import cache_folder

    if yes and action == "ls":
        raise PicsError("--yes goes with clean", "pics cache ls removes nothing")
    now = time.time()
    entries = [entry for entry in list_cache() if older_than is None or now - entry.modified >= older_than * _DAY]
    kinds, folder, hub = _kinds(entries, now), cache_folder(), hub_cache()
    removed = action == "clean" and bool(entries) and _confirm(entries, yes)
    if removed:
        clean_cache(entries)
    hub_bytes = folder_size(hub) if hub is not None else 0
    console.result(Cache(folder=folder, kinds=kinds, hub_cache=hub, hub_cache_bytes=hub_bytes, removed=removed))
    title = f"{folder}: {size_text(sum(entry.size for entry in entries))}" + (", removed" if removed else "")
    console.table(title, _rows(kinds), ("what", "entries", "size", "days old", ""), right={1, 2, 3}, only=True)
    if hub is not None and action == "ls":
        console.show(console.printable(f"{hub}: {size_text(hub_bytes)}, not of pics alone: hf cache"), only=True)


def _confirm(entries: Sequence[CacheEntry], yes: bool) -> bool:
    """Whether the user wants it.

    Raises:
        PicsError: nobody can be asked.
    """
    what = f"{len(entries):,} entries, {size_text(sum(entry.size for entry in entries))}"
    if not yes and not _is_asked():
        raise PicsError(f"pics cache clean: would remove {what}, and nobody is there to be asked", "add --yes")
    return yes or typer.confirm(f"Remove {what}?", err=True)


def _is_asked() -> bool:
    return sys.stdin.isatty()


def _kinds(entries: Sequence[CacheEntry], now: float) -> list[CacheKind]:
    from pics_cli.commands.results import CacheKind
    from pics_cli.core.runtime.caches import KINDS

    kinds = []
    for kind in KINDS:
        members = [entry for entry in entries if entry.kind == kind]
        days = sorted((now - entry.modified) / _DAY for entry in members)
        kinds.append(
            CacheKind(
                kind=kind,
                entries=len(members),
                bytes=sum(entry.size for entry in members),
                oldest_days=days[-1] if days else None,
                newest_days=days[0] if days else None,
            )
        )
    return kinds


def _rows(kinds: Sequence[CacheKind]) -> list[tuple[str, ...]]:
    from pics_cli.core.runtime.caches import KINDS

    rows: list[tuple[str, ...]] = []
    for kind in kinds:
        days = (kind.newest_days, kind.oldest_days)
        age = " to ".join(dict.fromkeys(f"{each:,.0f}" for each in days if each is not None))
        rows.append((kind.kind, f"{kind.entries:,}", size_text(kind.bytes), age, KINDS[kind.kind][1]))
    return rows


def size_text(size: int) -> str:
    """Bytes in a unit that fits: `5.3 GB`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} bytes"
