"""Figures of `results.json` for a model's card."""

from __future__ import annotations

from pathlib import Path

from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.results import format_table, known_metrics, read_results
from pics_cli.core.evaluation.subsets import ALL
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.model_card import Figures
from pics_cli.errors import PicsError

SHOWN = ("psnr_region", "ssim_region", "seam", "shadow", "order", "identity", "leak")
_METHOD = "parallel"


def card_figures(path: Path, folder: Path) -> Figures:
    """The figures of a model.

    Args:
        path: `results.json` of `pics eval`.
        folder: the model folder.

    Raises:
        PicsError: the file cannot be read, is something else, or was measured of another model or not of a model.
    """
    results, config = read_results(path), ModelConfig.load(folder)
    mine = (config.recipe_hash, config.trained_steps, config.image_size)
    models = results.get("models", [])
    measured = [(model["recipe_hash"], model["trained_steps"], model["image_size"]) for model in models]
    if mine not in measured:
        listed = ", ".join(f"{model['name']} ({model['trained_steps']:,} steps)" for model in models) or "no model"
        raise PicsError(
            f"{path}: was measured of {listed}, not of {folder} ({config.trained_steps:,} steps, other recipe or size)",
            f"measure this model: pics eval --recipe synth_bench --model {folder}",
        )
    label = models[measured.index(mine)]["label"]
    method = f"{label}:{_METHOD}" if label else _METHOD
    if method not in results["figures"][ALL]:
        raise PicsError(
            f"{path}: has no figures of the method {method}", "measure it: pics eval --methods parallel,paste"
        )
    means = results["figures"][ALL][method]
    known = [name for name in SHOWN if name in known_metrics(results)]
    return Figures(
        results["name"],
        results["measured"],
        format_table(results, known, [ALL]).rstrip(),
        tuple((name, METRICS[name].title, means[name]["mean"]) for name in known if means[name]["mean"] is not None),
    )
