"""Errors that carry one clear line for the user, and what to do next."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

FAILED = 1
USER_CAN_MEND = 2

# What an operating system says when a file cannot grow: no space, over quota, over the file size limit.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class PicsError(Exception):
    """A failure that the user should read as text, never as a traceback.

    Args:
        message: one line: file, key or sample, what was found, what is allowed.
        hint: what to do next.
        exit_code: 2 where the user can mend it (the default), 1 for a failure inside.

    Attributes:
        local: of several processes this one alone met it, while others may wait for it; else all of them raise it.
    """

    local = False

    def __init__(self, message: str, hint: str | None = None, exit_code: int = USER_CAN_MEND) -> None:
        super().__init__(message, hint, exit_code)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return self.message

    @property
    def text(self) -> str:
        """What the user reads: the message and, below it, the hint."""
        return f"error: {self.message}" + (f"\n\nhint: {self.hint}" if self.hint else "")


class BadSample(Exception):
    """A picture or record that should have been readable: counted against --max-bad.

    Args:
        reason: one word for counting, such as `missing_image`.
        detail: what was found, for the list.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def abbreviate(names: Sequence[str], shown: int = 8) -> str:
    """The first of many names, and the number of the others."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def reason_of(error: Exception) -> str:
    """What went wrong: of the operating system's errors what it says, in lower case and without the path."""
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)


def read_error(path: Path | str, error: OSError, hint: str | None = None) -> PicsError:
    """What an `OSError` met while reading `path` means to the user."""
    return PicsError(f"{path}: cannot read: {reason_of(error)}", hint)


def write_error(path: Path, error: OSError, hint: str = "choose another folder") -> PicsError:
    """What an `OSError` met while writing `path` means to the user."""
    why = reason_of(error)
    if error.errno in _NO_ROOM:
        return PicsError(
            f"{path}: disk full ({why})",
            "free some space, then run the same command again: it resumes",
        )
    return PicsError(f"{path}: cannot write ({why})", hint)
