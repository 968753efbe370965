"""Raw folders, labels and shards in stores: the same bytes as on this machine, whatever happens on the way."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import moto.backends
import pytest
from fsspec import get_filesystem_class
from fsspec.config import conf

from helpers.detection import make_dataset, save_tiny
from helpers.infer_command import typed
from helpers.making import build_folder
from helpers.object_store import ObjectStore
from helpers.processes import start
from helpers.six_formats import PAIR, SIX
from helpers.ssh_server import ssh_server
from pics_cli.core.datasets.shard_folder import list_shards
from pics_cli.core.runtime import remote_path
from pics_cli.core.runtime.storage import location


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("sam"))


@pytest.fixture
def bucket(s3: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with a raw dataset, which the working directory has, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_path, "PAUSES", (0.0,))
    make_dataset(tmp_path, 6)
    name = s3.new_bucket()
    s3.put(tmp_path / "raw", f"{name}/raw")
    return name


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def pics(*words: object) -> str:
    """What a command that succeeds says."""
    done = typed(*map(str, words))
    assert done.exit_code == 0, done.stderr
    return done.stdout + done.stderr


def build(*words: object) -> list[object]:
    return ["build-shards", "lvis", "--limit", 12, "--shard-size", 3, "--workers", 1, *words]


def test_labels_in_a_store(s3: ObjectStore, bucket: str, tmp_path: Path, sam: Path) -> None:
    annotate = ("annotate", "boxed.yaml", "--sam", sam, "--device", "cpu", "--workers", 1)
    pics(*annotate, "--raw", "raw", "--out", "labels")
    sheet = ("--contact-sheet", "sheet.png")
    said = pics(*annotate, "--raw", f"{bucket}/raw", "--out", f"{bucket}/labels", *sheet)
    assert f"--labels {bucket}/labels" in said
    assert s3.files(f"{bucket}/labels") == contents(tmp_path / "labels")
    assert (tmp_path / "sheet.png").stat().st_size > 0
    choose = ("build-shards", "boxed.yaml", "--dry-run", "--workers", 1, "--raw")
    folders = [("raw", "labels"), (f"{bucket}/raw", f"{bucket}/labels")]
    chosen = [typed(*map(str, choose), raw, "--labels", labels).stdout for raw, labels in folders]
    assert chosen[0] == chosen[1] != ""
    assert not list(tmp_path.glob("*:*"))


def test_shards_in_a_store(s3: ObjectStore, bucket: str, tmp_path: Path, lvis_raw: Path) -> None:
    """build-shards, --check and --convert, all from there and to there."""
    s3.put(lvis_raw / "COCO", f"{bucket}/lvis")
    pics(*build("--raw", lvis_raw, "--out", "here"))
    pics(*build("--raw", f"{bucket}/lvis", "--out", f"{bucket}/there", "--contact-sheet", "sheet.png"))
    local = contents(tmp_path / "here")
    assert s3.files(f"{bucket}/there") == local
    shards = [name for name in local if name.endswith(".tar")]
    assert len(shards) > 1
    assert (tmp_path / "sheet.png").stat().st_size > 0
    assert f"check of {bucket}/there" in pics("build-shards", "--check", f"{bucket}/there", "--workers", 1)
    pics("build-shards", "--convert", "here", "--out", "compact", "--workers", 1)
    pics("build-shards", "--convert", f"{bucket}/there", "--out", f"{bucket}/compact", "--workers", 1)
    compact = s3.files(f"{bucket}/compact")
    assert [compact[name] for name in shards] == [(tmp_path / "compact" / name).read_bytes() for name in shards]
    assert not list((tmp_path / "cache/fetched").rglob("*.tar"))
    s3.put(tmp_path / "here/00000.stats.json", f"{bucket}/there/00001.tar")
    damaged = typed("build-shards", "--check", f"{bucket}/there", "--workers", "1")
    assert damaged.exit_code == 2
    assert "00001.tar : checksum: " in damaged.stderr
    assert f"unreadable_shard: {bucket}/there/00001.tar: truncated or no tar file" in damaged.stderr
    assert not list(tmp_path.glob("*:*"))


def test_a_build_that_is_killed_or_refused_ends_the_same(
    s3: ObjectStore, bucket: str, tmp_path: Path, lvis_raw: Path
) -> None:
    """Stats appear after their shard, the manifest last; what an earlier run finished is not written again."""
    out, name = f"{bucket}/out", bucket.removeprefix("s3:/") + "/out"
    pics(*build("--raw", lvis_raw, "--out", "here"))
    s3.faults[f"PUT {name}/00001.stats.json"] = [403, None]
    refused = typed(*map(str, build("--raw", lvis_raw, "--out", out)))
    assert refused.exit_code == 2
    assert f"error: {out}/00001.stats.json: no permission to write there" in refused.stderr
    assert not json.loads(s3.files(out)["manifest.json"])["complete"]
    assert {"00000.tar", "00000.stats.json", "00001.tar"} <= {*s3.files(out)} < {*contents(tmp_path / "here")}
    s3.faults.clear()
    s3.asked.clear()
    running = start(tmp_path, *build("--raw", lvis_raw, "--out", out))
    assert running.when(lambda: s3.asked[f"PUT {name}/00001.stats.json"] > 0, signal.SIGKILL) == -signal.SIGKILL
    assert s3.asked[f"PUT {name}/00000.tar"] == 0
    assert ".lock" in s3.files(out)
    pics(*build("--raw", lvis_raw, "--out", out))
    assert s3.files(out) == contents(tmp_path / "here")
    assert "complete already" in pics(*build("--raw", lvis_raw, "--out", out))
    other = typed(*map(str, build("--raw", lvis_raw, "--out", out, "--area-ratio", 0.2)))
    assert (other.exit_code, "was built otherwise" in other.stderr) == (2, True)
    pics(*build("--raw", lvis_raw, "--out", out, "--area-ratio", 0.2, "--overwrite"))
    assert s3.files(out)["manifest.json"] != contents(tmp_path / "here")["manifest.json"]


def test_shards_over_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lvis_raw: Path) -> None:
    """Built to and checked on a real server, whose disk is this one's; a key that is wrong, a server that is gone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_path, "PAUSES", (0.0,))
    pics(*build("--raw", lvis_raw, "--out", "here"))
    monkeypatch.setitem(conf, "sftp", {"key_filename": str(tmp_path / "user"), "look_for_keys": False})
    with ssh_server(tmp_path) as host:
        out = f"{host}{tmp_path}/there"
        said = pics(*build("--raw", f"{host}{lvis_raw}", "--out", out))
        assert f"LVIS train in {out}" in said
        assert contents(tmp_path / "there") == contents(tmp_path / "here")
        (tmp_path / "there/00001.stats.json").unlink()
        (tmp_path / "there/00001.tar.123.tmp").write_bytes(b"half of it")
        assert "shards were there already" in pics(*build("--raw", lvis_raw, "--out", out))
        assert contents(tmp_path / "there") == contents(tmp_path / "here")
        assert f"check of {out}" in pics("build-shards", "--check", out, "--workers", 1)
        get_filesystem_class("sftp").clear_instance_cache()
        monkeypatch.setitem(conf, "sftp", {"key_filename": str(tmp_path / "host"), "look_for_keys": False})
        refused = typed("build-shards", "--check", out, "--workers", "1")
        assert (refused.exit_code, "credentials are missing or wrong: auth" in refused.stderr) == (2, True)
    get_filesystem_class("sftp").clear_instance_cache()
    gone = typed("build-shards", "--check", out, "--workers", "1")
    assert (gone.exit_code, f"error: {out}: cannot be read: " in gone.stderr) == (1, True)
    assert not list(tmp_path.glob("*:*"))


@pytest.mark.parametrize("recipe", ["objects365", "viton_hd"])
def test_folders_with_an_annotation_file_a_picture(s3: ObjectStore, bucket: str, tmp_path: Path, recipe: str) -> None:
    raw = SIX[recipe].write(tmp_path / recipe, {"a": PAIR, "b": PAIR})
    s3.put(raw, f"{bucket}/{recipe}")
    manifests = []
    for number, folder in enumerate((raw, location(f"{bucket}/{recipe}"))):
        manifest, out = build_folder(recipe, folder, tmp_path / f"out{number}", pairs__min_area_ratio=0.01)
        assert manifest["samples"] == 2
        manifests.append(contents(out))
    assert manifests[0] == manifests[1]


def test_a_large_folder_is_listed_and_not_asked_file_by_file(s3: ObjectStore, bucket: str) -> None:
    many = 1100  # a page of a listing has 1,000
    files = moto.backends.get_backend("s3")["123456789012"]["global"]
    for number in range(many):
        files.put_object(bucket.removeprefix("s3://"), f"many/{number:05d}.tar", b"x")
    s3.asked.clear()
    shards, _ = list_shards(location(f"{bucket}/many"))
    assert [path.name for path in shards] == [f"{number:05d}.tar" for number in range(many)]
    assert sum(s3.asked.values()) < 10


@pytest.mark.parametrize(
    "words",
    [
        ("build-shards", "lvis", "--contact-sheet", "s3://b/sheet.png"),
        ("annotate", "boxed.yaml", "--checkpoint", "s3://b/sam.pth"),
    ],
)
def test_options_that_take_no_address_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    done = typed(*words)
    assert done.exit_code == 2
    assert f"error: {words[-2]} {words[-1]}: expected a path on this machine" in done.stderr
    assert not list(tmp_path.iterdir())
