"""Output folders that a command may be run on again: one writer at a time, and never two kinds of results mixed."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pics_cli.core.runtime.files import make_folder
from pics_cli.core.runtime.locks import InUse, single_writer
from pics_cli.core.runtime.manifest import differences
from pics_cli.errors import PicsError

_SHOWN_DIFFERENCES = 8


@dataclass(frozen=True)
class ResumableFolder:
    """A folder whose contents were made from something that a resumed run must share: its identity.

    Attributes:
        path: of the folder.
        flag: the option that names it, for hints.
        verb: what happened to it, for messages: `begun`, `built`.
        replace: what --overwrite does, for hints.
    """

    path: Path
    flag: str
    verb: str = "begun"
    replace: str = "replace what is there with --overwrite"

    @contextlib.contextmanager
    def hold(
        self, *subfolders: str, temporaries: re.Pattern[str] | None = None, workers: bool = False
    ) -> Iterator[None]:
        """Be the folder's only writer while the block runs.

        Args:
            subfolders: created where they are missing, as the folder itself.
            temporaries: names of files that a killed run leaves half written; removed from the folder and the folders
                in it.
            workers: of an engine write here for this process; what lost ones leave is removed at the end, too.

        Raises:
            PicsError: another process writes here, or the folder cannot be written to.
        """
        for name in ("", *subfolders):
            make_folder(self.path / name, f"choose another {self.flag}")
        with single_writer(self.path):
            self._remove(temporaries)
            yield
            if workers:
                self._remove(temporaries)

    def _remove(self, temporaries: re.Pattern[str] | None) -> None:
        if temporaries is not None:
            for path in (*self.path.glob("*.tmp"), *self.path.glob("*/*.tmp")):
                if temporaries.fullmatch(path.name) and path.is_file():
                    path.unlink(missing_ok=True)

    def resumes(
        self,
        recorded: Mapping[str, Any] | None,
        identity: Mapping[str, Any],
        foreign: str | None = None,
        overwrite: bool = False,
    ) -> bool:
        """Whether the contents are to be kept and completed; False: they are to be removed, or there are none.

        Args:
            recorded: what the folder says it was made from, with other keys besides; None: nothing is recorded.
            identity: what this run would record.
            foreign: contents that nobody recorded, as words that complete "DIR: holds …"; None: there are none.
            overwrite: contents with another identity are to be replaced. Foreign ones never are.

        Raises:
            PicsError: foreign contents, or, without `overwrite`, another identity; the differences are named.
        """
        if recorded is None:
            if foreign is not None:
                raise PicsError(f"{self.path}: holds {foreign}", f"choose another {self.flag}, or move them away")
            return False
        if overwrite:
            return False
        self.refuse(identity_differences(recorded, identity))
        return True

    def refuse(self, lines: Sequence[str], hint: str | None = None) -> None:
        """Refuse to go on where there are differences between the folder and this run.

        Raises:
            PicsError: there are.
        """
        if lines:
            shown = "\n".join(f"  {line}" for line in lines[:_SHOWN_DIFFERENCES])
            if len(lines) > _SHOWN_DIFFERENCES:
                shown += f"\n  and {len(lines) - _SHOWN_DIFFERENCES} more"
            raise PicsError(
                f"{self.path}: was {self.verb} otherwise:\n{shown}",
                hint or f"choose another {self.flag}, or {self.replace}",
            )


@contextlib.contextmanager
def take_turns(folder: Path, seconds: float = 600.0) -> Iterator[None]:
    """Hold the lock of a folder that several runs share, for what takes a moment, such as its manifest.

    Raises:
        InUse: another process has held it for so many seconds.
    """
    deadline = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(single_writer(folder))
                break
            except InUse:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield


def identity_differences(recorded: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    """One line for each value of an identity that a record, which may hold more, has otherwise."""
    return differences({key: recorded.get(key) for key in identity}, identity)
