"""The `pics` command: errors become one clear line and an exit code."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, NoReturn, ParamSpec

import typer

from pics_cli import __version__
from pics_cli.commands.annotate import annotate
from pics_cli.commands.build_shards import build_shards
from pics_cli.commands.eval import evaluate
from pics_cli.commands.infer import InOrder, infer
from pics_cli.commands.train import train
from pics_cli.errors import FAILED, USER_CAN_MEND, PicsError

P = ParamSpec("P")
TRACEBACK = "PICS_TRACEBACK"


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated as an interrupt from the keyboard: what is finished stays, the rest is undone."""


def told(command: Callable[P, None]) -> Callable[P, None]:
    """Wrap a command: exit with 0 done, 1 failed, 2 the user can mend it, 130/143 stopped by a signal."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        signal.signal(signal.SIGTERM, _terminate)
        try:
            command(*args, **kwargs)
        except PicsError as error:
            print(error.text, file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except PermissionError as error:
            print(f"error: {error.filename}: permission denied\n\nhint: look at its owner and mode", file=sys.stderr)
            raise typer.Exit(USER_CAN_MEND) from None
        except Exception as error:
            if os.environ.get(TRACEBACK) or isinstance(error, (typer.Exit, typer.Abort)):
                raise
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            print(
                f"error: {what}\n\nhint: this is a fault of pics; please report it with the text that "
                f"{TRACEBACK}=1 in front of the same command gives",
                file=sys.stderr,
            )
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt as error:
            print("stopped: what is finished is kept; the same command resumes", file=sys.stderr)
            number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
            raise typer.Exit(128 + number) from None

    return run


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise Terminated


app = typer.Typer(
    help="Pairwise image compositing with spatial interactions: raw datasets to shards, shards to models, pictures.",
    epilog="Example: pics build-shards lvis --raw data/raw/COCO --out data/train/LVIS",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
app.command(
    "annotate", no_args_is_help=True, epilog="Example: pics annotate objects365 --raw data/raw/object365 --sam vit_h"
)(told(annotate))
app.command(
    "build-shards", no_args_is_help=True, epilog="Example: pics build-shards lvis --raw data/raw/COCO --workers 8"
)(told(build_shards))
app.command("eval", no_args_is_help=True, epilog="Example: pics eval --recipe synth_bench --limit 50")(told(evaluate))
app.command("infer", cls=InOrder, epilog="Example: pics infer --input sample --obj-thr 2")(told(infer))
app.command("train", no_args_is_help=True, epilog="Example: pics train --recipe joint --data-root data --gpus 8")(
    told(train)
)


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


def main() -> None:
    """Entry point of the command."""
    app()
