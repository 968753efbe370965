"""What a model folder holds beside its parts: `pics.json`, and what diffusers' own `DiffusionPipeline` reads.

diffusers finds the pipeline's class in `pipeline.py` of the folder and the classes of our parts in a file of the
part's own folder, and imports these only where it is called with `trust_remote_code=True`. Each of them is one import
from this package. `PicsModel.from_pretrained` reads none of them: its classes are fixed.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import transformers

from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.model_folder import PARTS
from pics_cli.core.runtime.files import write_json

INDEX_FILE, PIPELINE_FILE = "model_index.json", "pipeline.py"
# Name of diffusers' library for our classes: a file of a part's folder, or the package where it is imported already.
LIBRARY = "pics_cli"
CONFIG_KEY = "pics"
_LIBRARIES = {transformers.Dinov2Model: "transformers", diffusers.AutoencoderKL: "diffusers"}


def describe_folder(folder: Path, config: ModelConfig, scheduler: Any, vae: type) -> None:
    """Write `pics.json`, `model_index.json`, and the files that diffusers imports our classes from."""
    write_json(folder / INDEX_FILE, model_index(config, scheduler, vae))
    for name, text in code_files(vae).items():
        if (folder / name).parent.is_dir():  # not of a part that lies elsewhere
            (folder / name).write_text(text)
    config.save(folder)


def model_index(config: ModelConfig, scheduler: Any, vae: type) -> dict[str, Any]:
    """The contents of `model_index.json`: classes of pipeline, parts and scheduler, and the model's configuration."""
    from pics_cli import __version__

    kinds: dict[str, Any] = {**PARTS, "vae": vae}
    return {
        "_class_name": [PIPELINE_FILE.removesuffix(".py"), "PicsPipeline"],
        "_diffusers_version": diffusers.__version__,
        "_pics_version": __version__,
        **{name: [_LIBRARIES.get(kind, LIBRARY), kind.__name__] for name, kind in kinds.items()},
        "scheduler": ["diffusers", type(scheduler).__name__],
        CONFIG_KEY: asdict(config),
    }


def code_files(vae: type) -> dict[str, str]:
    """Python files of a model folder by name: an import from this package each."""
    kinds: dict[str, Any] = {**PARTS, "vae": vae}
    classes = {f"{name}/{LIBRARY}.py": kind.__name__ for name, kind in kinds.items() if kind not in _LIBRARIES}
    return {
        name: f"# For diffusers: the class is in the package, pip install pics-cli.\nfrom pics_cli import {kind}\n"
        for name, kind in {PIPELINE_FILE: "PicsPipeline", **classes}.items()
    }
