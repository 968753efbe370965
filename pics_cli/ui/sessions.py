"""All pages that are open, in a private temporary folder that is deleted at the end."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from pathlib import Path

from pics_cli.errors import PicsError, write_error
from pics_cli.ui.session import Session

MAX_SESSIONS = 40
# Seconds without a request after which a session may give way to another, and after which it is deleted anyway.
_IDLE, _ABANDONED = 600.0, 86_400.0


class Sessions:
    """All sessions, in a folder that only this user can read; deleted by `close`, or with the oldest when many."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pics-ui-")
        self._sessions = dict[str, Session]()
        self._lock = threading.Lock()
        self._count = 0

    @property
    def folder(self) -> Path:
        """Of all of them."""
        return Path(self._folder.name)

    def new(self) -> tuple[str, Session]:
        """A session and its random name.

        Raises:
            PicsError: as many as there may be are in use.
        """
        with self._lock:
            self._drop(_ABANDONED)
            if len(self._sessions) >= MAX_SESSIONS:
                self._drop(_IDLE, len(self._sessions) - MAX_SESSIONS + 1)
            if len(self._sessions) >= MAX_SESSIONS:
                raise PicsError(f"{MAX_SESSIONS} pages are in use, no more are served at a time", "try again later")
            self._count += 1
            folder = self.folder / f"session_{self._count}"
            try:
                folder.mkdir(mode=0o700)
            except OSError as error:
                raise write_error(folder, error) from None
            name = secrets.token_urlsafe(24)
            self._sessions[name] = session = Session(folder)
            return name, session

    def find(self, name: str) -> Session | None:
        """The session of that name, if there is one."""
        with self._lock:
            session = self._sessions.get(name)
            if session is not None:
                session.seen = time.monotonic()
            return session

    def close(self) -> None:
        """Delete everything."""
        with self._lock:
            self._sessions.clear()
            self._folder.cleanup()

    def _drop(self, idle: float, count: int = MAX_SESSIONS) -> None:
        """Delete sessions that were idle for so many seconds, the longest idle first, and have nothing under way."""
        old = sorted(self._sessions.items(), key=lambda item: item[1].seen)
        gone = [
            (name, session)
            for name, session in old
            if time.monotonic() - session.seen > idle and not any(job.pending for job in session.jobs)
        ]
        for name, session in gone[:count]:
            del self._sessions[name]
            shutil.rmtree(session.folder, ignore_errors=True)
