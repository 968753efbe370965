"""Training, compositing and evaluation where everything lies in a store: an S3 server on this machine."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.composites import make_sample, run
from helpers.infer_command import typed
from helpers.object_store import ObjectStore
from helpers.training_runs import lines, make_data, model_files, train, train_in, write_recipe
from pics_cli import PicsPipeline, open_shards
from pics_cli.core.evaluation.external_results import find_pictures, read_picture
from pics_cli.core.recipes.training import load_training
from pics_cli.core.runtime.manifest import differences
from pics_cli.core.runtime.storage import location
from pics_cli.core.shards import remote
from pics_cli.core.training.data import find_data
from pics_cli.errors import PicsError


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing fetched before, and no patience."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PICS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(remote, "_PAUSES", (0.0,))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards, samples and a recipe."""
    folder = tmp_path_factory.mktemp("place")
    make_data(folder / "data")
    for number, name in enumerate("ab"):
        make_sample(folder / "samples" / name, seed=number)
    write_recipe(folder / "small.yaml", steps=2, batch_size=1, checkpoints__every=1, data__root=str(folder / "data"))
    return folder


@pytest.fixture(scope="module")
def bucket(s3_server: ObjectStore, place: Path, tiny_model: Path) -> str:
    """The same in a store, with a model."""
    url = s3_server.new_bucket()
    s3_server.put(place / "data", f"{url}/data")
    s3_server.put(place / "samples", f"{url}/samples")
    s3_server.put(tiny_model, f"{url}/models/tiny")
    recipe = write_recipe(place / "stored.yaml", steps=2, batch_size=1, checkpoints__every=1, data__root=f"{url}/data")
    s3_server.put(recipe, f"{url}/recipes/small.yaml")
    return url


def test_training_is_that_from_a_disk(bucket: str, place: Path, s3: ObjectStore, tmp_path: Path) -> None:
    """A run that began on a disk goes on from a store, with the same bits; each shard is fetched once."""
    done = train_in(place / "local", "small.yaml")
    assert done.exit_code == 0, done.stderr
    run = shutil.copytree(place / "local/run", tmp_path / "run")
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "checkpoints/step_00000002")
    done = train("--recipe", f"{bucket}/recipes/small.yaml", "--root-dir", run)
    assert done.exit_code == 0, done.stderr
    assert "2 (1 in this run)" in done.stdout
    ours, theirs = model_files(run), model_files(place / "local/run")
    weights = [name for name in theirs if name.endswith(".safetensors")]
    assert len(weights) >= 4
    assert [name for name in weights if ours.get(name) != theirs[name]] == []
    assert lines(run) == lines(place / "local/run")
    fetched = [count for request, count in s3.asked.items() if request.startswith("GET") and request.endswith(".tar")]
    assert fetched == [1] * 6


def test_shards_of_a_store(bucket: str, place: Path) -> None:
    ours, theirs = (list(open_shards(f"{root}/train/A")) for root in (f"{bucket}/data", place / "data"))
    assert [one.key for one in ours] == [one.key for one in theirs]
    assert all(np.array_equal(one.image, other.image) for one, other in zip(ours, theirs, strict=True))


def pictures(files: dict[str, bytes]) -> dict[str, np.ndarray]:
    return {
        name: np.asarray(Image.open(io.BytesIO(data))) for name, data in files.items() if name.startswith("composed/")
    }


def test_compositing(bucket: str, place: Path, tiny_model: Path, s3: ObjectStore) -> None:
    """Stopped by a store that refuses, and run to the end: the pixels of a local run, nothing made twice."""
    name, local = f"{bucket}/models/tiny", place / "composites"
    samples, output = location(f"{bucket}/samples"), location(f"{bucket}/out")
    run(place / "samples", local, tiny_model)
    expected = {str(path.relative_to(local)): path.read_bytes() for path in local.rglob("*") if path.is_file()}

    s3.faults["PUT .*composed_b.*"] = [403, None]
    with pytest.raises(PicsError, match=r"composed_b\.png: no permission to write there"):
        run(samples, output, name)
    assert [*pictures(s3.files(f"{bucket}/out"))] == ["composed/composed_a.png"]
    s3.faults.clear()
    s3.asked.clear()
    assert run(samples, output, name).written == 1
    assert written(s3, "/composed/") == ["composed_b.png"]
    ours = s3.files(f"{bucket}/out")
    assert ours.keys() == expected.keys()
    found, wanted = pictures(ours), pictures(expected)
    assert all(np.array_equal(found[file], wanted[file]) for file in wanted)
    records = [json.loads(line) for line in ours["manifest.jsonl"].splitlines()]
    assert [one["id"] for one in records] == ["a", "b"]
    assert records[0]["model"]["name"] == name
    assert records[0]["files"]["background"] == f"{bucket}/samples/a/image.png"

    pipe = PicsPipeline.from_pretrained(name)
    objects, masks = ([f"{samples}/a/object_{k}{end}.png" for k in range(2)] for end in ("", "_mask"))
    made = pipe(f"{samples}/a/image.png", objects, masks=masks, steps=1, seed=0, name="a")
    assert np.array_equal(np.asarray(made.images[0]), wanted["composed/composed_a.png"])


def written(s3: ObjectStore, folder: str) -> list[str]:
    """Names of the files that were written into a folder."""
    return sorted(Path(name).name for name in s3.asked if name.startswith("PUT") and folder in name)


def test_evaluation(bucket: str, place: Path, s3: ObjectStore) -> None:
    """Of shards, into the store, which refuses a record at first: the figures of a local run, nothing done twice."""
    quick = ("--methods", "paste", "--metrics", "psnr,untouched", "--device", "cpu")
    words = ["eval", "--shards", f"{bucket}/data/val/A", "--output", f"{bucket}/figures", *quick]
    s3.faults["PUT .*000001.json"] = [403, None]
    assert (done := typed(*words)).exit_code == 2, done.stderr
    s3.faults.clear()
    s3.asked.clear()
    assert (done := typed(*words)).exit_code == 0, done.stderr
    assert written(s3, "/cases/") == ["000001.json", "000002.json"]
    local, ours = place / "figures", s3.files(f"{bucket}/figures")
    done = typed("eval", "--shards", place / "data/val/A", "--output", local, *quick)
    assert done.exit_code == 0, done.stderr
    assert ours.keys() == {str(path.relative_to(local)) for path in local.rglob("*") if path.is_file()}
    assert all(ours[name] == (local / name).read_bytes() for name in ("table.md", "per_sample.parquet"))
    done = typed("eval", "--compare", f"{bucket}/figures/results.json", local / "results.json")
    assert done.exit_code == 0, done.stderr
    assert "3 cases" in done.stdout


def test_pictures_of_a_store(bucket: str, place: Path, s3: ObjectStore) -> None:
    for name in "ab":
        s3.put(place / f"samples/{name}/image.png", f"{bucket}/truth/composed/composed_{name}.png")
    found = find_pictures(location(f"{bucket}/truth"), "--reference")
    assert [*found] == ["a", "b"]
    assert np.array_equal(read_picture(found["b"]), read_picture(place / "samples/b/image.png"))


def test_sets_that_the_cache_does_not_hold(bucket: str, place: Path) -> None:
    """They are read a few shards at a time, and a run that began otherwise is not resumed."""
    recipe = load_training(f"{bucket}/recipes/small.yaml")
    roomy, tight = (replace(recipe, data=replace(recipe.data, cache_gb=room)) for room in (1.0, 1e-5))
    local = find_data(load_training(str(place / "small.yaml")))
    assert find_data(roomy).contents == local.contents
    assert [shards.windowed for shards in find_data(roomy).sets] == [False, False]
    assert [shards.windowed for shards in find_data(tight).sets] == [True, True]
    assert differences(local.contents, find_data(tight).contents) == [
        f'{name}.order: the folder has nothing, this run "8 shards at a time"' for name in "AB"
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["train", "--set", "out=s3://b/run"], "s3://b/run: a run is written to a disk of this machine"),
        (["train", "--recipe", "{}/recipes/none.yaml"], "{}/recipes/none.yaml: no such recipe file"),
        (["infer", "--input", "{}/none", "--output", "o"], "--input {}/none: no such folder"),
        (["infer", "--input", "{}/data", "--output", "o"], "--input {}/data: no sample"),
        (["infer", "--input", "{}/samples", "--model", "{}/data", "--output", "o"], "--model {}/data: no model in it"),
        (["infer", "--input", "{}/samples", "--model", "{}/none", "--output", "o"], "--model {}/none: no such folder"),
        (["infer", "--input", "{}/samples", "--lora", "{}/none:0.5", "--output", "o"], "--lora {}/none: no"),
        (["infer", "--input", "{}/samples", "--output", "{}/samples"], "which this run reads"),
        (["infer", "--input", "{}/samples", "--output", "s3://nobucket/o"], "no such bucket"),
        (["infer", "--input", "s3://nobucket/o"], "no such bucket"),
        (["eval", "--shards", "{}/none"], "{}/none: no such folder"),
        (["eval", "--reference", "{}/none", "--input", "{}/data"], "no such folder"),
    ],
)
def test_what_is_not_there(
    words: list[str], text: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = typed(*(word.format(bucket) for word in words))
    assert done.exit_code == 2, done.stderr
    assert text.format(bucket) in done.stderr
    assert not list(tmp_path.iterdir())
