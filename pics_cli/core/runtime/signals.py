"""Interrupts that wait for a safe point: between two pictures, between two training steps."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_HELD = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 2
_pending: list[Callable[[], object]] = []


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Keep interrupts until `process_pending_signals` is called (in the main thread, where Python handles signals)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What is ignored (as an interrupt is in a script's background jobs) or ends the process at once stays as it is.
    handlers = {number: handler for number in _HELD if callable(handler := signal.getsignal(number))}

    def hold(number: int, frame: FrameType | None) -> None:
        if len(_pending) >= _PATIENCE:  # asked again and again: do not wait for what may never end
            handlers[signal.Signals(number)](number, frame)
        _pending.append(lambda: handlers[signal.Signals(number)](number, frame))

    for number in handlers:
        signal.signal(number, hold)
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
    """Act on interrupts that came since the last time; called by blocks between two pictures."""
    while _pending:
        _pending.pop(0)()
