"""Remote shards: fetched whole into the cache folder, once for all processes of the machine."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import logging
import os
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pics_cli.core.runtime.files import AtomicFile, cache_folder, make_folder, open_file
from pics_cli.core.runtime.http_client import BLOCK, MISSING_CODES, RefusedError, TransferError, open_url, read_limited
from pics_cli.core.runtime.locks import locked
from pics_cli.core.runtime.manifest import MANIFEST, parse_manifest
from pics_cli.core.runtime.storage import location
from pics_cli.core.shards.shard_paths import PIPE, ListedShard, MissingShardsError, expand_ranges, is_pipe, is_store
from pics_cli.core.shards.tar_index import index_shard
from pics_cli.errors import FAILED, PicsError, write_error

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Seconds between tries: a server that restarts is worth waiting for.
_PAUSES = (1.0, 4.0, 15.0)
# HTTP codes that another try will not change.
_FINAL_CODES = (400, 401, 403, 404, 405, 410, 451)
# A manifest of a million shards has 150 MB. What claims to be a shard ends at the room for all of them, or here.
_MAX_MANIFEST, _MAX_SHARD = 256e6, 10e9
_HINT = "fetched shards are kept there: name another folder with PICS_CACHE=DIR"


def fetch_shard(source: str, cache_gb: float, sha256: str | None = None) -> Path:
    """Local copy of a shard: from the cache, else fetched now, while other processes that ask for it wait.

    The least recently used shards are removed where the cache would hold more than `cache_gb`.

    Args:
        source: http(s) URL, address of a store, or `pipe:` and a command whose output is the shard.
        cache_gb: room for all fetched shards together; the newest is kept in any case.
        sha256: expected, where known.

    Raises:
        PicsError: it cannot be fetched, is no whole tar, or has another sha256.
    """
    path = _cache_path(source, sha256)
    if _touch(path):
        logger.debug("%s: fetched before, in %s", source, path)
        return path
    make_folder(path.parent, _HINT)
    with locked(path.with_suffix(".lock"), _HINT):
        if not _touch(path):
            for abandoned in path.parent.glob(f"{path.name}.*.tmp"):  # by processes that were killed
                abandoned.unlink(missing_ok=True)
            _download(source, path, sha256, cache_gb)
            _evict(path.parent, path, cache_gb)
    return path


def count_samples(source: str, cache_gb: float) -> int:
    """Samples of a shard without a manifest; remembered, so that it is fetched for that but once.

    Raises:
        PicsError: it cannot be fetched.
    """
    path = _cache_path(source, None).with_suffix(".samples")
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        samples = len(index_shard(fetch_shard(source, cache_gb))) - 1
    with AtomicFile(path) as file:
        file.write(str(samples).encode())
    return samples


def list_remote_shards(url: str) -> list[ListedShard]:
    """The shards that a URL means: of a folder with a manifest.json, or .tar files, with ranges.

    Raises:
        MissingShardsError: no manifest, and no first shard.
        PicsError: the server cannot be reached, or the build was not finished.
    """
    if not url.endswith(".tar"):
        folder = url.rstrip("/")
        manifest = _read_manifest(folder)
        if manifest is None:
            raise MissingShardsError(f"{url}: not found")
        return [ListedShard(f"{folder}/{name}", *entry) for name, entry in manifest.items()]
    urls = expand_ranges(url)
    manifests = {folder: _read_manifest(folder) or {} for folder in {url.rpartition("/")[0] for url in urls}}
    if not any(manifests.values()) and _request(urls[0], "HEAD") is None:
        raise MissingShardsError(f"{url}: not found")
    shards = []
    for shard_url in urls:
        folder, _, name = shard_url.rpartition("/")
        shards.append(ListedShard(shard_url, *manifests[folder].get(name, ())))
    return shards


def _cache_path(source: str, sha256: str | None) -> Path:
    """Where a shard is cached, by source and expected sha256: one that was built anew is fetched again."""
    name = hashlib.sha256(f"{source} {sha256}".encode()).hexdigest()[:32]
    return cache_folder() / "shards" / f"{name}.tar"


def _read_manifest(folder: str) -> dict[str, tuple[int, str]] | None:
    """Samples and sha256 of each shard of a remote folder by name; None where it has no manifest."""
    url = f"{folder}/{MANIFEST}"
    text = _request(url, "GET")
    if text is None:
        return None
    manifest = parse_manifest(text, url)
    if not manifest["complete"]:
        raise PicsError(f"{folder}: its build was not finished", "finish it there, or leave the set out")
    return {entry["file"]: (entry["samples"], entry["sha256"]) for entry in manifest.get("shards", [])}


def _request(url: str, method: str) -> bytes | None:
    """The body of the answer; None where the server has no such file."""

    def attempt() -> bytes | None:
        try:
            with open_url(url, method) as response:
                return b"" if method == "HEAD" else b"".join(read_limited(response, _MAX_MANIFEST))
        except urllib.error.HTTPError as error:
            if error.code in MISSING_CODES:
                return None
            raise

    return _retry(url, attempt)


def _download(source: str, path: Path, sha256: str | None, cache_gb: float) -> None:
    def attempt() -> None:
        with AtomicFile(path) as file:
            if is_pipe(source):
                _run_command(source, file)
            else:
                (_copy_stored if is_store(source) else _copy)(source, file, max(cache_gb * 1e9, _MAX_SHARD))
        try:
            if sha256 is not None and file.sha256 != sha256:
                raise TransferError(f"sha256 is {file.sha256[:12]}…, its {MANIFEST} says {sha256[:12]}…")
            index_shard(path)
        except (PicsError, TransferError) as error:
            path.unlink(missing_ok=True)
            raise TransferError(str(error).replace(f"{path}: ", "")) from None

    _retry(source, attempt)


def _retry(source: str, attempt: Callable[[], T]) -> T:
    """The result of a call, tried again after a while where that may help.

    Raises:
        PicsError: naming the source.
    """
    for pause in (*_PAUSES, None):
        try:
            return attempt()
        except urllib.error.HTTPError as error:
            reason, final = f"{error.code} {error.reason}".strip().lower(), error.code in _FINAL_CODES
        except TransferError as error:
            reason, final = str(error), is_pipe(source)
        except (RefusedError, ValueError) as error:  # or an address that is none
            reason, final = str(error), True
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            reason = str(getattr(cause, "strerror", None) or cause or type(error).__name__).lower()
            final = isinstance(cause, ssl.SSLCertVerificationError)
        if final or pause is None:
            break
        logger.debug("%s: %s; once more in %g s", source, reason, pause)
        time.sleep(pause)
    raise PicsError(f"{source}: cannot be fetched: {reason}", "run the same command again once that is mended", FAILED)


def _copy(url: str, file: AtomicFile, most: float) -> None:
    with open_url(url) as response:
        for block in read_limited(response, most):
            file.write(block)


def _copy_stored(address: str, file: AtomicFile, most: float) -> None:
    try:
        with open_file(location(address)) as stored:
            while block := stored.read(BLOCK):
                file.write(block)
                if file.bytes > most:
                    raise RefusedError(f"it has more than {most / 1e6:,.0f} MB")
    except FileNotFoundError:
        raise RefusedError("no such file") from None


def _run_command(source: str, file: AtomicFile) -> None:
    command = source.removeprefix(PIPE).strip()
    with tempfile.TemporaryFile() as stderr:
        with subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr
        ) as process:
            assert process.stdout is not None
            while block := process.stdout.read(BLOCK):
                file.write(block)
        if process.returncode:
            stderr.seek(0)
            last = stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise TransferError(f"the command ended with code {process.returncode}" + (f": {last}" if last else ""))


def _touch(path: Path) -> bool:
    """Mark a shard as just used; False where it is not cached. Its mtime, which its index goes by, stays."""
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise write_error(path, error, _HINT) from None
    return True


def _evict(folder: Path, newest: Path, cache_gb: float) -> None:
    """Remove the least recently used shards. Whoever reads one has it open, or fetches it again."""
    cached = []
    for path in folder.glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            cached.append((path != newest, -stat.st_atime_ns, stat.st_size, path))
    total = 0
    for evictable, _, size, path in sorted(cached):
        total += size
        if evictable and total > cache_gb * 1e9:
            path.unlink(missing_ok=True)
