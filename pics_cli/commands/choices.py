"""Values that options choose from; apart from core, so that `--help` loads nothing heavy."""

from __future__ import annotations

from enum import Enum


class Crop(str, Enum):
    """What the network sees of a picture."""

    auto = "auto"
    full = "full"


class Mode(str, Enum):
    """All objects at once, or one by one."""

    parallel = "parallel"
    sequential = "sequential"


class Memory(str, Enum):
    """What lies where; see `core.model.memory`."""

    auto = "auto"
    resident = "resident"
    sequential = "sequential"
    offload = "offload"


class Dtype(str, Enum):
    """What the networks compute in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Multimask(str, Enum):
    """Masks that are predicted for a box; see `core.annotate.segment`."""

    best = "best"
    off = "off"


class LabelLayout(str, Enum):
    """How labels are written; see `core.annotate.labels`."""

    blocks = "blocks"
    published = "published"
