"""Networks of published figures that come as one file: Inception-v3 (FID, KID) and AlexNet (LPIPS).

n: pictures, H, W: their height and width.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.error import URLError

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from pics_cli.core.images.image_io import RGB
from pics_cli.core.model.weight_files import read_weights
from pics_cli.core.runtime.files import file_sha256
from pics_cli.errors import PicsError

Features = npt.NDArray[np.float32]


class _Known(NamedTuple):
    """Published weights: what they are for, where they are, and a tensor that tells them from others."""

    kind: Literal["inception", "lpips"]
    url: str
    tensor: str
    shape: tuple[int, ...]


KNOWN = {
    "inception": _Known(
        "inception",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "Mixed_7c.branch1x1.conv.weight", (320, 2048, 1, 1),
    ),
    "alexnet": _Known(
        "lpips", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "features.0.weight", (64, 3, 11, 11),
    ),
}  # fmt: skip
# Published names end in the first digits of the file's sha256.
_NAMED = re.compile(r".*-([0-9a-f]{8})\.(pth|safetensors)")
_HINT = "it takes the weights that --features inception and --features alexnet stand for"
_BATCH = 16
# Below that AlexNet's last maps have but a few pixels.
LEAST_SIDE = 64


class Backbone(NamedTuple):
    """Weights that were found: what for, their file, what the user called them, and their sha256."""

    kind: Literal["inception", "lpips"]
    path: Path
    name: str
    sha256: str


def find_backbone(name: str) -> Backbone | None:
    """Look for weights.

    Args:
        name: of known weights, which torch keeps in its cache and fetches there once; or a file. Files come first.

    Returns:
        None where the name can mean neither.

    Raises:
        PicsError: they are not there, cannot be fetched, or are other weights than their name says.
    """
    path = Path(name)
    if not path.is_file():
        if path.suffix in (".pth", ".safetensors") and not path.is_dir():
            raise PicsError(f"--features {name}: no such file", f"known weights by name: {', '.join(KNOWN)}")
        if name not in KNOWN or path.exists():
            return None
        path = _cached(name)
    digest = file_sha256(path)
    if (named := _NAMED.fullmatch(path.name)) and not digest.startswith(named.group(1)):
        raise PicsError(
            f"{path}: its sha256 begins with {digest[:8]}, not with the {named.group(1)} of its name: damaged, or "
            "another file",
            "fetch it again",
        )
    state = read_weights(path, _HINT)
    for known in KNOWN.values():
        if known.tensor in state and tuple(state[known.tensor].shape) == known.shape:
            return Backbone(known.kind, path, name, digest)
    raise PicsError(f"--features {name}: neither Inception's weights for FID nor AlexNet's for LPIPS", _HINT)


def _cached(name: str) -> Path:
    """The file of known weights in torch's own cache, fetched where it is missing."""
    url = KNOWN[name].url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    reason: str | None = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else None
    if reason is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
            return path
        except (URLError, HTTPException, OSError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
    raise PicsError(
        f"--features {name}: {path} is not there, and cannot be fetched: {reason}",
        f"get {url} where there is a connection, and put it there or name it: --features FILE",
    )


class Inception:
    """Features of whole pictures by the Inception-v3 of the published FID (Heusel et al., NeurIPS 2017).

    The network is torch-fidelity's, bit-exact to TensorFlow's. Pictures are brought to its 299 pixels a side with
    antialiasing (bicubic, Pillow), as Parmar et al. (CVPR 2022) advise; its own resizing has nothing left to do.

    Raises:
        PicsError: the file holds other weights.
    """

    kind: Literal["inception"] = "inception"

    def __init__(self, found: Backbone, device: torch.device) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        # It would unpickle a file by itself, whatever that holds.
        safe = io.BytesIO()
        torch.save(read_weights(found.path, _HINT), safe)
        safe.seek(0)
        try:
            self.model: Any = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=safe)
        except RuntimeError as error:
            raise _other_weights(found, error) from None
        self.model.to(device)
        self.device, self.side = device, int(self.model.INPUT_IMAGE_SIZE)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[RGB]) -> Features:
        """Features of pictures, uint8 [h, w, 3] each: float32 [n, 2048]."""
        found = [self._encode(pictures[at : at + _BATCH]) for at in range(0, len(pictures), _BATCH)]
        return np.concatenate(found) if found else np.zeros((0, 2048), np.float32)

    def _encode(self, pictures: Sequence[RGB]) -> Features:
        size = (self.side, self.side)
        squares = [np.asarray(Image.fromarray(each).resize(size, Image.Resampling.BICUBIC)) for each in pictures]
        (features,) = self.model(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(self.device))
        return np.asarray(features.float().cpu().numpy(), np.float32)


class Lpips:
    """LPIPS of two pictures by AlexNet (Zhang et al., CVPR 2018), version 0.1; the network is torchmetrics'.

    Raises:
        PicsError: the file holds other weights.
    """

    kind: Literal["lpips"] = "lpips"

    def __init__(self, found: Backbone, device: torch.device) -> None:
        from torchmetrics.functional.image.lpips import _LPIPS  # the class that its public functions wrap

        self.device = device
        # Its weights of the layers' differences are part of torchmetrics; AlexNet's are not.
        self.model = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
        state = read_weights(found.path, _HINT)
        slices = {name.partition(".")[2]: name for name in self.model.net.state_dict()}  # 0.weight: slice1.0.weight
        given = {slices[name]: value for key, value in state.items()
                 if (name := key.removeprefix("features.")) in slices}  # fmt: skip
        try:
            self.model.net.load_state_dict(given)
        except RuntimeError as error:
            raise _other_weights(found, error) from None
        self.model.to(device)

    @torch.inference_mode()
    def __call__(self, one: RGB, other: RGB) -> tuple[float, npt.NDArray[np.float32]] | None:
        """Of two pictures, uint8 [H, W, 3]: the figure of the whole, and its map, float32 [H, W].

        The map is that of the package `lpips` with `spatial=True`. None where a side is below 64 pixels.
        """
        if min(one.shape[:2]) < LEAST_SIDE:
            return None
        a, b = (self._tensor(each) for each in (one, other))
        self.model.spatial = False
        whole = float(self.model(a, b))
        self.model.spatial = True
        return whole, self.model(a, b)[0, 0].cpu().numpy()

    def _tensor(self, picture: RGB) -> Tensor:
        scaled = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        return scaled.to(self.device)


def _other_weights(found: Backbone, error: RuntimeError) -> PicsError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return PicsError(f"--features {found.name}: not the weights of {found.kind}: {' '.join(lines[1:2])[:160]}", _HINT)
