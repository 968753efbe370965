"""`pics train`: what cannot be done is told in a line or two, and nothing that was saved is lost."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import Result

from helpers.making import build_folder
from helpers.training_runs import checkpoints, command, copied, last_step, lines, losses, make_data, train, write_recipe
from helpers.training_shards import members, write_shard
from pics_cli.core.runtime.files import file_sha256
from pics_cli.core.runtime.locks import single_writer
from pics_cli.core.shards.shard_files import ShardWriter
from pics_cli.core.training.objective import DiffusionLoss

SETS = {
    "LVIS": "lvis", "VITONHD": "viton_hd", "Objects365": "objects365", "Cityscapes": "cityscapes",
    "MapillaryVistas": "mapillary_vistas", "BDD100K": "bdd100k",
}  # fmt: skip
SMALL = {"steps": 4, "checkpoints__every": 2, "validation__every": 50, "validation__bins": 1, "ema__enabled": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("errors") / "data")


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    """A run of two steps, to be copied and gone on from."""
    write_recipe(data.parent / "small.yaml", **SMALL)
    done = train("--recipe", data.parent / "small.yaml", "--data-root", data, "--root-dir", data.parent / "run",
                 "--steps", "2")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    return data.parent / "run"


@pytest.fixture
def here(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data and recipes, in which commands run."""
    (tmp_path / "data").symlink_to(data)
    write_recipe(tmp_path / "small.yaml", **SMALL)
    (tmp_path / "empty/train/A").mkdir(parents=True)
    (tmp_path / "empty/train/B").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "dataset.yaml").write_text("kind: dataset\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def small(*words: str | Path) -> Result:
    return train("--recipe", "small.yaml", "--root-dir", "run", *words)


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--plan --preview sheet.png", "--plan and --preview exclude each other"),
        ("--preview sheet.png --export out", "--preview and --export exclude each other"),
        ("--preview sheet.jpg", "--preview sheet.jpg: expected the name of a .png file"),
        ("--resume nowhere", "--resume nowhere: no such folder"),
        ("--resume empty", "empty: no checkpoint (state.json is missing)"),
        ("--export out", "run: no checkpoint to export"),
        ("--recipe jonit", "unknown recipe 'jonit'\n\nhint: did you mean joint?"),
        ("--recipe dataset.yaml", "dataset.yaml: source: missing"),
        ("--set stepz=3", "unknown key, nearest: steps"),
        ("--set steps=many", '--set steps: got "many", expected '),
        ("--steps 0", "--steps: got 0, expected "),
        ("--batch-size 0", "--batch-size: got 0, expected "),
        ("--learning-rate 0", "--learning-rate: got 0"),
        ("--limit-train-batches 0", "--limit-train-batches: got 0"),
        ("--limit-train-batches 1.5", "--limit-train-batches: got 1.5"),
        ("--logger-freq 0", "--logger-freq: got 0, expected "),
        ("--gpus 0", "Invalid value for '--gpus'"),
        ("--gpus two", "Invalid value for '--gpus'"),
        ("--max-bad -1", "Invalid value for '--max-bad'"),
        ("--root-dir file", "file: cannot write"),
        ("--data-root nowhere", "A: nowhere/train/A: "),
        ("--data-root nowhere --allow-missing", "there is nothing to train on"),
        ("--data-root empty", "A: empty/train/A: no .tar shard in it"),
        ("--set data.sets.LVIX.repeat=3", "data.sets.LVIX.shards: missing"),
        ("--set data.sets.A.shards=http:/x", "A: data/http:/x: no such folder"),
        ("--set data.sets.A.shards=pipe:cat --set data.sets.A.repeat=1", "needs --allow-pipe"),
        ("--set data.sets.B.repeat=0", "data.sets.B.repeat: got 0"),
        ("--set precision=fp16", "precision: fp16 needs a GPU"),
        ("--set model.image_size=33", "model.image_size 33 is not a multiple of 8"),
        ("--set model.shape.norm_groups=3", "model.shape.norm_groups: got 3, expected a divisor of"),
        ("--set model.base=some/model", "model.shape: a new network, but model.base or model.dinov2 is given"),
        ("--set model.shape=null --base empty", "--base empty: no Stable Diffusion in diffusers' layout"),
        ("--set model.shape=null --base some/model", "--base some/model: no such folder here, and the hub cannot be"),
        ("--device tpu", "--device: got tpu, expected auto, cpu, cuda"),
        ("--device cuda:77", "--device cuda:77: "),
    ],
)
def test_what_cannot_be_done_is_told(here: Path, words: str, text: str) -> None:
    given = words.split()
    before = everything(here)
    done = small(*given) if "--device" not in given else _on(given)
    assert done.exit_code == 2
    assert text in done.stderr
    assert everything(here) == before


def _on(words: list[str]) -> Result:
    return command("train", "--recipe", "small.yaml", "--root-dir", "run", *words)


def test_gpus_that_are_not_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = torch.cuda.device_count()
    done = _on(["--gpus", str(there + 3)])
    assert done.exit_code == 2
    assert f"--gpus {there + 3}: this machine has {there} CUDA devices" in done.stderr
    assert "--device cpu" in done.stderr
    assert "a GPU of its own" in _on(["--gpus", "2", "--device", "cuda:1"]).stderr
    monkeypatch.setenv("RANK", "0")
    done = _on(["--gpus", "2"])
    assert done.exit_code == 2
    assert "--gpus within a launcher that has started its processes already\n\nhint: leave out --gpus" in done.stderr


def test_torch_is_loaded_where_its_advice_is_silent(here: Path) -> None:
    """On parameters without gradients, of which there may be some; `test_train_ranks` sees that nothing is said."""
    (here / "first").mkdir()
    (here / "first/torch.py").write_text("import os\nraise SystemExit(os.environ['TORCH_CPP_LOG_LEVEL'] + '!')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(("first", *filter(None, sys.path)))}
    del environment["TORCH_CPP_LOG_LEVEL"]
    words = [sys.executable, "-m", "pics_cli", "train", "--recipe", "small.yaml", "--root-dir", "run"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (1, "ERROR!\n")


def test_joint_without_data_says_how_to_come_by_it(here: Path) -> None:
    """All six sets, each with where it was looked for, how to make it and where it can be fetched."""
    for words in (["--recipe", "joint"], []):
        done = train(*words, "--data-root", "nowhere")
        assert done.exit_code == 2
        for name, recipe in SETS.items():
            assert f"{name}: nowhere/train/{name}: " in done.stderr
            assert f"pics build-shards {recipe} --raw DIR --out nowhere/train/{name}" in done.stderr
        assert done.stderr.count("or fetch it: https://drive.google.com/") == 6
        for flag in ("--data-root DIR", "--allow-missing"):
            assert flag in done.stderr
    assert not (here / "LOGS").exists()
    done = train("--recipe", "lvis", "--data-root", "nowhere")
    assert done.exit_code == 2
    assert "LVIS: nowhere/train/LVIS: " in done.stderr
    assert "VITONHD" not in done.stderr


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("layout", "its samples are none of pics: "),
        ("text", "mixed/train/A/00000.tar: truncated or no tar file"),
        ("unfinished", "its build was not finished"),
        ("lost", "of 2 shards in manifest.json are missing"),
    ],
)
def test_sets_that_cannot_be_trained_on(here: Path, data: Path, kind: str, text: str) -> None:
    folder = here / "mixed/train/A"
    folder.mkdir(parents=True)
    (here / "mixed/train/B").symlink_to(data / "train/B")
    if kind == "layout":
        with ShardWriter(folder / "00000.tar") as writer:
            writer.add("0", {"jpg": b"picture", "txt": b"a dog"})
    elif kind == "text":
        (folder / "00000.tar").write_text("no tar" * 200)
    else:
        folder.rmdir()
        build_folder("synth", None, folder, limit=4, source__size=64, shards__size=2)
        manifest = json.loads((folder / "manifest.json").read_text())
        if kind == "unfinished":
            (folder / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
        else:
            (folder / "00001.tar").unlink()
    for more in ([], ["--plan"]):
        done = small("--data-root", "mixed", *more)
        assert done.exit_code == 2
        assert text in done.stderr
    assert not (here / "run").exists()


def test_a_rate_that_is_far_too_high(here: Path) -> None:
    done = small("--learning-rate", "1e30", "--set", "optimizer.warmup=0")
    assert done.exit_code == 1
    assert "step 2: the loss or its gradient is nan or inf; samples: " in done.stderr
    assert "last good checkpoint: none yet" in done.stderr
    assert not (here / "run/model").exists()


def test_weights_that_are_no_numbers(here: Path, trained: Path) -> None:
    """The samples of the step are named, nothing is saved, what was saved stays."""
    copied(trained, here / "run")
    folder = here / "run/checkpoints/step_00000002"
    tensors = load_file(folder / "weights.safetensors")
    tensors["unet.conv_in.weight"][:] = torch.nan
    save_file(tensors, folder / "weights.safetensors")
    state = json.loads((folder / "state.json").read_text())
    del state["state_sha256"]
    state["sha256"]["weights.safetensors"] = file_sha256(folder / "weights.safetensors")
    (folder / "state.json").write_text(json.dumps(state))
    done = small()
    assert done.exit_code == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: step 3: the loss or its gradient is nan or inf; samples: ")
    keys = line.rpartition("samples: ")[2].split(", ")
    assert len(keys) == 2
    assert {key[:2] for key in keys} <= {"A/", "B/"}
    assert f"last good checkpoint: {Path('run/checkpoints/step_00000002')}" in done.stderr
    assert checkpoints(here / "run") == ["step_00000002"]
    assert last_step(here / "run") == 2


def test_unreadable_samples_are_counted(here: Path) -> None:
    """Another takes the place of each; listed once, also after resuming; --max-bad stops."""
    write_shard(here / "mixed/val/A/00000.tar", [50])
    (here / "mixed/train/A").mkdir(parents=True)
    with ShardWriter(here / "mixed/train/A/00000.tar") as writer:
        for number in range(6):
            parts = members(number)
            if number == 3:
                parts["bg.jpg"] = parts["bg.jpg"][:300]
            writer.add(f"{number:04d}", parts)
    words = ["--data-root", "mixed", "--allow-missing", "--set", "validation.samples=1"]
    done = small(*words)
    assert done.exit_code == 0, done.stderr
    assert "left out: B: " in done.stderr
    assert re.search("unreadable samples +1, listed in run/bad.json", done.stdout)
    (bad,) = json.loads((here / "run/bad.json").read_text())
    assert (bad["set"], bad["key"]) == ("A", "0003")
    done = small(*words, "--steps", "8")
    assert done.exit_code == 0, done.stderr
    assert len(json.loads((here / "run/bad.json").read_text())) == 1
    assert lines(here / "run")[-1]["bad"] == 1
    done = train("--recipe", "small.yaml", "--root-dir", "strict", *words, "--max-bad", "0")
    assert done.exit_code == 2
    assert "more than --max-bad 0; the first:\n  A 0003: " in done.stderr
    assert not (here / "strict/model").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: 64 bytes"),
    ],
)
def test_out_of_memory_says_what_to_lower(here: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    calls = []
    step = DiffusionLoss.__call__

    def failing(self: DiffusionLoss, *arguments: Any):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return step(self, *arguments)

    monkeypatch.setattr(DiffusionLoss, "__call__", failing)
    done = small("--set", "ema.enabled=true", "--set", "validation.samples=1")
    assert done.exit_code == 2
    assert "error: out of memory on cpu (" in done.stderr
    ways = "--batch-size 1 --set accumulation=2", "--set gradient_checkpointing=true", "--set ema.device=cpu"
    for way in (*ways, "--set train=published"):
        assert way in done.stderr


def test_a_full_disk_while_saving(here: Path, trained: Path) -> None:
    """The checkpoint before it survives, and with room the run goes on from there to the same end."""
    copied(trained, here / "run")
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sizes = [path.stat().st_size for path in (here / "run/checkpoints/step_00000002").iterdir()]
    resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes) - 1000, hard))  # weights fit, the optimiser's state does not
    try:
        done = small()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    assert done.exit_code == 2
    assert "run/checkpoints/step_00000004: " in done.stderr
    assert "disk full" in done.stderr
    assert checkpoints(here / "run") == ["step_00000002"]
    done = small()
    assert done.exit_code == 0, done.stderr
    assert "4 (2 in this run)" in done.stdout
    assert [one["step"] for one in lines(here / "run")] == [1, 2, 3, 4]
    assert len(set(losses(here / "run"))) == 4


def test_another_writer(here: Path) -> None:
    (here / "run").mkdir()
    with single_writer(here / "run"):
        done = small()
    assert done.exit_code == 2
    assert f"run: another writer is at work here (pid {os.getpid()} on " in done.stderr
