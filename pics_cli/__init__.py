"""Pairwise image compositing with spatial interactions (PICS), from raw datasets to figures."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pics_cli.core.inference.pipeline import PicsPipeline
    from pics_cli.core.model.controlnet import BackgroundControlNet
    from pics_cli.core.model.dinov2 import Dinov2Encoder
    from pics_cli.core.model.image_encoder import Projector
    from pics_cli.core.model.pixel_autoencoder import PixelAutoencoder
    from pics_cli.core.model.unet import InteractionUNet
    from pics_cli.core.shards.samples import open_shards

__version__ = "0.1.0"
__all__ = [
    "BackgroundControlNet", "Dinov2Encoder", "InteractionUNet", "PicsPipeline", "PixelAutoencoder", "Projector",
    "__version__", "open_shards",
]  # fmt: skip

# The public API by the module that defines it, imported when first used: `import pics_cli` stays light.
_OF_MODELS = {
    "BackgroundControlNet": "pics_cli.core.model.controlnet",
    "Dinov2Encoder": "pics_cli.core.model.dinov2",
    "InteractionUNet": "pics_cli.core.model.unet",
    "PicsPipeline": "pics_cli.core.inference.pipeline",
    "PixelAutoencoder": "pics_cli.core.model.pixel_autoencoder",
    "Projector": "pics_cli.core.model.image_encoder",
}
_LAZY = {**_OF_MODELS, "open_shards": "pics_cli.core.shards.samples"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _OF_MODELS:
        from pics_cli.core.runtime.extras import require

        require("infer", name)
    return getattr(importlib.import_module(_LAZY[name]), name)
