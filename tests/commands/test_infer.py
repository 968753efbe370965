"""`pics infer`: flags and texts, folders and single pictures, several processes, interruptions."""

from __future__ import annotations

import shutil
import signal
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from helpers.composites import BOXES, composed, make_sample, mask_of, outside, scene, thing
from helpers.infer_command import infer, records
from helpers.processes import note_peak_memory, start
from helpers.two_ranks import in_processes
from pics_cli.commands.choices import Dtype, Memory
from pics_cli.core.model.devices import DTYPES
from pics_cli.core.model.offload import MEMORY_MODES
from pics_cli.core.model.schedulers import SCHEDULERS, SchedulerName

SINGLE = ["--background", "bg.png", "--object", "a.png", "--box", "20,16,50,50", "--object", "b.png"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a sample, single pictures and a file, in which commands run."""
    make_sample(tmp_path / "in/-s1")
    scene().save(tmp_path / "bg.png")
    thing(0).save(tmp_path / "a.png")
    thing(1, alpha=False).save(tmp_path / "b.png")
    mask_of(BOXES[1]).save(tmp_path / "m.png")
    mask_of((40, 5, 70, 95)).save(tmp_path / "a_keep.png")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--model m", "nothing to composite\n\nhint: folders: --input PATH (bundled ones: --input sample); one"),
        ("--model m --input nowhere", "--input nowhere: no such folder"),
        ("--model m --input bg.png", "--input bg.png: is a file, expected a folder"),
        ("--model m --input empty", "--input empty: no sample: looked for image.* and object_*"),
        ("--model m --input in --background bg.png", "--input and --background exclude each other"),
        ("--model m --input in --object a.png --box 1,2,3,4", "--input and --object exclude each other"),
        ("--model m --object a.png --box 1,2,3,4", "--object without --background"),
        ("--model m --background bg.png", "--background bg.png: no --object to put into it"),
        ("--model m --background bg.png --object a.png", "--object a.png: no region: neither --box nor --mask"),
        ("--model m --background bg.png --box=1,2,3,4 --object=a.png", "--box 1,2,3,4 stands before any --object"),
        ("--model m --background bg.png --object a.png --box 1,2,3", "--box 1,2,3: expected four whole numbers"),
        ("--model m --background bg.png --object a.png --box 1,2,0,4", "width 0 and height 4, both must be at least 1"),
        (
            "--model m --background bg.png --object a.png --box 1,2,3,4 --mask m.png",
            "two regions, the second is --mask",
        ),
        ("--model m --background bg.png --object a.png --box 1,2,3,4 --obj-thr 1", "--obj-thr goes with --input"),
        ("--model m --input in --keep m.png", "--keep goes with --background"),
        (
            "--model TINY --background bg.png --object a.png --box 1,2,3,4 --keep no.png",
            "error: no.png: no such file\n\nhint: a path starts at ",
        ),
        (
            "--model TINY --background bg.png --object a.png --box 1,2,3,4 --keep a.png",
            "a.png is 40x60, its background 120x96",
        ),
        ("--model TINY --background bg.png --object a.png --box 60,40,9,9 --keep m.png", "keeps all of every region"),
        ("--model m --input in --order 0,2", "--order 0,2: expected auto, or every object once by its place"),
        ("--model m --input in --steps 0", "Invalid value for '--steps'"),
        ("--model m --input in --scheduler euler_a", "Invalid value for '--scheduler'"),
        ("--model m --input in --crop tight", "Invalid value for '--crop'"),
        ("--model m --input in --mode both", "Invalid value for '--mode'"),
        ("--model m --input in --feather -1", "Invalid value for '--feather'"),
        ("--model m --input in --num 0", "Invalid value for '--num'"),
        ("--model m --input in --batch-size 0", "Invalid value for '--batch-size'"),
        ("--model m --input in --memory huge", "Invalid value for '--memory'"),
        ("--model m --input in --dtype int8", "Invalid value for '--dtype'"),
        ("--model m --input in --guidance 0.5", "Invalid value for '--guidance'"),
        ("--model m --input in", "--model m: no such folder"),
        ("--model empty --input in", "empty: not a model folder of pics (no pics.json in it)"),
        ("--model bg.png --input in", "--model bg.png: is a file, expected a folder"),
        ("--model some/one --input in", "--model some/one: no such folder here, and the hub cannot be reached"),
        ("--model TINY --input in --device tpu", "--device: got tpu, expected auto, cpu, cuda"),
        ("--model TINY --input in --device cuda:77", "--device cuda:77: "),
        ("--model TINY --input in --output bg.png", "bg.png: cannot write (file exists)"),
        (
            "--model TINY --background no.png --object a.png --box 1,2,3,4",
            "error: no.png: no such file\n\nhint: a path starts at ",
        ),
        (
            "--model TINY --background bg.png --object a.png --mask no.png",
            "error: no.png: no such file\n\nhint: a path starts at ",
        ),
        ("--model TINY --background bg.png --object a.png --box 1,2,200,4", "leaves the background, which is 120x96"),
        ("--model TINY --input in --obj-thr 3", "error: -s1: in/-s1: 2 objects, --obj-thr asks for 3"),
        ("--model TINY --input in --order 0,1,2", "--order lists 3 objects, the sample has 2"),
    ],
)
def test_what_cannot_be_done_is_told(here: Path, tiny_model: Path, words: str, text: str) -> None:
    done = infer(*(tiny_model if word == "TINY" else word for word in words.split()))
    assert done.exit_code == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_choices_are_those_of_the_model() -> None:
    assert list(get_args(SchedulerName)) == list(SCHEDULERS)
    assert list(get_args(Memory)) == list(MEMORY_MODES)
    assert list(get_args(Dtype)) == ["auto", *DTYPES]


def test_folders(here: Path, tiny_model: Path) -> None:
    for name in ("two", "bad"):
        make_sample(here / "in" / name)
    (here / "in/bad/object_0.png").unlink()
    (here / "in/notes").mkdir()
    words = ["--input", "in/", "--model", tiny_model, "--steps", "1", "--save-grid", "--explain"]
    done = infer(*words)
    assert done.exit_code == 2
    assert "no sample in 1 folders, passed over: notes" in done.stderr
    bad = "in/bad/object_0.png: no such file, though object_0_mask.png is there"
    assert f"failed: bad: {bad} (missing_object)" in done.stderr
    assert "error: 1 of 3 samples failed" in done.stderr
    for text in ("samples                        3", "pictures made                  2", "failed: missing_object"):
        assert text in done.stdout
    assert "changed outside the regions    0 pixels" in done.stdout
    output = here / "results/in"
    assert set(composed(output)) == {"composed_-s1.png", "composed_two.png"}
    assert [one["id"] for one in records(output)] == ["-s1", "two"]
    assert (output / "grids/grid_-s1.png").exists()
    assert (output / "explain/two_routing.png").exists()
    thing(0).save(here / "in/bad/object_0.png")
    done = infer(*words)
    assert done.exit_code == 0, done.stderr
    assert "there already" in done.stdout
    assert len(records(output)) == 3


def test_single_pictures_take_regions_in_order(here: Path, tiny_model: Path) -> None:
    flags = [*SINGLE, "--mask", "m.png", "--model", tiny_model, "--steps", "1"]
    done = infer(*flags)
    assert done.exit_code == 0, done.stderr
    (record,) = records(here / "results/bg")
    assert (record["id"], record["boxes"]) == ("bg", [list(box) for box in BOXES])
    assert record["inputs"]["box_0"] == list(BOXES[0])
    picture = composed(here / "results/bg")["composed_bg.png"]
    changed = (picture != np.asarray(scene())).any(2)
    assert not changed[outside(BOXES)].any()
    assert changed.any()
    assert "kept" not in record
    assert infer(*flags, "--keep", "a_keep.png").exit_code == 2, "another picture than the folder's"
    done = infer(*flags, "--keep", "a_keep.png", "--output", "kept")
    assert done.exit_code == 0, done.stderr
    (record,) = records(here / "kept")
    assert (record["kept"], record["changed_outside"], record["files"]["keep"]) == (30 * 90, 0, "a_keep.png")
    assert "keep" in record["inputs"]
    kept = composed(here / "kept")["composed_bg.png"]
    np.testing.assert_array_equal(kept[5:95, 40:70], np.asarray(scene())[5:95, 40:70])
    # The same with another spelling, and with flags between them; and the other way round.
    infer("--object=b.png", "--seed=0", "--mask=m.png", "--steps=1", "--background=bg.png", "--object=a.png",
          "--box=20,16,50,50", f"--model={tiny_model}", "--output=turned")  # fmt: skip
    (turned,) = records(here / "turned")
    assert turned["boxes"] == record["boxes"][::-1]
    assert np.abs(composed(here / "turned")["composed_bg.png"].astype(int) - picture).max() <= 1


def test_the_results_are_named_after_the_folder(here: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here / "in/-s1")
    done = infer("--input", ".", "--model", tiny_model, "--steps", "1", "--obj-thr", "1")
    assert done.exit_code == 0, done.stderr
    assert [one["id"] for one in records(here / "in/-s1/results/-s1")] == ["-s1"]


def test_real_pictures_both_ways(shared_data: Path, here: Path, tiny_model: Path) -> None:
    """RGBA cut-outs into backgrounds with an RGB mask; photographs with grey masks and boxes as text."""
    cases = []
    dream = shared_data / "composite/anydoor/TestDreamBooth"
    for number, name in enumerate(("000000047948", "000000309203")):
        background, mask = dream / f"BG/{name}_GT.png", dream / f"BG/{name}_mask.png"
        objects = [(dream / f"FG/0{2 * number}.png", "mask", mask), (dream / f"FG/0{2 * number + 1}.png", "box", None)]
        cases.append((background, objects, "40,60,200,180"))
    control = shared_data / "composite/controlcom"
    for path in sorted((control / "background").iterdir())[:1]:  # the others are of the same kind
        x0, y0, x1, y1, *_ = (control / f"bbox/{path.stem}.txt").read_text().split()
        box = f"{x0},{y0},{int(x1) - int(x0)},{int(y1) - int(y0)}"
        first = (control / "foreground" / path.name, "mask", control / "mask_bbox" / path.name)
        second = (control / "foreground" / path.name, "box", None)
        cases.append((path, [first, second], box))
    for background, objects, box in cases:
        flags: list[str | Path] = ["--background", background, "--output", "single", "--model", tiny_model]
        folder = here / "folders" / background.stem
        folder.mkdir(parents=True)
        shutil.copy(background, folder / f"image{background.suffix}")
        size = Image.open(background).size
        x, y, width, height = map(int, box.split(","))
        for k, (reference, kind, region) in enumerate(objects):
            flags += ["--object", reference, f"--{kind}", region or box]
            shutil.copy(reference, folder / f"object_{k}.png")
            if region:
                shutil.copy(region, folder / f"object_{k}_mask.png")
            else:
                mask_of((x, y, x + width, y + height), size).save(folder / f"object_{k}_mask.png")
        done = infer(*flags, "--steps", "1")
        assert done.exit_code == 0, done.stderr
        assert "changed outside the regions    0 pixels" in done.stdout
    done = infer("--input", "folders", "--output", "folders-out", "--steps", "1", "--model", tiny_model)
    assert done.exit_code == 0, done.stderr
    assert len(records(here / "folders-out")) == len(cases) == 3
    alone, together = composed(here / "single"), composed(here / "folders-out")
    # One and the same sample by its name, which the noise depends on.
    assert alone.keys() == together.keys()
    regions = {record["id"]: record["boxes"] for record in records(here / "folders-out")}
    for background, _, _ in cases:
        name = f"composed_{background.stem}.png"
        assert np.abs(alone[name].astype(int) - together[name]).max() <= 1
        before = np.asarray(Image.open(background).convert("RGB"))
        changed = (before != together[name]).any(2)
        assert not changed[outside(regions[background.stem], before.shape[1::-1])].any()


@pytest.mark.slow
def test_stopped_by_a_signal_and_finished_later(here: Path, tiny_model: Path) -> None:
    """In a process of its own: what is finished stays and is listed, the rest is made by the second run."""
    for k in range(12):
        make_sample(here / f"in/{k:02d}")
    words = ["--input", "in", "--model", tiny_model, "--steps", "2"]
    folder = here / "results/in/composed"
    run = start(here, "infer", *words)
    assert run.when(lambda: len(list(folder.glob("*.png"))) >= 2, signal.SIGTERM) == 143
    assert "stopped: what is finished is kept" in run.stderr
    finished = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert 2 <= len(finished) < 13
    assert not [name for name in finished if not name.endswith(".png")]
    assert len(records(here / "results/in")) == len(finished)
    done = infer(*words)
    assert done.exit_code == 0, done.stderr
    assert f"there already                  {len(finished)}" in done.stdout
    assert len(records(here / "results/in")) == 13
    assert {name: (folder / name).stat().st_mtime_ns for name in finished} == finished


@pytest.mark.slow
def test_two_processes_make_what_one_makes(here: Path, tiny_model: Path) -> None:
    """As a launcher starts them; test_train_ranks starts the launchers themselves."""
    for k in range(4):
        make_sample(here / f"in/{k}", BOXES[: 1 + k % 2], seed=k)
    (here / "in/0/image.png").unlink()
    words = ["--input", "in", "--model", tiny_model, "--steps", "1", "--device", "cpu"]
    assert infer(*words, "--output", "one", "--sheet", "one.png").exit_code == 2
    (first, out, error), (second, silent, other) = in_processes(
        here, "infer", *words, "--output", "two", "--sheet", "two.png"
    )
    assert (first, second) == (2, 2)
    assert error.count("failed: 0: in/0/image.jpg (or .png, .webp): no such file (missing_image)") == 1
    assert error.count("error: 1 of 5 samples failed") == 1
    assert out.count("pictures made") == 1
    assert not silent
    assert "failed" not in other
    ours, theirs = composed(here / "two"), composed(here / "one")
    assert ours.keys() == theirs.keys()
    assert len(ours) == 4
    for name, picture in ours.items():
        assert np.abs(picture.astype(int) - theirs[name]).max() <= 1
    assert [one["id"] for one in records(here / "two")] == [one["id"] for one in records(here / "one")]
    one_sheet, two_sheet = (np.asarray(Image.open(here / name)).astype(int) for name in ("one.png", "two.png"))
    assert one_sheet.shape == two_sheet.shape
    assert np.abs(one_sheet - two_sheet).max() <= 1


@pytest.mark.slow
def test_a_large_photograph_in_little_memory(here: Path, tiny_model: Path) -> None:
    """24 megapixels, with masks of that size, within 3 GB."""
    size = (5712, 4284)
    boxes = [(1000, 900, 3000, 2900), (2400, 1500, 4400, 3900)]
    make_sample(here / "large", boxes)
    scene(size).save(here / "large/image.jpg")
    (here / "large/image.png").unlink()
    for k, box in enumerate(boxes):
        mask_of(box, size, "RGB").save(here / f"large/object_{k}_mask.png")
    words = ["--input", "large", "--model", tiny_model, "--steps", "1", "--save-grid", "--device", "cpu"]
    run = start(here, "infer", *words, prepare=partial(note_peak_memory, here / "peak"))
    assert run.code() == 0, run.stderr
    assert 5e8 < 1024 * int((here / "peak").read_text()) < 3e9
    (record,) = records(here / "results/large")
    assert record["size"] == list(size)
    assert record["changed_outside"] == 0


def test_a_preset_gives_what_no_option_says(here: Path, tiny_model: Path) -> None:
    make_sample(here / "in/a")
    for name, words in {
        "preset": "--preset published --steps 2",
        "options": "--obj-thr 2 --steps 2 --guidance 5 --scheduler ddim --crop full --feather 0 --match none",
        "plain": "--steps 2",
    }.items():
        done = infer("--input", "in", "--model", tiny_model, "--output", name, *words.split())
        assert done.exit_code == 0, done.stderr
    pictures = [here / name / "composed/composed_a.png" for name in ("preset", "options", "plain")]
    preset, options, plain = (np.asarray(Image.open(path)) for path in pictures)
    np.testing.assert_array_equal(preset, options)
    assert not np.array_equal(preset, plain)
    record = records(here / "preset")[0]
    assert record["settings"]["guidance"] == 5.0
    done = infer("--input", "in", "--model", tiny_model, "--preset", "paper")
    assert done.exit_code == 2
    assert "'paper' is not" in done.stderr
