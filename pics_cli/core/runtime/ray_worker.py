"""A process of a Ray cluster that runs blocks: what it checks of its machine before the first, and how it runs one.

Nothing of Ray is imported here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pics_cli import __version__
from pics_cli.core.runtime.engines import become_worker
from pics_cli.core.runtime.files import writer_number
from pics_cli.core.runtime.requirements import Requirements
from pics_cli.core.runtime.storage import is_remote
from pics_cli.errors import reason_of, write_error

# Variables that a worker gets from the process that started the command; a machine's own cache folder stays its own.
_TRAVELS = ("PICS_", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "HF_ENDPOINT", "SOURCE_DATE_EPOCH")
_OWN = ("PICS_CACHE",)
# In a folder of results while workers run: those of other machines see whether they have the same folder.
_TOKEN = ".seen-by-workers."


@dataclass(frozen=True)
class Setup:
    """What a worker process needs to know before its first block.

    Attributes:
        requirements: of the job.
        versions: of pics, its source and the libraries, on the machine that the command was started on.
        folder: that the command was started in: paths may be relative to it.
        token: name of a file in each of the folders that the job writes to.
        environment: variables to set.
    """

    requirements: Requirements
    versions: Mapping[str, str]
    folder: str
    token: str
    environment: Mapping[str, str]


@contextlib.contextmanager
def prepare_setup(requirements: Requirements) -> Iterator[Setup]:
    """What workers are told of this process; the files in the folders that the job writes to are gone after the block.

    Raises:
        PicsError: such a folder cannot be written to.
    """
    token = _TOKEN + writer_number()  # of its own: several commands may write to a folder, or below it
    environment = {key: value for key, value in os.environ.items() if key.startswith(_TRAVELS)}
    files = [folder / token for folder in requirements.writes]
    try:
        for path in files:
            try:
                for left in path.parent.glob(f"{_TOKEN}*"):
                    if _is_of_a_killed_process(left.name):
                        left.unlink(missing_ok=True)
                path.write_bytes(b"")
            except OSError as error:
                raise write_error(path.parent, error) from None
        yield Setup(requirements, _versions(requirements), str(Path.cwd()), token, environment)
    finally:
        for path in files:
            path.unlink(missing_ok=True)


def _is_of_a_killed_process(token: str) -> bool:
    """Whether its command was started on this machine and has ended."""
    host = writer_number().removesuffix(str(os.getpid()))
    pid = token.removeprefix(_TOKEN).removeprefix(host)
    if token != f"{_TOKEN}{host}{pid}" or not pid.isdecimal():
        return False
    with contextlib.suppress(PermissionError):
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
    return False


def start(pickled: bytes) -> list[str]:
    """Make this process one that can run the job's blocks. Returns why its machine cannot, in lines; none where it can.

    Args:
        pickled: a `Setup`.
    """
    global _setup  # noqa: PLW0603  (a worker has one)
    setup: Setup = pickle.loads(pickled)  # noqa: S301  (of the process that started this one)
    _setup = setup
    for name, value in setup.environment.items():
        if name not in _OWN or name not in os.environ:
            os.environ[name] = value
    relative = [path for path in (*setup.requirements.reads, *setup.requirements.writes) if not path.is_absolute()]
    try:
        os.chdir(setup.folder)
    except OSError as error:
        if relative:
            return [f"{setup.folder}, which {relative[0]} is relative to: {reason_of(error)}"]
    faults = []
    here = _versions(setup.requirements)
    for name, version in setup.versions.items():
        if here.get(name) != version:
            faults.append(f"{name} {here.get(name, 'is missing')} instead of {version}")
    for path in setup.requirements.reads:
        with _fault(path, faults):
            path.stat()
    for folder in setup.requirements.writes:
        with _fault(folder, faults):
            folder.stat()
            if not (folder / setup.token).exists():
                faults.append(f"{folder}: is another folder there")
            elif not is_remote(folder) and not os.access(folder, os.W_OK):
                faults.append(f"{folder}: permission denied")
    return faults


_setup: Setup | None = None


def lacks(verify: bool) -> list[int]:
    """Places, in the requirements, of what is built once and this machine does not have; `verify`: or damaged."""
    assert _setup is not None
    return [number for number, built in enumerate(_setup.requirements.built) if not built.is_here(verify)]


def install(number: int, pieces: Iterable[tuple[str, bytes]]) -> None:
    """Put such a thing into place on this machine."""
    assert _setup is not None
    _setup.requirements.built[number].unpack(pieces)


@contextlib.contextmanager
def _fault(path: Path, faults: list[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a store's client has exceptions of its own
        faults.append(f"{path}: {reason_of(error)}")


def _versions(requirements: Requirements) -> dict[str, str]:
    versions = {} if requirements.versions is None else requirements.versions()
    return {"pics": __version__, "the source of pics": _source_digest(), "python": _PYTHON, **versions}


_PYTHON = ".".join(map(str, sys.version_info[:2]))


def _source_digest() -> str:
    """Of the package's files: a checkout that was not brought up to date has the same version."""
    digest, package = hashlib.sha256(), Path(__file__).parents[2]
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


class _Counts:
    def __init__(self) -> None:
        self.done = self.kept = 0

    def add(self, done: int, kept: int) -> None:
        self.done += done
        self.kept += kept


def run(call: bytes) -> tuple[Any, int, int]:
    """Run a pickled function with its arguments. Returns its result, pictures done and kept."""
    counts = _Counts()
    become_worker(counts.add)
    function, arguments, keywords = pickle.loads(call)  # noqa: S301  (of the process that started this one)
    return function(*arguments, **keywords), counts.done, counts.kept
