"""scripts/fit_order_head.py: a model with a head that its shards taught, all else as it was; what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.in_process import Done, run_script
from helpers.making import build_folder
from helpers.trainees import CORRECTING, LAYERS, small
from helpers.training_shards import write_shard
from pics_cli.core.inference.composite import composite
from pics_cli.core.inference.sample import CompositeOptions, CompositeSample
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.base import find_recipe
from pics_cli.core.training.networks import is_trained

SCRIPT = Path(__file__).parents[2] / "scripts" / "fit_order_head.py"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "shards"
    relations = {"occluding": 1, "supporting": 1}
    build_folder(find_recipe("synth"), None, out, limit=80, source__size=96, source__relations=relations)
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "plain"
    small(**LAYERS).save_pretrained(folder)
    return folder


def fit(model: Path, shards: Path, out: Path, *words: object) -> Done:
    return run_script(SCRIPT, model, shards, "--output", out, "--dtype", "fp32", "--epochs", 300, *words)


@pytest.fixture(scope="module")
def fitted(model: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    """A model with a head, not to be changed, and what was said while it was made."""
    out = tmp_path_factory.mktemp("fitted") / "model"
    done = fit(model, shards, out, "--val", shards)
    assert done.returncode == 0, done.stderr
    return out, done


def test_a_head_is_added(model: Path, shards: Path, tmp_path: Path, fitted: tuple[Path, Done]) -> None:
    made, done = fitted
    assert done.stdout.count("order ") == 2
    right = float(done.stdout.split("order ")[1].split(";")[0])
    assert right >= 0.95
    before, after = PicsModel.from_pretrained(model), PicsModel.from_pretrained(made)
    assert before.estimate_order(np.array([[0, 0, 9, 9], [4, 4, 20, 20]], np.float32)) is None
    for name, part in before.parts.items():
        theirs = after.parts[name].state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in part.state_dict().items()), name
    again = fit(model, shards, tmp_path / "b")
    assert again.returncode == 0, again.stderr
    files = [path.relative_to(made) for path in made.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert all((made / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)

    # Two boxes of which the upper one stands on the lower one, or behind it.
    standing = np.array([[40, 20, 60, 52], [20, 45, 80, 90]], np.float32)
    behind = np.array([[30, 20, 60, 70], [40, 30, 75, 88]], np.float32)
    on, back = after.estimate_order(standing), after.estimate_order(behind)
    assert on is not None
    assert back is not None
    assert on[0, 1] > 0 > back[0, 1]


def test_it_decides_what_is_in_front(fitted: tuple[Path, Done]) -> None:
    """Of the same network, whose own weights have no opinion: as the head says, unless the order is given."""
    red, blue = np.zeros((40, 40, 4), np.uint8), np.zeros((40, 40, 4), np.uint8)
    red[...] = (255, 0, 0, 255)
    blue[...] = (0, 0, 255, 255)
    loaded = PicsModel.from_pretrained(fitted[0])
    with torch.no_grad():
        convolution: Any = loaded.unet.conv_out
        config = loaded.config
        convolution.weight.zero_()
        convolution.bias.zero_()
        pastes = slice(config.latent_channels, config.latent_channels + 2 * config.share_grid**2)
        convolution.bias[pastes] = 1
    boxes = ((8, 4, 48, 44), (20, 16, 60, 60))
    background = np.full((64, 64, 3), 128, np.uint8)

    def front(log_odds: float | None, order: tuple[int, int] | None = None) -> str:
        answer = None if log_odds is None else np.array([[0, log_odds], [-log_odds, 0]], np.float32)
        loaded.estimate_order = lambda _: answer  # type: ignore[method-assign, assignment]
        sample = CompositeSample("a", background, boxes, (red, blue), order)
        (result,) = composite(loaded, [sample], CompositeOptions(steps=1, guidance=1.0, match="none"))
        pixel = result.image[30, 34].astype(int)
        return "red" if pixel[0] > pixel[2] else "blue"

    assert front(5.0) == "red"
    assert front(-5.0) == "blue"
    assert front(5.0, (0, 1)) == "blue"
    assert front(-5.0, (1, 0)) == "red"


def test_training_leaves_it_alone() -> None:
    assert not is_trained("controlnet.order_head.hidden.0.weight", "full", True)
    assert is_trained("controlnet.conv_in.weight", "full", True)


def test_faults(model: Path, shards: Path, tmp_path: Path) -> None:
    photographs = tmp_path / "photographs"
    write_shard(photographs / "00000.tar", [3])
    other = tmp_path / "other"
    small(**CORRECTING).save_pretrained(other)
    (tmp_path / "there").mkdir()
    for words, text in (
        ((model, photographs, tmp_path / "out"), "states its order"),
        ((model, tmp_path / "nothing", tmp_path / "out"), "no such"),
        ((other, shards, tmp_path / "out"), "hint"),
        ((model, shards, tmp_path / "there"), "exists"),
    ):
        done = fit(*words)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert text in done.stderr
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("times", ["0", "a", "-1", "1.5"])
def test_sets_are_repeated_a_number_of_times(model: Path, shards: Path, tmp_path: Path, times: str) -> None:
    done = run_script(SCRIPT, model, f"{shards}={times}", "--output", tmp_path / "out")
    assert (done.returncode, "N from 1" in done.stderr, "Traceback" in done.stderr) == (2, True, False)
