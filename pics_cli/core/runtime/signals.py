"""Interrupts that are deferred to a safe point: between two pictures, between two training steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_DEFERRED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_MAX_PENDING = 2
_pending: list[Callable[[], object]] = []


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Defer interrupts until `process_pending_signals` is called (in the main thread, where Python handles signals)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What is ignored (as an interrupt is in a script's background jobs) or ends the process at once stays as it is.
    handlers = {number: handler for number in _DEFERRED if callable(handler := signal.getsignal(number))}

    def defer(number: int, frame: FrameType | None) -> None:
        if len(_pending) >= _MAX_PENDING:  # sent again and again: do not wait for what may never end
            handlers[signal.Signals(number)](number, frame)
        _pending.append(lambda: handlers[signal.Signals(number)](number, frame))

    for number in handlers:
        signal.signal(number, defer)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _pending.clear()


def signal_pending() -> bool:
    """Whether an interrupt came since `process_pending_signals` was last called."""
    return bool(_pending)


def process_pending_signals() -> None:
    """Act on interrupts that came since the last time; call it where the work may be cut."""
    while _pending:
        _pending.pop(0)()
