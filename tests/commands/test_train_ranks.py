"""`pics train` in several processes: every sample once, the numbers of one with as large a batch, exit codes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from helpers import processes
from helpers.processes import Started
from helpers.training_runs import (
    FIRST,
    PER_SHARD,
    checkpoints,
    last_step,
    lines,
    losses,
    make_data,
    model_files,
    start,
    train,
    write_recipe,
)
from helpers.training_shards import members
from helpers.two_ranks import environments
from pics_cli.core.loading.mixture import SampleRef
from pics_cli.core.recipes.base import Override
from pics_cli.core.recipes.training import load_training
from pics_cli.core.shards.shard_files import ShardWriter
from pics_cli.core.training.data import find_data

CLOSE = 1e-5
STEPS = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    make_data(folder / "data")
    write_recipe(folder / "small.yaml", batch_size=1, steps=STEPS, validation__every=STEPS, validation__bins=1)
    return folder


def two(at: Path, *words: str | Path) -> list[Started]:
    """Both processes of a run, as a launcher starts them; the keys that each reads go to `keys0` and `keys1`."""
    return [start(at, *words, keys=at / f"keys{rank}", **each) for rank, each in enumerate(environments())]


def expected(recipe: Path, data: Path, number: int) -> list[str]:
    """Keys at the first positions of the stream, by the mixture and the numbers that samples were made with."""
    loaded = load_training(str(recipe), [Override("data.root", str(data), "--data-root")])
    sources = find_data(loaded)

    def key(item: SampleRef) -> str:
        name = sources.sets[item.set].name
        return f"{name}/{FIRST[name] + item.shard * PER_SHARD + item.sample:04d}"

    return [key(sources.order[position]) for position in range(number)]


def read(at: Path) -> list[list[list[str]]]:
    """Keys of every batch that each of two ranks took."""
    return [[json.loads(line) for line in (at / f"keys{rank}").read_text().splitlines()] for rank in range(2)]


def test_every_position_once_and_the_numbers_of_one(place: Path) -> None:
    """Twelve steps of two processes, stopped between by a signal to one, against one process with twice the batch."""
    words = ["--recipe", "small.yaml", "--root-dir", "two", "--set", "data.workers=1"]
    ranks = two(place, *words)
    assert ranks[1].when(lambda: last_step(place / "two") >= 3, signal.SIGTERM) == 143
    assert ranks[0].code() in (130, 143)
    assert "stopped: what is finished is kept" in ranks[0].text
    stopped = last_step(place / "two")
    assert 3 <= stopped < STEPS
    assert checkpoints(place / "two")[-1] == f"step_{stopped:08d}"
    first = read(place)
    ranks = two(place, *words)
    assert [rank.code() for rank in ranks] == [0, 0], ranks[0].text
    assert "samples in" in ranks[0].text
    assert "samples in" not in ranks[1].text
    second = read(place)
    wanted = expected(place / "small.yaml", place / "data", 2 * STEPS)
    for rank in range(2):
        assert first[rank][:stopped] + second[rank] == [[key] for key in wanted[rank::2]]
    done = train("--recipe", place / "small.yaml", "--data-root", place / "data", "--root-dir", place / "one",
                 "--batch-size", "2")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert losses(place / "two") == pytest.approx(losses(place / "one"), rel=0, abs=CLOSE)
    assert len(losses(place / "one")) == STEPS
    ours, theirs = (lines(place / name, "validation")[-1] for name in ("two", "one"))
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=0, abs=CLOSE)
    assert model_files(place / "two").keys() == model_files(place / "one").keys()
    done = train("--recipe", place / "small.yaml", "--data-root", place / "data", "--root-dir", place / "two",
                 "--batch-size", "2", "--steps", str(STEPS + 1))  # fmt: skip
    assert done.exit_code == 0, done.stderr
    resumed = f"resuming at sample {2 * STEPS} of the same order, as step {STEPS + 1}"
    assert f"was 2 × 1 × 1, is 1 × 2 × 1: {resumed}" in done.stderr


@pytest.mark.slow
def test_gpus_starts_processes_and_hands_on_their_exit_code(place: Path) -> None:
    """Two on the CPU; they train until a sample cannot be read, which --max-bad does not allow."""
    order = expected(place / "small.yaml", place / "data", 2 * STEPS)
    late = max(range(2 * STEPS), key=lambda position: order.index(order[position]))
    name, number = order[late].split("/")
    shard = (int(number) - FIRST[name]) // PER_SHARD
    path = make_data(place / "bad") / f"train/{name}/{shard:05d}.tar"
    with ShardWriter(path) as writer:
        for other in range(FIRST[name] + shard * PER_SHARD, FIRST[name] + (shard + 1) * PER_SHARD):
            parts = members(other)
            if other == int(number):
                parts["bg.jpg"] = parts["bg.jpg"][:300]
            writer.add(f"{other:04d}", parts)
    words = ["--recipe", "small.yaml", "--data-root", "bad", "--root-dir", "gpus", "--max-bad", "0"]
    done = processes.start(place, "train", *words, "--device", "cpu", "--gpus", "2", prepare=processes.fork_ranks)
    assert done.code() == 2, done.stderr
    assert done.stderr.count("more than --max-bad 0") == 1
    assert f"{name} {number}: " in done.stderr
    assert [one["step"] for one in lines(place / "gpus")] == list(range(1, late // 2 + 1))


@pytest.mark.slow
def test_a_launcher(place: Path) -> None:
    """torchrun; `accelerate launch` is what --gpus uses."""
    words = ["--recipe", "small.yaml", "--root-dir", "launched", "--steps", "2"]
    launcher = ["--standalone", "--nproc-per-node", "2", "-m", "pics_cli", "train"]
    done = processes.start(
        place, *launcher, *words, "--device", "cpu", module="torch.distributed.run", prepare=processes.fork_ranks
    )
    assert done.code() == 0, done.stderr
    assert "Warning" not in done.stderr
    assert done.stdout.count("loss of the last step") == 1
    (last,) = (one for one in lines(place / "launched") if one["step"] == 2)
    assert last["samples"] == 4
    assert (place / "launched/model/pics.json").is_file()
