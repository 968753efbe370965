"""Put a trained model into the package, to be the one that `pics infer` takes where none is named.

    pics train --recipe mini --export models/mini
    python scripts/fit_order_head.py models/mini SHARDS --output models/pics-mini
    python scripts/bundle_model.py models/pics-mini

Copies the folder to pics_cli/models/NAME, whole or not at all, and writes files.json there: size and sha256 of every
file, which `pics infer` checks at each start, and the recipe and step that the weights come from. A model that is there
already is replaced.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from run_script import run_script

if TYPE_CHECKING:
    from pics_cli.core.model.config import ModelConfig


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="what `pics train --export` wrote")
    parser.add_argument("--name", default="pics-mini", help="of the bundled model (default pics-mini)")
    parser.add_argument("--into", type=Path, metavar="DIR", help="folder of bundled models (default: the package's)")
    options = parser.parse_args()
    if not re.fullmatch(r"[\w][\w.-]*", options.name):
        parser.error(f"--name {options.name}: expected letters, digits, dots and dashes")
    return options


def main() -> None:
    options = arguments()
    from pics_cli.core.model.bundled import MODELS

    into = options.into or MODELS
    total = bundle(options.model, into / options.name)
    print(f"{into / options.name}: {total / 1e6:,.1f} MB")


def bundle(model: Path, out: Path) -> int:
    """Copy a model folder; its name says that it is whole.

    Args:
        model: an exported model.
        out: the bundled one, which is replaced.

    Returns:
        Bytes of it.

    Raises:
        PicsError: no trained model, one with parts elsewhere, or too large; or `out` cannot be written.
    """
    from pics_cli.core.model.bundled import FILES_FILE, bundled_model, list_model_files, model_files
    from pics_cli.core.model.config import ModelConfig
    from pics_cli.core.model.model_folder import atomic_folder
    from pics_cli.core.runtime.files import write_json

    config = ModelConfig.load(model)
    check(model, config)
    fresh, aside = (out.with_name(f"{out.name}.{word}") for word in ("new", "old"))
    for left in (fresh, aside):  # by a run that was interrupted
        shutil.rmtree(left, ignore_errors=True)
    with atomic_folder(fresh) as folder:
        for name, path in model_files(model).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
        provenance = {
            "name": out.name,
            "trained_steps": config.trained_steps,
            "recipe_hash": config.recipe_hash,
            "image_size": config.image_size,
        }
        record = list_model_files(folder, **provenance)
        write_json(folder / FILES_FILE, record)
        bundled_model(folder)
    if out.exists():
        out.rename(aside)
    fresh.rename(out)
    shutil.rmtree(aside, ignore_errors=True)
    return int(record["bytes"])


def check(model: Path, config: ModelConfig) -> None:
    """Refuse a model that may not go into the package.

    Raises:
        PicsError: why it may not.
    """
    import torch

    from pics_cli.core.model.bundled import MAX_BYTES, model_files
    from pics_cli.core.model.model_folder import load_parts
    from pics_cli.errors import PicsError

    if not config.trained_steps or config.recipe_hash is None:
        raise PicsError(
            f"{model}: not trained: pics.json says trained_steps {config.trained_steps}, recipe_hash "
            f"{config.recipe_hash}",
            "bundle what `pics train --export DIR` writes",
        )
    if config.links:
        raise PicsError(
            f"{model}: parts lie elsewhere: {', '.join(sorted(config.links))}",
            "a bundled model needs no download: export it with all its parts",
        )
    total = sum(path.stat().st_size for path in model_files(model).values())
    if total > MAX_BYTES:
        raise PicsError(
            f"{model}: {total / 1e6:,.1f} MB, a bundled model has at most {MAX_BYTES / 1e6:,.0f} MB",
            "export it in 16 bit (--set export.dtype=bf16), or train a smaller one",
        )
    load_parts(model, config, torch.float32)  # says which part is missing or does not fit


if __name__ == "__main__":
    run_script(main)
