"""Running a script as `python SCRIPT …` would, without a new interpreter and its seconds of imports."""

from __future__ import annotations

import contextlib
import io
import runpy
import signal
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock


class Done(NamedTuple):
    """Exit code and texts."""

    returncode: int
    stdout: str
    stderr: str


def run_script(script: Path, *arguments: object) -> Done:
    """Run it in this process."""
    out, err, handler = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    code: object = 0
    try:
        with (
            mock.patch.object(sys, "argv", [str(script), *map(str, arguments)]),
            mock.patch.object(sys, "path", [str(script.parent), *sys.path]),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        code = end.code
    finally:
        signal.signal(signal.SIGTERM, handler)
    return Done(code if isinstance(code, int) else int(code is not None), out.getvalue(), err.getvalue())
