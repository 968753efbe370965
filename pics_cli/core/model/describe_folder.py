"""What a model folder holds beside its parts: `pics.json`, and what diffusers' own `DiffusionPipeline` reads.

diffusers finds the pipeline's class in `pipeline.py` of the folder and the classes of our parts in a file of the
part's own folder, and imports these only where it is called with `trust_remote_code=True`. Each of them is one import
from this package. `PicsModel.from_pretrained` reads none of them: its classes are fixed.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pics_cli import __version__
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.model_folder import AUTOENCODERS, CLASSES
from pics_cli.core.runtime.files import write_json

INDEX_FILE, PIPELINE_FILE = "model_index.json", "pipeline.py"
# Name of diffusers' library for our classes: a file of a part's folder, or the package where it is imported already.
LIBRARY = "pics_cli"
CONFIG_KEY = "pics"


def describe_folder(folder: Path, config: ModelConfig, scheduler: str, vae: str) -> None:
    """Write `pics.json`, `model_index.json`, and the files that diffusers imports our classes from.

    Args:
        folder: of the model.
        config: of the model.
        scheduler, vae: names of their classes.
    """
    write_json(folder / INDEX_FILE, model_index(config, scheduler, vae))
    for name, text in code_files(vae).items():
        if (folder / name).parent.is_dir():  # not of a part that lies elsewhere
            (folder / name).write_text(text, newline="\n")
    config.save(folder)


def model_index(config: ModelConfig, scheduler: str, vae: str) -> dict[str, Any]:
    """The contents of `model_index.json`: classes of pipeline, parts and scheduler, and the model's configuration."""
    return {
        "_class_name": [PIPELINE_FILE.removesuffix(".py"), "PicsPipeline"],
        "_diffusers_version": version("diffusers"),
        "_pics_version": __version__,
        **{name: [_library(kind), kind] for name, kind in _part_classes(vae).items()},
        "scheduler": ["diffusers", scheduler],
        CONFIG_KEY: asdict(config),
    }


def code_files(vae: str) -> dict[str, str]:
    """Python files of a model folder by name: an import from this package each."""
    kinds = _part_classes(vae).items()
    classes = {f"{name}/{LIBRARY}.py": kind for name, kind in kinds if _library(kind) == LIBRARY}
    return {
        name: f"# For diffusers: the class is in the package, pip install pics-cli.\nfrom pics_cli import {kind}\n"
        for name, kind in {PIPELINE_FILE: "PicsPipeline", **classes}.items()
    }


def _part_classes(vae: str) -> dict[str, str]:
    return {**{name: kind.__name__ for name, kind in CLASSES.items()}, "vae": vae}


def _library(kind: str) -> str:
    return "diffusers" if kind == AUTOENCODERS[0] else LIBRARY
