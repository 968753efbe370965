"""A model folder to a repository on the Hugging Face hub: which files go, and with which card; see `upload`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from pics_cli.core.images.image_io import decode_image
from pics_cli.core.model.bundled import FILES_FILE
from pics_cli.core.model.config import CONFIG_FILE, ModelConfig
from pics_cli.core.model.describe_folder import CONFIG_KEY, INDEX_FILE, PIPELINE_FILE, code_files
from pics_cli.core.model.model_card import (
    CARD_FILE,
    CONVERSION_FILE,
    PICTURES,
    TRAINING_FILE,
    Figures,
    model_card,
    read_own_card,
)
from pics_cli.core.model.model_folder import PARTS, load_parts
from pics_cli.core.model.pixel_autoencoder import PixelAutoencoder
from pics_cli.core.runtime.files import load_json, read_file
from pics_cli.errors import BadSample, PicsError, read_error, reason_of

RESULTS_FILE = "results.json"
_ROOT_FILES = {
    INDEX_FILE, PIPELINE_FILE, CONFIG_FILE, CARD_FILE, FILES_FILE, CONVERSION_FILE, TRAINING_FILE, RESULTS_FILE,
    "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE",
}  # fmt: skip
_PART_FILE = re.compile(
    rf"(?:{'|'.join((*PARTS, 'scheduler'))})/"
    r"(?:config\.json|scheduler_config\.json|[\w.-]+\.safetensors|[\w.-]+\.safetensors\.index\.json|pics_cli\.py)"
)
# What other programs leave in a folder; the hub's own client would not take it either.
_LEFT_OUT = re.compile(r"(?:.*/)?(?:\.git|\.cache|__pycache__)/.*|(?:.*/)?(?:\.gitattributes|\.gitignore|\.DS_Store)")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_SECRET_NAME = re.compile(
    r"\.env.*|\.netrc|.*\.pem|.*\.key|id_(?:rsa|ed25519|ecdsa).*|.*(?:token|secret|credential).*", re.I
)
_SECRET = re.compile(r"\bhf_[A-Za-z0-9]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b")
_SHOWN = 20
_TEXTS = (".json", ".md", ".py", ".txt")
_SAVE_AGAIN = "save it again: PicsPipeline.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"


@dataclass(frozen=True)
class PushPlan:
    """What will be uploaded.

    Attributes:
        folder: the model folder.
        repository: `owner/name`.
        files: by their names in the repository, without the card.
        card: its text.
        own_card: whether somebody wrote it, and not pics.
        left_out: names of files that stay.
    """

    folder: Path
    repository: str
    files: dict[str, Path]
    card: str
    own_card: bool
    left_out: list[str]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every file in the repository, the card included."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        return dict(sorted({**sizes, CARD_FILE: len(self.card.encode())}.items()))


def plan_push(folder: Path, repository: str, *, figures: Figures | None = None, sheet: Path | None = None) -> PushPlan:
    """Check a model folder and choose what goes to the hub; nothing is written and nobody is asked.

    Args:
        folder: the model folder.
        repository: `owner/name`.
        figures: measured of this model, for the card.
        sheet: picture of samples, such as `pics infer --sheet` draws, for the card.

    Raises:
        PicsError: a name that is none; no model, not a complete one or not a whole one; files that do not belong to it;
            a card of the user's own, where there are figures or a sheet for it.
    """
    check_repository(repository)
    vae = _check_model(folder)
    files, left_out = _list_files(folder, code_files(vae))
    own = read_own_card(folder)
    if own is not None and (figures is not None or sheet is not None):
        raise PicsError(
            f"{folder / CARD_FILE}: is your own card, which is not changed, but a sheet or figures are given for it",
            f"put them into it yourself, or remove {CARD_FILE}: pics then writes one",
        )
    sheet_name = None
    if sheet is not None:
        sheet_name = f"sheet{_check_picture(sheet).suffix.lower()}"
        files[sheet_name] = sheet
    elif own is None:
        sheet_name = next((name for name in files if Path(name).stem == "sheet"), None)
    card = own if own is not None else model_card(folder, name=repository, figures=figures, sheet=sheet_name)
    return PushPlan(folder, repository, files, card, own is not None, left_out)


def check_repository(name: str) -> None:
    """Refuse what is no name of a repository.

    Raises:
        PicsError: with what the hub does not like.
    """
    try:
        if name.count("/") != 1:
            raise HFValidationError("a slash between owner and name is expected")
        validate_repo_id(name)
        for word in name.split("/"):
            validate_repo_id(word)
    except HFValidationError as error:
        why = str(error).partition(": '")[0]
        raise PicsError(
            f"{name}: no name of a repository: {why}", "write owner/name, such as me/my-compositor, without a revision"
        ) from None


def _check_model(folder: Path) -> str:
    """Check that a folder holds a whole model; returns the name of its autoencoder's class."""
    config = ModelConfig.load(folder)
    if config.links:
        listed = ", ".join(f"{name} in {link.source}" for name, link in sorted(config.links.items()))
        raise PicsError(f"{folder}: parts of this model lie elsewhere: {listed}", _SAVE_AGAIN)
    parts = load_parts(folder, config, torch.float32, weights=False)
    for name, part in parts.items():
        if name in PARTS and not isinstance(part, PixelAutoencoder) and not list((folder / name).glob("*.safetensors")):
            raise PicsError(f"{folder / name}: no weights (*.safetensors)", "copy or convert the model again")
    try:
        index = load_json(read_file(folder / INDEX_FILE))
    except OSError as error:
        raise read_error(folder / INDEX_FILE, error, _SAVE_AGAIN) from None
    except ValueError as error:
        raise PicsError(f"{folder / INDEX_FILE}: unreadable: {error}", _SAVE_AGAIN) from None
    described = index.get(CONFIG_KEY)
    if described is not None and (theirs := ModelConfig.parse(described, folder / INDEX_FILE)) != config:
        key = next(key for key in vars(config) if getattr(config, key) != getattr(theirs, key))
        raise PicsError(
            f"{folder}: {key} is {getattr(config, key)} in {CONFIG_FILE}, but {getattr(theirs, key)} in {INDEX_FILE}, "
            "which diffusers reads",
            f"{_SAVE_AGAIN}; that takes what {CONFIG_FILE} says",
        )
    return type(parts["vae"]).__name__


def _list_files(folder: Path, code: dict[str, str]) -> tuple[dict[str, Path], list[str]]:
    """Files of a model folder by name, without the card; and names of those that stay.

    Raises:
        PicsError: with every file that does not belong.
    """
    files, left_out, refused = dict[str, Path](), list[str](), list[str]()
    root = folder.resolve()
    for place, folders, names in os.walk(folder):
        linked = [name for name in folders if (Path(place) / name).is_symlink()]
        for name in sorted([*names, *linked]):
            path = Path(place) / name
            inside = path.relative_to(folder).as_posix()
            if _LEFT_OUT.fullmatch(inside):
                left_out.append(inside)
            elif why := _reason_to_refuse(path, inside, root, code):
                refused.append(f"{inside}: {why}")
            elif inside != CARD_FILE:
                files[inside] = path
    if refused:
        more = [f"and {len(refused) - _SHOWN:,} more"] * (len(refused) > _SHOWN)
        lines = "\n  ".join([*refused[:_SHOWN], *more])
        raise PicsError(f"{folder}: holds what does not go to the hub:\n  {lines}", "move it out of the folder")
    return dict(sorted(files.items())), sorted(left_out)


def _reason_to_refuse(path: Path, name: str, root: Path, code: dict[str, str]) -> str | None:
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        return "a link out of the folder"
    if not path.is_file():
        return "no file"
    if path.suffix.lower() in _PICKLES:
        return "a pickle or checkpoint: loading it can run code"
    known = name in _ROOT_FILES or _PART_FILE.fullmatch(name) or ("/" not in name and path.suffix.lower() in PICTURES)
    if not known:
        return "looks like a secret" if _SECRET_NAME.fullmatch(path.name) else "does not belong to a model"
    if path.suffix in _TEXTS:
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".py" and text != code.get(name):
            return "not the code that pics writes"
        if _SECRET.search(text):
            return "holds what looks like a token or a private key"
    return None


def _check_picture(path: Path) -> Path:
    hint = "name a picture, as `pics infer --sheet` draws it"
    if path.suffix.lower() not in PICTURES:
        raise PicsError(f"--sheet {path}: expected a name that ends in {', '.join(PICTURES)}", hint)
    try:
        decode_image(read_file(path))
    except OSError as error:
        raise PicsError(f"--sheet {path}: no picture: {reason_of(error)}", hint) from None
    except BadSample as error:
        raise PicsError(f"--sheet {path}: no picture: {error.detail}", hint) from None
    return path
