"""How a script of this folder runs and ends: the package's own errors as text and exit code, never as a traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from pics_cli.errors import PicsError

STOPPED = 128


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run a script and exit: 0 done, 1 failed, 2 the user can mend it, 130/143 stopped by a signal."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(main() or 0)
    except PicsError as error:
        print(error.text, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as stop:
        sys.exit(STOPPED + (signal.SIGTERM if stop.args else signal.SIGINT))


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt("terminated")
