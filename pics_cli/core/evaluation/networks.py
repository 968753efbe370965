"""Networks of learnt metrics: image encoders (DINOv2, CLIP), Inception-v3 for FID and KID, AlexNet for LPIPS.

n: pictures, d: width of the features; H, W: height and width of a picture.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from pics_cli.core.evaluation.examples import Reference
from pics_cli.core.evaluation.network_weights import ENCODER_HINT, PUBLISHED_HINT, NetworkWeights, first_line
from pics_cli.core.images.cutouts import over_white, pad_to_square, premultiply
from pics_cli.core.images.geometry import Box
from pics_cli.core.images.image_io import RGB
from pics_cli.core.model.weight_files import read_weights
from pics_cli.core.runtime.files import load_json, read_file
from pics_cli.errors import PicsError, abbreviate

Features = npt.NDArray[np.float32]

# Normalisation where preprocessor_config.json has none: ImageNet's.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BATCH_SIZE = 16
# Below that AlexNet's last maps have but a few pixels.
MIN_LPIPS_SIDE = 64


def open_network(weights: NetworkWeights, device: torch.device) -> ImageEncoder | Inception | Lpips:
    """The network of weights that were found.

    Raises:
        PicsError: they cannot be read, or are another network's.
    """
    if weights.kind == "lpips":
        return Lpips(weights, device)
    return Inception(weights, device) if weights.kind == "inception" else ImageEncoder(weights, device)


class _SquareEncoder(ABC):
    """Features of pictures that are squeezed to a square with antialiasing (bicubic, Pillow).

    Attributes:
        kind: of its weights.
        device: to compute on, in float32.
        side: of the square, in pixels.
        width: d.
    """

    kind: str
    device: torch.device
    side: int
    width: int

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[RGB]) -> Features:
        """Features of pictures, uint8 [h, w, 3] each: float32 [n, d]."""
        size = (self.side, self.side)
        batches = [np.zeros((0, self.width), np.float32)]
        for start in range(0, len(pictures), _BATCH_SIZE):
            images = [Image.fromarray(rgb) for rgb in pictures[start : start + _BATCH_SIZE]]
            squares = np.stack([np.asarray(image.resize(size, Image.Resampling.BICUBIC)) for image in images])
            batches.append(self._forward(torch.from_numpy(squares).permute(0, 3, 1, 2)).float().cpu().numpy())
        return np.concatenate(batches)

    @abstractmethod
    def _forward(self, squares: Tensor) -> Tensor:
        """uint8 [n, 3, side, side] on the CPU to features [n, d]."""


class ImageEncoder(_SquareEncoder):
    """DINOv2 (class token) or CLIP (image embedding), as transformers computes them.

    Raises:
        PicsError: the weights cannot be read, or some are missing.
    """

    def __init__(self, weights: NetworkWeights, device: torch.device) -> None:
        from transformers import AutoModel, CLIPVisionModelWithProjection
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # the command shows its own
        self.kind, self.device = weights.kind, device
        model_class = CLIPVisionModelWithProjection if self.kind == "clip" else AutoModel
        try:
            model, info = model_class.from_pretrained(weights.path, use_safetensors=True, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise PicsError(f"--features {weights.name}: cannot be read: {first_line(error)}", ENCODER_HINT) from None
        if missing := sorted(map(str, (*info["missing_keys"], *info["mismatched_keys"]))):
            raise PicsError(
                f"--features {weights.name}: not its weights: {abbreviate(missing, 1)} missing", ENCODER_HINT
            )
        self.model: Any = model.eval().to(device)
        config = self.model.config
        path = weights.path / "preprocessor_config.json"
        processor = load_json(read_file(path)) if path.exists() else {}
        self.width = int(config.projection_dim if self.kind == "clip" else config.hidden_size)
        self.side = int(getattr(config, "image_size", 224)) if self.kind == "clip" else _crop_side(processor, config)
        self._mean, self._std = (
            torch.tensor(processor.get(name, default)).view(1, 3, 1, 1)
            for name, default in (("image_mean", _MEAN), ("image_std", _STD))
        )

    def _forward(self, squares: Tensor) -> Tensor:
        pixels = (squares.float() / 255 - self._mean) / self._std
        out = self.model(pixel_values=pixels.to(self.device))
        features: Tensor = out.image_embeds if self.kind == "clip" else out.last_hidden_state[:, 0]
        return features


def _crop_side(processor: dict[str, Any], config: Any) -> int:
    """The side that an encoder of any resolution is given: what its preprocessing crops to, a multiple of its patch."""
    crop = processor.get("crop_size") or {}
    side = int(crop.get("height", 224)) if isinstance(crop, dict) else int(crop)
    patch = int(config.patch_size)
    return max(patch, side // patch * patch)


class Inception(_SquareEncoder):
    """Features of whole pictures by the Inception-v3 of the published FID (Heusel et al., NeurIPS 2017).

    The network is torch-fidelity's, bit-exact to TensorFlow's. Pictures are brought to its 299 pixels a side with
    antialiasing, as Parmar et al. (CVPR 2022) advise; its own resizing has nothing left to do.

    Raises:
        PicsError: the file holds other weights.
    """

    width = 2048

    def __init__(self, weights: NetworkWeights, device: torch.device) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.kind, self.device = weights.kind, device
        # Given a path, it would unpickle the file by itself, whatever that holds.
        checked = io.BytesIO()
        torch.save(read_weights(weights.path, PUBLISHED_HINT), checked)
        checked.seek(0)
        try:
            self.model: Any = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=checked)
        except RuntimeError as error:
            raise _wrong_weights(weights, error) from None
        self.model.to(device)
        self.side = int(self.model.INPUT_IMAGE_SIZE)

    def _forward(self, squares: Tensor) -> Tensor:
        features: Tensor = self.model(squares.to(self.device))[0]
        return features


class Lpips:
    """LPIPS of two pictures by AlexNet (Zhang et al., CVPR 2018), version 0.1; the network is torchmetrics'.

    Raises:
        PicsError: the file holds other weights.
    """

    kind = "lpips"

    def __init__(self, weights: NetworkWeights, device: torch.device) -> None:
        from torchmetrics.functional.image.lpips import _LPIPS  # the class that its public functions wrap

        self.device = device
        # The weights of the layers' differences are part of torchmetrics; AlexNet's are not.
        self.model = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
        layers = {name.partition(".")[2]: name for name in self.model.net.state_dict()}  # 0.weight: slice1.0.weight
        state = {layers[name]: value for key, value in read_weights(weights.path, PUBLISHED_HINT).items()
                 if (name := key.removeprefix("features.")) in layers}  # fmt: skip
        try:
            self.model.net.load_state_dict(state)
        except RuntimeError as error:
            raise _wrong_weights(weights, error) from None
        self.model.to(device)

    @torch.inference_mode()
    def __call__(self, first: RGB, second: RGB) -> tuple[float, npt.NDArray[np.float32]] | None:
        """LPIPS of two pictures, uint8 [H, W, 3], and its map, float32 [H, W].

        The map is that of the package `lpips` with `spatial=True`. None where a side is below 64 pixels.
        """
        if min(first.shape[:2]) < MIN_LPIPS_SIDE:
            return None
        a, b = (torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float() / 127.5 - 1 for rgb in (first, second))
        a, b = a.to(self.device), b.to(self.device)
        self.model.spatial = False
        whole = float(self.model(a, b))
        self.model.spatial = True
        return whole, self.model(a, b)[0, 0].cpu().numpy()


def _wrong_weights(weights: NetworkWeights, error: RuntimeError) -> PicsError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = " ".join(lines[1:2])[:160]
    return PicsError(f"--features {weights.name}: not the weights of {weights.kind}: {reason}", PUBLISHED_HINT)


def cosine_similarity(first: Features, second: Features) -> npt.NDArray[np.float32]:
    """Of each pair of rows, [n]."""
    a, b = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (first, second))
    similarity: npt.NDArray[np.float32] = (a * b).sum(1)
    return similarity


def crop_objects(picture: RGB, paste_boxes: Sequence[Box]) -> list[RGB]:
    """What a picture shows in each object's box, padded to a square with white."""
    return [pad_to_square(picture[y0:y1, x0:x1]) for x0, y0, x1, y1 in paste_boxes]


def pad_references(references: Sequence[Reference]) -> list[RGB]:
    """References on white, padded to a square."""
    return [pad_to_square(rgb if rgb.shape[2] == 3 else over_white(premultiply(rgb))) for rgb in references]
