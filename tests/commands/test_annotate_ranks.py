"""`pics annotate` in two processes, as a launcher starts them: each block once, the bytes of a single one."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.detection import make_dataset, save_tiny
from helpers.infer_command import typed
from helpers.two_ranks import in_processes


@pytest.mark.slow
def test_two_processes_share_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_dataset(tmp_path, 9)
    save_tiny(tmp_path / "sam")
    words = ["annotate", "boxed.yaml", "--raw", "raw", "--sam", "sam", "--device", "cpu", "--workers", "1"]
    alone = typed(*words, "--out", "whole")
    assert alone.exit_code == 0, alone.stderr
    (first, out, told), (second, silent, untold) = in_processes(tmp_path, *words, "--out", "both")
    assert (first, second) == (0, 0)
    assert "9 of 9" in out
    assert not silent  # one rank speaks for both
    advice = "to build from them: pics build-shards"
    assert (told.count(advice), untold.count(advice)) == (1, 0)
    found, expected = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("both", "whole")
    )
    assert len(found) == 2 * 5 + 1
    assert found == expected
    (code, _, error), (other, _, _) = in_processes(tmp_path, *words, "--out", "both", "--multimask", "off")
    assert (code, other) == (2, 2)
    assert 'multimask: the folder has "best", this run "off"' in error
    assert "Traceback" not in error
