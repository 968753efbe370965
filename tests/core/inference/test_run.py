"""Compositing in this process with a small untrained model: what changes, what may not, what a second run does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.composites import BOXES, SIZE, composed, make_sample, outside, run, scene, thing
from helpers.two_ranks import in_threads
from pics_cli.core.conditioning.network_inputs import prepare_network_inputs
from pics_cli.core.images.geometry import Letterbox
from pics_cli.core.inference import run as module
from pics_cli.core.inference.inputs import find_folders
from pics_cli.core.inference.paste import paste_back
from pics_cli.core.inference.plan import FailedSample, InferenceJob
from pics_cli.core.inference.run import cheaper_flags
from pics_cli.core.inference.worker import InferenceProgress
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.runtime import files
from pics_cli.core.runtime.locks import single_writer
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.worker_group import WorkerGroup
from pics_cli.errors import PicsError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples: three of two objects and different pictures, one of three objects."""
    root = tmp_path_factory.mktemp("samples")
    make_sample(root / "-a")
    make_sample(root / "b", [(0, 0, 40, 96), (30, 40, 120, 96)], seed=1)
    make_sample(root / "c", [(10, 10, 60, 50), (70, 60, 110, 90)], seed=2, alpha=False)
    make_sample(root / "d", [*BOXES, (10, 50, 60, 90)], seed=3)
    return root


@pytest.fixture(scope="module")
def reference(samples: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of them, one at a time."""
    output = tmp_path_factory.mktemp("reference")
    report = run(samples, output, tiny_model, num=2)
    assert (report.samples, report.written, report.finished_before, report.changed) == (4, 8, 0, 0)
    assert not report.failures
    return output


def records(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text().splitlines()]


def stamps(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (output / "composed").iterdir()}


def assert_near(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    assert ours.keys() == theirs.keys()
    for name, picture in ours.items():
        assert np.abs(picture.astype(int) - theirs[name]).max() <= 1, name


def test_only_the_regions_change(reference: Path, samples: Path) -> None:
    pictures = composed(reference)
    for record in records(reference):
        before = np.asarray(Image.open(samples / record["id"] / "image.png"))
        after = pictures[Path(record["file"]).name]
        changed = (before != after).any(2)
        left = outside(record["boxes"])
        assert not changed[left].any()
        assert changed[~left].mean() > 0.9
        assert record["changed_outside"] == 0
    assert (pictures["composed_b.png"] != pictures["composed_b_1.png"]).any()


def test_records_say_how_a_picture_was_made(reference: Path, samples: Path, tiny_model: Path) -> None:
    found = records(reference)
    assert [(one["id"], one["candidate"]) for one in found] == [(id, n) for id in ("-a", "b", "c", "d") for n in (0, 1)]
    one = found[0]
    assert one["boxes"] == [list(box) for box in BOXES]
    assert one["files"]["mask_1"] == str(samples / "-a/object_1_mask.png")
    assert one["settings"] == {
        "steps": 1, "guidance": 5.0, "scheduler": "dpm++", "crop": "auto", "feather": None, "mode": "parallel",
        "light": "auto", "shadow_room": 0.0, "fit": "contain", "match": "auto",
        "cutout": "none", "order": None, "dtype": "fp32",
    }  # fmt: skip
    assert one["cutouts"] == ["alpha", "alpha"]
    assert one["shares"] == []
    assert one["model"]["name"] == str(tiny_model)
    assert one["peak_memory"]["bytes"] > 1e8
    assert 0 < one["seconds"] < 100
    assert one["versions"]["torch"] == torch.__version__.split("+")[0]
    with Image.open(reference / one["file"]) as image:
        assert json.loads(image.info["pics"]) == one


@pytest.mark.parametrize("batch_size", [2, 3])
def test_batches_change_nothing(
    reference: Path, samples: Path, tiny_model: Path, tmp_path: Path, batch_size: int
) -> None:
    run(samples, tmp_path, tiny_model, num=2, batch_size=batch_size)
    assert_near(composed(tmp_path), composed(reference))


def test_a_sample_does_not_depend_on_the_others(
    reference: Path, samples: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run(samples / "c", tmp_path, tiny_model)
    assert_near(composed(tmp_path), {"composed_c.png": composed(reference)["composed_c.png"]})
    run(samples / "c", tmp_path / "other", tiny_model, seed=1)
    assert (composed(tmp_path / "other")["composed_c.png"] != composed(tmp_path)["composed_c.png"]).any()


def test_a_second_run_makes_what_is_missing(
    reference: Path, samples: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    shutil.copytree(reference, output)
    before, lines = stamps(output), (output / "manifest.jsonl").read_text()
    assert run(samples, output, tiny_model, num=2).written == 0
    (output / "composed/composed_b_1.png").unlink()
    damaged = output / "composed/composed_-a.png"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (output / "composed/composed_c.png.12.tmp").touch()  # of a run that was killed
    report = run(samples, output, tiny_model, num=2, batch_size=4)
    assert (report.written, report.finished_before) == (2, 6)
    assert caplog.messages == [f"{damaged}: PNG cut short in its chunk b'IDAT': made again"]
    after = stamps(output)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"composed_-a.png", "composed_b_1.png"}
    assert_near(composed(output), composed(reference))
    again = records(output)
    for old, new in zip(map(json.loads, lines.splitlines()), again, strict=True):
        assert all(old[key] == new[key] for key in ("id", "candidate", "inputs", "settings", "seed", "boxes"))


def test_another_identity_is_refused_by_name(reference: Path, samples: Path, tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(reference, output)
    before = stamps(output)
    with pytest.raises(PicsError) as caught:
        run(samples, output, tiny_model, seed=5, guidance=2.0)
    first = f"{output}/composed/composed_-a.png: seed: the folder has 0, this run 5; settings.guidance: "
    assert first in caught.value.message
    assert "--overwrite" in str(caught.value.hint)
    other = tmp_path / "samples"
    shutil.copytree(samples, other)
    thing(2).save(other / "b/object_0.png")
    with pytest.raises(PicsError, match=r"composed_b.png: inputs.object_0: the folder's picture was made from another"):
        run(other, output, tiny_model)
    scene().save(output / "composed/composed_new.png")
    make_sample(other / "new")
    with pytest.raises(PicsError, match=r"composed_new.png: a picture that pics did not write"):
        run(other / "new", output, tiny_model)
    assert {name: stamp for name, stamp in stamps(output).items() if name in before} == before
    assert run(samples / "b", output, tiny_model, seed=5, overwrite=True).written == 1
    changed = stamps(output)
    assert {name for name in before if changed[name] != before[name]} == {"composed_b.png"}
    assert len(records(output)) == 8


def test_more_candidates_are_added_to_those_there(
    reference: Path, samples: Path, tiny_model: Path, tmp_path: Path
) -> None:
    assert run(samples / "b", tmp_path, tiny_model).written == 1
    report = run(samples / "b", tmp_path, tiny_model, num=2)
    assert (report.written, report.finished_before) == (1, 1)
    theirs = composed(reference)
    assert_near(composed(tmp_path), {name: theirs[name] for name in ("composed_b.png", "composed_b_1.png")})


def test_bad_samples_do_not_stop_the_others(samples: Path, tiny_model: Path, tmp_path: Path) -> None:
    root = tmp_path / "samples"
    shutil.copytree(samples, root)
    (root / "-a/object_1_mask.png").unlink()
    Image.new("L", SIZE).save(root / "b/object_0_mask.png")
    report = run(root, tmp_path / "out", tiny_model, objects=2, batch_size=4)
    assert (report.samples, report.written) == (4, 2)
    assert [(one.id, one.reason) for one in report.failures] == [("-a", "missing_mask"), ("b", "empty_mask")]
    assert set(composed(tmp_path / "out")) == {"composed_c.png", "composed_d.png"}
    report = run(root, tmp_path / "out3", tiny_model, objects=3)
    assert [(one.id, one.reason) for one in report.failures] == [
        ("-a", "too_few_objects"), ("b", "too_few_objects"), ("c", "too_few_objects"),
    ]  # fmt: skip
    assert report.written == 1


def test_a_region_that_the_network_cannot_see_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "a", [(3, 3, 4, 4), (10, 10, 900, 900)], (1000, 1000))
    report = run(tmp_path / "a", tmp_path / "out", tiny_model)
    assert [one.reason for one in report.failures] == ["tiny_region"]
    assert "the region of object 0 is 1x1 pixels, less than one in the 128x128" in report.failures[0].detail


def test_a_region_that_no_token_falls_into_is_told(tiny_model: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "a", [(9, 9, 49, 49), (10, 100, 900, 900)], (1000, 1000))
    report = run(tmp_path / "a", tmp_path / "out", tiny_model)
    assert (report.written, report.unguided) == (1, [("a", [0])])
    assert records(tmp_path / "out")[0]["unguided"] == [0]


def test_names_that_collide_are_refused_before_work(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("a", "a_1"):
        make_sample(tmp_path / "in" / name)
    with pytest.raises(PicsError, match=r"samples a and a_1 would both write composed_a_1.png"):
        run(tmp_path / "in", tmp_path / "out", tiny_model, num=2)
    assert not composed(tmp_path / "out")


def test_sequential_is_one_object_after_the_other(samples: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Against the same two insertions by hand: the lower box last, each with noise of its own, in the joint window."""
    report = run(samples / "b", tmp_path / "one", tiny_model, mode="sequential", num=2, explain=True)
    assert report.written == 2
    pipeline = PicsModel.from_pretrained(tiny_model)
    background = np.asarray(Image.open(samples / "b/image.png"))
    boxes = [(0, 0, 40, 96), (30, 40, 120, 96)]
    expected = {}
    for n in range(2):
        picture, part = background, (0, 0, *SIZE)
        for step in range(2):
            box = boxes[step]
            inputs = prepare_network_inputs(picture, [box], [np.asarray(thing(step))], size=128, reference_size=56)
            noise = pipeline.noise(0, "b", n, step)[None, None]
            made = pipeline([inputs], noise, steps=1)[0, 0]
            native_size = Letterbox(part[2] - part[0], part[3] - part[1], 128).inverse(made)
            picture = paste_back(picture, native_size, part, [box], 8)
        expected[f"composed_b{'_1' * n}.png"] = picture
    assert records(tmp_path / "one")[0]["window"] == [0, 0, *SIZE]
    assert_near(composed(tmp_path / "one"), expected)
    run(samples, tmp_path / "three", tiny_model, mode="sequential", num=2, batch_size=3)
    assert_near({name: composed(tmp_path / "three")[name] for name in expected}, expected)
    run(samples / "b", tmp_path / "turned", tiny_model, mode="sequential", order=(1, 0))
    assert (composed(tmp_path / "turned")["composed_b.png"] != expected["composed_b.png"]).any()
    assert [path.name for path in (tmp_path / "one/explain").iterdir()] == ["b_regions.png"]


def test_an_order_leans_overlaps_to_the_nearer(samples: Path, tiny_model: Path, tmp_path: Path) -> None:
    found = {}
    for name, order in (("none", None), ("first", (1, 0)), ("second", (0, 1)), ("auto", "auto")):
        run(samples / "b", tmp_path / name, tiny_model, order=order)
        found[name] = composed(tmp_path / name)["composed_b.png"]
    assert (found["none"] != found["first"]).any()
    assert (found["first"] != found["second"]).any()
    assert (found["none"] != found["second"]).any()
    assert (found["auto"] == found["second"]).all()
    report = run(samples / "d", tmp_path / "wrong", tiny_model, order=(1, 0))
    assert report.failures[0].detail == "--order lists 2 objects, the sample has 3"


def test_crop_full_and_feather(samples: Path, tiny_model: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "in/wide", [(600, 20, 680, 90), (640, 40, 700, 100)], (1000, 140))
    for name, options in (("auto", {}), ("full", {"crop": "full"}), ("hard", {"feather": 0})):
        run(tmp_path / "in", tmp_path / name, tiny_model, **options)
    windows = {name: records(tmp_path / name)[0]["window"] for name in ("auto", "full", "hard")}
    assert windows["full"] == [0, 0, 1000, 140]
    x0, y0, x1, y1 = windows["auto"]
    assert (y0, y1) == (0, 140)
    assert 100 < x1 - x0 < 300
    pictures = {name: composed(tmp_path / name)["composed_wide.png"].astype(int) for name in windows}
    assert records(tmp_path / "hard")[0]["feather"] == 0
    seam = np.abs(pictures["auto"] - pictures["hard"]).max(2) > 0
    assert seam[20:100, 600:700].any()
    assert not seam[45:55, 650:660].any()


def test_sheets(
    reference: Path, samples: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "out"
    shutil.copytree(reference, output)
    report = run(samples, output, tiny_model, num=2, grid=True, explain=True)
    assert report.written == 0
    assert len(list((output / "grids").iterdir())) == 4, "grids need no model"
    assert caplog.messages == ["4 finished samples have no explanation; --overwrite makes them again with one"]
    run(samples, output, tiny_model, num=2, batch_size=2, explain=True, overwrite=True)
    names = {path.name for path in (output / "explain").iterdir()}
    assert names == {f"{id}_{what}.png" for id in ("-a", "b", "c", "d") for what in ("alpha", "regions", "routing")}
    assert_near(composed(output), composed(reference))


def test_no_process_waits_for_one_that_cannot_begin(
    samples: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two has no device; both say so, before or after they look for the model together."""

    def choose(job: InferenceJob, ranks: Ranks, group: WorkerGroup) -> torch.device:
        if ranks.rank == 1:
            raise PicsError("no such device here")
        return torch.device("cpu")

    def work(ranks: Ranks) -> str:
        job = InferenceJob(tuple(find_folders(samples)), tmp_path / "out", str(tiny_model), device="cpu")
        with pytest.raises(PicsError) as told:
            module.infer(job, ranks, InferenceProgress())
        return told.value.message

    monkeypatch.setattr(module, "_choose_device", choose)
    assert in_threads(work) == ["no such device here"] * 2


def test_one_writer(samples: Path, tiny_model: Path, tmp_path: Path) -> None:
    with single_writer(tmp_path), pytest.raises(PicsError, match="another writer is at work here"):
        run(samples, tmp_path, tiny_model)


@pytest.mark.parametrize(
    ("options", "device", "flags"),
    [
        ({"batch_size": 4, "num": 2}, "cuda", "--batch-size 1, then a smaller --num"),
        ({}, "cuda", "try --memory sequential, then --memory offload; what is finished is kept"),
        ({"memory": "sequential", "dtype": "fp32"}, "cuda", "try --memory offload, then --dtype bf16;"),
        ({"memory": "offload"}, "cuda", "try --device cpu;"),
        ({"model": "pics-mini"}, "cuda", "try --device cpu; what is finished is kept"),
        ({"batch_size": 4}, "cpu", "try --batch-size 1, then closing other programs;"),
    ],
)
def test_out_of_memory_names_cheaper_flags(options: dict, device: str, flags: str) -> None:
    job = InferenceJob((), Path(), **{"model": "m", **options})
    assert flags in cheaper_flags(job, torch.device(device))


def test_what_changed_since_the_run_began_is_not_recorded_as_what_it_was(
    samples: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first candidate was compared with its inputs; the second must be made from the same."""
    shutil.copytree(samples / "b", tmp_path / "b")
    background = tmp_path / "b/image.png"
    assert run(tmp_path / "b", tmp_path / "out", tiny_model).written == 1
    load = PicsModel.from_pretrained

    def change_and_load(*args: object, **options: object) -> PicsModel:
        background.write_bytes(background.read_bytes() + b"more")
        return load(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(PicsModel, "from_pretrained", change_and_load)
    report = run(tmp_path / "b", tmp_path / "out", tiny_model, num=2)
    assert (report.written, report.finished_before) == (0, 1)
    assert report.failures == [FailedSample("b", "changed_input", f"{background}: changed since this run began")]


def test_each_input_is_read_once(
    samples: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, reads = files.open_file, list[Path]()

    def count(path: Path) -> BinaryIO:
        reads.append(path)
        return opened(path)

    monkeypatch.setattr(files, "open_file", count)
    run(samples, tmp_path, tiny_model, batch_size=2)
    inputs = [path for path in reads if path.is_relative_to(samples)]
    assert len(inputs) == len(set(inputs)) == 4 + 2 * (3 * 2 + 3)


def test_sheets_do_not_outlive_their_picture(tiny_model: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "in" / "a")
    output = tmp_path / "out"
    run(tmp_path / "in", output, tiny_model, grid=True, explain=True)
    sheets = sorted(path.name for folder in ("grids", "explain") for path in (output / folder).iterdir())
    assert sheets == ["a_alpha.png", "a_regions.png", "a_routing.png", "grid_a.png"]
    before = (output / "grids" / "grid_a.png").read_bytes()
    run(tmp_path / "in", output, tiny_model, seed=1, overwrite=True)
    assert not any(path for folder in ("grids", "explain") for path in (output / folder).iterdir())
    assert run(tmp_path / "in", output, tiny_model, seed=1, grid=True).written == 0
    assert (output / "grids" / "grid_a.png").read_bytes() != before


def test_temporary_files_of_others_stay(tiny_model: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "in" / "a")
    output = tmp_path / "out"
    theirs = [output / "models" / "tiny.99.tmp", output / "shards" / "00000.tar.7.tmp"]
    for path in theirs:
        path.mkdir(parents=True)
    (output / "mine.5.tmp").write_text("not ours")
    left = output / "composed" / "composed_a.png.12345.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    run(tmp_path / "in", output, tiny_model)
    assert all(path.exists() for path in (*theirs, output / "mine.5.tmp"))
    assert not left.exists()


def test_odd_names(tiny_model: Path, tmp_path: Path) -> None:
    """A line break in a name, and one that leaves no room for a picture's name beside it, do not stop the others."""
    odd, long = "two\nlines", "n" * 240
    for name in (odd, long, "plain"):
        make_sample(tmp_path / "in" / name)
    report = run(tmp_path / "in", tmp_path / "out", tiny_model, grid=True, explain=True)
    assert [(failure.id, failure.reason) for failure in report.failures] == [(long, "long_name")]
    assert {path.name for path in (tmp_path / "out" / "composed").iterdir()} == {
        f"composed_{odd}.png", "composed_plain.png",
    }  # fmt: skip
