"""Learnt features of pictures: an image encoder of transformers, DINOv2 or CLIP, from a folder or repository.

n: pictures, d: width of the features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from pics_cli.core.evaluation.examples import Bytes, Case
from pics_cli.core.evaluation.published_networks import Backbone, Features, Inception, Lpips, find_backbone
from pics_cli.core.images.cutouts import WHITE, over_white, premultiply
from pics_cli.core.images.geometry import Letterbox
from pics_cli.core.images.image_io import RGB
from pics_cli.core.model.hub import snapshot
from pics_cli.core.runtime.files import file_sha256
from pics_cli.errors import PicsError

Kind = Literal["dino", "clip"]

PATTERNS = ["config.json", "preprocessor_config.json", "*.safetensors"]
_KINDS: dict[str, Kind] = {
    "dinov2": "dino", "dinov2_with_registers": "dino", "dinov3_vit": "dino",
    "clip": "clip", "clip_vision_model": "clip",
}  # fmt: skip
# Of preprocessor_config.json where it does not say them.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH = 16


class Found(NamedTuple):
    """An encoder that was found: its kind, folder and name, and the sha256 of its weights.

    Of weights in several files it is that of their hashes, one after the other.
    """

    kind: Kind
    folder: Path
    name: str
    sha256: str


def find(name: str) -> Found:
    """Look for an encoder.

    Args:
        name: a folder with config.json and *.safetensors, or a repository on the hub.

    Raises:
        PicsError: it is not there, or is none of the known kinds.
    """
    folder = snapshot(name, "--features", PATTERNS)
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError) as error:
        raise PicsError(f"--features {name}: no config.json that could be read: {error}", _HINT) from None
    if kind not in _KINDS:
        raise PicsError(f"--features {name}: model_type {kind!r}, expected one of {', '.join(_KINDS)}", _HINT)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise PicsError(f"--features {name}: no .safetensors file in {folder}", _HINT)
    hashes = [file_sha256(path) for path in files]
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return Found(_KINDS[kind], folder, name, whole)


def find_all(names: Sequence[str]) -> list[Found | Backbone]:
    """Look for encoders and backbones, one of a kind.

    Raises:
        PicsError: as `find`; or two are of one kind.
    """
    found: dict[str, Found | Backbone] = {}
    for name in names:
        one = find_backbone(name) or find(name)
        if one.kind in found:
            other = found[one.kind].name
            raise PicsError(f"--features {name}: of the kind of {other}, {one.kind}", "name one of each kind")
        found[one.kind] = one
    return list(found.values())


def opened(found: Found | Backbone, device: torch.device) -> Encoder | Inception | Lpips:
    """The network of what was found.

    Raises:
        PicsError: its weights cannot be read, or are another network's.
    """
    if isinstance(found, Found):
        return Encoder(found, device)
    return Inception(found, device) if found.kind == "inception" else Lpips(found, device)


_HINT = "such as --features facebook/dinov2-base, or a folder with config.json and model.safetensors"


class Encoder:
    """Features as the encoder gives them.

    Args:
        found: see `find`.
        device: to compute on, in float32.
    """

    def __init__(self, found: Found, device: torch.device) -> None:
        from transformers import AutoModel, CLIPVisionModelWithProjection

        kind = CLIPVisionModelWithProjection if found.kind == "clip" else AutoModel
        try:
            model, info = kind.from_pretrained(found.folder, use_safetensors=True, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
            raise PicsError(f"--features {found.name}: cannot be read: {first}", _HINT) from None
        if lacking := sorted(map(str, (*info["missing_keys"], *info["mismatched_keys"]))):
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise PicsError(f"--features {found.name}: not its weights: {lacking[0]}{more} missing", _HINT)
        self.model: Any = model.eval().to(device)
        self.kind, self.device = found.kind, device
        path = found.folder / "preprocessor_config.json"
        given = json.loads(path.read_text()) if path.exists() else {}
        config = self.model.config
        self.side = int(getattr(config, "image_size", 224)) if self.kind == "clip" else _side(given, config)
        self._mean, self._deviation = (
            torch.tensor(given.get(name, default)).view(1, 3, 1, 1)
            for name, default in (("image_mean", _MEAN), ("image_std", _DEVIATION))
        )

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[RGB]) -> Features:
        """Features of pictures, uint8 [h, w, 3] each, squeezed to a square with antialiasing: float32 [n, d]."""
        found = [self._encode(pictures[at : at + _BATCH]) for at in range(0, len(pictures), _BATCH)]
        return torch.cat(found).numpy() if found else np.zeros((0, 1), np.float32)

    def _encode(self, pictures: Sequence[RGB]) -> Tensor:
        squares = [
            np.asarray(Image.fromarray(each).resize((self.side, self.side), Image.Resampling.BICUBIC))
            for each in pictures
        ]
        batch = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
        out = self.model(pixel_values=((batch - self._mean) / self._deviation).to(self.device))
        features: Tensor = out.image_embeds if self.kind == "clip" else out.last_hidden_state[:, 0]
        return features.float().cpu()


def _side(given: dict[str, Any], config: Any) -> int:
    """The side that an encoder of any resolution is given: what its preprocessing crops to, a multiple of its patch."""
    crop = given.get("crop_size") or {}
    side = int(crop.get("height", 224)) if isinstance(crop, dict) else int(crop)
    patch = int(config.patch_size)
    return max(patch, side // patch * patch)


def cosines(one: Features, other: Features) -> npt.NDArray[np.float32]:
    """Of each pair of rows, [n]."""
    found: npt.NDArray[np.float32] = (unit(one) * unit(other)).sum(1)
    return found


def unit(features: Features) -> Features:
    """Rows of unit length."""
    found: Features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    return found


def object_crops(picture: RGB, case: Case) -> list[RGB]:
    """What a picture shows at each object's place, padded to a square with white."""
    return [square(picture[y0:y1, x0:x1]) for x0, y0, x1, y1 in case.places]


def reference_crops(references: Sequence[Bytes]) -> list[RGB]:
    """References on white, padded to a square."""
    return [square(each if each.shape[2] == 3 else over_white(premultiply(each))) for each in references]


def square(rgb: RGB) -> RGB:
    """A picture in the middle of a white square."""
    height, width = rgb.shape[:2]
    return Letterbox(width, height, max(height, width)).pad(rgb, WHITE)
