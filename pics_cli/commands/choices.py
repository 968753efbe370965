"""Values that options choose from; apart from core, so that `--help` loads nothing heavy."""

from __future__ import annotations

from typing import Literal

# What the network sees of a picture.
Crop = Literal["auto", "full"]
# All objects at once, or one by one.
Mode = Literal["parallel", "sequential"]
# Where the parts of a model lie; see `core.model.offload`.
Memory = Literal["auto", "resident", "sequential", "offload"]
# What networks compute in; see `core.model.devices`.
Dtype = Literal["auto", "fp32", "bf16", "fp16"]
# Masks that are predicted for a box; see `core.segmentation.segmenter`.
Multimask = Literal["best", "off"]
# How labels are written; see `core.segmentation.blocks`.
LabelLayout = Literal["blocks", "published"]
