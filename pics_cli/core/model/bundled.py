"""The model that comes with the package: where it lies, and that every byte of it is the one that was packed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pics_cli.core.runtime.files import file_sha256
from pics_cli.errors import PicsError

BUNDLED_NAME = "pics-mini"
FILES_FILE = "files.json"
VERSION = 1
MAX_BYTES = 25_000_000
PACKAGE = Path(__file__).parents[2]
MODELS = PACKAGE / "models"
# What a model folder is read from; anything else in it, such as a note, changes nothing.
KINDS = (".json", ".safetensors")
MODEL_SOURCES = """\
larger models: --model takes a folder, or a repository on the Hugging Face hub (owner/name). Ways to get one:
  a research checkpoint:         python scripts/convert_checkpoint.py CKPT OUT
  your own:                      pics train --recipe joint
  an untrained one, for a try:   python scripts/new_model.py OUT --size tiny   (its pictures are noise)
  a repository on the hub:       --model owner/name"""
_SHOWN = 3


def is_bundled(name: str) -> bool:
    """Whether a model's name means the bundled one: a folder of that name, where there is one, comes first."""
    return name == BUNDLED_NAME and not Path(name).exists()


def bundled_model(folder: Path | None = None) -> Path:
    """The folder of the bundled model, every file of it read and compared with its hash.

    Args:
        folder: look there; None: where the package has it.

    Raises:
        PicsError: files are missing, damaged, or of another model; says how to get them back.
    """
    folder = folder or MODELS / BUNDLED_NAME
    expected = _listed(folder)
    faults = [f"{name} is missing" for name in expected if not (folder / name).is_file()]
    what = "not complete" if faults else "damaged"
    if not faults:
        faults = [fault for name, one in expected.items() if (fault := _difference(folder / name, name, one))]
        faults += [f"{name} does not belong to it" for name in sorted(model_files(folder).keys() - expected.keys())]
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise PicsError(f"{folder}: the bundled model is {what}: {', '.join(faults[:_SHOWN])}{more}", _again(folder))
    return folder


def describe_bundled(image_size: int) -> str:
    """One line on what the bundled model is, and where larger ones come from."""
    return (
        f"model: {BUNDLED_NAME}, bundled: small, sees {image_size}x{image_size}, trained on drawn scenes; full-size "
        "ones: --model FOLDER (scripts/convert_checkpoint.py, pics train) or --model owner/name"
    )


def model_files(folder: Path) -> dict[str, Path]:
    """What a model folder is read from, but for the list of it: by name inside, sorted."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: path
        for name, path in found.items()
        if path.suffix in KINDS and name != FILES_FILE and not any(part.startswith(".") for part in Path(name).parts)
    }


def list_model_files(folder: Path, **origin: Any) -> dict[str, Any]:
    """What `files.json` says of a model folder: size and sha256 of each file, and where they come from.

    Args:
        folder: of the model.
        origin: plain data on what made it.
    """
    files = {name: _entry(path) for name, path in model_files(folder).items()}
    return {"version": VERSION, **origin, "bytes": sum(one["bytes"] for one in files.values()), "files": files}


def _entry(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}


def _listed(folder: Path) -> dict[str, dict[str, Any]]:
    """`files` of `files.json`."""
    path = folder / FILES_FILE
    try:
        data = json.loads(path.read_bytes())
        files: dict[str, dict[str, Any]] = data["files"]
        whole = files and all(one.keys() == {"bytes", "sha256"} for one in files.values())
        if data["version"] != VERSION or not whole:
            raise ValueError("not what was packed")
    except FileNotFoundError:
        what = f"{FILES_FILE} is missing" if folder.is_dir() else "there is no such folder"
        raise PicsError(f"{folder}: the bundled model is missing: {what}", _again(folder)) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise PicsError(f"{folder}: the bundled model is damaged: {FILES_FILE}: {why}", _again(folder)) from None
    return files


def _difference(path: Path, name: str, expected: dict[str, Any]) -> str:
    """What is wrong with a file, nothing where it is as it was packed."""
    found = _entry(path)
    if found == expected:
        return ""
    hashes = f"sha256 {found['sha256'][:12]}…, expected {str(expected['sha256'])[:12]}…"
    if found["bytes"] != expected["bytes"]:
        return f"{name} has {found['bytes']:,} bytes, expected {expected['bytes']:,}, and {hashes}"
    return f"{name} has {hashes}"


def _again(folder: Path) -> str:
    """How to get the files back: from git in a checkout, else by installing again."""
    return f"{restore_hint(folder)}; or name another model\n\n{MODEL_SOURCES}"


def restore_hint(folder: Path) -> str:
    """How to get a folder of the package back."""
    checkout = PACKAGE.parent
    if (checkout / ".git").exists():
        inside = folder.relative_to(checkout) if folder.is_relative_to(checkout) else folder
        return f"get it back: git -C {checkout} checkout -- {inside}"
    return "get it back: pip install --force-reinstall --no-deps pics-cli"
