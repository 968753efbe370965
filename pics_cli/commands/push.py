"""`pics push`: a model to the Hugging Face hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pics_cli import console
from pics_cli.core.runtime.extras import require

if TYPE_CHECKING:
    from pics_cli.core.model.push import PushPlan


def push(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Model folder; pics-mini: the bundled model.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="owner/name; made where there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch, made where there is none.  [default: main]")
    ] = None,
    message: Annotated[str | None, typer.Option(metavar="TEXT", help="Of the commit.  [default: Upload model]")] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Picture of samples for the card, as `pics infer --sheet` draws it."),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="What `pics eval` measured of this model, for the card.  [default: results.json in FOLDER, if any]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show every file and the card; send nothing, ask nobody.")
    ] = False,
) -> None:
    """Upload a model folder to the Hugging Face hub, with a model card.

    The card, README.md, says what the model is, how to run it with pics and with diffusers, what it was trained on, its
    figures, limits and licence, as far as the files tell; a card of your own goes as it is. Files that do not belong to
    a model are refused. You are logged in by `hf auth login`, or by HF_TOKEN. Large files that were sent are not sent
    again when the command is repeated.
    """
    require("infer", "pics push")
    from pics_cli.core.evaluation.card_figures import card_figures
    from pics_cli.core.model.bundled import bundled_model, is_bundled
    from pics_cli.core.model.push import RESULTS_FILE, plan_push
    from pics_cli.core.model.upload import upload

    model = bundled_model() if is_bundled(folder) else Path(folder)
    if results is None and (model / RESULTS_FILE).is_file():
        results = model / RESULTS_FILE
    figures = None if results is None else card_figures(results, model)
    plan = plan_push(model, repo, figures=figures, sheet=sheet)
    if dry_run:
        _keep(plan, None)
        _show(plan, f"{folder} would go to {repo}{f', branch {revision}' if revision else ''}")
        return
    if not sys.stderr.isatty():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    url = upload(plan, private=private, revision=revision, message=message)
    _keep(plan, url)
    sizes = plan.sizes
    rows = [("files", f"{len(sizes):,}, {_size(sum(sizes.values()))}"), ("card", _origin(plan)), ("commit", url)]
    console.table(f"{folder} is {repo} on the hub: pics infer --model {repo}", rows)


def _keep(plan: PushPlan, commit: str | None) -> None:
    from pics_cli.commands.results import Push

    console.result(
        Push(
            repository=plan.repository,
            files=plan.sizes,
            left_out=plan.left_out,
            own_card=plan.own_card,
            card=plan.card,
            commit=commit,
        )
    )


def _show(plan: PushPlan, title: str) -> None:
    sizes = plan.sizes
    rows = [(name, _size(size)) for name, size in sizes.items()]
    console.table(
        title, [*rows, (f"{len(rows)} files", _size(sum(sizes.values())))], ("file", "size"), right={1}, only=True
    )
    for name in plan.left_out:
        console.show(console.printable(f"stays: {name}"), only=True)
    console.show(console.printable(f"\nREADME.md, {_origin(plan)}:\n\n{plan.card}"), only=True)


def _origin(plan: PushPlan) -> str:
    return "your own" if plan.own_card else "written by pics"


def _size(count: int) -> str:
    return f"{count:,} bytes" if count < 1e6 else f"{count / 1e6:,.1f} MB"
