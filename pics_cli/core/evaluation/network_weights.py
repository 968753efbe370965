"""Weights of the networks of learnt metrics: where `--features` finds them, and their kinds.

Inception-v3 (FID, KID) and AlexNet (LPIPS) come as one published file, DINOv2 and CLIP as a folder or repository of
transformers.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.error import URLError

import torch

from pics_cli.core.model.hub import snapshot
from pics_cli.core.model.weight_files import read_weights
from pics_cli.core.runtime.files import file_sha256, load_json, read_file
from pics_cli.core.runtime.storage import is_remote, local_file, location
from pics_cli.errors import PicsError, reason_of

Kind = Literal["dino", "clip", "inception", "lpips"]

ENCODER_HINT = "such as --features facebook/dinov2-base, or a folder with config.json and model.safetensors"
PUBLISHED_HINT = "it takes the weights that --features inception and --features alexnet stand for"
_ENCODER_FILES = ["config.json", "preprocessor_config.json", "*.safetensors"]
_ENCODER_KINDS: dict[str, Kind] = {
    "dinov2": "dino", "dinov2_with_registers": "dino", "dinov3_vit": "dino",
    "clip": "clip", "clip_vision_model": "clip",
}  # fmt: skip
# Published names end in the first digits of the file's sha256.
_NAME_WITH_HASH = re.compile(r".*-([0-9a-f]{8})\.(pth|safetensors)")


class NetworkWeights(NamedTuple):
    """Weights that were found.

    Attributes:
        kind: of the network.
        path: their file (Inception, AlexNet) or folder (DINOv2, CLIP).
        name: as the user called them.
        sha256: of the file; of several files that of their hashes, one after the other.
    """

    kind: Kind
    path: Path
    name: str
    sha256: str


class _Published(NamedTuple):
    """Published weights: their kind and address, and a tensor that identifies them."""

    kind: Literal["inception", "lpips"]
    url: str
    tensor: str
    shape: tuple[int, ...]


_PUBLISHED = {
    "inception": _Published(
        "inception",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "Mixed_7c.branch1x1.conv.weight", (320, 2048, 1, 1),
    ),
    "alexnet": _Published(
        "lpips", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "features.0.weight", (64, 3, 11, 11),
    ),
}  # fmt: skip


def find_weights(names: Sequence[str]) -> list[NetworkWeights]:
    """Find the weights that `--features` names, one of a kind.

    Raises:
        PicsError: they do not exist, are of no known kind, or two are of one kind.
    """
    by_kind: dict[str, NetworkWeights] = {}
    for name in names:
        weights = find_published(name) or find_encoder(name)
        if other := by_kind.get(weights.kind):
            raise PicsError(f"--features {name}: of the kind of {other.name}, {weights.kind}", "name one of each kind")
        by_kind[weights.kind] = weights
    return list(by_kind.values())


def find_encoder(name: str) -> NetworkWeights:
    """Find an image encoder.

    Args:
        name: a folder with config.json and *.safetensors, or a repository on the hub.

    Raises:
        PicsError: it does not exist, or is of none of the known kinds.
    """
    folder = snapshot(name, "--features", _ENCODER_FILES)
    try:
        kind = load_json(read_file(folder / "config.json")).get("model_type")
    except (OSError, ValueError) as error:
        raise PicsError(
            f"--features {name}: no config.json that could be read: {reason_of(error)}", ENCODER_HINT
        ) from None
    if kind not in _ENCODER_KINDS:
        known = ", ".join(_ENCODER_KINDS)
        raise PicsError(f"--features {name}: model_type {kind!r}, expected one of {known}", ENCODER_HINT)
    hashes = [file_sha256(path) for path in sorted(folder.glob("*.safetensors"))]
    if not hashes:
        raise PicsError(f"--features {name}: no .safetensors file in {folder}", ENCODER_HINT)
    combined = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return NetworkWeights(_ENCODER_KINDS[kind], folder, name, combined)


def find_published(name: str) -> NetworkWeights | None:
    """Find published weights.

    Args:
        name: `inception` or `alexnet`, which torch keeps in its cache and downloads there once; or a file. Files come
            first.

    Returns:
        None where the name can mean neither.

    Raises:
        PicsError: they do not exist, cannot be downloaded, or are not the weights of their name.
    """
    path = location(name)
    if path.suffix in (".pth", ".safetensors") and is_remote(path) and path.is_file():
        path = local_file(path)
    if not path.is_file():
        if path.suffix in (".pth", ".safetensors") and not path.is_dir():
            raise PicsError(f"--features {name}: no such file", f"known weights by name: {', '.join(_PUBLISHED)}")
        if name not in _PUBLISHED or path.exists():
            return None
        path = _cached_file(name)
    digest = file_sha256(path)
    if (named := _NAME_WITH_HASH.fullmatch(path.name)) and not digest.startswith(named.group(1)):
        raise PicsError(
            f"{path}: its sha256 begins with {digest[:8]}, not with the {named.group(1)} of its name: damaged, or "
            "another file",
            "fetch it again",
        )
    state = read_weights(path, PUBLISHED_HINT)
    for published in _PUBLISHED.values():
        if published.tensor in state and tuple(state[published.tensor].shape) == published.shape:
            return NetworkWeights(published.kind, path, name, digest)
    raise PicsError(f"--features {name}: neither Inception's weights for FID nor AlexNet's for LPIPS", PUBLISHED_HINT)


def _cached_file(name: str) -> Path:
    """The file of published weights in torch's own cache, downloaded where it is missing."""
    url = _PUBLISHED[name].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        reason = "HF_HUB_OFFLINE is set"
    else:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
            return path
        except (URLError, HTTPException, OSError, RuntimeError) as error:
            reason = first_line(error)
    raise PicsError(
        f"--features {name}: {path} does not exist, and cannot be fetched: {reason}",
        f"get {url} where there is a connection, and put it there or name it: --features FILE",
    )


def first_line(error: Exception) -> str:
    """The first line of an error's text, at most 160 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
