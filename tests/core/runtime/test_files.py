"""Atomic files and the lock of a folder."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pics_cli.core.runtime.files import AtomicFile, cache_folder, file_sha256, fingerprint, load_json, write_json
from pics_cli.core.runtime.locks import single_writer
from pics_cli.errors import PicsError

HOLD = "from pathlib import Path\nfrom pics_cli.core.runtime.locks import single_writer\nimport sys, time\n"
HOLD += "with single_writer(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"


def test_file_appears_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with AtomicFile(path) as file:
        file.write(b"new")
        file.write(b"er")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"newer"
    assert (file.bytes, file.sha256) == (5, hashlib.sha256(b"newer").hexdigest())


def test_failed_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError), AtomicFile(tmp_path / "a.bin") as file:
        file.write(b"half" + None)  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(PicsError, match="cannot write"):
        write_json(tmp_path / "none" / "a.json", {})


def test_json_that_is_none_is_a_value_error(tmp_path: Path) -> None:
    assert load_json(b'{"a": [1, null]}') == load_json('{"a": [1, null]}') == {"a": [1, None]}
    for text in (b"", b"{", b"\xff", b"[" * 100_000, '{"a":' * 100_000):
        with pytest.raises(ValueError):
            load_json(text)
    (tmp_path / ".lock").write_bytes(b"[" * 4000)  # of a lock file no more is read
    with single_writer(tmp_path):
        assert json.loads((tmp_path / ".lock").read_bytes())["pid"] == os.getpid()


def test_fingerprint_tells_files_apart(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"x" * 300_000)
    b.write_bytes(b"x" * 299_999 + b"y")
    assert fingerprint(a) != fingerprint(b)
    assert fingerprint(a)["bytes"] == 300_000


def test_second_writer_is_refused_and_told_who(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout
            other.stdout.readline()
            with pytest.raises(PicsError, match=f"another writer is at work here \\(pid {other.pid} on"):
                single_writer(tmp_path).__enter__()
        finally:
            other.kill()
        other.wait()
    assert (tmp_path / ".lock").exists()
    with single_writer(tmp_path):  # killed: its lock is stale
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / ".lock").exists()


def test_lock_of_another_host_is_respected(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    with pytest.raises(PicsError, match="pid 1 on elsewhere"), single_writer(tmp_path):
        pass
    assert (tmp_path / ".lock").exists()


def test_damaged_lock_file_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("{")
    with single_writer(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["host"] == socket.gethostname()


def test_the_cache_folder_is_written_as_a_shell_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MINE", "x")
    for value, folder in (("~/c", tmp_path / "c"), ("${MINE}/c", Path("x/c")), ("plain", Path("plain"))):
        monkeypatch.setenv("PICS_CACHE", value)
        assert cache_folder() == folder
    monkeypatch.setenv("PICS_CACHE", "$NOPE/c")
    with pytest.raises(PicsError, match=r"^PICS_CACHE: got \$NOPE/c: \$NOPE is not set$"):
        cache_folder()


def test_pipes_have_no_contents(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a pipe, expected a file"):
        fingerprint(tmp_path / "pipe")
    with pytest.raises(PicsError, match="is a pipe, expected a file"):
        file_sha256(tmp_path / "pipe")
