"""`pics build-shards` end to end: what it makes, and what it says to bad input."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.infer_command import typed
from pics_cli.core.runtime import engines
from pics_cli.core.runtime.locks import single_writer
from pics_cli.core.shards.shard_files import read_shard

MINE = """
kind: dataset
name: mine
raw: raw
out: shards/{split}
source:
  format: coco
  splits:
    train: {annotations: [coco.json], images: ["pictures/{file_name}"]}
pairs: {min_area_ratio: 0.05}
"""


@pytest.fixture
def mine(lvis_raw: Path, tmp_path: Path) -> Path:
    """A user's own dataset: 12 pictures, one COCO json and a recipe of a few lines."""
    coco = json.loads((lvis_raw / "COCO/lvis_v1/lvis_v1_train.json").read_text())
    coco["images"] = coco["images"][:12]
    ids = {image["id"] for image in coco["images"]}
    coco["annotations"] = [entry for entry in coco["annotations"] if entry["image_id"] in ids]
    folder = tmp_path / "raw" / "pictures"
    folder.mkdir(parents=True)
    for image in coco["images"]:
        parts = image.pop("coco_url").split("/")
        image["file_name"] = f"picture.{image['id']}.jpg"
        shutil.copy(lvis_raw / "COCO" / parts[-2] / parts[-1], folder / image["file_name"])
    (tmp_path / "raw" / "coco.json").write_text(json.dumps(coco))
    (tmp_path / "mine.yaml").write_text(MINE)
    return tmp_path


def manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def test_own_dataset_needs_one_short_yaml(mine: Path, pics) -> None:
    assert len(MINE.strip().splitlines()) <= 15
    done = pics("build-shards", "mine.yaml", "--contact-sheet", "sheet.png", "--workers", "1")
    assert done.returncode == 0, done.stderr
    made = manifest(mine / "shards/train")
    assert made["samples"] > 4
    assert made["samples"] + sum(made["skipped"].values()) == made["pictures"] == 12
    assert "kept" in done.stdout
    assert "12 pictures" in done.stderr
    with Image.open(mine / "sheet.png") as sheet:
        assert sheet.mode == "RGB"
        assert sheet.width > 1000
    (key, members), *_ = read_shard(mine / "shards/train/00000.tar")
    assert list(members) == ["bg.jpg", "obj0.png", "mask0.png", "obj1.png", "mask1.png", "json"]
    meta = json.loads(members["json"])
    assert (meta["dataset"], meta["split"], f"{meta['image_id']:012d}") == ("mine", "train", key)
    assert members["bg.jpg"] == (mine / f"raw/pictures/picture.{meta['image_id']}.jpg").read_bytes()


@pytest.mark.parametrize("objects", [1, 2, 3, 4])
def test_objects_per_sample(mine: Path, pics, objects: int) -> None:
    done = pics("build-shards", "mine.yaml", "--objects", objects, "--area-ratio", "0.01", "--workers", "1")
    assert done.returncode == 0, done.stderr
    samples = list(read_shard(mine / "shards/train/00000.tar"))
    assert samples
    assert all(len(members) == 2 + 2 * objects for _, members in samples)
    checked = pics("build-shards", "--check", "shards/train", "--workers", "1")
    assert checked.returncode == 0
    assert f"with {objects} objects" in checked.stdout


def test_a_worker_for_each_core(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where --workers says nothing."""
    monkeypatch.chdir(mine)
    asked, local_executor = list[int](), engines.local_executor

    def one_worker(workers: int, *more: Any) -> Any:
        asked.append(workers)
        return local_executor(1, *more)

    monkeypatch.setattr(engines, "local_executor", one_worker)
    assert typed("build-shards", "mine.yaml", cores=3).exit_code == 0
    assert typed("build-shards", "--check", "shards/train", cores=5).exit_code == 0
    assert set(asked[:-1]) == {3}
    assert asked[-1] == 5


def test_second_run_has_nothing_to_do(mine: Path, pics) -> None:
    pics("build-shards", "mine.yaml", "--workers", "1")
    before = {path: path.stat().st_mtime_ns for path in (mine / "shards/train").iterdir()}
    done = pics("build-shards", "mine.yaml")
    assert done.returncode == 0
    assert "is complete already: nothing to do" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (mine / "shards/train").iterdir()} == before


def test_dry_run_counts_and_writes_nothing(mine: Path, pics) -> None:
    done = pics("build-shards", "mine.yaml", "--dry-run", "--contact-sheet", "dry.png", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert not (mine / "shards").exists()
    assert (mine / "dry.png").exists()
    pics("build-shards", "mine.yaml", "--workers", "1")
    made = manifest(mine / "shards/train")
    assert "would be tried" in done.stdout
    assert f" {made['samples']}\n" in done.stdout.split("would be tried")[1]
    for reason in made["skipped"]:
        assert f"skipped: {reason}" in done.stdout


def test_another_recipe_or_seed_is_refused_by_name(mine: Path, pics) -> None:
    pics("build-shards", "mine.yaml", "--workers", "1")
    before = (mine / "shards/train/00000.tar").read_bytes()
    done = pics("build-shards", "mine.yaml", "--seed", "5", "--area-ratio", "0.2")
    assert done.returncode == 2
    assert "recipe.seed: the folder has 0, this run 5" in done.stderr
    assert "recipe.pairs.min_area_ratio: the folder has 0.05, this run 0.2" in done.stderr
    assert (mine / "shards/train/00000.tar").read_bytes() == before
    (mine / "raw/coco.json").write_text((mine / "raw/coco.json").read_text() + " ")
    done = pics("build-shards", "mine.yaml")
    assert "input.bytes: the folder has" in done.stderr
    done = pics("build-shards", "mine.yaml", "--seed", "5", "--overwrite", "--workers", "1")
    assert done.returncode == 0
    assert (mine / "shards/train/00000.tar").read_bytes() != before


def test_foreign_shards_are_never_overwritten(mine: Path, pics) -> None:
    folder = mine / "shards/train"
    folder.mkdir(parents=True)
    (folder / "00000.tar").write_bytes(b"published")
    for more in ([], ["--overwrite"]):
        done = pics("build-shards", "mine.yaml", *more)
        assert done.returncode == 2
        assert "holds 1 tar files (00000.tar, …) that this tool did not write here" in done.stderr
        assert (folder / "00000.tar").read_bytes() == b"published"


def test_second_writer_is_refused(mine: Path, pics) -> None:
    (mine / "shards/train").mkdir(parents=True)
    with single_writer(mine / "shards/train"):
        done = pics("build-shards", "mine.yaml")
    assert done.returncode == 2
    assert "another writer is at work here (pid" in done.stderr


def test_bad_pictures_are_counted_listed_and_stop_above_max_bad(mine: Path, pics) -> None:
    names = sorted((mine / "raw/pictures").iterdir())
    data = names[0].read_bytes()
    names[0].write_bytes(data[: len(data) // 2])
    names[1].write_bytes(b"")
    names[2].unlink()
    names[3].write_bytes(b"not a picture")
    Image.new("RGB", (10, 10)).save(names[4])
    done = pics("build-shards", "mine.yaml", "--objects", "1", "--area-ratio", "0.001", "--max-bad", "2")
    assert done.returncode == 2
    assert "bad pictures or records, more than --max-bad 2; the first:" in done.stderr
    done = pics("build-shards", "mine.yaml", "--objects", "1", "--area-ratio", "0.001", "--max-bad", "5")
    assert done.returncode == 0, done.stderr
    made = manifest(mine / "shards/train")
    reasons = {"missing_image": 1, "size_mismatch": 1, "truncated_image": 1, "unreadable_image": 2}
    assert made["bad"]["pictures"] == reasons
    assert made["samples"] + sum(made["skipped"].values()) + 5 == 12
    assert sorted(entry["item"] for entry in made["bad_pictures"]) == [1000, 1007, 1014, 1021, 1028]
    assert "bad: truncated_image" in done.stdout


def test_nothing_kept_is_an_error_that_says_why(mine: Path, pics) -> None:
    done = pics("build-shards", "mine.yaml", "--area-ratio", "0.9")
    assert done.returncode == 2
    assert "no picture gave a sample: 12 too_few_objects" in done.stderr
    made = manifest(mine / "shards/train")
    assert (made["samples"], made["shards"], made["skipped"]) == (0, [], {"too_few_objects": 12})
    assert not list((mine / "shards/train").glob("*.tar"))
    words = ("build-shards", "mine.yaml", "--set", "source.splits.train.images=[none/{file_name}]")
    done = pics(*words, "--overwrite", "--max-bad", "99")
    assert done.returncode == 2
    assert "hint: source.splits.train.images of the recipe says where pictures lie" in done.stderr


def test_classes_by_name(mine: Path, pics) -> None:
    done = pics("build-shards", "mine.yaml", "--set", "pairs.classes.include=[thing_3, think_4]")
    assert done.returncode == 2
    assert "'think_4' not among the 1203 categories" in done.stderr
    assert "nearest: thing_4" in done.stderr
    done = pics("build-shards", "mine.yaml", "--set", "pairs.classes.include=[G_777]")
    assert "nearest: thing_777" in done.stderr
    done = pics("build-shards", "mine.yaml", "--set", "pairs.classes.include=[thing_3]", "--dry-run")
    assert "12 (fewer objects than asked for" in done.stdout


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--out", "raw"], "is the raw folder raw, which this run reads: it would be overwritten"),
        (["--out", "raw/pictures"], "lies in the raw folder raw, where nothing is written"),
        (
            ["--contact-sheet", "raw/pictures/x.png", "--dry-run"],
            "lies in the raw folder raw, where nothing is written",
        ),
    ],
)
def test_nothing_of_the_raw_folder_is_written_over(mine: Path, pics, words: list[str], fault: str) -> None:
    before = sorted((mine / "raw").rglob("*"))
    done = pics("build-shards", "mine.yaml", *words)
    assert done.returncode == 2
    assert f"{words[0]} {words[1]}: {fault}" in done.stderr
    assert sorted((mine / "raw").rglob("*")) == before


def test_shards_may_have_a_folder_of_their_own_in_the_raw_folder(mine: Path, pics) -> None:
    before = {path: path.read_bytes() for path in (mine / "raw").rglob("*") if path.is_file()}
    assert pics("build-shards", "mine.yaml", "--out", "raw/shards").returncode == 0
    assert (mine / "raw/shards/manifest.json").is_file()
    assert {path: path.read_bytes() for path in before} == before


def test_compat_takes_two_objects(lvis_raw: Path, pics) -> None:
    done = pics("build-shards", "lvis", "--raw", lvis_raw, "--compat", "--objects", "3")
    assert done.returncode == 2
    assert "pairs.objects is 3: compat reproduces the research code, which takes two" in done.stderr


def test_classes_need_labels_that_name_them(objects365_raw: Path, pics) -> None:
    done = pics("build-shards", "objects365", "--raw", objects365_raw, "--set", "pairs.classes.include=[Cup]")
    assert done.returncode == 2
    assert "these labels name no categories" in done.stderr


def test_label_files_build(objects365_raw: Path, tmp_path: Path, pics) -> None:
    broken = tmp_path / "raw"
    shutil.copytree(objects365_raw, broken)
    labels = sorted((broken / "object365/labels/train").rglob("*.json"))
    labels[0].write_text('{"annotations": [{"bbox": [1, 2')
    labels[1].write_text('{"annotations": null}')
    done = pics("build-shards", "objects365", "--raw", broken, "--out", "out")
    assert done.returncode == 0, done.stderr
    made = manifest(tmp_path / "out")
    assert made["bad"]["pictures"] == {"bad_annotation_file": 2}
    assert made["samples"] + sum(made["skipped"].values()) + 2 == made["pictures"] == 30
    assert pics("build-shards", "--check", "out").returncode == 0


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("coco.json", '{"images": [{"id": 1, "width": 4', "coco.json: truncated or not JSON"),
        ("coco.json", "", "coco.json: the file is empty"),
        ("coco.json", "<html>", "coco.json: top level is no JSON"),
        ("coco.json", "[]", "coco.json: top level is a list"),
        ("coco.json", '{"frames": []}', "coco.json: no 'images' and no 'annotations' in it"),
        ("coco.json", '{"images": [], "annotations": []}', "coco.json: lists no picture"),
        (
            "coco.json",
            '{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}',
            "1 boxes and no masks",
        ),
        ("other.json", "{}", "holds no mine train annotations: looked for coco.json; found other.json"),
    ],
)
def test_bad_annotation_file_is_named(tmp_path: Path, pics, name: str, text: str, words: str) -> None:
    (tmp_path / "mine.yaml").write_text(MINE)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / name).write_text(text)
    done = pics("build-shards", "mine.yaml")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "shards").exists()


@pytest.mark.parametrize("out", ["mine.yaml", "/proc/pics"])
def test_output_that_cannot_be_written_is_named(mine: Path, pics, out: str) -> None:
    done = pics("build-shards", "mine.yaml", "--out", out)
    assert done.returncode == 2
    assert f"{out}: cannot write" in done.stderr


@pytest.mark.parametrize("workers", [1, 2])
def test_full_disk_is_said_and_a_second_run_finishes(mine: Path, pics, workers: int) -> None:
    """A limit on file size stands for the full disk: both come from the write call."""
    line = f"python -m pics_cli build-shards mine.yaml --shard-size 4 --workers {workers}"
    limited = ["bash", "-c", f"ulimit -f 300; exec {line}"]
    done = subprocess.run(limited, cwd=mine, capture_output=True, text=True, check=False, env=_with_python())
    assert done.returncode == 2
    assert "00000.tar: disk full (file too large)" in done.stderr
    assert "run the same command again: it resumes" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (mine / "shards/train").iterdir()] == ["manifest.json"]
    assert pics("build-shards", "mine.yaml", "--shard-size", "4", "--workers", "1").returncode == 0


def _heed_modes() -> None:
    """Give up root's right to pass over file modes (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH), from the next exec on."""
    drop_from_bounding_set = 24  # prctl's PR_CAPBSET_DROP
    for capability in (1, 2) if os.geteuid() == 0 else ():
        assert ctypes.CDLL(None).prctl(drop_from_bounding_set, capability, 0, 0, 0) == 0


def _with_python() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.mark.parametrize("change", ["boxes", "order"])
def test_changed_labels_are_never_mixed_with_old_shards(
    objects365_raw: Path, tmp_path: Path, pics, change: str
) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(objects365_raw, raw)
    words = ["build-shards", "objects365", "--raw", raw, "--out", "out", "--shard-size", "5", "--workers", "1"]
    assert pics(*words).returncode == 0
    for path in (raw / "object365/labels").rglob("*.json"):
        data = json.loads(path.read_text())
        if change == "order":
            data["annotations"].reverse()
        for entry in data["annotations"] if change == "boxes" else []:
            entry["bbox"][0] += 1
        path.write_text(json.dumps(data))
    (tmp_path / "out/00001.tar").unlink()
    done = pics(*words)
    assert done.returncode == 2
    assert "the annotations have changed since block 0 was built" in done.stderr


def test_records_that_claim_nonsense_do_not_stop_the_rest(mine: Path, pics) -> None:
    coco = json.loads((mine / "raw/coco.json").read_text())
    coco["images"][0] |= {"width": 10**6, "height": 10**6}
    coco["images"][1] |= {"file_name": "a\0b.jpg"}
    coco["images"][2]["width"] += 1
    crazy = {"image_id": coco["images"][3]["id"], "category_id": 1, "area": 5, "segmentation": [[0, 0, 9, 0, 9, 9]]}
    coco["annotations"].append({"id": 10**6, "bbox": [1e8, -1e8, 1e9, 1e9], **crazy})
    (mine / "raw/coco.json").write_text(json.dumps(coco))
    words = ["--area-ratio", "0.001", "--objects", "1", "--contact-sheet", "a.png", "--workers", "1"]
    done = pics("build-shards", "mine.yaml", *words)
    assert done.returncode == 0, done.stderr
    made = manifest(mine / "shards/train")
    assert made["bad"]["pictures"] == {"missing_image": 1, "size_mismatch": 1}
    assert made["bad"]["records"]["bad_image_record"] == 1
    assert made["samples"] + sum(made["skipped"].values()) + 2 == made["pictures"] == 11
    assert "Warning" not in done.stderr


def test_unreadable_files_are_named(mine: Path, pics) -> None:
    """As a user whom permissions concern, which root is not."""
    (mine / "shards").mkdir(mode=0o555)
    (mine / "mine.yaml").chmod(0o644)
    words = ["python", "-m", "pics_cli", "build-shards", "mine.yaml", "--workers", "1"]
    for place, mode, text in [
        ("shards", 0o555, "shards/train: cannot write (permission denied)"),
        ("raw/coco.json", 0o000, "coco.json: cannot read: permission denied"),
        ("mine.yaml", 0o000, "mine.yaml: cannot read: permission denied"),
    ]:
        (mine / place).chmod(mode)
        done = subprocess.run(
            words, cwd=mine, capture_output=True, text=True, check=False, env=_with_python(), preexec_fn=_heed_modes
        )
        (mine / place).chmod(0o755)
        assert done.returncode == 2
        assert text in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["../outside.jpg", "/etc/outside.jpg", "a/../../outside.jpg"])
def test_no_picture_is_read_from_outside_the_raw_folder(mine: Path, pics, name: str) -> None:
    coco = json.loads((mine / "raw/coco.json").read_text())
    for image in coco["images"]:
        image["file_name"] = name.replace("/etc", str(mine))
    shutil.copy(mine / f"raw/pictures/picture.{coco['images'][0]['id']}.jpg", mine / "raw/outside.jpg")
    shutil.copy(mine / "raw/outside.jpg", mine / "outside.jpg")
    (mine / "raw/coco.json").write_text(json.dumps(coco))
    done = pics("build-shards", "mine.yaml", "--set", 'source.splits.train.images=["{file_name}"]')
    assert done.returncode == 2
    assert "missing_image" in done.stderr
    assert manifest(mine / "shards/train")["samples"] == 0
