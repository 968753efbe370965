"""Names of Segment Anything's official weights and where they lie; light, so that to ask costs nothing."""

from __future__ import annotations

from pathlib import Path

# By model, the largest first: their names carry the first digits of their sha256.
CHECKPOINTS = {
    "vit_h": "sam_vit_h_4b8939.pth", "vit_l": "sam_vit_l_0b3195.pth", "vit_b": "sam_vit_b_01ec64.pth",
}  # fmt: skip
FOLDER = "checkpoints"
DOWNLOAD = "https://dl.fbaipublicfiles.com/segment_anything/{}"


def find_local_model() -> str | None:
    """The largest model whose official weights lie in `checkpoints/` of the working directory; None where none do."""
    return next((name for name, file in CHECKPOINTS.items() if Path(FOLDER, file).is_file()), None)
