"""Signals, as far as a system has them; interrupts are deferred to a safe point: between two pictures or steps."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# Those that end a command as an interrupt from the keyboard does; Windows has no SIGHUP.
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_DEFERRED = (signal.SIGINT, *ENDING)
# What a terminal sends to all processes in it, too.
_OF_TERMINAL = tuple(number for number in _DEFERRED if number != signal.SIGTERM)
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


@contextlib.contextmanager
def terminal_signals_blocked() -> Iterator[None]:
    """Keep what a terminal sends from this thread, and from processes that are started meanwhile, where that can be."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINAL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_terminal_signals() -> None:
    """Leave them to the process that started this one."""
    for number in _OF_TERMINAL:
        signal.signal(number, signal.SIG_IGN)


def interrupt_this_process() -> None:
    """As an interrupt from the keyboard, from any thread."""
    if sys.platform == "win32":
        _thread.interrupt_main()
    else:
        os.kill(os.getpid(), signal.SIGINT)


def process_runs(pid: int) -> bool:
    """Whether there is a process of that number on this machine."""
    if sys.platform == "win32":  # os.kill would end it
        import ctypes

        synchronize, still_running = 0x00100000, 0x00000102
        kernel = ctypes.windll.kernel32
        process = kernel.OpenProcess(synchronize, False, pid)
        if not process:
            return False
        try:
            return bool(kernel.WaitForSingleObject(process, 0) == still_running)
        finally:
            kernel.CloseHandle(process)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True
