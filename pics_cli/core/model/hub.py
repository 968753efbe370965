"""Models on the Hugging Face hub, and hashes of model files: sha256, recorded at first use and compared later."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pics_cli.core.model.config import run_hint
from pics_cli.core.runtime.files import cache_folder, file_sha256, load_json, make_folder, read_file, write_json
from pics_cli.core.runtime.storage import is_address, list_folder, local_folder, location
from pics_cli.errors import PicsError, abbreviate, read_error, reason_of

# Where downloaded models are looked for, as the research project does, and DINOv2's file in it.
CHECKPOINTS, DINOV2_FILE = Path("checkpoints"), "dinov2_vitg14_pretrain.pth"
HASHES_FILE = "hashes.json"
# One of them lies in the folder of every model, diffusers', transformers' or ours.
_MODEL_FILES = {"config.json", "model_index.json", "pics.json"}
_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(@[\w][\w./-]*)?")


def is_local(name: str) -> bool:
    """Whether the name can only be a path: it exists, or is not written like `owner/name` or `owner/name@revision`."""
    return Path(name).exists() or not _REPOSITORY.fullmatch(name)


def snapshot(name: str, flag: str, patterns: Sequence[str]) -> Path:
    """The folder that `name` stands for.

    Args:
        name: a local folder, which comes first; a folder of a store, such as `s3://bucket/folder`, which is fetched
            into the cache; or a hub repository: `owner/name` or `owner/name@revision`.
        flag: the command-line flag that the name came with, for the error.
        patterns: of the files to download from a repository, such as `unet/*`; a local folder is taken as it is.

    Raises:
        PicsError: no such folder; the hub cannot be reached and its cache does not hold the files; no such repository.
    """
    if is_address(name):
        return _stored_folder(name, flag)
    if is_local(name):
        path = Path(name)
        if path.is_dir():
            return path
        if path.exists():
            raise PicsError(f"{flag} {name}: is a file, expected a folder", f"name the folder: {flag} {path.parent}")
        raise PicsError(
            f"{flag} {name}: no such folder",
            run_hint(path)
            or "give a folder that exists, or a repository on the hub as owner/name or owner/name@revision",
        )
    # Imported here: local models do without the hub's client.
    from pics_cli.core.model.hub_client import download

    return download(name, flag, patterns)


def _stored_folder(name: str, flag: str) -> Path:
    """The copy of a store's folder in the cache; not of just any, which may hold terabytes."""
    folder = location(name)
    try:
        if not _MODEL_FILES & list_folder(folder).keys():
            raise PicsError(
                f"{flag} {name}: no model in it: neither of {', '.join(sorted(_MODEL_FILES))}", "name its folder"
            )
        return local_folder(folder)
    except NotADirectoryError:
        raise PicsError(f"{flag} {name}: is a file, expected a folder", f"name the folder: {folder.parent}") from None
    except FileNotFoundError:
        raise PicsError(f"{flag} {name}: no such folder", "look at the spelling") from None


def cached_sha256(path: Path) -> str:
    """sha256 (hex) of a file; kept in the cache folder for as long as its size and time stay the same.

    Raises:
        PicsError: the file, or the cache of hashes, cannot be read.
    """
    return _hash_file(path, _load_hashes())


def check_recorded_hashes(name: str, files: Mapping[str, Path]) -> dict[str, str]:
    """Compare the hashes of a base model's files with those recorded at its first use, if there was one.

    Args:
        name: repository or path.
        files: by their names inside it.

    Returns:
        sha256 by the same names.

    Raises:
        PicsError: a file was changed, removed or added since.
    """
    cache = _load_hashes()
    key = _cache_key(name)
    current = {file: _hash_file(path, cache) for file, path in sorted(files.items())}
    recorded = cache["models"].get(key)
    if recorded is not None and recorded != current:
        raise PicsError(
            f"{name}: not the files that were used before: {_describe_changes(recorded, current)}",
            f"fetch the former files again; or, if the change is meant, remove the entry {key!r} from {_hashes_path()}",
        )
    return current


def record_hashes(name: str, sha256: Mapping[str, str]) -> None:
    """Record the hashes of a base model that was read without error: those of a broken download must not be kept."""
    cache = _load_hashes()
    cache["models"].setdefault(_cache_key(name), dict(sha256))
    _save_hashes(cache)


def _cache_key(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).exists() else name


def check_hashes(folder: Path, expected: Mapping[str, str]) -> None:
    """Compare files of a folder with hashes recorded in a model that links to them.

    Raises:
        PicsError: a file is missing or has another hash.
    """
    cache = _load_hashes()
    current = {name: _hash_file(folder / name, cache) for name in expected if (folder / name).is_file()}
    if current != dict(expected):
        raise PicsError(
            f"{folder}: not the files that the model was made with: {_describe_changes(expected, current)}",
            "name the folder or revision that the model was made with",
        )


def _describe_changes(recorded: Mapping[str, str], current: Mapping[str, str]) -> str:
    changes = [
        *(f"{name} is gone" for name in recorded if name not in current),
        *(f"{name} is new" for name in current if name not in recorded),
        *(f"{name} has sha256 {current[name][:12]}…, was {recorded[name][:12]}…" for name in recorded if
          name in current and current[name] != recorded[name]),
    ]  # fmt: skip
    return abbreviate(changes, 3)


def _hash_file(path: Path, cache: dict[str, Any]) -> str:
    try:
        path = path.resolve()
        stat = path.stat()
    except OSError as error:
        raise read_error(path, error) from None
    entry = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    cached = cache["files"].get(str(path))
    known = isinstance(cached, dict) and isinstance(cached.get("sha256"), str)
    if not known or {name: cached.get(name) for name in entry} != entry:
        cached = {**entry, "sha256": file_sha256(path)}
        cache["files"][str(path)] = cached
        _save_hashes(cache)
    return str(cached["sha256"])


def _hashes_path() -> Path:
    return cache_folder() / HASHES_FILE


def _load_hashes() -> dict[str, Any]:
    try:
        data = load_json(read_file(_hashes_path()))
    except FileNotFoundError:
        return {"files": {}, "models": {}}
    except (OSError, ValueError) as error:
        raise PicsError(
            f"{_hashes_path()}: unreadable: {reason_of(error)}", "remove it: hashes are then recorded anew"
        ) from None
    if not isinstance(data, dict) or not all(isinstance(data.get(part), dict) for part in ("files", "models")):
        raise PicsError(f"{_hashes_path()}: not a record of hashes", "remove it: hashes are then recorded anew")
    return data


def _save_hashes(cache: dict[str, Any]) -> None:
    make_folder(cache_folder(), "name a folder that can be written to in PICS_CACHE")
    write_json(_hashes_path(), cache)
