"""What `pics infer` takes from the package, and the flags for which a model as small as the bundled one has no use."""

from __future__ import annotations

import json
from pathlib import Path

from pics_cli.core.model.bundled import PACKAGE, restore_hint
from pics_cli.errors import PicsError

SAMPLES = PACKAGE / "samples"
INPUT = Path("sample")
# Bytes of weights below which nothing is gained by keeping them off a GPU: its libraries alone take more.
_SMALL = 128_000_000


def choose_input(root: Path, samples: Path | None = None) -> tuple[Path, str | None]:
    """The folder that `--input` means, and a line on it: `sample` is the bundled samples where no such folder is.

    Args:
        root: as given.
        samples: the bundled ones; None: where the package has them.

    Raises:
        PicsError: the bundled samples are meant and not there.
    """
    if root != INPUT:
        return root, None
    if root.exists() or root.is_symlink():
        return root, f"--input {root}: the folder {root.absolute()}, not the samples bundled with pics"
    samples = samples or SAMPLES
    if not samples.is_dir():
        raise PicsError(
            f"--input {root}: no folder of that name here, and the bundled samples are missing: {samples}",
            f"{restore_hint(samples)}; or name a folder of samples",
        )
    return samples, f"--input {root}: no folder of that name here; the samples bundled with pics: {samples}"


def refuse_memory(memory: str, folder: Path, name: str) -> None:
    """Refuse to keep weights off a GPU of a model that has next to none.

    Such modes trade speed for memory part by part. Of a model that works on pixels with a few million parameters
    nearly all memory is what it computes with, and that stays.

    Args:
        memory: value of `--memory`.
        folder: of the model.
        name: what the user calls it.

    Raises:
        PicsError: the mode has no use here.
    """
    if memory not in ("sequential", "offload"):
        return
    try:
        kind = json.loads((folder / "vae/config.json").read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return  # loading the model says what is wrong with it
    held = sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))
    if kind == "PixelAutoencoder" and held < _SMALL:
        raise PicsError(
            f"--memory {memory}: of no use for {name}, which has {held / 1e6:,.1f} MB of weights and none in its "
            "autoencoder: it would only be slower",
            "leave out --memory, or take --memory resident; it is meant for full-size models",
        )
