"""Files of Inception's and AlexNet's weights, drawn at random."""

from __future__ import annotations

import io
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch


def save_inception(path: Path) -> dict[str, Any]:
    """Weights for FID's Inception. Its class can only be made from a file, so it is made from an empty one first."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.manual_seed(0)
    with patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
        state = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=empty).state_dict()
    for name, value in state.items():
        if name.endswith("conv.weight"):  # as they are first drawn, nothing of a picture is left at the end
            torch.nn.init.kaiming_normal_(value)
    torch.save(state, path)
    return state


def save_alexnet(path: Path) -> dict[str, Any]:
    """Weights as torchvision has them."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    state = alexnet(weights=None).state_dict()
    torch.save({name: value for name, value in state.items() if not name.startswith("classifier")}, path)
    return state


@cache
def published_files() -> Path:
    """A folder with inception.pth and alexnet.pth, drawn once: Inception's take seconds."""
    folder = Path(tempfile.mkdtemp(prefix="backbones"))
    save_inception(folder / "inception.pth")
    save_alexnet(folder / "alexnet.pth")
    return folder
