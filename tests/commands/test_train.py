"""`pics train`: from shards to a model that `pics infer` uses, and what its flags do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from helpers.composites import thing
from helpers.making import build_folder
from helpers.training_runs import (
    MODEL,
    checkpoints,
    command,
    files,
    lines,
    losses,
    make_data,
    model_files,
    train,
    write_recipe,
)
from helpers.training_shards import write_shard
from pics_cli.core.recipes.base import Override
from pics_cli.core.recipes.training import load_training
from pics_cli.core.training.data import find_data, training_data
from pics_cli.core.training.initial_model import load_initial_model
from pics_cli.core.training.objective import NoiseSampler

SYNTH: dict[str, Any] = {"source__size": 64, "shards__size": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("train") / "data")


@pytest.fixture
def here(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and a recipe, in which commands run."""
    (tmp_path / "data").symlink_to(data)
    write_recipe(tmp_path / "small.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def row(text: str, name: str) -> str:
    """What a table says."""
    (found,) = re.findall(rf"^ *{re.escape(name)}  +(.*)$", text, re.MULTILINE)
    return str(found)


def small_model() -> list[str]:
    """Flags that put the small model in the place of the recipe's."""
    return [word for key, value in MODEL.items() for word in ("--set", f"model.{key}={json.dumps(value)}")]


def composite(model: Path, background: Path, out: Path) -> None:
    """Have `pics infer` put two objects into a picture, and see that it changed nothing but the regions."""
    size = Image.open(background).size
    for k in range(2):
        thing(k).save(out.parent / f"thing{k}.png")
    boxes = [f"{x * size[0] // 10},{size[1] // 4},{size[0] // 2},{size[1] // 2}" for x in (1, 3)]
    words = [word for k in range(2) for word in ("--object", out.parent / f"thing{k}.png", "--box", boxes[k])]
    done = command("infer", "--model", model, "--background", background, *words, "--output", out, "--device", "cpu")
    assert done.exit_code == 0, done.stderr
    assert "changed outside the regions    0 pixels" in done.stdout
    made = np.asarray(Image.open(out / f"composed/composed_{background.stem}.png"))
    before = np.asarray(Image.open(background).convert("RGB"))
    assert made.shape == before.shape
    assert (made != before).any()


def test_real_pictures_from_raw_files_to_a_composite(shared_data: Path, here: Path) -> None:
    """`--recipe lvis`: that set alone, where `joint` looks for it."""
    raw = shared_data / "lvis/COCO"
    built = command("build-shards", "lvis", "--raw", raw, "--split", "val", "--out", "d/train/LVIS", "--workers", "1")
    assert built.exit_code == 0, built.stderr
    words = ["--recipe", "lvis", "--data-root", "d", "--root-dir", "run", "--steps", "5", "--batch-size", "2"]
    done = train(*words, *small_model(), "--set", "data.workers=1", "--set", "log.every=1")
    assert done.exit_code == 0, done.stderr
    assert len(losses(here / "run")) == 5
    assert np.isfinite(losses(here / "run")).all()
    assert "validation loss" in done.stdout
    composite(here / "run/model", sorted((raw / "val2017").glob("*.jpg"))[0], here / "out")


def test_drawn_scenes_to_a_composite(here: Path) -> None:
    """The same without any file from elsewhere; 6 steps, then the checkpoint exported once more."""
    build_folder("synth", None, here / "d/train/Synth", limit=16, **SYNTH)
    build_folder("synth", None, here / "d/val/Synth", "val", limit=4, **SYNTH)
    words = [
        "--recipe",
        "tiny",
        "--data-root",
        "d",
        "--root-dir",
        "run",
        "--batch-size",
        "2",
        *small_model(),
        "--steps",
    ]
    words += [
        "6",
        "--logger-freq",
        "3",
        "--set",
        "log.every=3",
        "--set",
        "validation.samples=2",
        "--set",
        "validation.bins=1",
    ]
    done = train(*words)
    assert done.exit_code == 0, done.stderr
    assert row(done.stdout, "steps") == "6 (6 in this run)"
    assert row(done.stdout, "model") == "run/model"
    assert [one["step"] for one in lines(here / "run", "validation")] == [0, 3, 6]
    assert [one["step"] for one in lines(here / "run")] == [3, 6]
    assert {path.name for path in (here / "run/samples").iterdir()} >= {"step_00000003.png", "step_00000006.png"}
    before = everything(here / "run")
    model, log = model_files(here / "run"), (here / "run/log.jsonl").read_text()
    done = train(*words)
    assert done.exit_code == 0, done.stderr
    assert row(done.stdout, "steps") == "6 (0 in this run)"
    assert (model_files(here / "run"), (here / "run/log.jsonl").read_text()) == (model, log)
    done = train("--recipe", "tiny", "--root-dir", "run", "--export", "again")
    assert done.exit_code == 0, done.stderr
    assert "wrote again" in done.stderr
    assert {name for name in everything(here / "run") if "events" not in name} <= before
    assert files(here / "again") == model_files(here / "run")
    thing(2, (64, 64), alpha=False).save(here / "bg.png")
    composite(here / "again", here / "bg.png", here / "out")
    (here / "file").write_text("")
    done = train("--recipe", "tiny", "--root-dir", "run", "--export", "file")
    assert done.exit_code == 2
    assert "file: exists already" in done.stderr


def test_published_and_compact_shards_give_the_same_batches(here: Path) -> None:
    found = []
    for layout in ("published", "compact"):
        _, out = build_folder("synth", None, here / layout / "train/A", limit=6, shards__layout=layout, **SYNTH)
        assert (out / "00001.tar").is_file()
        sets = {"A": {"shards": "{split}/A"}}
        path = write_recipe(here / f"{layout}.yaml", data__root=layout, data__sets=sets, model__hint="overlay")
        recipe = load_training(str(path))
        split, model = find_data(recipe), load_initial_model(recipe).model
        data = training_data(recipe, split, model.config, NoiseSampler.for_model(recipe.objective, model))
        found.append([data[position] for position in range(12)])
    for ours, theirs in zip(*found, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["key"] == theirs["key"]
        for name, value in ours.items():
            assert np.array_equal(value, theirs[name]), name
    assert len({sample["key"] for sample in found[0]}) == 5  # of six, one is held out


def test_plan_says_what_would_be_done_and_writes_nothing(here: Path) -> None:
    before = everything(here)
    done = train("--recipe", "small.yaml", "--plan", "--limit-train-batches", "0.5", "--batch-size", "3",
                 "--learning-rate", "0.25", "--logger-freq", "7", "--set", "ema.decay=0.5", "--steps", "9")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert everything(here) == before
    shares = [float(row(done.stdout, name).split(": ")[1].split("%")[0]) for name in ("A", "B")]
    assert sum(shares) == pytest.approx(100)
    held = int(row(done.stdout, "validation").split()[0])
    assert held == 2
    # 24 samples and shards of their own for validation; 16 samples twice, without those that are held out.
    assert shares[0] == pytest.approx(100 * 24 / (24 + 2 * 15), abs=0.1)
    assert row(done.stdout, "an epoch") == "27 samples"
    assert row(done.stdout, "a step") == "3 samples of each process"
    everything_, trained = map(float, re.findall(r"([\d.]+) million", row(done.stdout, "parameters")))
    assert 0 < trained <= everything_ < 1
    assert re.fullmatch(r"\d+\.\d\d GB of tensors; .*", row(done.stdout, "peak"))
    end = re.search(r"^ *data\b(?!:).*$", done.stdout, re.MULTILINE)
    assert end
    recipe = yaml.safe_load(done.stdout[: end.start()])
    assert recipe["batch_size"] == 3
    assert recipe["optimizer"]["learning_rate"] == 0.25
    assert recipe["validation"]["every"] == 7
    assert recipe["data"]["epoch_share"] == recipe["ema"]["decay"] == 0.5
    assert recipe["steps"] == 9


def test_preview_is_a_picture(here: Path) -> None:
    before = everything(here)
    done = train("--recipe", "small.yaml", "--preview", "new/sheet.png")
    assert done.exit_code == 0, done.stderr
    assert "wrote new/sheet.png" in done.stderr
    assert everything(here) - before == {"new", "new/sheet.png"}
    picture = np.asarray(Image.open(here / "new/sheet.png"))
    assert min(picture.shape[:2]) > 100
    assert picture.std() > 10


def test_what_is_missing_can_be_left_out(here: Path) -> None:
    """`joint` on the one set that is there; another folder of data."""
    (here / "some/train").mkdir(parents=True)
    (here / "some/train/BDD100K").symlink_to(here / "data/train/A")
    words = ["--recipe", "joint", "--data-root", "some", "--allow-missing", "--root-dir", "run", "--batch-size", "1"]
    done = train(*words, *small_model(), "--steps", "2", "--set", "validation.samples=1", "--set", "data.workers=0")
    assert done.exit_code == 0, done.stderr
    for name in ("LVIS", "VITONHD", "Objects365", "Cityscapes", "MapillaryVistas"):
        assert f"left out: {name}: some/train/{name}: no such folder" in done.stderr
    assert "BDD100K: 24 samples in 3 shards, repeated 18: 100.0% of an epoch; validation: held out" in done.stderr
    assert checkpoints(here / "run") == ["step_00000002"]


def test_a_share_of_an_epoch_is_the_same_samples_in_another_order_of_each(here: Path) -> None:
    """Of 24 samples without repeats, a quarter of each epoch: 6 different ones, others in the next."""
    sets = {"A": {"shards": "{split}/A"}}
    recipe = load_training(
        str(write_recipe(here / "share.yaml", data__sets=sets)), [Override("data.epoch_share", 0.25, "--limit")]
    )
    order = find_data(recipe).order
    assert order.epoch_length == 6
    epochs = [{order[6 * epoch + at][:3] for at in range(6)} for epoch in range(3)]
    assert [len(epoch) for epoch in epochs] == [6, 6, 6]
    assert len(set.union(*epochs)) > 6


def test_fewer_shards_than_workers(here: Path) -> None:
    write_shard(here / "mixed/train/A/00000.tar", range(12))
    words = ["--recipe", "small.yaml", "--data-root", "mixed", "--allow-missing", "--root-dir", "run", "--steps", "4"]
    done = train(*words, "--set", "data.workers=3", "--set", "validation.samples=1")
    assert done.exit_code == 0, done.stderr
    assert [one["step"] for one in lines(here / "run")] == [1, 2, 3, 4]
