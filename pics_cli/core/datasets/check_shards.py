"""Check shards, ours or the research project's: members, decodability, mask sizes, duplicate keys, checksums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from pics_cli.core.datasets.shard_folder import list_shards
from pics_cli.core.runtime.engines import count_picture
from pics_cli.core.runtime.files import file_sha256
from pics_cli.core.runtime.manifest import MANIFEST
from pics_cli.core.runtime.storage import borrowed_file
from pics_cli.core.shards.samples import decode_sample
from pics_cli.core.shards.shard_files import read_shard
from pics_cli.errors import BadSample, PicsError


class ValidationError(NamedTuple):
    """What is wrong in a shard: its name, the sample's key ("" for the shard itself), a word and the details."""

    shard: str
    key: str
    reason: str
    detail: str


@dataclass
class ShardReport:
    """What a check found in one shard.

    Attributes:
        keys: 8-byte hashes of the samples' keys, to find keys that stand in two shards.
        objects: samples by number of objects.
        without_json: samples without our json, as in the published shards.
    """

    shard: str
    samples: int = 0
    keys: list[bytes] = field(default_factory=list)
    objects: Counter[int] = field(default_factory=Counter)
    without_json: int = 0
    errors: list[ValidationError] = field(default_factory=list)

    def add_error(self, key: str, reason: str, detail: str) -> None:
        """Note what is wrong with a sample, or ("") with the shard itself."""
        self.errors.append(ValidationError(self.shard, key, reason, detail))


def check_shard(path: Path, expected: Mapping[str, Any] | None) -> ShardReport:
    """Read and decode every sample of a shard; compare it with its line in the manifest where there is one."""
    report = ShardReport(path.name)
    with borrowed_file(path) as file:
        _check_file(report, path, file, expected)
    return report


def _check_file(report: ShardReport, path: Path, file: Path, expected: Mapping[str, Any] | None) -> None:
    """Check the shard `path`, whose contents are those of `file`."""
    seen: set[str] = set()
    if expected is not None and (digest := file_sha256(file)) != expected["sha256"]:
        report.add_error("", "checksum", f"sha256 {digest[:12]}…, manifest says {expected['sha256'][:12]}…")
    try:
        for key, members in read_shard(file, path):
            if key in seen:
                report.add_error(key, "duplicate_key", "a second sample, or members that do not stand together")
            seen.add(key)
            report.samples += 1
            report.keys.append(blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest())
            try:
                sample = decode_sample(key, members)
            except BadSample as error:
                report.add_error(key, error.reason, error.detail)
                continue
            finally:
                count_picture(kept=True)
            report.objects[len(sample.masks)] += 1
            report.without_json += sample.metadata is None
    except BadSample as error:
        report.add_error("", error.reason, error.detail)
    except PicsError as error:
        report.add_error("", "unreadable_shard", error.message)
    if not report.samples and not report.errors:
        report.add_error("", "empty_shard", "no sample in it, though it ends as a tar file does: all zeros?")
    if expected is not None and report.samples != expected["samples"]:
        report.add_error("", "sample_count", f"{report.samples} samples, manifest says {expected['samples']}")


def check_folder(folder: Path, executor: Executor) -> Iterator[ShardReport]:
    """Check every shard of a folder, in order; the last report is of the folder itself.

    Raises:
        PicsError: no such folder, or no shard in it.
    """
    shards, expected = list_shards(folder)
    futures = [executor.submit(check_shard, path, expected.get(path.name)) for path in shards]
    overall = ShardReport(folder.name)
    first_shard: dict[bytes, str] = {}
    for future in futures:
        report = future.result()
        for key in report.keys:
            if (other := first_shard.setdefault(key, report.shard)) != report.shard:
                detail = f"shares a key with {other}"
                overall.errors.append(ValidationError(report.shard, "", "duplicate_key", detail))
        yield report
    existing = {path.name for path in shards}
    missing = [name for name in expected if name not in existing]
    overall.errors += [ValidationError(name, "", "missing_shard", f"listed in {MANIFEST}") for name in missing]
    unlisted = sorted(existing - expected.keys()) if expected else []
    overall.errors += [ValidationError(name, "", "unlisted_shard", f"not in {MANIFEST}") for name in unlisted]
    yield overall
