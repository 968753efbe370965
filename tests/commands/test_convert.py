"""`pics build-shards --convert`: refusals, bad samples, and going on where it was stopped."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from helpers import oracle
from helpers.making import build_folder


@pytest.fixture(scope="module")
def shards(lvis_raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen shards of a few samples."""
    _, out = build_folder("lvis", lvis_raw, tmp_path_factory.mktemp("shards") / "LVIS", shards__size=4)
    assert len(list(out.glob("*.tar"))) > 6
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--convert", "{shards}"], "--convert needs --out DIR"),
        (["--convert", "nowhere", "--out", "out"], "nowhere: no such folder"),
        (["--convert", "empty", "--out", "out"], "empty: no .tar shard in it"),
        (["--convert", "{shards}", "--out", "{shards}"], "which this run reads: it would be overwritten"),
        (["--convert", "{shards}", "--out", "out", "--layout", "zip"], "--layout zip: expected published or compact"),
        (["lvis", "--convert", "{shards}", "--out", "out"], "--convert DIR with --out"),
        (["--convert", "{shards}", "--out", "out", "--objects", "3"], "--convert DIR with --out"),
        (["--convert", "{shards}", "--out", "out", "--compat"], "--convert DIR with --out"),
        (["--convert", "{shards}", "--check", "{shards}"], "--check DIR goes with --workers only"),
        (["--convert", "{shards}", "--out", "foreign"], "that this tool did not write here"),
        (["--convert", "broken", "--out", "out"], "truncated"),
    ],
)
def test_what_cannot_be_converted(
    shards: Path, tmp_path: Path, pics: Callable[..., Any], arguments: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("foreign", "broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "00000.tar").write_bytes((shards / "00000.tar").read_bytes()[:5000])
    before = contents(shards)
    done = pics("build-shards", *(argument.format(shards=shards) for argument in arguments), "--workers", "1")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(shards) == before
    assert not list((tmp_path / "out").glob("*.tar")) if (tmp_path / "out").exists() else True


def test_goes_on_where_it_was_stopped(shards: Path, tmp_path: Path, pics: Callable[..., Any]) -> None:
    for out, workers in (("whole", 1), ("pieces", 2)):
        assert pics("build-shards", "--convert", shards, "--out", out, "--workers", workers).returncode == 0
    whole = contents(tmp_path / "whole")
    assert contents(tmp_path / "pieces") == whole
    for lost in ("00002.tar", "00003.stats.json", "manifest.json"):
        if lost == "manifest.json":
            manifest = json.loads((tmp_path / "pieces" / lost).read_text())
            (tmp_path / "pieces" / lost).write_text(json.dumps(manifest | {"complete": False}))
        else:
            (tmp_path / "pieces" / lost).unlink()
        (tmp_path / "pieces/00005.tar.1.tmp").write_bytes(b"left behind")
        kept = (tmp_path / "pieces/00001.tar").stat().st_mtime_ns
        done = pics("build-shards", "--convert", shards, "--out", "pieces", "--workers", 1)
        assert done.returncode == 0, done.stderr
        assert contents(tmp_path / "pieces") == whole
        assert (tmp_path / "pieces/00001.tar").stat().st_mtime_ns == kept
        assert "resumed" in done.stdout


def test_another_source_or_layout_is_refused(shards: Path, tmp_path: Path, pics: Callable[..., Any]) -> None:
    assert pics("build-shards", "--convert", shards, "--out", "out").returncode == 0
    before = contents(tmp_path / "out")
    fewer = tmp_path / "fewer"
    shutil.copytree(shards, fewer)
    (fewer / "00000.tar").unlink()
    unnamed = tmp_path / "unnamed"
    shutil.copytree(fewer, unnamed)
    (unnamed / "manifest.json").unlink()
    changed = tmp_path / "changed"
    shutil.copytree(shards, changed)
    data = bytearray((changed / "00001.tar").read_bytes())
    data[5000] ^= 1
    (changed / "00001.tar").write_bytes(data)
    for source, more, words in (
        (shards, ["--layout", "published"], "shards.layout: the folder has"),
        (unnamed, [], "was built otherwise"),
        (fewer, [], "00000.tar: not both in the folder and in its manifest.json"),
        (changed, ["--overwrite"], "00001.tar: is not the file that its manifest.json describes"),
        (shards, ["--split", "val"], "holds train by its manifest"),
    ):
        done = pics("build-shards", "--convert", source, "--out", "other" if "--overwrite" in more else "out", *more)
        assert done.returncode == 2
        assert words in done.stderr
        assert contents(tmp_path / "out") == before
    done = pics("build-shards", "--convert", shards, "--out", "out", "--layout", "published", "--overwrite")
    assert done.returncode == 0
    assert oracle.read_tars(tmp_path / "out") == oracle.read_tars(shards)


def broken(shards: Path, out: Path, how: Mapping[str, bytes]) -> list[str]:
    """A copy of two shards without manifest, the first samples of each spoilt; the keys of those that are not."""
    found = oracle.read_tars(shards)
    keys = list(found)[:8]
    for key, (name, data) in zip(keys, how.items(), strict=False):
        found[key][name] = data
    out.mkdir()
    oracle.write_tar(out / "00000.tar", {key: found[key] for key in keys})
    return keys[len(how) :]


def test_bad_samples_are_listed_and_left_out(shards: Path, tmp_path: Path, pics: Callable[..., Any]) -> None:
    how = {"bg.jpg": b"", "mask0.png": b"no", "obj1.png": b"no", "json": b"{", "strange.txt": b"?"}
    how |= {"clean.jpg": b"no", "alt0.png": b"no"}  # members that are copied
    good = broken(shards, tmp_path / "spoilt", how)
    done = pics("build-shards", "--convert", "spoilt", "--out", "out", "--layout", "compact")
    assert done.returncode == 0, done.stderr
    assert list(oracle.read_tars(tmp_path / "out")) == good
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    reasons = ["unreadable_image", "bad_mask", "bad_reference", "bad_json", "extra_member"]
    reasons += ["bad_clean", "bad_reference"]
    assert [entry["reason"] for entry in manifest["bad_pictures"]] == reasons
    assert manifest["bad"]["pictures"] == {reason: reasons.count(reason) for reason in sorted(set(reasons))}
    assert manifest["samples"] == len(good) == manifest["pictures"] - len(reasons)
    for reason in reasons:
        assert reason in done.stdout
    done = pics("build-shards", "--convert", "spoilt", "--out", "strict", "--layout", "compact", "--max-bad", "4")
    assert done.returncode == 2
    assert "more than --max-bad 4" in done.stderr


def test_nothing_is_overwritten_or_doubled(shards: Path, tmp_path: Path, pics: Callable[..., Any]) -> None:
    found = oracle.read_tars(shards)
    keys = list(found)[:6]
    source = tmp_path / "odd"
    source.mkdir()
    # Two names of one number, a name without one, an empty first shard, a key given twice.
    oracle.write_tar(source / "00000.tar", {})
    oracle.write_tar(source / "000001.tar", {key: found[key] for key in keys[:2]})
    oracle.write_tar(source / "00001.tar", {key: found[key] for key in keys[2:4]})
    oracle.write_tar(source / "more.tar", {keys[4]: found[keys[4]], keys[5]: found[keys[5]], "": {}})
    with tarfile.open(source / "more.tar", "a") as tar:
        info = tarfile.TarInfo(f"{keys[4]}.bg.jpg")
        tar.addfile(info, io.BytesIO(b""))
    done = pics("build-shards", "--convert", source, "--out", "out")
    assert done.returncode == 0, done.stderr
    assert list(oracle.read_tars(tmp_path / "out")) == keys
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert [entry["reason"] for entry in manifest["bad_pictures"]] == ["missing_member"]
    assert sum(shard["samples"] for shard in manifest["shards"]) == manifest["samples"] == 6
    assert len({shard["file"] for shard in manifest["shards"]}) == len(manifest["shards"]) == 3


@pytest.mark.parametrize("name", ["../evil.bg.jpg", "/abs/x.bg.jpg", "a/../../x.bg.jpg"])
def test_names_that_leave_their_folder(tmp_path: Path, pics: Callable[..., Any], name: str) -> None:
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards/00000.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    for command in (["--check", "shards"], ["--convert", "shards", "--out", "out"]):
        done = pics("build-shards", *command)
        assert done.returncode == 2
        assert "would lie outside the folder" in done.stderr
        assert "Traceback" not in done.stderr


def test_nothing_to_convert_is_said(tmp_path: Path, shards: Path, pics: Callable[..., Any]) -> None:
    key, members = next(iter(oracle.read_tars(shards).items()))
    (tmp_path / "one").mkdir()
    oracle.write_tar(tmp_path / "one/00000.tar", {key: {**members, "json": b"{"}})
    done = pics("build-shards", "--convert", "one", "--out", "out", "--layout", "compact")
    assert done.returncode == 2
    assert "no sample of one could be converted" in done.stderr
