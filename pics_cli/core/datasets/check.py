"""Check shards, ours or the research project's: members, decodability, mask sizes, duplicate keys, checksums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from pics_cli.core.runtime.engines import count_picture
from pics_cli.core.runtime.files import file_sha256
from pics_cli.core.runtime.manifest import MANIFEST, read_manifest
from pics_cli.core.shards.samples import decode_sample
from pics_cli.core.shards.shard_files import read_shard
from pics_cli.errors import BadSample, PicsError


class Fault(NamedTuple):
    """Something wrong in a shard: which one, which sample ("" for the shard itself), what."""

    shard: str
    key: str
    reason: str
    detail: str


@dataclass
class ShardReport:
    """What was found in one shard.

    Attributes:
        keys: 8-byte hash of each sample's key, to find keys that stand in two shards.
        objects: samples by number of objects.
        without_json: samples without our json, as in the published shards.
    """

    shard: str
    samples: int = 0
    keys: list[bytes] = field(default_factory=list)
    objects: Counter[int] = field(default_factory=Counter)
    without_json: int = 0
    faults: list[Fault] = field(default_factory=list)


def check_shard(path: Path, expected: dict[str, Any] | None) -> ShardReport:
    """Read and decode every sample of a shard; compare it with its line in the manifest where there is one."""
    report = ShardReport(path.name)
    seen: set[str] = set()

    def fault(key: str, reason: str, detail: str) -> None:
        report.faults.append(Fault(path.name, key, reason, detail))

    if expected is not None and (digest := file_sha256(path)) != expected["sha256"]:
        fault("", "checksum", f"sha256 {digest[:12]}…, manifest says {expected['sha256'][:12]}…")
    try:
        for key, members in read_shard(path):
            if key in seen:
                fault(key, "duplicate_key", "a second sample, or members that do not stand together")
            seen.add(key)
            report.samples += 1
            report.keys.append(blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest())
            try:
                sample = decode_sample(key, members)
            except BadSample as error:
                fault(key, error.reason, error.detail)
                continue
            finally:
                count_picture(kept=True)
            report.objects[len(sample.masks)] += 1
            report.without_json += sample.metadata is None
    except BadSample as error:
        fault("", error.reason, error.detail)
    except PicsError as error:
        fault("", "unreadable_shard", error.message)
    if expected is not None and report.samples != expected["samples"]:
        fault("", "sample_count", f"{report.samples} samples, manifest says {expected['samples']}")
    return report


def check_folder(folder: Path, executor: Executor) -> Iterator[ShardReport]:
    """Check every shard of a folder, in order; the last report is of the folder itself.

    Raises:
        PicsError: no such folder, or no shard in it.
    """
    shards, expected = list_shards(folder)
    futures = [executor.submit(check_shard, path, expected.get(path.name)) for path in shards]
    overall = ShardReport(folder.name)
    seen: dict[bytes, str] = {}
    for future in futures:
        report = future.result()
        for key in report.keys:
            if (other := seen.setdefault(key, report.shard)) != report.shard:
                overall.faults.append(Fault(report.shard, "", "duplicate_key", f"shares a key with {other}"))
        yield report
    there = {path.name for path in shards}
    for name in expected:
        if name not in there:
            overall.faults.append(Fault(name, "", "missing_shard", f"listed in {MANIFEST}"))
    if expected:
        for name in sorted(there - expected.keys()):
            overall.faults.append(Fault(name, "", "unlisted_shard", f"not in {MANIFEST}"))
    yield overall


def list_shards(folder: Path) -> tuple[list[Path], dict[str, dict[str, Any]]]:
    """The folder's tar files, and what its manifest says of each ({} without one).

    Raises:
        PicsError: no such folder, no shard in it, or a build that was not finished.
    """
    if not folder.is_dir():
        raise PicsError(f"{folder}: no such folder", "name a folder of .tar shards")
    manifest = read_manifest(folder)
    if manifest is not None and not manifest["complete"]:
        raise PicsError(f"{folder}: its build was not finished", "run the same `pics build-shards` again: it resumes")
    shards = sorted(path for path in folder.glob("*.tar") if path.is_file())
    expected = {shard["file"]: shard for shard in manifest["shards"]} if manifest else {}
    if not shards and not expected:
        raise PicsError(f"{folder}: no .tar shard in it", "name a folder of shards")
    return shards, expected
