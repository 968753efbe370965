"""Whether the files that a model is built from are still the ones they were: sha256, recorded at first use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from pics_cli.core.runtime.files import cache_folder, file_sha256, make_folder, write_json
from pics_cli.errors import PicsError, read_error

SECONDS_TO_ANSWER = 10.0
_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(@[\w][\w./-]*)?")
# The hub's client changed its HTTP library twice; its own error derives from that library's in every version.
_HUB_ERRORS: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, *HfHubHTTPError.__bases__)


def is_local(name: str) -> bool:
    """Whether the name can only be a path: it exists, or is not written like `owner/name` or `owner/name@revision`."""
    return Path(name).exists() or not _REPOSITORY.fullmatch(name)


def snapshot(name: str, flag: str, patterns: Sequence[str]) -> Path:
    """The folder that `name` stands for.

    Args:
        name: a local folder, which comes first, or a hub repository: `owner/name` or `owner/name@revision`.
        flag: the command-line flag that the name came with, for the error.
        patterns: of the files to download from a repository, such as `unet/*`; a local folder is taken as it is.

    Raises:
        PicsError: no such folder; the hub cannot be reached and its cache does not hold the files; no such repository.
    """
    if is_local(name):
        return _folder(name, flag)
    repository, _, revision = name.partition("@")
    unreachable = None
    try:
        unreachable = _unreachable(repository, revision or None)
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=list(patterns),
                local_files_only=unreachable is not None,
            )
        )
    except GatedRepoError:
        raise PicsError(
            f"{flag} {name}: this repository wants you to accept its terms first",
            f"accept them on its page and run `hf auth login`, or name a local copy: {flag} FOLDER",
        ) from None
    except RevisionNotFoundError:
        raise PicsError(
            f"{flag} {name}: the repository has no revision {revision or 'main'!r}",
            "name a branch, tag or commit of it after the @, or leave the @ out",
        ) from None
    except RepositoryNotFoundError:
        raise PicsError(
            f"{flag} {name}: neither a folder here nor a public repository on the hub",
            f"look at the spelling, or name a local copy: {flag} FOLDER",
        ) from None
    except _HUB_ERRORS as error:
        raise PicsError(
            f"{flag} {name}: no such folder here, and the hub cannot be reached ({_reason(unreachable or error)})",
            f"name a local copy: {flag} FOLDER; where there is a connection, `hf download {repository}"
            f"{f' --revision {revision}' if revision else ''} --local-dir FOLDER` makes one",
        ) from None


def cached_snapshot(name: str, file: str) -> Path | None:
    """The folder of a hub repository (`owner/name` or `owner/name@revision`) in the hub's cache, which is not asked
    anew; None where it does not hold `file`."""
    repository, _, revision = name.partition("@")
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
    except _HUB_ERRORS:
        return None
    return folder if (folder / file).is_file() else None


def _folder(name: str, flag: str) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise PicsError(f"{flag} {name}: is a file, expected a folder", f"name the folder: {flag} {path.parent}")
    raise PicsError(
        f"{flag} {name}: no such folder",
        "give a folder that exists, or a repository on the hub as owner/name or owner/name@revision",
    )


def _unreachable(repository: str, revision: str | None) -> Exception | None:
    """Why the hub does not answer, None where it does. Downloading asks it the same, but waits without end."""
    try:
        HfApi().repo_info(repository, revision=revision, timeout=SECONDS_TO_ANSWER)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except _HUB_ERRORS as error:
        return error
    return None


def _reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


HASHES_FILE = "hashes.json"


def cached_sha256(path: Path) -> str:
    """sha256 (hex) of a file; remembered in the cache folder for as long as its size and time stay the same.

    Raises:
        PicsError: the file, or what was remembered, cannot be read.
    """
    known = _load()
    return _sha256(path, known)


def check_recorded_hashes(name: str, files: Mapping[str, Path]) -> dict[str, str]:
    """Compare the hashes of a base model's files with those recorded at its first use, if there was one.

    Args:
        name: what the user called it: a repository, or a path.
        files: by their names inside it.

    Returns:
        sha256 by the same names.

    Raises:
        PicsError: a file has changed, gone or come since.
    """
    known = _load()
    key = _key(name)
    now = {inside: _sha256(path, known) for inside, path in sorted(files.items())}
    before = known["models"].get(key)
    if before is not None and before != now:
        raise PicsError(
            f"{name}: not the files that were used before: {_difference(before, now)}",
            f"fetch the former files again; or, if the change is meant, remove the entry {key!r} from {_path()}",
        )
    return now


def record_hashes(name: str, sha256: Mapping[str, str]) -> None:
    """Remember the hashes of a base model that was read without fault: a broken download must not be the measure."""
    known = _load()
    known["models"].setdefault(_key(name), dict(sha256))
    _save(known)


def _key(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name


def check_hashes(folder: Path, expected: Mapping[str, str]) -> None:
    """Compare files of a folder with hashes that were recorded elsewhere, such as in a model that refers to them.

    Raises:
        PicsError: a file is missing or another one.
    """
    known = _load()
    now = {name: _sha256(folder / name, known) for name in expected if (folder / name).is_file()}
    if now != dict(expected):
        raise PicsError(
            f"{folder}: not the files that the model was made with: {_difference(expected, now)}",
            "name the folder or revision that the model was made with",
        )


def _difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    words = [
        *(f"{name} is gone" for name in before if name not in now),
        *(f"{name} is new" for name in now if name not in before),
        *(f"{name} has sha256 {now[name][:12]}…, was {before[name][:12]}…" for name in before if
          name in now and now[name] != before[name]),
    ]  # fmt: skip
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _sha256(path: Path, known: dict[str, Any]) -> str:
    try:
        path = path.resolve()
        state = path.stat()
    except OSError as error:
        raise read_error(path, error) from None
    entry = {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
    remembered = known["files"].get(str(path), {})
    if {name: remembered.get(name) for name in entry} != entry:
        remembered = {**entry, "sha256": file_sha256(path)}
        known["files"][str(path)] = remembered
        _save(known)
    return str(remembered["sha256"])


def _path() -> Path:
    return cache_folder() / HASHES_FILE


def _load() -> dict[str, Any]:
    try:
        data = json.loads(_path().read_text())
    except FileNotFoundError:
        return {"files": {}, "models": {}}
    except (OSError, ValueError) as error:
        raise PicsError(f"{_path()}: unreadable: {error}", "remove it: hashes are then recorded anew") from None
    if not isinstance(data, dict) or not all(isinstance(data.get(part), dict) for part in ("files", "models")):
        raise PicsError(f"{_path()}: not a record of hashes", "remove it: hashes are then recorded anew")
    return data


def _save(known: dict[str, Any]) -> None:
    make_folder(cache_folder(), "name a folder that can be written to in PICS_CACHE")
    write_json(_path(), known)


def matching_files(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """The files that match the patterns in a folder, by their names inside it."""
    return {
        str(path.relative_to(folder)): path for name in names for path in sorted(folder.glob(name)) if path.is_file()
    }
