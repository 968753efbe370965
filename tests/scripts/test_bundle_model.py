"""scripts/bundle_model.py: what it copies, what it refuses, and that nothing half done is left."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.in_process import Done, run_script
from helpers.trainees import CORRECTING, small
from pics_cli.core.model.bundled import MAX_BYTES, bundled_model
from pics_cli.core.model.config import CONFIG_FILE, ModelConfig

SCRIPT = Path(__file__).parents[2] / "scripts" / "bundle_model.py"


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """As `pics train --export` writes it."""
    pipeline = small(**CORRECTING)
    pipeline.config = replace(pipeline.config, trained_steps=40, recipe_hash="0123abcd")
    pipeline.save_pretrained(tmp_path / "exported")
    return tmp_path / "exported"


def bundle(model: Path, *words: str) -> Done:
    return run_script(SCRIPT, model, "--into", model.parent / "models", *words)


def test_copies_and_lists_every_file(exported: Path) -> None:
    (exported / "README.md").write_text("a note that is no part of it")
    done = bundle(exported)
    assert done.returncode == 0, done.stderr
    folder = exported.parent / "models/pics-mini"
    record = json.loads((folder / "files.json").read_text())
    identity = (record["name"], record["trained_steps"], record["recipe_hash"], record["image_size"])
    assert identity == ("pics-mini", 40, "0123abcd", 64)
    wanted = {
        path.relative_to(exported).as_posix(): path.read_bytes()
        for path in exported.rglob("*")
        if path.is_file() and path.suffix not in (".md", ".py")
    }
    assert record["files"].keys() == wanted.keys()
    for name, data in wanted.items():
        assert record["files"][name] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        assert (folder / name).read_bytes() == data
    assert record["bytes"] == sum(map(len, wanted.values()))
    assert bundled_model(folder) == folder
    assert sorted(path.name for path in folder.parent.iterdir()) == ["pics-mini"]


def test_replaces_what_was_there(exported: Path) -> None:
    models = exported.parent / "models"
    assert bundle(exported, "--name", "other").returncode == 0
    (models / "other/unet/old.json").write_text("{}")
    (models / "other.new").mkdir()  # of a run that was killed
    replace(ModelConfig.load(exported), trained_steps=80).save(exported)
    assert bundle(exported, "--name", "other").returncode == 0
    assert [path.name for path in models.iterdir()] == ["other"]
    assert not (models / "other/unet/old.json").exists()
    assert json.loads((models / "other/files.json").read_text())["trained_steps"] == 80


def _untrained(model: Path) -> None:
    replace(ModelConfig.load(model), trained_steps=0).save(model)


def _linked(model: Path) -> None:
    data = json.loads((model / CONFIG_FILE).read_text())
    (model / CONFIG_FILE).write_text(json.dumps({**data, "links": {"vae": {"source": "some/one", "folder": "vae"}}}))


def _large(model: Path) -> None:
    with (model / "unet/diffusion_pytorch_model.safetensors").open("r+b") as file:
        file.truncate(MAX_BYTES)


def _incomplete(model: Path) -> None:
    shutil.rmtree(model / "projector")


def _no_model(model: Path) -> None:
    (model / CONFIG_FILE).unlink()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (_untrained, "not trained: pics.json says trained_steps 0, recipe_hash 0123abcd"),
        (_linked, "parts lie elsewhere: vae"),
        (_large, "a bundled model has at most 50 MB\n\nhint: export it in 16 bit"),
        (_incomplete, "projector: missing, the model folder is not complete"),
        (_no_model, "not a model folder of pics (no pics.json in it)"),
    ],
)
def test_what_may_not_go_into_the_package(exported: Path, spoil: Callable[[Path], None], text: str) -> None:
    spoil(exported)
    done = bundle(exported)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not (exported.parent / "models").exists()


def test_a_name_is_no_path(exported: Path) -> None:
    done = bundle(exported, "--name", "../up")
    assert done.returncode == 2
    assert "--name ../up: expected letters, digits, dots and dashes" in done.stderr


def test_a_full_disk_leaves_the_former_model(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundle(exported).returncode == 0
    copy, copied = shutil.copyfile, list[str]()

    def fills_up(source: Path, target: Path) -> None:
        if len(copied) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        copied.append(source.name)
        copy(source, target)

    replace(ModelConfig.load(exported), trained_steps=80).save(exported)
    monkeypatch.setattr(shutil, "copyfile", fills_up)
    done = bundle(exported)
    assert done.returncode == 2
    assert "disk full (no space left on device)" in done.stderr
    models = exported.parent / "models"
    assert [path.name for path in models.iterdir()] == ["pics-mini"]
    assert json.loads((bundled_model(models / "pics-mini") / "files.json").read_text())["trained_steps"] == 40
