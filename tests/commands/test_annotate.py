"""`pics annotate` as it is typed: what it makes, and every way in which it can go wrong."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from helpers.detection import make_dataset, save_tiny, tiny_sam
from helpers.infer_command import typed
from helpers.making import encoded, smooth
from helpers.processes import start
from pics_cli.cli import app
from pics_cli.core.datasets.contact_sheet import SHEET_SAMPLES
from pics_cli.core.segmentation.checkpoints import CHECKPOINTS
from pics_cli.core.segmentation.sam import TINY


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("sam"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sam: Path) -> Path:
    """A working directory with a dataset, and the model as `sam`."""
    make_dataset(tmp_path, 6)
    (tmp_path / "sam").symlink_to(sam)
    monkeypatch.chdir(tmp_path)
    return tmp_path


COMMAND = ("boxed.yaml", "--raw", "raw", "--sam", "sam", "--device", "cpu", "--workers", "1")


def annotate(*words: str | Path) -> Result:
    return typed("annotate", *words)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_labels_where_build_shards_looks_for_them(here: Path) -> None:
    done = annotate(*COMMAND, "--contact-sheet", "sheet.png")
    assert done.exit_code == 0, done.stderr
    assert sorted(path.name for path in (here / "raw/labels/train").iterdir()) == [
        "00000.jsonl.gz", "00000.stats.json", "00001.jsonl.gz", "00001.stats.json", "00002.jsonl.gz",
        "00002.stats.json", "manifest.json",
    ]  # fmt: skip
    for words in ("pictures", "6 of 6", "boxes", "18", "pictures/s", "scores"):
        assert words in done.stdout
    sheet = np.asarray(Image.open(here / "sheet.png"))
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100
    again = annotate(*COMMAND)
    assert again.exit_code == 0
    assert "made now" not in again.stdout
    built = CliRunner().invoke(
        app, ["build-shards", "boxed.yaml", "--raw", "raw", "--out", "shards", "--dry-run", "--workers", "1"]
    )
    assert built.exit_code == 0, built.stderr
    assert "raw/labels/train" in built.stderr


def test_boxes_of_bdd100k(tmp_path: Path) -> None:
    """The detection recipe that comes with the package: labels, and shards of them."""
    sam = save_tiny(tmp_path / "sam", 3)  # its two masks are not one object twice: IoU 0.60 and 0.64
    corners = [(2, 5, 70, 66), (56, 10, 125, 70)]
    pictures = tmp_path / "raw/images/100k/train"
    pictures.mkdir(parents=True)
    frames = []
    for number in range(3):
        (pictures / f"{number}.jpg").write_bytes(encoded(smooth(72, 128, number)))
        boxes = [dict(zip(("x1", "y1", "x2", "y2"), each, strict=True)) for each in corners]
        labels = [{"id": f"{number}{k}", "category": "car", "box2d": box} for k, box in enumerate(boxes)]
        frames.append({"name": f"{number}.jpg", "labels": labels if number else None})
    (tmp_path / "raw/labels/det_20").mkdir(parents=True)
    (tmp_path / "raw/labels/det_20/det_train.json").write_text(json.dumps(frames))
    words = ("bdd100k_boxes", "--raw", tmp_path / "raw")
    done = annotate(*words, "--sam", sam, "--device", "cpu", "--workers", "1")
    assert done.exit_code == 0, done.stderr
    manifest = json.loads((tmp_path / "raw/labels/sam/train/manifest.json").read_text())
    assert (manifest["pictures"], manifest["boxes"], manifest["complete"]) == (3, 4, True)
    any_score = (
        "--set",
        "pairs.contained=keep",
        "--set",
        "source.sam.min_score=0",
        "--set",
        "source.sam.min_agreement=0",
    )
    built = typed("build-shards", *words, "--out", tmp_path / "shards", "--workers", "1", *any_score)
    assert built.exit_code == 0, built.stderr
    shards = json.loads((tmp_path / "shards/manifest.json").read_text())
    assert (shards["input"]["format"], shards["samples"]) == ("sam", 2)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nothing",), "unknown dataset 'nothing'"),
        (("cityscapes", "--raw", "raw"), "annotate takes datasets of format coco or scalabel"),
        (("boxed.yaml", "--raw", "elsewhere"), "raw folder elsewhere does not exist"),
        ((*COMMAND, "--split", "val"), "Boxed has no split 'val'"),
        ((*COMMAND, "--range", "5"), "--range 5: expected LOW:HIGH"),
        ((*COMMAND, "--range", "a:b"), "--range a:b: expected LOW:HIGH"),
        ((*COMMAND, "--range", "6:9"), "--range 6:9: the dataset has pictures 0 to 5"),
        ((*COMMAND, "--range", "0:3"), "blocks of 2 pictures: expected multiples of 2, or 6 as the end, such as 0:4"),
        ((*COMMAND, "--range", "3:3"), "--range 3:3: expected LOW:HIGH, LOW below HIGH"),
        ((*COMMAND, "--out", "raw"), "--out raw: is the raw folder raw, which this run reads"),
        ((*COMMAND, "--out", "raw/pictures"), "lies in the raw folder raw, where nothing is written"),
        ((*COMMAND, "--out", "raw/boxes.json"), "is the annotations raw/boxes.json, which this run reads"),
        ((*COMMAND, "--sam", "vit_x"), "--sam vit_x: expected vit_h, vit_l, vit_b, or a folder with config.json"),
        ((*COMMAND, "--sam", "vit_b"), f"checkpoints/{CHECKPOINTS['vit_b']}: no such checkpoint of Segment Anything"),
        ((*COMMAND, "--contact-sheet", "sheet.jpg"), "--contact-sheet sheet.jpg: expected the name of a .png file"),
        ((*COMMAND, "--retry-failed", "--overwrite"), "--retry-failed and --overwrite exclude each other"),
        ((*COMMAND, "--device", "tpu"), "--device: got tpu, expected auto, cpu, cuda, cuda:N or mps"),
        ((*COMMAND, "--set", "source.sam.tiny=-1"), "source.sam.tiny: got -1, expected 0 <= value"),
        ((*COMMAND, "--layout", "published", "--contact-sheet", "a.png"), "files of layout published hold no scores"),
    ],
)  # fmt: skip
def test_refused(here: Path, words: tuple[str, ...], text: str) -> None:
    done = annotate(*words)
    assert done.exit_code == 2, done.stderr
    assert text in done.stderr
    assert "hint:" in done.stderr or "expected" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_weights_say_where_to_get_them(here: Path) -> None:
    done = annotate(*COMMAND[:3], "--sam", "vit_l", "--device", "cpu")
    assert done.exit_code == 2
    assert f"segment_anything/{CHECKPOINTS['vit_l']}, put it into checkpoints/" in done.stderr


@pytest.mark.parametrize(
    ("name", "make", "text"),
    [
        (CHECKPOINTS["vit_b"], b"damaged", "its sha256 begins with"),
        ("text.pth", b"not weights", "text.pth: not a checkpoint"),
        ("text.safetensors", b"not weights", "text.safetensors: not a checkpoint"),
        ("code.pth", "code", "code.pth: holds no tensors"),
        ("list.pth", [1, 2], "list.pth: holds a list, expected named tensors"),
        ("other.pth", {"a": torch.zeros(2)}, "other.pth: not the weights of sam: missing"),
    ],
)
def test_weights_that_are_none(here: Path, name: str, make: object, text: str) -> None:
    """A pickle that would run code is refused, not run."""
    path = here / name
    if isinstance(make, bytes):
        path.write_bytes(make)
    elif make == "code":
        torch.save({"a": Runs(here / "ran")}, path)
    else:
        torch.save(make, path)
    done = annotate(*COMMAND, "--checkpoint", path, *(("--sam", "vit_b") if "sam_vit" in name else ()))
    assert done.exit_code == 2
    assert text in done.stderr
    assert not (here / "ran").exists()
    assert not (here / "raw/labels").exists()


class Runs:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_weights_of_another_model_are_named(here: Path) -> None:
    state = {"image_encoder.patch_embed.proj.weight": torch.zeros(768, 3, 16, 16)}
    save_file(state, here / "b.safetensors")
    done = annotate(*COMMAND, "--checkpoint", "b.safetensors")
    assert done.exit_code == 2
    assert "these look like the weights of --sam vit_b" in done.stderr


def test_a_pickled_checkpoint_is_read(here: Path) -> None:
    torch.save(tiny_sam().state_dict(), here / "tiny.pth")
    first = annotate(*COMMAND, "--out", "a")
    second = annotate(*COMMAND, "--out", "b", "--checkpoint", "tiny.pth")
    assert first.exit_code == second.exit_code == 0
    ours, theirs = (contents(here / name) for name in "ab")
    assert all(ours[name] == theirs[name] for name in ours if name != "manifest.json")


def test_a_folder_of_somebody_elses(here: Path) -> None:
    (here / "out").mkdir()
    (here / "out/00000.jsonl.gz").write_bytes(b"")
    done = annotate(*COMMAND, "--out", "out")
    assert done.exit_code == 2
    assert "holds 1 label files (00000.jsonl.gz, …) and no manifest" in done.stderr


def test_overwrite(here: Path) -> None:
    assert annotate(*COMMAND, "--out", "out").exit_code == 0
    refused = annotate(*COMMAND, "--out", "out", "--set", "source.sam.holes=30")
    assert refused.exit_code == 2
    assert "options.holes: the folder has 0, this run 30" in refused.stderr
    assert annotate(*COMMAND, "--out", "out", "--set", "source.sam.holes=30", "--overwrite").exit_code == 0


def test_no_picture_at_all(here: Path) -> None:
    (here / "raw/pictures").rename(here / "away")
    done = annotate(*COMMAND, "--out", "out")
    assert done.exit_code == 1
    assert "6 pictures could not be read" in done.stderr
    assert "no picture could be read" in done.stderr
    (here / "away").rename(here / "raw/pictures")
    (here / "raw/pictures/p1.jpg").unlink()
    again = annotate(*COMMAND, "--out", "out")
    assert again.exit_code == 0
    assert "5 of 6" in again.stdout
    assert "3 of 3, complete" in again.stdout
    assert "1 pictures could not be read" in again.stderr


def test_a_block_that_another_machine_works_on(here: Path) -> None:
    (here / "out").mkdir()
    (here / "out/.00001.lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "job": None}))
    done = annotate(*COMMAND, "--out", "out")
    assert done.exit_code == 0, done.stderr
    text = "left to another run: block 00001: out: another writer is at work here (pid 1 on elsewhere)"
    assert text in done.stderr
    assert "2 of 3" in done.stdout


@pytest.mark.parametrize("layout", ["blocks", "published"])
def test_what_a_killed_run_leaves_is_gone(here: Path, layout: str) -> None:
    options = ("--layout", layout)
    assert annotate(*COMMAND, *options, "--out", "whole").exit_code == 0
    assert annotate(*COMMAND, *options, "--out", "killed", "--range", "0:2").exit_code == 0
    state = here / "killed" / (".pics" if layout == "published" else "")
    for name in ("00001.tmp", "00002.tmp", "manifest.tmp"):
        (state / name).write_bytes(b"half of it")
    assert annotate(*COMMAND, *options, "--out", "killed").exit_code == 0
    found, expected = (
        {str(path.relative_to(here / name)): path.read_bytes() for path in (here / name).rglob("*") if path.is_file()}
        for name in ("killed", "whole")
    )
    assert found == expected


def finished_blocks(out: Path) -> int:
    return len(list(out.glob("*.stats.json")))


@pytest.mark.slow
def test_killed_at_any_moment(here: Path) -> None:
    """A run killed with -9 again and again ends as one that was not, in whole and in ranges side by side."""
    make_dataset(here / "large", 24, boxes=2)
    words = ["annotate", "large/boxed.yaml", "--raw", "large/raw", "--sam", "sam", "--device", "cpu", "--workers"]
    whole = typed(*words, 1, "--out", "whole")
    assert whole.exit_code == 0, whole.stderr
    draw = random.Random(3)
    for _ in range(3):  # each after blocks of its own, at some moment of the next ones
        begun = finished_blocks(here / "killed")
        running = start(here, *words, 2, "--out", "killed")
        while running.runs() and finished_blocks(here / "killed") == begun:
            time.sleep(0.01)
        time.sleep(draw.random() * 0.2)
        running.process.kill()
        assert running.code() in (0, -signal.SIGKILL)
    ranges = [start(here, *words, 1, "--out", "killed", "--range", rows) for rows in ("0:8", "8:16", "16:")]
    for each in ranges:
        assert each.code() == 0, each.stderr
    assert contents(here / "killed") == contents(here / "whole")


def test_the_sheet_is_no_larger_than_it_says() -> None:
    from pics_cli.core.segmentation.contact_sheet import USUAL, WORST, choose_images

    stats = [
        {
            "block": n,
            "worst": [{"line": k, "score": (n * 4 + k) / 400} for k in range(4)],
            "usual": {"line": 9, "score": 0.95} if n % 2 else None,
        }
        for n in range(90)
    ]
    chosen = choose_images(stats)
    assert len(chosen) == USUAL + WORST <= SHEET_SAMPLES
    assert [each.score for each in chosen] == sorted(each.score for each in chosen)
    assert [each.line for each in chosen[WORST:]] == [9] * USUAL
    assert TINY.side == 128
