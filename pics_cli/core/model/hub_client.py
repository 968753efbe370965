"""Downloads from the Hugging Face hub, through its own client, which takes half a second to import."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from pics_cli.errors import PicsError

SECONDS_TO_ANSWER = 10.0
# The hub's client changed its HTTP library twice; its own error derives from that library's in every version.
HUB_ERRORS: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, *HfHubHTTPError.__bases__)


def download(name: str, flag: str, patterns: Sequence[str]) -> Path:
    """The folder in the hub's cache of a repository, `owner/name` or `owner/name@revision`; see `hub.snapshot`.

    Raises:
        PicsError: the hub cannot be reached and its cache does not hold the files; no such repository.
    """
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
    except HUB_ERRORS as error:
        cause = unreachable or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise PicsError(
            f"{flag} {name}: no such folder here, and the hub cannot be reached ({reason})",
            f"name a local copy: {flag} FOLDER; where there is a connection, `hf download {repository}"
            f"{f' --revision {revision}' if revision else ''} --local-dir FOLDER` makes one",
        ) from None


def cached_snapshot(name: str, file: str) -> Path | None:
    """The folder of a hub repository (`owner/name` or `owner/name@revision`) in the hub's cache, without a connection;
    None where it does not hold `file`."""
    repository, _, revision = name.partition("@")
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
    except HUB_ERRORS:
        return None
    return folder if (folder / file).is_file() else None


def _unreachable(repository: str, revision: str | None) -> Exception | None:
    """Why the hub does not answer, None where it does; a download would wait for the same answer without a limit."""
    try:
        HfApi().repo_info(repository, revision=revision, timeout=SECONDS_TO_ANSWER)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise
    except HUB_ERRORS as error:
        return error
    return None
