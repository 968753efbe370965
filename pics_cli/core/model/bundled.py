"""The model that is bundled with the package: its folder, and checking every file of it against its hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pics_cli.core.runtime.files import file_sha256, load_json, read_file
from pics_cli.errors import PicsError, abbreviate

BUNDLED_NAME = "pics-mini"
FILES_FILE = "files.json"
VERSION = 1
MAX_BYTES = 50_000_000
PACKAGE = Path(__file__).parents[2]
MODELS = PACKAGE / "models"
# Suffixes of the files that a model folder is read from; others, such as a note, are ignored.
KINDS = (".json", ".safetensors")
MODEL_SOURCES = """\
larger models: --model takes a name, a folder, a checkpoint, or a repository on the Hugging Face hub. Ways to get one:
  the published full-size one:   --model pics               (says what to download, once)
  another research checkpoint:   --model FILE.ckpt          (converted once; or: pics convert FILE.ckpt)
  your own:                      pics train --recipe joint
  an untrained one, for a try:   pics new-model OUT --size tiny   (its pictures are noise)
  a repository on the hub:       --model owner/name"""


def is_bundled(name: str) -> bool:
    """Whether a model's name means the bundled one; an existing folder of that name has precedence."""
    return name == BUNDLED_NAME and not Path(name).exists()


def bundled_model(folder: Path | None = None) -> Path:
    """The folder of the bundled model, every file of it read and compared with its hash.

    Args:
        folder: of the model; None: the one in the package.

    Raises:
        PicsError: files are missing, damaged, or of another model; the hint says how to get them back.
    """
    folder = folder or MODELS / BUNDLED_NAME
    expected, actual = _read_file_list(folder), list_model_files(folder)["files"]
    errors = [f"{name} is missing" for name in expected if name not in actual]
    problem = "not complete" if errors else "damaged"
    if not errors:
        changed = (name for name in expected if actual[name] != expected[name])
        errors = [f"{name} has {_describe_change(actual[name], expected[name])}" for name in changed]
        errors += [f"{name} does not belong to it" for name in actual if name not in expected]
    if errors:
        raise PicsError(f"{folder}: the bundled model is {problem}: {abbreviate(errors, 3)}", _restore_advice(folder))
    return folder


def describe_bundled(image_size: int) -> str:
    """One line on what the bundled model is, and where larger ones come from."""
    return (
        f"model: {BUNDLED_NAME}, bundled: small, sees {image_size}x{image_size}, trained on drawn and rendered "
        "scenes; the published full-size one: --model pics; others: --model FOLDER, FILE.ckpt or owner/name"
    )


def model_files(folder: Path) -> dict[str, Path]:
    """Files that a model folder is read from, without `files.json`: paths by name in the folder, sorted."""
    actual = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name: path
        for name, path in actual.items()
        if path.suffix in KINDS and name != FILES_FILE and not any(part.startswith(".") for part in Path(name).parts)
    }


def list_model_files(folder: Path, **origin: Any) -> dict[str, Any]:
    """The contents of `files.json` of a model folder: size and sha256 of each file, and its origin as plain data."""
    files = {
        name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for name, path in model_files(folder).items()
    }
    return {"version": VERSION, **origin, "bytes": sum(entry["bytes"] for entry in files.values()), "files": files}


def _read_file_list(folder: Path) -> dict[str, dict[str, Any]]:
    """Entry `files` of `files.json`."""
    path = folder / FILES_FILE
    try:
        data = load_json(read_file(path))
        files: dict[str, dict[str, Any]] = data["files"]
        valid = files and all(entry.keys() == {"bytes", "sha256"} for entry in files.values())
        if data["version"] != VERSION or not valid:
            raise ValueError("unexpected contents")
    except FileNotFoundError:
        problem = f"{FILES_FILE} is missing" if folder.is_dir() else "there is no such folder"
        raise PicsError(f"{folder}: the bundled model is missing: {problem}", _restore_advice(folder)) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise PicsError(
            f"{folder}: the bundled model is damaged: {FILES_FILE}: {why}", _restore_advice(folder)
        ) from None
    return files


def _describe_change(actual: dict[str, Any], expected: dict[str, Any]) -> str:
    hashes = f"sha256 {actual['sha256'][:12]}…, expected {str(expected['sha256'])[:12]}…"
    if actual["bytes"] == expected["bytes"]:
        return hashes
    return f"{actual['bytes']:,} bytes, expected {expected['bytes']:,}, and {hashes}"


def _restore_advice(folder: Path) -> str:
    """How to get the files back: from git in a checkout, else by installing again."""
    return f"{restore_hint(folder)}; or name another model\n\n{MODEL_SOURCES}"


def restore_hint(folder: Path) -> str:
    """How to get a folder of the package back."""
    checkout = PACKAGE.parent
    if (checkout / ".git").exists():
        inside = folder.relative_to(checkout) if folder.is_relative_to(checkout) else folder
        return f"get it back: git -C {checkout} checkout -- {inside}"
    return "get it back: pip install --force-reinstall --no-deps pics-cli"
