"""The upload of a planned model folder to the Hugging Face hub, and what can go wrong with it."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from pics_cli.core.model.hub_client import HUB_ERRORS, SECONDS_TO_ANSWER
from pics_cli.core.model.model_card import CARD_FILE
from pics_cli.core.model.push import PushPlan
from pics_cli.errors import PicsError, read_error

_FULL = re.compile(r"storage|quota|disk|space left|too large", re.I)


def upload(
    plan: PushPlan,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    token: str | None = None,
) -> str:
    """Upload a model, through the hub's own client: what is there already is not sent again, also after a failure.

    Args:
        plan: from `plan_push`.
        private: whether a new repository is private.
        revision: branch to commit to, made where there is none; None: `main`.
        message: of the commit.
        token: None: the one that the user logged in with.

    Returns:
        Address of the commit.

    Raises:
        PicsError: not logged in, not allowed, the hub cannot be reached or has no room, or a repository that is public
            although `private` is asked for.
    """
    token = token or get_token()
    if token is None:
        raise PicsError(
            "not logged in to the Hugging Face hub",
            "run `hf auth login`, or set HF_TOKEN to a token that may write (huggingface.co/settings/tokens)",
        )
    api, name = HfApi(token=token), plan.repository
    with _explained(name), tempfile.TemporaryDirectory(prefix="pics-push-") as staging:
        try:
            existing: Any = api.repo_info(name, timeout=SECONDS_TO_ANSWER)
        except RepositoryNotFoundError as error:
            if _status(error) == 401:
                raise
            existing = None
        if existing is None:
            api.create_repo(name, private=private, exist_ok=True)
        elif private and not existing.private:
            raise PicsError(
                f"{name}: is there already, and public, but --private is given",
                "choose another name, make it private in its settings, or leave out --private",
            )
        if revision not in (None, "main") and not str(revision).startswith("refs/"):
            api.create_branch(name, branch=str(revision), exist_ok=True)
        for file, path in plan.files.items():
            (Path(staging) / file).parent.mkdir(exist_ok=True)
            (Path(staging) / file).symlink_to(path.resolve())
        (Path(staging) / CARD_FILE).write_text(plan.card, encoding="utf-8")
        commit = api.upload_folder(
            repo_id=name, folder_path=staging, revision=revision, commit_message=message or "Upload model"
        )
    return str(commit.commit_url)


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """What the hub's client raises, as one clear line."""
    try:
        yield
    except HUB_ERRORS as error:
        if isinstance(error, OSError) and error.filename and not isinstance(error, HfHubHTTPError):
            raise read_error(error.filename, error) from None
        status, said = _status(error), getattr(error, "server_message", None)
        said = " ".join(str(said or error or type(error).__name__).split()) or type(error).__name__
        login = "run `hf auth login` with a token that may write (huggingface.co/settings/tokens)"
        if status == 401:
            raise PicsError(f"{name}: the hub does not accept your token: {said}", login) from None
        if status in (402, 413, 507) or (status in (400, 403, 422) and _FULL.search(said)):
            raise PicsError(f"{name}: no room on the hub: {said}", "free some space there, then run it again") from None
        if status == 403:
            hint = f"is {name.partition('/')[0]} you, or an organisation that lets you write? {login}"
            raise PicsError(f"{name}: you may not write there: {said}", hint) from None
        if status == 404:
            raise PicsError(f"{name}: the hub does not find it: {said}", "look at name and --revision") from None
        if status in (409, 412):
            raise PicsError(f"{name}: changed in the meantime: {said}", "run the same command again") from None
        if status is not None and status < 500:
            raise PicsError(f"{name}: the hub refuses it ({status}): {said}") from None
        again = "run the same command again where there is a connection: what was sent is not sent again"
        raise PicsError(f"{name}: the hub cannot be reached ({said[:200]})", again) from None
