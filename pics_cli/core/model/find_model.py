"""The model that a name stands for: the bundled one, the published one, a checkpoint, a folder, a repository."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from pics_cli.core.model.bundled import bundled_model, is_bundled
from pics_cli.core.model.config import CONFIG_FILE, DOWNLOAD_PATTERNS
from pics_cli.core.model.hub import CHECKPOINTS, DINOV2_FILE, snapshot
from pics_cli.core.runtime.files import cache_folder, fingerprint
from pics_cli.core.runtime.progress import Progress
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.storage import local_file, location
from pics_cli.errors import PicsError, read_error

logger = logging.getLogger(__name__)

# The research project's full model, as its README links it.
PUBLISHED_NAME = "pics"
PUBLISHED_FILE = "pics-step=006000_ep18.ckpt"
DOWNLOAD_ADVICE = (
    f"download {PUBLISHED_FILE} (18.45 GB, MIT), which the README of the repository RyanHangZhou/PICS links, into "
    f"{CHECKPOINTS}/; should it hold no DINOv2, {DINOV2_FILE} (4.5 GB, Apache-2.0, from the README of "
    "facebookresearch/dinov2) belongs beside it. The same command then converts it once, in a minute or two, into "
    "5.3 GB of the cache (PICS_CACHE names another folder); the download can be deleted afterwards"
)
# What a checkpoint file is called; a folder is a model, whatever its name.
_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")


def find_model(name: str, progress: Progress | None = None, flag: str = "--model") -> Path:
    """The folder of a model.

    Args:
        name: `pics-mini`, the bundled model; `pics`, the published one, where it was downloaded; a checkpoint file of
            the research code, which is converted into the cache at its first use; a model folder; one of these two in a
            store, such as `s3://bucket/folder`; or a repository on the Hugging Face hub. A folder of the same name has
            precedence.
        progress: tells of a conversion.
        flag: the command-line flag that the name came with, for messages.

    Raises:
        PicsError: there is no such model, or a checkpoint that cannot be converted.
    """
    if is_bundled(name):
        return bundled_model()
    if name == PUBLISHED_NAME and not Path(name).exists():
        return _published_model(flag, progress)
    path = location(name)
    if path.suffix in _SUFFIXES and path.is_file():
        folder = converted_model(local_file(path), progress)
    else:
        folder = snapshot(name, flag, DOWNLOAD_PATTERNS)
    logger.debug("%s %s: %s", flag, name, folder)
    return folder


def find_model_together(name: str, ranks: Ranks, progress: Progress | None = None) -> Path:
    """`find_model` in every process of a run: should there be something to convert, it is the first one's work."""
    return ranks.run_first_alone(lambda: find_model(name, progress))


def converted_model(checkpoint: Path, progress: Progress | None = None) -> Path:
    """The model folder in the cache that a checkpoint file was or is now converted into, in bf16.

    Raises:
        PicsError: see `convert_checkpoint`.
    """
    try:
        identity = hashlib.sha256(str(sorted(fingerprint(checkpoint).items())).encode()).hexdigest()
    except OSError as error:
        raise read_error(checkpoint, error, "name the checkpoint file") from None
    folder = _converted_folders() / f"{checkpoint.stem}-{identity[:12]}"
    if not (folder / CONFIG_FILE).is_file():
        import torch

        # Imported here: where it was converted before, it saves seconds of importing diffusers and transformers.
        from pics_cli.core.model.convert import convert_checkpoint

        logger.info("%s: converted once, into %s", checkpoint, folder)
        if progress is not None:
            progress.activity = "converting"
        convert_checkpoint(checkpoint, folder, dtype=torch.bfloat16)
        if progress is not None:
            progress.activity = ""
    return folder


def _converted_folders() -> Path:
    return cache_folder() / "models"


def _published_model(flag: str, progress: Progress | None) -> Path:
    """The published model: converted by `pics convert`, by an earlier run, or now."""
    stem = Path(PUBLISHED_FILE).stem
    for folder in (CHECKPOINTS / PUBLISHED_NAME, CHECKPOINTS / stem, *sorted(_converted_folders().glob(f"{stem}-*"))):
        if (folder / CONFIG_FILE).is_file():
            return folder
    if (CHECKPOINTS / PUBLISHED_FILE).is_file():
        return converted_model(CHECKPOINTS / PUBLISHED_FILE, progress)
    raise PicsError(
        f"{flag} {PUBLISHED_NAME}: the published model is not on this machine: neither {CHECKPOINTS / PUBLISHED_FILE} "
        f"nor a converted one in {CHECKPOINTS / PUBLISHED_NAME} or {_converted_folders()}",
        DOWNLOAD_ADVICE,
    )
