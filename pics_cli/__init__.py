"""Pairwise image compositing with spatial interactions (PICS), from raw datasets to figures."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pics_cli.core.inference.pipeline import PicsPipeline
    from pics_cli.core.shards.samples import open_shards

__version__ = "0.1.0"
__all__ = ["PicsPipeline", "__version__", "open_shards"]

# The public API by the module that defines it, imported when first used: `import pics_cli` stays light.
_LAZY = {"PicsPipeline": "pics_cli.core.inference.pipeline", "open_shards": "pics_cli.core.shards.samples"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
