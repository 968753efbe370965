"""Shards from elsewhere: fetched whole into the cache folder, once for all processes of the machine."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pics_cli.core.runtime.files import AtomicFile, cache_folder, locked, make_folder
from pics_cli.core.runtime.manifest import MANIFEST, parse_manifest
from pics_cli.core.shards.shard_urls import PIPE, expand, is_pipe
from pics_cli.core.shards.tar_index import index_shard
from pics_cli.errors import FAILED, PicsError, write_error

T = TypeVar("T")

# Seconds without a byte, and pauses between tries: a server that restarts is worth waiting for.
_TIMEOUT = 60.0
_PAUSES = (1.0, 4.0, 15.0)
_BLOCK = 1 << 20
# Answers that another try will not change.
_FINAL = (400, 401, 403, 404, 405, 410, 451)
_HINT = "fetched shards are kept there: name another folder with PICS_CACHE=DIR"


class _Failed(Exception):
    """A try that failed, and may not the next time."""


def fetch(source: str, cache_gb: float, sha256: str | None = None) -> Path:
    """A local copy of a shard, fetched now unless it is in the cache; others that wait for it find it there.

    Shards that were not used for longest are removed where the cache would hold more than `cache_gb`.

    Args:
        source: http(s) address, or `pipe:` and a command whose output is the shard.
        cache_gb: room for all fetched shards together; the newest is kept in any case.
        sha256: what it must have.

    Raises:
        PicsError: it cannot be fetched, is no whole tar, or is not what the manifest says.
    """
    path = _place(source, sha256)
    if _used(path):
        return path
    make_folder(path.parent, _HINT)
    with locked(path.with_suffix(".lock"), _HINT):
        if not _used(path):
            _remove_abandoned(path)
            _download(source, path, sha256)
            _make_room(path.parent, path, cache_gb)
    return path


def _place(source: str, sha256: str | None) -> Path:
    """Where a shard is kept; by what it must hold, too: one that was built anew is another."""
    name = hashlib.sha256(f"{source} {sha256}".encode()).hexdigest()[:32]
    return cache_folder() / "shards" / f"{name}.tar"


def count_samples(source: str, cache_gb: float) -> int:
    """Samples of a shard that no manifest counts; remembered, so that it is fetched for that but once.

    Raises:
        PicsError: it cannot be fetched.
    """
    path = _place(source, None).with_suffix(".samples")
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        samples = len(index_shard(fetch(source, cache_gb))) - 1
    with AtomicFile(path) as file:
        file.write(str(samples).encode())
    return samples


def remote_shards(address: str) -> list[tuple[str, int | None, str | None]] | None:
    """The shards that an address means: each one's address, samples and sha256, None where no manifest says them.

    Args:
        address: of a folder with a manifest.json, or of .tar files, with ranges.

    Returns:
        None where there is no such folder, or (without a manifest beside it) no first shard.

    Raises:
        PicsError: it cannot be asked, or its build was not finished.
    """
    if not address.endswith(".tar"):
        folder = address.rstrip("/")
        listed = _manifest(folder)
        return None if listed is None else [(f"{folder}/{name}", *said) for name, said in listed.items()]
    names = expand(address)
    manifests = {folder: _manifest(folder) or {} for folder in {name.rpartition("/")[0] for name in names}}
    found: list[tuple[str, int | None, str | None]] = []
    for name in names:
        folder, _, file = name.rpartition("/")
        found.append((name, *manifests[folder].get(file, (None, None))))
    if not any(manifests.values()) and _read(names[0], head=True) is None:
        return None
    return found


def _manifest(folder: str) -> dict[str, tuple[int, str]] | None:
    """Samples and sha256 of each shard of an address; None where it has no manifest."""
    address = f"{folder}/{MANIFEST}"
    text = _read(address)
    if text is None:
        return None
    manifest = parse_manifest(text, address)
    if not manifest["complete"]:
        raise PicsError(f"{folder}: its build was not finished", "finish it there, or leave the set out")
    return {shard["file"]: (shard["samples"], shard["sha256"]) for shard in manifest.get("shards", [])}


def _read(address: str, head: bool = False) -> bytes | None:
    """A small file's bytes (none with `head`, which only asks whether it is there); None where it is not."""

    def once() -> bytes | None:
        try:
            with _open(address, "HEAD" if head else "GET") as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code in (403, 404, 410):  # 403 is what object stores answer for names that are not there
                return None
            raise

    return _tried(address, once)


def _download(source: str, path: Path, sha256: str | None) -> None:
    def once() -> None:
        with AtomicFile(path) as file:
            _run(source, file) if is_pipe(source) else _copy(source, file)
        try:
            if sha256 is not None and file.sha256 != sha256:
                raise _Failed(f"sha256 is {file.sha256[:12]}…, its {MANIFEST} says {sha256[:12]}…")
            index_shard(path)
        except PicsError as error:
            path.unlink(missing_ok=True)
            raise _Failed(error.message.replace(f"{path}: ", "")) from None
        except _Failed:
            path.unlink(missing_ok=True)
            raise

    _tried(source, once)


def _tried(source: str, once: Callable[[], T]) -> T:
    """What a call gives, tried again after a while where that may help.

    Raises:
        PicsError: naming the source.
    """
    for pause in (*_PAUSES, None):
        try:
            return once()
        except urllib.error.HTTPError as error:
            why, final = f"{error.code} {error.reason}".strip().lower(), error.code in _FINAL
        except _Failed as error:
            why, final = str(error), is_pipe(source)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            why = str(getattr(reason, "strerror", None) or reason or type(error).__name__).lower()
            final = isinstance(reason, ssl.SSLCertVerificationError)
        if final or pause is None:
            break
        time.sleep(pause)
    raise PicsError(f"{source}: cannot be fetched: {why}", "run the same command again once that is mended", FAILED)


def _open(address: str, method: str = "GET") -> http.client.HTTPResponse:
    request = urllib.request.Request(address, headers={"User-Agent": "pics"}, method=method)
    answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT)
    return answer


def _copy(address: str, file: AtomicFile) -> None:
    with _open(address) as answer:
        while block := answer.read(_BLOCK):
            file.write(block)
        length = answer.headers.get("Content-Length")
    if length is not None and file.bytes != int(length):
        raise _Failed(f"the connection ended after {file.bytes:,} of {int(length):,} bytes")


def _run(source: str, file: AtomicFile) -> None:
    command = source.removeprefix(PIPE).strip()
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
        ) as run:
            assert run.stdout is not None
            while block := run.stdout.read(_BLOCK):
                file.write(block)
        if run.returncode:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise _Failed(f"the command ended with code {run.returncode}" + (f": {last}" if last else ""))


def _used(path: Path) -> bool:
    """Whether a shard is there; if so, it counts as just used. Its own time, which its index goes by, stays."""
    try:
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise write_error(path, error, _HINT) from None
    return True


def _remove_abandoned(path: Path) -> None:
    """What processes left behind that were killed while they fetched this shard, which only one does at a time."""
    for left in path.parent.glob(f"{path.name}.*.tmp"):
        left.unlink(missing_ok=True)


def _make_room(folder: Path, newest: Path, cache_gb: float) -> None:
    """Remove the shards that were not used for longest. Whoever reads one has it open, or fetches it again."""
    kept = []
    for path in folder.glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):
            state = path.stat()
            kept.append((path != newest, -state.st_atime_ns, state.st_size, path))
    total = 0
    for other, _, size, path in sorted(kept):
        total += size
        if other and total > cache_gb * 1e9:
            path.unlink(missing_ok=True)
