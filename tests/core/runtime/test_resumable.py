"""Whose a folder is, and whether a run may go on in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pics_cli.core.runtime.locks import InUse
from pics_cli.core.runtime.resumable import ResumableFolder
from pics_cli.errors import PicsError

IDENTITY = {"recipe": {"seed": 1, "name": "a"}, "split": "train"}


def test_the_same_identity_resumes_whatever_else_is_recorded(tmp_path: Path) -> None:
    folder = ResumableFolder(tmp_path, "--out")
    assert folder.resumes({**IDENTITY, "complete": False}, IDENTITY)
    assert not folder.resumes(None, IDENTITY)


def test_another_identity_is_refused_with_the_differences_named(tmp_path: Path) -> None:
    folder = ResumableFolder(tmp_path, "--out", "built")
    recorded = {"recipe": {"seed": 2, "name": "a"}}
    with pytest.raises(PicsError) as refused:
        folder.resumes(recorded, IDENTITY)
    assert refused.value.message == (
        f"{tmp_path}: was built otherwise:\n  recipe.seed: the folder has 2, this run 1\n"
        '  split: the folder has null, this run "train"'
    )
    assert refused.value.hint == "choose another --out, or replace what is there with --overwrite"
    assert not folder.resumes(recorded, IDENTITY, overwrite=True)


def test_many_differences_are_counted(tmp_path: Path) -> None:
    folder = ResumableFolder(tmp_path, "--out")
    folder.refuse([])
    with pytest.raises(PicsError, match=r"line 7\n  and 3 more$"):
        folder.refuse([f"line {number}" for number in range(11)])


def test_foreign_contents_are_never_replaced(tmp_path: Path) -> None:
    folder = ResumableFolder(tmp_path, "--out")
    with pytest.raises(PicsError, match="holds 3 tar files of somebody"):
        folder.resumes(None, IDENTITY, "3 tar files of somebody", overwrite=True)


def test_one_writer_who_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    folder = ResumableFolder(tmp_path / "out", "--out")
    (tmp_path / "out/parts").mkdir(parents=True)
    leftover, other = tmp_path / "out/parts/1.json.77.tmp", tmp_path / "out/notes.tmp"
    leftover.touch()
    other.touch()
    with folder.hold("parts", "empty", temporaries=re.compile(r"\d+\.json\.\d+\.tmp")):
        assert (tmp_path / "out/empty").is_dir()
        assert not leftover.exists()
        assert other.exists()
        with pytest.raises(InUse), folder.hold():
            pass
    with folder.hold(temporaries=re.compile(r"\d+\.json\.\d+\.tmp"), workers=True):
        leftover.touch()  # of a worker that is lost
    assert not leftover.exists()
    assert other.exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PicsError) as refused, ResumableFolder(tmp_path / "file", "--output").hold():
        pass
    assert refused.value.hint == "choose another --output"
