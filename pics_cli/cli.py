"""The `pics` command: errors become one clear line and an exit code."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, NoReturn

import click
import typer

from pics_cli import __version__
from pics_cli.commands.build_shards import build_shards
from pics_cli.errors import PicsError

EPILOG = "Example: pics build-shards lvis --raw data/raw/COCO --out data/train/LVIS"

app = typer.Typer(
    help="Pairwise image compositing with spatial interactions: from raw datasets to training shards.",
    epilog=EPILOG,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
app.command(
    "build-shards", no_args_is_help=True, epilog="Example: pics build-shards lvis --raw data/raw/COCO --workers 8"
)(build_shards)


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated as an interrupt from the keyboard: what is finished stays, the rest is undone."""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"pics {__version__}")
        raise typer.Exit


@app.callback()
def _pics(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Entry point: run the command line and exit with 0 done, 1 failed, 2 the user can mend it, 130/143 stopped."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(standalone_mode=False)
    except PicsError as error:
        print(f"error: {error.message}" + (f"\n\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        code = error.exit_code
    except click.exceptions.Abort as error:
        terminated = isinstance(error.__cause__, Terminated)
        print("stopped: what is finished is kept; the same command resumes", file=sys.stderr)
        code = 128 + (signal.SIGTERM if terminated else signal.SIGINT)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    sys.exit(code or 0)


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise Terminated
