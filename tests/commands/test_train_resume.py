"""A run that was stopped, killed or damaged ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from helpers.training_runs import (
    checkpoints,
    copied,
    last_step,
    lines,
    losses,
    make_data,
    model_files,
    start,
    train_in,
    write_recipe,
)
from pics_cli.core.training.trainer import Trainer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, and a recipe with accumulation and a moving average."""
    folder = tmp_path_factory.mktemp("resume")
    make_data(folder / "data")
    write_recipe(
        folder / "small.yaml", data__root=str(folder / "data"), steps=14, batch_size=1, accumulation=2,
        validation__every=5, validation__bins=1, checkpoints__every=4, checkpoints__keep=2,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def straight(place: Path) -> Path:
    """The run of 14 steps that nothing happened to; all runs are called `run`, which their models' recipe hash sees."""
    done = go(place / "straight")
    assert done.exit_code == 0, done.stderr
    return place / "straight/run"


def go(folder: Path, *words: str | Path) -> Result:
    return train_in(folder, "small.yaml", *words)


def check_same(run: Path, straight: Path, besides: int | None = None) -> None:
    """Losses, gradients' norms, rates, validation figures (`besides`: of a step more), every byte of the model.

    And of the last checkpoint's random state: where a library draws, it draws the same from there on.
    """
    assert lines(run) == lines(straight)
    assert [one["step"] for one in lines(run)] == list(range(1, 15))
    validations = [one for one in lines(run, "validation") if one["step"] != besides]
    assert validations == lines(straight, "validation")
    ours, theirs = model_files(run), model_files(straight)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert random_state(run) == random_state(straight)


def random_state(run: Path) -> bytes:
    """As the last checkpoint keeps it."""
    return (run / "checkpoints" / checkpoints(run)[-1] / "random.safetensors").read_bytes()


def test_the_run_is_what_it_should_be(straight: Path) -> None:
    assert len(set(losses(straight))) == 14
    assert [one["step"] for one in lines(straight, "validation")] == [0, 5, 10, 14]
    assert checkpoints(straight) == ["step_00000012", "step_00000014"]
    assert {"unet/diffusion_pytorch_model.safetensors", "pics.json"} <= model_files(straight).keys()
    assert sorted(path.name for path in (straight / "samples").iterdir())[0] in (
        "step_00000000.png",
        "step_00000004.png",
    )
    assert list((straight / "tensorboard").rglob("events*"))
    assert not (straight / ".lock").exists()


def test_six_and_eight_steps_are_fourteen(place: Path, straight: Path) -> None:
    """The first part with a worker, the second without."""
    assert go(place / "parts", "--steps", "6", "--set", "data.workers=1").exit_code == 0
    assert checkpoints(place / "parts/run") == ["step_00000004", "step_00000006"]
    assert lines(place / "parts/run", "validation")[-1]["step"] == 6  # as every last step is
    done = go(place / "parts")
    assert done.exit_code == 0, done.stderr
    assert "14 (8 in this run)" in done.stdout
    check_same(place / "parts/run", straight, 6)


def test_killed_and_terminated(place: Path, straight: Path) -> None:
    """In processes of their own: kill -9 between two checkpoints, then with a worker SIGTERM, then to the end."""
    folder = place / "stopped"
    folder.mkdir()
    run = folder / "run"
    words = ["--recipe", "../small.yaml", "--root-dir", "run"]
    assert start(folder, *words).when(lambda: last_step(run) >= 5, signal.SIGKILL) == -signal.SIGKILL
    assert 4 <= int(checkpoints(run)[-1][5:13]) <= last_step(run)
    started = start(folder, *words, "--set", "data.workers=1")
    assert started.when(lambda: last_step(run) >= 9, signal.SIGTERM) == 143
    assert "stopped: what is finished is kept; the same command resumes" in started.text
    assert checkpoints(run)[-1] == f"step_{last_step(run):08d}"
    assert lines(run) == lines(straight)[: last_step(run)]
    assert not (run / ".lock").exists()
    assert not (run / "model").exists()
    done = go(folder)
    assert done.exit_code == 0, done.stderr
    check_same(run, straight)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Also where the tests themselves were started in the background, which ignores interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_in_a_step_that_validates(place: Path, straight: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is saved after that step, and nothing of it is left out in the end."""
    step, folder = Trainer.step, place / "interrupted"

    def signalled(trainer: Trainer, batches: Any) -> None:
        if trainer.state.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        step(trainer, batches)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", signalled)
        done = go(folder)
    assert done.exit_code == 130
    assert "stopped: what is finished is kept; the same command resumes" in done.stderr
    assert checkpoints(folder / "run") == ["step_00000004", "step_00000005"]
    assert [one["step"] for one in lines(folder / "run")] == [1, 2, 3, 4, 5]
    done = go(folder, "--steps", "6")
    assert done.exit_code == 0, done.stderr
    assert lines(folder / "run") == lines(straight)[:6]
    assert lines(folder / "run", "validation")[:2] == lines(straight, "validation")[:2]


def test_newest_checkpoint_truncated(place: Path, straight: Path) -> None:
    """It is told of and set aside, the one before it is taken."""
    folder, file = place / "truncated", "weights.safetensors"
    run = copied(straight, folder / "run")
    path = run / "checkpoints/step_00000014" / file
    path.write_bytes(path.read_bytes()[:1000])
    done = go(folder)
    assert done.exit_code == 0, done.stderr
    assert f"step_00000014/{file}: " in done.stderr
    for words in ("set aside as step_00000014.damaged", "looking for one before step 14"):
        assert words in done.stderr
    assert "14 (2 in this run)" in done.stdout
    check_same(run, straight)


def test_another_batch_goes_on_at_the_same_sample(place: Path, straight: Path) -> None:
    folder = place / "remapped"
    run = copied(straight, folder / "run")
    done = go(folder, "--steps", "16", "--batch-size", "3", "--set", "accumulation=1")
    assert done.exit_code == 0, done.stderr
    told = "processes × batch × accumulation was 1 × 1 × 2, is 1 × 3 × 1: resuming at sample 28 of the same order"
    assert f"{told}, as step 15" in done.stderr
    assert [one["samples"] for one in lines(run)][12:] == [26, 28, 31, 34]


def test_resume_a_named_checkpoint(place: Path, straight: Path) -> None:
    """Into a folder of its own, to the same end; not where later ones lie."""
    folder = place / "named"
    done = go(folder, "--resume", straight / "checkpoints/step_00000012")
    assert done.exit_code == 0, done.stderr
    assert "14 (2 in this run)" in done.stdout
    assert model_files(folder / "run") == model_files(straight)
    assert lines(folder / "run") == lines(straight)[12:]
    before = checkpoints(straight)
    done = go(straight.parent, "--resume", "run/checkpoints/step_00000012")
    assert done.exit_code == 2
    assert "holds later checkpoints (step_00000014, …)" in done.stderr
    assert checkpoints(straight) == before


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--resume", "none"], "--resume none: run holds checkpoints of an earlier run (step_00000014, …)"),
        (["--resume", "nowhere"], "--resume nowhere: no such folder"),
        (["--resume", "run"], "run: no checkpoint (state.json is missing)"),
        (["--set", "model.shape.context_width=32"], "was begun otherwise:\n  recipe.model.shape"),
        (["--set", "seed=1"], "was begun otherwise:\n  recipe.seed"),
        (["--set", "data.sets.B.repeat=3"], "was begun otherwise:\n  recipe.data.sets.B.repeat"),
        (["--learning-rate", "2"], "was begun otherwise:\n  recipe.optimizer.learning_rate"),
    ],
)
def test_what_cannot_be_resumed(straight: Path, words: list[str], text: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in straight.rglob("*")}
    done = go(straight.parent, "--steps", "30", *words)
    assert done.exit_code == 2
    assert text in done.stderr
    assert {path: path.stat().st_mtime_ns for path in straight.rglob("*")} == before


def test_a_checkpoint_of_another_architecture(place: Path, straight: Path) -> None:
    """Named, so that other values are taken: those that no weight fits to are not."""
    named = straight / "checkpoints/step_00000012"
    done = go(place / "other", "--resume", named, "--set", "model.shape.context_width=32")
    assert done.exit_code == 2
    assert "a checkpoint of another architecture: " in done.stderr
    assert "in this model" in done.stderr
    assert not (place / "other/run").exists()
    done = go(place / "other", "--resume", named, "--set", "train=published", "--set", "train_encoder=false")
    assert done.exit_code == 2
    assert "is of a run that trained other parameters" in done.stderr
    done = go(place / "other", "--resume", named, "--learning-rate", "0.002", "--steps", "13")
    assert done.exit_code == 0, done.stderr
    assert "resuming with other values: recipe.optimizer.learning_rate" in done.stderr
    (line,) = lines(place / "other/run")
    assert (line["step"], line["learning_rate"]) == (13, 0.002)


def test_state_says_what_it_belongs_to(straight: Path) -> None:
    state = json.loads((straight / "checkpoints/step_00000014/state.json").read_text())
    assert (state["step"], state["position"]) == (14, 28)
    assert state["world"] == {"processes": 1, "batch_size": 1, "accumulation": 2}
    assert state["ema_steps"] == 14
