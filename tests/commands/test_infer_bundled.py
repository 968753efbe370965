"""`pics infer` with what comes in the package, model and samples, and without a network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.composites import BOXES, composed, make_sample, outside, scene
from helpers.infer_command import infer, records
from helpers.trainees import CORRECTING, small
from pics_cli.core.inference import inputs
from pics_cli.core.inference.run import check_memory_mode
from pics_cli.core.model import bundled
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.runtime.files import write_json

BOX3 = (*BOXES, (4, 60, 40, 92))
BLOCKED = """\
import socket
import sys
from pathlib import Path

def refuse(*_arguments, **_options):
    with (Path(__file__).parent / "asked").open("a") as file:
        file.write("asked\\n")
    raise OSError("no network here")

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = refuse
(Path(__file__).parent / "blocked").touch()
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundled models with a small one in it, and one of bundled samples: of two objects, and of three."""
    root = tmp_path_factory.mktemp("package")
    pipeline = small(**CORRECTING, steps=1, guidance=1.0)
    pipeline.config = replace(pipeline.config, trained_steps=40, recipe_hash="0123abcd")
    folder = root / "models" / bundled.BUNDLED_NAME
    pipeline.save_pretrained(folder)
    write_json(folder / bundled.FILES_FILE, bundled.list_model_files(folder, name=bundled.BUNDLED_NAME))
    make_sample(root / "samples/pair")
    make_sample(root / "samples/three", BOX3, seed=1)
    return root


@pytest.fixture
def here(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which commands run, with a sample; `package` in it is what comes with the package."""
    shutil.copytree(packed, tmp_path / "package")
    make_sample(tmp_path / "in/one")
    scene().save(tmp_path / "bg.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundled, "MODELS", tmp_path / "package/models")
    monkeypatch.setattr(inputs, "BUNDLED_SAMPLES", tmp_path / "package/samples")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def test_a_model_is_there_where_none_is_named(here: Path, tiny_model: Path) -> None:
    done = infer("--input", "in")
    assert done.exit_code == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("model: "))
    assert line.startswith(
        "model: pics-mini, bundled: small, sees 64x64, trained on drawn and rendered scenes; the published "
    )
    (record,) = records(here / "results/in")
    assert record["model"]["name"] == "pics-mini"
    assert (record["settings"]["steps"], record["settings"]["guidance"]) == (1, 1.0)
    # By name it is the same; a folder of that name is not it.
    done = infer("--input", "in", "--model", "pics-mini")
    assert "there already    1" in done.stdout, done.stderr
    shutil.copytree(tiny_model, here / "pics-mini")
    done = infer("--input", "in", "--model", "pics-mini", "--steps", "1", "--guidance", "1", "--output", "tiny")
    assert done.exit_code == 0, done.stderr
    assert "bundled" not in done.stderr
    assert records(here / "tiny")[0]["model"]["fingerprint"] != record["model"]["fingerprint"]


def _no_models(package: Path) -> None:
    shutil.rmtree(package / "models")


def _no_file(package: Path) -> None:
    (package / "models/pics-mini/unet/config.json").unlink()
    (package / "models/pics-mini/pics.json").unlink()


def _no_list(package: Path) -> None:
    (package / "models/pics-mini/files.json").unlink()


def _flipped(package: Path) -> None:
    path = package / "models/pics-mini/unet/diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _cut(package: Path) -> None:
    path = package / "models/pics-mini/pics.json"
    path.write_bytes(path.read_bytes()[:-10])


def _more(package: Path) -> None:
    (package / "models/pics-mini/unet/model.safetensors").write_bytes(b"")


def _garbled(package: Path) -> None:
    (package / "models/pics-mini/files.json").write_text("[]")


def _no_samples(package: Path) -> None:
    shutil.rmtree(package / "samples")


def _as_it_is(_package: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("spoil", "words", "texts"),
    [
        (_no_models, "--input in", ["models/pics-mini: the bundled model is missing: there is no such folder"]),
        (_no_list, "--input in", ["the bundled model is missing: files.json is missing"]),
        (
            _no_file,
            "--input in",
            ["the bundled model is not complete: pics.json is missing, unet/config.json is missing", "get it back: "],
        ),
        (
            _flipped,
            "--input in",
            [
                "is damaged: unet/diffusion_pytorch_model.safetensors has sha256 ",
                "…, expected ",
                "--model pics               (says what to download, once)",
            ],
        ),
        (_cut, "--input in --model pics-mini", ["is damaged: pics.json has ", " bytes, expected 5", ", and sha256 "]),
        (_more, "--input in", ["is damaged: unet/model.safetensors does not belong to it"]),
        (_garbled, "--input in", ["the bundled model is damaged: files.json: "]),
        (_no_samples, "--input sample", ["no folder of that name here, and the bundled samples are missing: "]),
        (
            _as_it_is,
            "--input in --memory offload",
            ["--memory offload: of no use for pics-mini, which has 1.7 MB of weights", "hint: leave out --memory"],
        ),
        (_as_it_is, "--input in --memory sequential", ["--memory sequential: of no use for pics-mini"]),
        (_as_it_is, "--input sampel", ["--input sampel: no such folder", "bundled with pics: --input sample"]),
        (_as_it_is, "", ["nothing to composite", "bundled ones: --input sample"]),
    ],
)
def test_what_cannot_be_done_is_told(here: Path, spoil: Callable[[Path], None], words: str, texts: list[str]) -> None:
    spoil(here / "package")
    done = infer(*words.split())
    assert done.exit_code == 2
    for text in texts:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not (here / "results").exists()


@pytest.mark.parametrize("checkout", [True, False])
def test_how_to_get_a_folder_back(checkout: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "PACKAGE", tmp_path / "pics_cli")
    if checkout:
        (tmp_path / ".git").mkdir()
    command = bundled.restore_hint(tmp_path / "pics_cli/models/pics-mini")
    wanted = f"git -C {tmp_path} checkout -- pics_cli/models/pics-mini"
    assert command.endswith(wanted if checkout else "pip install --force-reinstall --no-deps pics-cli")


def test_memory_modes_are_refused_where_they_have_no_use_alone(here: Path, tiny_model: Path) -> None:
    folder = here / "package/models/pics-mini"
    for memory in ("auto", "resident"):
        check_memory_mode(memory, folder, "mini")
    check_memory_mode("offload", tiny_model, "tiny")
    check_memory_mode("offload", here, "no model")
    with (folder / "unet/diffusion_pytorch_model.safetensors").open("r+b") as file:
        file.truncate(200_000_000)
    check_memory_mode("offload", folder, "a large one that works on pixels")


def test_guidance_is_taken_and_its_price_told(here: Path) -> None:
    done = infer("--input", "in", "--guidance", "3")
    assert done.exit_code == 0, done.stderr
    assert "--guidance 3: this model is meant to go without (1)" in done.stderr
    assert records(here / "results/in")[0]["settings"]["guidance"] == 3.0


def test_bundled_samples_stand_in_for_a_folder_that_is_not_there(here: Path) -> None:
    done = infer("--input", "sample", "--obj-thr", "2")
    assert done.exit_code == 0, done.stderr
    where = f"--input sample: no folder of that name here; the samples bundled with pics: {here}/package/samples"
    assert done.stderr.splitlines()[0] == where
    made = records(here / "results/sample")
    assert [(one["id"], one["boxes"]) for one in made] == [
        ("pair", [list(box) for box in BOXES]), ("three", [list(box) for box in BOXES])
    ]  # fmt: skip
    make_sample(here / "sample/mine", BOXES[:1])
    done = infer("--input", "sample/", "--output", "mine")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.splitlines()[0] == f"--input sample: the folder {here}/sample, not the samples bundled with pics"
    assert [one["id"] for one in records(here / "mine")] == ["mine"]


@pytest.mark.parametrize("kind", ["file", "dangling"])
def test_what_is_there_of_that_name_is_meant(kind: str, here: Path) -> None:
    if kind == "file":
        (here / "sample").touch()
    else:
        (here / "sample").symlink_to("nowhere")
    done = infer("--input", "sample")
    assert done.exit_code == 2
    assert "--input sample: is a file" in done.stderr or "--input sample: no such folder" in done.stderr


# What follows looks at the package itself.


def test_the_bundled_model_is_whole_trained_and_small() -> None:
    folder = bundled.bundled_model()
    record = json.loads((folder / bundled.FILES_FILE).read_text())
    config = ModelConfig.load(folder)
    assert 0 < record["bytes"] <= bundled.MAX_BYTES
    assert record["name"] == bundled.BUNDLED_NAME
    assert config.image_size == record["image_size"] == 256
    assert config.trained_steps == record["trained_steps"] > 0
    assert config.recipe_hash == record["recipe_hash"]
    assert not config.links


@pytest.mark.slow
def test_pictures_without_a_network(tmp_path: Path) -> None:
    """An empty home, no caches, every connection refused: the bundled samples by the bundled model."""
    for name in ("home", "block", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "block/sitecustomize.py").write_text(BLOCKED)
    root = Path(bundled.__file__).parents[3]
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(tmp_path / "block"), str(root))),
    }  # fmt: skip
    command = [sys.executable, "-m", "pics_cli", "infer", "--input", "sample", "--obj-thr", "2", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path / "work", env=environment)
    assert (tmp_path / "block/blocked").exists()
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "block/asked").exists()
    made = records(tmp_path / "work/results/sample")
    pictures = composed(tmp_path / "work/results/sample")
    assert len(made) == len(pictures) >= 7
    for record in made:
        picture = pictures[f"composed_{record['id']}.png"]
        before = np.asarray(Image.open(record["files"]["background"]).convert("RGB"))
        changed = (picture != before).any(2)
        assert not changed[outside(record["boxes"], before.shape[1::-1])].any()
        assert len(record["boxes"]) == 2
        for x0, y0, x1, y1 in record["boxes"]:
            assert changed[y0:y1, x0:x1].mean() > 0.1
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
