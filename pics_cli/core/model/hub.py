"""A name that the user gave → a folder on this machine: as it is, or a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from pics_cli.errors import PicsError

SECONDS_TO_ANSWER = 10.0
_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*(@[\w][\w./-]*)?")
# The hub's client changed its HTTP library twice; its own error derives from that library's in every version.
_HUB_ERRORS: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, *HfHubHTTPError.__bases__)


def is_local(name: str) -> bool:
    """Whether the name can only be a path: it exists, or is not written like `owner/name` or `owner/name@revision`."""
    return Path(name).exists() or not _REPOSITORY.fullmatch(name)


def snapshot(name: str, flag: str, patterns: Sequence[str]) -> Path:
    """The folder that `name` stands for.

    Args:
        name: a local folder, which comes first, or a hub repository: `owner/name` or `owner/name@revision`.
        flag: the command-line flag that the name came with, for the error.
        patterns: of the files to download from a repository, such as `unet/*`; a local folder is taken as it is.

    Raises:
        PicsError: no such folder; the hub cannot be reached and its cache does not hold the files; no such repository.
    """
    if is_local(name):
        return _folder(name, flag)
    repository, _, revision = name.partition("@")
    unreachable = None
    try:
        unreachable = _unreachable(repository, revision or None)
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=list(patterns),
                local_files_only=unreachable is not None,
            )
        )
    except GatedRepoError:
        raise PicsError(
            f"{flag} {name}: this repository wants you to accept its terms first",
            f"accept them on its page and run `hf auth login`, or name a local copy: {flag} FOLDER",
        ) from None
    except RevisionNotFoundError:
        raise PicsError(
            f"{flag} {name}: the repository has no revision {revision or 'main'!r}",
            "name a branch, tag or commit of it after the @, or leave the @ out",
        ) from None
    except RepositoryNotFoundError:
        raise PicsError(
            f"{flag} {name}: neither a folder here nor a public repository on the hub",
            f"look at the spelling, or name a local copy: {flag} FOLDER",
        ) from None
    except _HUB_ERRORS as error:
        raise PicsError(
            f"{flag} {name}: no such folder here, and the hub cannot be reached ({_reason(unreachable or error)})",
            f"name a local copy: {flag} FOLDER; where there is a connection, `hf download {repository}"
            f"{f' --revision {revision}' if revision else ''} --local-dir FOLDER` makes one",
        ) from None


def _folder(name: str, flag: str) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    if path.exists():
        raise PicsError(f"{flag} {name}: is a file, expected a folder", f"name the folder: {flag} {path.parent}")
    raise PicsError(
        f"{flag} {name}: no such folder",
        "give a folder that exists, or a repository on the hub as owner/name or owner/name@revision",
    )


def _unreachable(repository: str, revision: str | None) -> Exception | None:
    """Why the hub does not answer, None where it does. Downloading asks it the same, but waits without end."""
    try:
        HfApi().repo_info(repository, revision=revision, timeout=SECONDS_TO_ANSWER)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except _HUB_ERRORS as error:
        return error
    return None


def _reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
