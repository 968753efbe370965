"""What the errors of a store mean, of whatever package: an answer, or one line on what another try will not change."""

from __future__ import annotations

import errno
import os
import re

from pics_cli.core.runtime.http_client import RefusedError
from pics_cli.errors import PicsError

_ANSWERS = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
_FULL = re.compile(r"no space|storage ?full|quota ?exceeded|insufficient ?storage|disk full|\b507\b", re.IGNORECASE)
_NO_BUCKET = re.compile(r"(bucket|container)( does not exist|notfound| not found)|nosuchbucket", re.IGNORECASE)
_CREDENTIALS = re.compile(
    r"credential|authenticat|accesskeyid|signaturedoesnotmatch|access key|signature", re.IGNORECASE
)
_CREDENTIALS_HINT = "they come from the environment, or from where the store's own tools keep them"


def final_answer(error: Exception, address: str, writing: bool) -> OSError | PicsError | None:
    """What an error means that another try will not change: the operating system's own, or a line; None of others.

    Args:
        error: that a store's package raised.
        address: of the file or folder that was asked for.
        writing: whether it was to be written.
    """
    if isinstance(error, _ANSWERS):
        if _NO_BUCKET.search(str(error)):
            return PicsError(f"{address}: there is no such bucket", "make it first, or name another one")
        number = _number(error)
        return type(error)(error.errno or number, os.strerror(number), address)
    text, kind = reason_in_words(error), type(error).__name__
    said = f"{kind} {text}"
    if isinstance(error, PermissionError) and not _CREDENTIALS.search(text):
        return PicsError(
            f"{address}: no permission to {'write' if writing else 'read'} there: {text}", _CREDENTIALS_HINT
        )
    if _CREDENTIALS.search(said):
        return PicsError(f"{address}: credentials are missing or wrong: {text}", _CREDENTIALS_HINT)
    code = error.errno if isinstance(error, OSError) else None
    # What OpenSSH's server says of a disk without room is this one word.
    if writing and (code in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(said) or text == "failure"):
        return PicsError(
            f"{address}: the store is full, or refuses to take more ({text})",
            "make room there, then run the same command again: it resumes",
        )
    if isinstance(error, NotImplementedError | RefusedError | ValueError | TypeError):
        return PicsError(
            f"{address}: cannot be used: {text or kind}",
            "folders are read from s3://, gs://, az://, hf:// and sftp://, single files and shards from https://, too",
        )
    return None


def reason_in_words(error: BaseException) -> str:
    """An error in one line, with its name where it has no words."""
    cause = getattr(error, "reason", None)  # of urllib's errors
    error = cause if isinstance(cause, OSError) else error
    words = " ".join(str(getattr(error, "strerror", None) or error).split())
    return (words[:1].lower() + words[1:])[:300] or type(error).__name__


def _number(error: OSError) -> int:
    numbers = {FileNotFoundError: errno.ENOENT, FileExistsError: errno.EEXIST, IsADirectoryError: errno.EISDIR}
    return next((number for kind, number in numbers.items() if isinstance(error, kind)), errno.ENOTDIR)
