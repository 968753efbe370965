"""Training recipes: shipped ones load, a dataset recipe stands for its set, faults and identity are told."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from pics_cli.core.recipes.base import Override, find_recipe, parse_override, plain_recipe, recipe_kind
from pics_cli.core.recipes.shipped import recipe_names
from pics_cli.core.recipes.training import TrainingRecipe, load_training, training_identity
from pics_cli.core.recipes.training_sections import AugmentSettings
from pics_cli.errors import PicsError

GOOD = """
kind: training
name: mine
out: LOGS/mine
data:
  sets:
    A: {shards: train/A}
"""
SHIPPED = [name for name in recipe_names() if recipe_kind(find_recipe(name)) == "training"]
DATASETS = [name for name in recipe_names() if recipe_kind(find_recipe(name)) == "dataset"]


def load(folder: Path, text: str, *overrides: Override) -> TrainingRecipe:
    path = folder / "mine.yaml"
    path.write_text(text)
    return load_training(str(path), overrides)


def test_the_shipped_recipes_are_there() -> None:
    assert {"joint", "tiny"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipe_loads_and_opens_with_its_command(name: str) -> None:
    path = find_recipe(name)
    recipe = load_training(name)
    assert (recipe.kind, recipe.name) == ("training", name)
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"pics train --recipe {name}" in line for line in comment)
    for key, each in recipe.data.sets.items():
        assert each.recipe in DATASETS, key
        assert "{split}" in each.shards


def test_joint_is_the_published_mixture() -> None:
    """DESIGN §6 and the research code: repeats, learning rate, batch, timesteps; the deviations its comment names."""
    joint = load_training("joint")
    assert {key: each.repeat for key, each in joint.data.sets.items()} == {
        "LVIS": 3, "VITONHD": 6, "Objects365": 1, "Cityscapes": 18, "MapillaryVistas": 18, "BDD100K": 18}  # fmt: skip
    assert all(str(each.fetch).startswith("https://") for each in joint.data.sets.values())
    assert (joint.batch_size, joint.optimizer.learning_rate, joint.optimizer.betas) == (16, 1e-5, (0.9, 0.999))
    assert (joint.objective.timesteps, joint.objective.dropout, joint.train) == ("published", 0.1, "experts")
    assert joint.augment.box_growth == (1.0, 1.2)
    shirts = joint.data.sets["VITONHD"].augment
    assert shirts is not None
    assert (shirts.flip, shirts.rotation, shirts.scale) == (0, 5, AugmentSettings().scale)


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_recipe_stands_for_its_set(name: str) -> None:
    """Everything else is as in joint; what is in joint keeps its address and augmentation, once in an epoch."""
    joint, recipe = load_training("joint"), load_training(name)
    ((key, only),) = recipe.data.sets.items()
    assert only.recipe == name
    assert (only.repeat, recipe.name, recipe.out) == (1, name, f"LOGS/{name}")
    assert replace(recipe, name="joint", out=joint.out, data=joint.data) == joint
    if key in joint.data.sets:
        assert replace(only, repeat=joint.data.sets[key].repeat) == joint.data.sets[key]
    # Where `pics build-shards NAME` writes.
    assert f"data/{only.shards}" == f"data/{{split}}/{key}"


DATASET = """
kind: dataset
name: Cups
raw: cups
out: OUT
source:
  format: coco
  splits: {train: {annotations: [train.json], images: ["{file_name}"]}}
"""


@pytest.mark.parametrize(
    ("out", "shards"),
    [("data/{split}/Cups", "{split}/Cups"), ("shards/{split}", "../shards/{split}"), ("/big/{split}", "/big/{split}")],
)
def test_a_dataset_recipe_of_ones_own(tmp_path: Path, out: str, shards: str) -> None:
    overrides = [parse_override(text) for text in ("steps=7", "data.sets.Cups.repeat=2", "augment.flip=0")]
    recipe = load(tmp_path, DATASET.replace("OUT", out), *overrides)
    ((key, only),) = recipe.data.sets.items()
    assert (key, only.shards, only.recipe, only.repeat) == ("Cups", shards, "mine", 2)
    assert (recipe.name, recipe.steps, recipe.augment.flip) == ("mine", 7, 0)


def test_a_dataset_recipe_with_faults_is_named(tmp_path: Path) -> None:
    with pytest.raises(PicsError) as caught:
        load(tmp_path, DATASET.replace("OUT", "x").replace("raw:", "rav:"))
    assert "mine.yaml: rav: unknown key, nearest: raw" in caught.value.message


def test_defaults(tmp_path: Path) -> None:
    recipe = load(tmp_path, GOOD)
    assert (recipe.seed, recipe.steps, recipe.batch_size, recipe.train) == (0, 100_000, 16, "experts")
    assert (recipe.data.root, recipe.data.workers, recipe.data.sets["A"].repeat) == ("data", 4, 1.0)
    assert recipe.model.base is None
    assert recipe.model.shape is None
    assert load(tmp_path, GOOD + "model: {shape: {}}\n").model.shape is not None


SHARE = "expected 0 <= value <= 1"
BROKEN = [
    ("steps: 0", "mine.yaml: steps: got 0, expected 1 <= value"),
    ("steps: 1e5", 'steps: got "1e5", expected integer (YAML reads 1e5 as text; write 100000)'),
    ("batch_size: -1", "batch_size: got -1, expected 1 <= value"),
    ("accumulation: 2.5", "accumulation: got 2.5, expected integer"),
    ("seed: -1", "seed: got -1, expected 0 <= value"),
    ("train: everything", "train: got \"everything\", expected 'published', 'experts', 'full' or 'lora'"),
    ("train_encoder: 1", "train_encoder: got 1, expected boolean"),
    ("precision: fp8", "precision: got \"fp8\", expected 'auto', 'fp32', 'bf16' or 'fp16'"),
    ("learning_rate: 1", "mine.yaml: learning_rate: unknown key, allowed: kind, name, out"),
    ("optimiser: {}", "mine.yaml: optimiser: unknown key, nearest: optimizer, allowed: kind, name, out"),
    ("augment: {flip: 2}", f"augment.flip: got 2, {SHARE}"),
    ("augment: {rotation: 181}", "augment.rotation: got 181, expected 0 <= value <= 180"),
    ("augment: {perspective: 61}", "augment.perspective: got 61, expected 0 <= value <= 60"),
    ("augment: {scale: [1.4, 1.1]}", "augment.scale: got [1.4, 1.1], expected [low, high] with 1 <= low <= high <= 4"),
    ("augment: {scale: [0.9, 1.1]}", "augment.scale: got [0.9, 1.1], expected [low, high] with 1 <= low"),
    ("augment: {box_growth: [1, 9]}", "augment.box_growth: got [1, 9], expected [low, high] with 1 <= low"),
    ("augment: {box_growth: 1.2}", "augment.box_growth: got 1.2, expected a list, such as [a, b]"),
    ("augment: {scales: [1, 2]}", "augment.scales: unknown key, nearest: scale, allowed: flip, rotation"),
    ("augment: {brightness: .nan}", "augment.brightness: got NaN, expected"),
    (
        "objective: {timesteps: late}",
        "objective.timesteps: got \"late\", expected 'published', 'uniform' or 'high_noise'",
    ),
    ("objective: {dropout: 1.5}", f"objective.dropout: got 1.5, {SHARE}"),
    ("objective: {min_snr: 0}", "objective.min_snr: got 0, expected 0 < value"),
    ("objective: {region_weight: 0}", "objective.region_weight: got 0, expected 0 < value"),
    ("objective: {loss: huber}", "objective.loss: got \"huber\", expected 'l2', 'l1' or 'relative_l1'"),
    (
        "optimizer: {learning_rate: 1e-5}",
        'optimizer.learning_rate: got "1e-5", expected number (YAML reads 1e-5 as text; write 1.0e-05)',
    ),
    ("optimizer: {learning_rate: 0}", "optimizer.learning_rate: got 0, expected 0 < value"),
    ("optimizer: {betas: [0.9, 2]}", "optimizer.betas.1: got 2, expected 0 <= value < 1"),
    ("optimizer: {warmup: -5}", "optimizer.warmup: got -5, expected 0 <= value"),
    ("optimizer: {clip: 0}", "optimizer.clip: got 0, expected 0 < value"),
    ("optimizer: {schedule: linear}", "optimizer.schedule: got \"linear\", expected 'constant' or 'cosine'"),
    ("ema: {decay: 1.01}", f"ema.decay: got 1.01, {SHARE}"),
    ("ema: {device: gpu}", "ema.device: got \"gpu\", expected 'same' or 'cpu'"),
    ("ema: true", "ema: got true, expected a mapping"),
    ("validation: {every: 0}", "validation.every: got 0, expected 1 <= value"),
    ("validation: {bins: 51}", "validation.bins: got 51, expected 1 <= value <= 50"),
    ("validation: {sheet: -1}", "validation.sheet: got -1, expected 0 <= value"),
    ("checkpoints: {keep: 0}", "checkpoints.keep: got 0, expected 1 <= value"),
    ("checkpoints: {keep_every: 0}", "checkpoints.keep_every: got 0, expected 1 <= value"),
    ("log: {every: 0}", "log.every: got 0, expected 1 <= value"),
    ("export: {dtype: int8}", "export.dtype: got \"int8\", expected 'fp32', 'bf16' or 'fp16'"),
    ("model: {hint: paste}", "model.hint: got \"paste\", expected 'background', 'collage', 'overlay' or 'layers'"),
    ("model: {guidance: 0.5}", "model.guidance: got 0.5, expected 1 <= value"),
    ("model: {shape: {patch: 0}}", "model.shape.patch: got 0, expected 1 <= value"),
    ("model: {shape: {block_out_channels: []}}", "model.shape.block_out_channels: got [], expected at least one value"),
    ("model: {shape: {width: 3}}", "model.shape.width: unknown key, nearest: head_width, allowed: block_out_channels"),
    ("model: {latent_channels: 4}", "model.latent_channels: unknown key, allowed: base, dinov2, shape"),
]
IN_DATA = [
    ("root: ''", 'data.root: got ""'),
    ("epoch_share: 0", "data.epoch_share: got 0, expected 0 < value"),
    ("epoch_share: 1.1", "data.epoch_share: got 1.1, expected"),
    ("workers: 257", "data.workers: got 257, expected 0 <= value <= 256"),
    ("cache_gb: 0", "data.cache_gb: got 0, expected 0 < value"),
    ("sets: {}", "data.sets: got {}, expected at least one value"),
    ("sets: {A: {}}", "data.sets.A.shards: missing"),
    ("sets: {A: {shards: x, repeat: 0}}", "data.sets.A.repeat: got 0, expected 0 < value"),
    ("sets: {A: {shards: x, repeats: 2}}", "data.sets.A.repeats: unknown key, nearest: repeat, allowed: shards"),
    ("sets: {a/b: {shards: x}}", "expected a name without folders"),
    ("sets: [x]", 'data.sets: got ["x"], expected a mapping'),
    ("sets: {A: {shards: x, augment: {flip: 3}}}", f"data.sets.A.augment.flip: got 3, {SHARE}"),
    ("set: {}", "data.set: unknown key, nearest: sets, allowed: root"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "words"), BROKEN)
def test_broken_recipe_is_named(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(PicsError) as caught:
        load(tmp_path, GOOD + line + "\n")
    assert words in caught.value.message
    assert caught.value.message.startswith(str(tmp_path / "mine.yaml"))
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("line", "words"), IN_DATA)
def test_broken_data_is_named(tmp_path: Path, line: str, words: str) -> None:
    head, _, sets = GOOD.partition("  sets:")
    text = head + f"  {line}\n" + ("" if line.startswith("sets") else f"  sets:{sets}")
    with pytest.raises(PicsError) as caught:
        load(tmp_path, text)
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_every_fault_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(PicsError) as caught:
        load(tmp_path, GOOD + "steps: x\nema: {decay: 7, dekay: 1}\naugment: {flip: 9}\nname: again\n")
    assert len(caught.value.message.splitlines()) == 5


def test_an_override_is_named_by_its_flag(tmp_path: Path) -> None:
    with pytest.raises(PicsError, match=r"--set optimizer\.clip: got -1, expected 0 < value"):
        load(tmp_path, GOOD, parse_override("optimizer.clip=-1"))
    assert load(tmp_path, GOOD, parse_override("data.sets.B.shards=b")).data.sets.keys() == {"A", "B"}


@pytest.mark.parametrize(("name", "words"), [("jiont", "did you mean joint"), ("./none.yaml", "no such recipe file")])
def test_a_recipe_that_is_not_there(name: str, words: str) -> None:
    with pytest.raises(PicsError) as caught:
        load_training(name)
    assert words in caught.value.text


def test_what_a_resumed_run_must_have_alike(tmp_path: Path) -> None:
    """Every key of the tree is one or the other."""
    before = training_identity(plain_recipe(load(tmp_path, GOOD)))
    free: dict[str, Any] = {
        "out": "elsewhere", "name": "another", "steps": 5, "batch_size": 3, "accumulation": 7, "precision": "bf16",
        "gradient_checkpointing": True, "data.root": "/mnt", "data.workers": 9, "data.cache_gb": 1.5,
        "validation.every": 3, "validation.sheet": 0, "validation.steps": 9, "validation.bins": 2,
        "checkpoints.every": 3, "checkpoints.keep": 9, "checkpoints.keep_every": 4, "log.every": 3, "log.wandb": True,
        "export.dtype": "fp32", "data.sets.A.shards": "x", "data.sets.A.fetch": "x", "data.sets.A.recipe": "x",
        "model.base": "x", "model.dinov2": "x", "model.share_sharpness": 2, "model.scheduler": "ddim", "model.steps": 3,
        "model.guidance": 2,
    }  # fmt: skip
    bound: dict[str, Any] = {
        "seed": 1, "train": "full", "train_encoder": True, "data.epoch_share": 0.5, "data.sets.A.repeat": 2,
        "data.sets.B.shards": "b", "data.sets.A.augment": {}, "augment.flip": 0,
        "model.image_size": 256, "model.shape": {}, "model.hint": "collage", "objective.loss": "l1",
        "objective.dropout": 0, "optimizer.learning_rate": 1, "optimizer.warmup": 5, "ema.decay": 0.5,
        "ema.enabled": False, "validation.samples": 8,
    }  # fmt: skip
    for key, value in free.items():
        assert training_identity(plain_recipe(load(tmp_path, GOOD, Override(key, value, key)))) == before, key
    for key, value in bound.items():
        assert training_identity(plain_recipe(load(tmp_path, GOOD, Override(key, value, key)))) != before, key
    lora = [
        load(tmp_path, GOOD, Override("train", "lora", "train"), Override("lora.rank", rank, "rank")) for rank in (4, 8)
    ]
    first, second = (training_identity(plain_recipe(recipe)) for recipe in lora)
    assert first != second
    assert "lora" not in before  # as in runs of versions that did not know it
    named = {key.partition(".")[0] for key in (*free, *bound)} | {"kind", "lora"}
    assert named == {field.name for field in fields(TrainingRecipe)}
    assert json.loads(json.dumps(before)) == before


@pytest.mark.parametrize("name", SHIPPED)
def test_plain_and_back(name: str) -> None:
    from pydantic import TypeAdapter

    recipe = load_training(name)
    plain = plain_recipe(recipe)
    assert json.loads(json.dumps(plain)) == plain
    assert TypeAdapter(TrainingRecipe).validate_json(json.dumps(plain), strict=True) == recipe
