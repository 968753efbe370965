"""`pics ui` as a user types it: what is missing, what is in use, and that it ends and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from pics_cli.ui import serving

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_a_port_in_use_and_a_model_that_is_not_there(pics: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = pics("ui", "--port", str(port))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --host 127.0.0.1 --port {port}: cannot listen: address already in use")
    assert "hint: --port 0 takes any that is free" in done.stderr
    done = pics("ui", "--port", "0", "--model", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--model nowhere: " in done.stderr


def test_other_machines_are_let_in_with_a_warning(
    pics: Run, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "serve", interrupted)
    done = pics("ui", "--port", "0", "--model", tiny_model, "--host", "0.0.0.0")
    assert (done.returncode, "token" in done.stdout) == (0, False)
    assert "--host 0.0.0.0: whoever reaches this machine may use the page; --share asks for a token" in done.stderr
    done = pics("ui", "--port", "0", "--model", tiny_model)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\n", done.stdout)
    assert "whoever" not in done.stderr


def test_it_serves_until_a_signal_and_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    """On all interfaces, to those who know the token."""
    command = [sys.executable, "-m", "pics_cli", "ui", "--port", "0", "--model", str(tiny_model), "--share"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert started.stdout is not None
    address = started.stdout.readline().strip()
    found = re.fullmatch(r"http://[^/:]+:(\d+)/(\?token=[\w-]{20,})", address)
    assert found, address
    local = f"http://127.0.0.1:{found[1]}/"
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    assert b"<title>pics</title>" in opener.open(f"{local}{found[2]}").read()
    opener.open(urllib.request.Request(f"{local}api/sessions", method="POST")).read()
    assert list(tmp_path.glob("pics-ui-*/session_1"))
    started.send_signal(signal.SIGTERM)
    _, said = started.communicate(timeout=30)
    assert started.returncode == 0, said
    assert list(tmp_path.iterdir()) == []
