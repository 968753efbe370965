"""`pics eval`: measure composites against the truth, by the field's metrics and by those of interaction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pics_cli.commands.choices import Dtype
from pics_cli.commands.cluster import ENGINE_HELP, engine_opener
from pics_cli.commands.completions import complete_recipe
from pics_cli.commands.eval_report import show_comparison, show_results
from pics_cli.commands.runner import run_job
from pics_cli.core.runtime.extras import require
from pics_cli.core.runtime.storage import is_address, location
from pics_cli.errors import PicsError

if TYPE_CHECKING:
    from pics_cli.core.evaluation.evaluator import EvaluationJob
    from pics_cli.core.evaluation.external_results import ExternalResults
    from pics_cli.core.model.adapters import AdapterChoice
    from pics_cli.core.recipes.evaluation import EvaluationRecipe
    from pics_cli.core.runtime.worker_group import OpenEngine


def evaluate(
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            autocompletion=complete_recipe("evaluation"),
            help="Evaluation recipe, such as synth_bench.",
        ),
    ] = None,
    shards: Annotated[
        str | None, typer.Option(metavar="DIR|FILES", help="Shards whose pictures are rebuilt, instead of a recipe.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="DIR", parser=location, help="True pictures that those of --input are held against."),
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="[NAME=]DIR", help="Pictures that another method made of the same samples; repeatable."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]DIR|REPO", help="Model folder or repository; repeatable.  [default: pics-mini]"),
    ] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH[:WEIGHT]",
            help="Adapter of the first model, or of the one of that name; as in pics infer; repeatable.",
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Of parallel, sequential, paste, poisson.  [default: the recipe's, else all]"),
    ] = None,
    metrics: Annotated[str | None, typer.Option(metavar="A,B", help="Metrics, by name.  [default: all]")] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE|DIR|REPO",
            help="inception: FID, KID; alexnet: LPIPS; DINOv2 or CLIP: DINO-I, CLIP-I; repeatable.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first N cases.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Composites of each case by each model.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.  [default: the model's]")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", parser=location, help="For results.  [default: the recipe's]")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")] = "auto",
    engine: Annotated[str, typer.Option(metavar="ENGINE", help=ENGINE_HELP)] = "local",
    dtype: Annotated[Dtype, typer.Option(help="Of the models; as in pics infer.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Only go on with what --output holds: an error where nothing was begun.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew where other results are.")] = False,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A.json B.json", help="Print how two results.json differ, and do nothing else."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override any value of the recipe.")
    ] = None,
) -> None:
    """Composite cases whose truth is known by several methods, and measure the results.

    Run again to resume: only cases that are missing are measured. Several GPUs: `accelerate launch -m pics_cli eval …`,
    or --engine. The report says what each metric is.
    """
    require("eval", "pics eval")
    if compare is not None:
        show_comparison(location(compare[0]), location(compare[1]))
        return
    if sum(source is not None for source in (recipe, shards, reference)) != 1:
        raise PicsError(
            "name what is to be evaluated: one of --recipe NAME, --shards DIR, or --reference DIR with --input DIR",
            "such as pics eval --recipe synth_bench --limit 50",
        )
    open_engine = engine_opener(engine, device)
    if resume and overwrite:
        raise PicsError("--resume and --overwrite exclude each other", "leave one out")
    if reference is not None and not pictures:
        raise PicsError(f"--reference {reference}: no pictures to hold against it", "name them with --input DIR")
    if reference is not None and (model or methods or lora):
        raise PicsError(
            "--reference: pictures alone say nothing that could be composited", "leave out --model, --methods, --lora"
        )
    from pics_cli.core.recipes.base import parse_overrides
    from pics_cli.core.recipes.evaluation import evaluation_from_options, load_evaluation

    flags: dict[str, tuple[str, Any]] = {
        "limit": ("--limit", limit),
        "seeds": ("--seeds", seeds),
        "steps": ("--steps", steps),
        "methods": ("--methods", _split(methods)),
        "metrics": ("--metrics", _split(metrics)),
        "features": ("--features", features or None),
    }
    if reference is not None:
        flags |= {"pictures": ("--reference", str(reference)), "methods": ("--reference", [])}
    if shards is not None:
        flags |= {"samples.shards": ("--shards", shards), "samples.root": ("--shards", ".")}
    overrides = parse_overrides(settings, flags)
    if recipe is not None:
        loaded = load_evaluation(recipe, overrides)
    else:
        loaded = evaluation_from_options("shards" if shards is not None else "pictures", overrides)
    from pics_cli.core.evaluation.evaluator import EvaluationJob

    models = _models(model or ["pics-mini"]) if loaded.methods else {}
    job = EvaluationJob(
        recipe=loaded, output=output or location(loaded.out), models=models, adapters=_adapters(lora or [], models),
        external=_external(pictures or [], loaded),
        device=device, dtype=dtype, overwrite=overwrite, resume=resume,
    )  # fmt: skip
    _run(job, open_engine)


def _split(text: str | None) -> list[str] | None:
    return None if text is None else text.split(",")


def _split_name(text: str) -> tuple[str | None, str]:
    """NAME=PATH, unless that is the path of something itself and PATH is not; PATH may be followed by :WEIGHT."""
    name, equals, rest = text.partition("=")
    if not equals or is_address(name) or (_exists(text) and not _exists(rest)):
        return None, text
    return name, rest


def _exists(text: str) -> bool:
    return Path(text).exists() or Path(text.rpartition(":")[0] or "\0").exists()


def _models(names: list[str]) -> dict[str, str]:
    """By the label that their methods get: none for the first, else the name given or the folder's."""
    models: dict[str, str] = {}
    for text in names:
        given, name = _split_name(text)
        label = given if given is not None else Path(text).name if models else ""
        if label in models:
            raise PicsError(f"--model {text}: a second model called {label!r}", "name them: --model NAME=DIR")
        models[label] = name
    return models


def _adapters(texts: list[str], models: dict[str, str]) -> dict[str, list[AdapterChoice]]:
    """By the label of their model."""
    from pics_cli.core.model.adapters import parse_adapter

    adapters: dict[str, list[AdapterChoice]] = {}
    for text in texts:
        given, rest = _split_name(text)
        label = given or ""
        if label not in models:
            known = ", ".join(filter(None, models)) or "none"
            problem = f"no model called {label!r}, known: {known}" if models else "no model makes pictures here"
            raise PicsError(f"--lora {text}: {problem}", "name it: --model NAME=DIR --lora NAME=PATH")
        adapters.setdefault(label, []).append(parse_adapter(rest))
    return adapters


def _external(texts: list[str], recipe: EvaluationRecipe) -> tuple[ExternalResults, ...]:
    from pics_cli.core.evaluation.external_results import ExternalResults

    external: dict[str, ExternalResults] = {}
    for text in texts:
        given, directory = _split_name(text)
        folder = location(directory)
        name = folder.resolve().name if given is None else given
        if not name or ":" in name:
            raise PicsError(f"--input {text}: a method's name is not empty and holds no colon", "--input NAME=DIR")
        if name in external or name in recipe.methods:
            raise PicsError(f"--input {text}: a second method called {name!r}", "name it: --input NAME=DIR")
        if not folder.is_dir():
            raise PicsError(f"--input {folder}: no such folder", "name a folder of pictures called after their samples")
        external[name] = ExternalResults(name, folder)
    return tuple(external.values())


def _run(job: EvaluationJob, open_engine: OpenEngine | None) -> None:
    from pics_cli.core.evaluation.run import EvaluationProgress
    from pics_cli.core.evaluation.run import evaluate as run_evaluation

    progress = EvaluationProgress()
    run_job(
        lambda ranks: run_evaluation(job, ranks, progress, open_engine),
        lambda results: show_results(job, results),
        label="evaluate",
        unit="cases",
        read=lambda: progress,
        device=job.device,
    )
