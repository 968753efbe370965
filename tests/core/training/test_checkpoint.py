"""Checkpoints: whole or not there; damage is found, told and stepped over; a full disk costs nothing that was saved."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from helpers.trainees import recipe_of
from pics_cli.core.recipes.base import plain_recipe
from pics_cli.core.recipes.training_sections import CheckpointSettings, OptimizerSettings
from pics_cli.core.training import checkpoint
from pics_cli.core.training.checkpoint import EMA, OPTIMIZER, RANDOM, STATE, WEIGHTS
from pics_cli.core.training.optimizer import make_optimizer
from pics_cli.core.training.state import load_optimizer, optimizer_tensors
from pics_cli.errors import PicsError


def tensors(step: int, size: int = 64) -> dict[str, Any]:
    value = torch.full((size,), float(step))
    return {WEIGHTS: {"unet.a": value, "unet.b": torch.arange(6.0).view(2, 3).T}, OPTIMIZER: {"exp_avg/unet.a": -value}}


def save(root: Path, step: int, **state: Any) -> Path:
    folder = checkpoint.path_of(root, step)
    checkpoint.save(folder, tensors(step), {"step": step, "position": 2 * step, **state})
    return folder


def steps(root: Path) -> list[int]:
    return [step for step, _ in checkpoint.list_folders(root)]


def test_saved_and_read(tmp_path: Path) -> None:
    """Also tensors that are not contiguous, of any type, and names that safetensors puts in another order."""
    recipe = recipe_of(seed=7)
    odd = {**tensors(3), EMA: {"z": torch.arange(6).view(2, 3).T, "a": torch.zeros((), dtype=torch.int64)},
           RANDOM: {"cpu": torch.get_rng_state()}}  # fmt: skip
    folder = checkpoint.path_of(tmp_path, 3)
    checkpoint.save(folder, odd, {"step": 3, "position": 48, "recipe": plain_recipe(recipe)})
    found = checkpoint.read(folder)
    assert (found.step, found.state["position"], found.recipe) == (3, 48, recipe)
    assert found.state["sha256"].keys() == odd.keys()
    for file, contents in odd.items():
        again = found.tensors(file)
        assert again.keys() == contents.keys()
        assert all(torch.equal(again[name], value) and again[name].dtype == value.dtype
                   for name, value in contents.items())  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == sorted([*odd, STATE])
    with pytest.raises(PicsError, match="exists already"):
        save(tmp_path, 3)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def rewrite(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return damage


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    (WEIGHTS, cut, "weights.safetensors: damaged"),
    (OPTIMIZER, cut, "optimizer.safetensors: damaged"),
    (WEIGHTS, flip, "weights.safetensors: damaged"),
    (WEIGHTS, empty, "weights.safetensors: damaged"),
    (OPTIMIZER, Path.unlink, "optimizer.safetensors is missing"),
    (STATE, cut, "state.json: unreadable"),
    (STATE, empty, "state.json: unreadable"),
    (STATE, lambda path: path.write_bytes(b"\xff\xfe\x00"), "state.json: unreadable"),
    (STATE, Path.unlink, "no checkpoint (state.json is missing)"),
    (STATE, rewrite(lambda data: [data]), "state.json: unreadable"),
    (STATE, rewrite(lambda data: {**data, "step": "9"}), "state.json: not the state of a checkpoint"),
    (STATE, rewrite(lambda data: {**data, "step": 8}), "state.json: damaged: not the contents that were written"),
    (STATE, rewrite(lambda data: {**data, "sha256": {}}), "state.json: not the state of a checkpoint"),
    (STATE, rewrite(lambda data: {**data, "sha256": None}), "state.json: not the state of a checkpoint"),
]


@pytest.mark.parametrize(("file", "damage", "words"), DAMAGES)
def test_damage_is_reported_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, damage: Callable[[Path], None], words: str
) -> None:
    save(tmp_path, 5)
    broken = save(tmp_path, 9)
    damage(broken / file)
    with pytest.raises(PicsError) as caught:
        checkpoint.read(broken)
    assert words in caught.value.message
    assert str(broken) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 5
    (message,) = caplog.messages
    assert words in message
    assert "step_00000009.damaged" in message
    assert steps(tmp_path) == [5]
    assert (tmp_path / "checkpoints" / "step_00000009.damaged").is_dir()


def test_newest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert checkpoint.newest(tmp_path) is None  # not even a folder
    for step in (8, 100, 9, 100_000_000):
        save(tmp_path, step)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found.step == 100_000_000
    assert steps(tmp_path) == [8, 9, 100, 100_000_000]
    assert not caplog.messages


def test_all_damaged_one_after_the_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also where an earlier one of the same step was set aside already."""
    for _ in range(2):
        for step in (1, 2):
            cut(save(tmp_path, step) / WEIGHTS)
        with pytest.raises(PicsError, match="no good checkpoint, 2 damaged"):  # not a silent start from 0
            checkpoint.newest(tmp_path, set_aside=False)
        assert steps(tmp_path) == [1, 2]
        with pytest.raises(PicsError, match="no good checkpoint, 2 damaged"):
            checkpoint.newest(tmp_path)
    assert ["step_00000002" in message for message in caplog.messages] == [True, False] * 4
    assert steps(tmp_path) == []
    assert checkpoint.newest(tmp_path) is None


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"keep": 2}, [40, 45]),
        ({"keep": 1, "keep_every": 20}, [20, 40, 45]),
        ({"keep": 2, "keep_every": 15}, [15, 30, 40, 45]),
        ({"keep": 99}, [5, 10, 15, 20, 25, 30, 35, 40, 45]),
    ],
)
def test_tidy(tmp_path: Path, options: dict[str, int], left: list[int]) -> None:
    for step in range(5, 50, 5):
        save(tmp_path, step)
    other = tmp_path / "checkpoints" / "step_mine"
    other.mkdir()
    for _ in range(2):
        checkpoint.remove_old(tmp_path, CheckpointSettings(**options))
        assert steps(tmp_path) == left
    assert other.is_dir()


def test_what_an_interrupted_writer_left_is_removed(tmp_path: Path) -> None:
    save(tmp_path, 5)
    folder = tmp_path / "checkpoints"
    for name in ("step_00000006.123.tmp", "step_00000006.9.tmp", "step_mine.tmp", "step_00000006.damaged"):
        (folder / name).mkdir()
        (folder / name / WEIGHTS).write_bytes(b"half")
    checkpoint.remove_temporaries(tmp_path)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["step_00000005", "step_00000006.damaged", "step_mine.tmp"]
    checkpoint.remove_temporaries(tmp_path / "new")


@pytest.mark.parametrize("room", [100_000, 8_000])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, room: int) -> None:
    """In the larger state of the optimiser, and in the weights, which come first."""
    tensors = {WEIGHTS: {"a": torch.zeros(3000)}, OPTIMIZER: {"b": torch.ones(60000)}}
    folders = [checkpoint.path_of(tmp_path, step) for step in (1, 2)]
    checkpoint.save(folders[0], tensors, {"step": 1, "position": 16})
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(PicsError) as caught:
            checkpoint.save(folders[1], tensors, {"step": 2, "position": 32, "bad": ["x" * 9000]})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert str(folders[1]) in caught.value.message
    assert "\n" not in caught.value.message
    assert "disk full" in caught.value.text
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]
    assert checkpoint.read(folders[0]).step == 1


def test_the_optimisers_state_goes_on_bitwise() -> None:
    """Also of parameters that have no gradient yet, and in whatever order the file names them."""

    def walk(optimizer: torch.optim.Optimizer, trained: dict[str, nn.Parameter], seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        for _ in range(3):
            for name, value in trained.items():
                value.grad = None if name == "never" else torch.randn(value.shape, generator=draw)
            optimizer.step()

    def made() -> tuple[dict[str, nn.Parameter], torch.optim.AdamW]:
        shapes = {"b.weight": (2, 3), "never": (4,), "a/odd": (5,)}
        trained = {name: nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
        return trained, make_optimizer(trained, OptimizerSettings(learning_rate=0.1))

    trained, optimizer = made()
    walk(optimizer, trained, 1)
    kept = {name: value.clone() for name, value in optimizer_tensors(optimizer, list(trained)).items()}
    assert {name.partition("/")[0] for name in kept} == {"step", "exp_avg", "exp_avg_sq"}
    assert {name.partition("/")[2] for name in kept} == {"b.weight", "a/odd"}
    again, resumed = made()
    for name, value in again.items():
        value.data.copy_(trained[name])
    load_optimizer(resumed, list(again), dict(sorted(kept.items())))
    for one, parameters in ((optimizer, trained), (resumed, again)):
        walk(one, parameters, 2)
    for name, value in trained.items():
        assert torch.equal(value, again[name]), name
