"""Names of base models: what is a folder, what a repository, and that their files are the ones of before."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from pics_cli.core.model import hub, hub_client
from pics_cli.core.model.hub import HASHES_FILE as HASHES
from pics_cli.core.model.hub import check_hashes, check_recorded_hashes, record_hashes
from pics_cli.errors import PicsError


def test_snapshot_takes_local_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "file").touch()
    assert hub.snapshot("owner/name", "--model", ["*"]) == Path("owner/name")
    assert hub.snapshot(str(tmp_path), "--model", ["*"]) == tmp_path
    for name in ("nowhere", "./owner/other", "/nowhere/at/all", "a/b/c"):
        with pytest.raises(PicsError, match=f"--model {name}: no such folder"):
            hub.snapshot(name, "--model", ["*"])
    with pytest.raises(PicsError, match="is a file"):
        hub.snapshot("file", "--model", ["*"])
    (tmp_path / "LOGS/run/checkpoints").mkdir(parents=True)
    with pytest.raises(PicsError, match="--model LOGS/run/model: no such folder") as caught:
        hub.snapshot("LOGS/run/model", "--model", ["*"])
    assert "LOGS/run is a training run that has not ended" in str(caught.value.hint)


def test_snapshot_takes_what_was_downloaded_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--owner--name"
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "config.json").write_text("{}")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    assert hub.snapshot("owner/name", "--model", ["*.json"]) == folder / "snapshots" / commit
    assert hub.snapshot(f"owner/name@{commit}", "--model", ["*.json"]) == folder / "snapshots" / commit
    with pytest.raises(PicsError, match="cannot be reached") as told:
        hub.snapshot("owner/name@v2", "--model", ["*.json"])
    assert "hf download owner/name --revision v2 --local-dir" in str(told.value.hint)


def test_silent_hub_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(hub_client, "SECONDS_TO_ANSWER", 1.0)
        start = time.monotonic()
        with pytest.raises(PicsError, match="cannot be reached"):
            hub.snapshot("owner/name", "--model", ["*"])
        assert time.monotonic() - start < 20


def test_hashes_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    first = check_recorded_hashes("somebody/model", {"a.bin": file})
    record_hashes("somebody/model", first)
    record_hashes("somebody/model", {})
    counted: list[Path] = []
    monkeypatch.setattr("pics_cli.core.model.hub.file_sha256", lambda path: counted.append(path) or "other")  # type: ignore[func-returns-value]
    assert check_recorded_hashes("somebody/model", {"a.bin": file}) == first
    check_hashes(tmp_path, first)
    assert counted == []
    os.utime(file, ns=(1, 1))
    with pytest.raises(PicsError, match=r"somebody/model: not the files .* a.bin has sha256 other"):
        check_recorded_hashes("somebody/model", {"a.bin": file})
    with pytest.raises(PicsError, match=r"b\.bin is gone, a\.bin has sha256 other"):
        check_hashes(tmp_path, {**first, "b.bin": "0"})
    with pytest.raises(PicsError, match=r"b\.bin is new"):
        check_recorded_hashes("somebody/model", {"a.bin": file, "b.bin": file})


@pytest.mark.parametrize("text", ["{", "[]", '{"files": {}}', "[" * 100_000])
def test_unreadable_record_of_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PICS_CACHE", str(tmp_path))
    (tmp_path / HASHES).write_text(text)
    with pytest.raises(PicsError, match=str(tmp_path / HASHES)) as told:
        check_recorded_hashes("a/b", {"x": tmp_path / HASHES})
    assert "remove it" in str(told.value.hint)
