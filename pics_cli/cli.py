"""The `pics` command and its subcommands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from pics_cli import __version__, console
from pics_cli.commands.annotate import annotate
from pics_cli.commands.build_shards import build_shards
from pics_cli.commands.cache import cache
from pics_cli.commands.check_sam import check_sam
from pics_cli.commands.convert import convert
from pics_cli.commands.env import env
from pics_cli.commands.eval import evaluate
from pics_cli.commands.explain import explain
from pics_cli.commands.infer import OrderedCommand, infer
from pics_cli.commands.merge_layers import merge_layers
from pics_cli.commands.new_model import new_model
from pics_cli.commands.push import push
from pics_cli.commands.recipes import recipes
from pics_cli.commands.runner import AsJson, Command, Commands, Quiet, Verbose, handle_errors, run_app
from pics_cli.commands.train import train
from pics_cli.commands.ui import ui

app = typer.Typer(
    cls=Commands,
    help="Pairwise image compositing with spatial interactions: raw datasets to shards, shards to models, pictures.",
    epilog="Example: pics build-shards lvis --raw data/raw/COCO --out data/train/LVIS",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
_EXAMPLES: dict[Callable[..., None], str] = {
    annotate: "pics annotate objects365 --raw data/raw/object365 --sam vit_h",
    build_shards: "pics build-shards lvis --raw data/raw/COCO --workers 8",
    evaluate: "pics eval --recipe synth_bench --limit 50",
    infer: "pics infer --input sample --obj-thr 2",
    explain: "pics explain results/sample/composed/composed_egg_in_cup.png",
    merge_layers: "pics merge-layers results/sample/layers/layers_egg_in_cup",
    train: "pics train --recipe joint --data-root data --gpus 8",
    ui: "pics ui --model pics-mini",
    push: "pics push models/mine me/my-compositor --sheet sheet.png --dry-run",
    convert: "pics convert checkpoints/pics-step=006000_ep18.ckpt checkpoints/pics",
    new_model: "pics new-model models/tiny --size tiny",
    check_sam: "pics check-sam --sam vit_b",
    recipes: "pics recipes lvis",
    env: "pics env --json",
    cache: "pics cache clean --older-than 30",
}
# Those that do something when nothing is said.
_WITHOUT_WORDS = (infer, check_sam, ui, recipes, env)
_WITHOUT_CACHE = (explain, merge_layers, recipes, env, cache)
for command, example in _EXAMPLES.items():
    app.command(
        "eval" if command is evaluate else None,
        cls=OrderedCommand if command is infer else Command,
        no_args_is_help=command not in _WITHOUT_WORDS,
        epilog=f"Example: {example}",
    )(handle_errors(command, uses_cache=command not in _WITHOUT_CACHE))


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pics {__version__}")
        raise typer.Exit


@app.callback()
def _pics(
    quiet: Quiet = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
    version: Annotated[  # noqa: ARG001  (its callback ends the command)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    console.add_output(console.Output(quiet, verbose, as_json))


def main() -> None:
    """Entry point of the command."""
    run_app(app)
