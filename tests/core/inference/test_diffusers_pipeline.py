"""A model folder as diffusers loads it: the same pipeline, and the same pictures to the bit; old folders still load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from helpers.composites import BOXES, composed, make_sample, run
from helpers.trainees import LAYERS, small
from pics_cli import PicsPipeline
from pics_cli.core.model.bundled import MODELS
from pics_cli.core.model.image_encoder import Projector
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.errors import PicsError


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On pixels, with three layers and shadows, in one step."""
    folder = tmp_path_factory.mktemp("models") / "small"
    small(**{**LAYERS, "steps": 1, "guidance": 1.0, "scheduler": "ddim"}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("samples")
    make_sample(root / "two", BOXES)
    return root / "two"


def arguments(sample: Path) -> dict[str, Any]:
    return {
        "image": sample / "image.png",
        "objects": [sample / f"object_{k}.png" for k in range(2)],
        "masks": [sample / f"object_{k}_mask.png" for k in range(2)],
        "name": sample.name,
        "steps": 1,
        "output_type": "np",
    }


def picture(pipe: PicsPipeline, sample: Path) -> np.ndarray:
    return np.asarray(pipe(**arguments(sample)).images[0])


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that diffusers copies goes to a folder of the test's own."""
    for name in ("diffusers.utils.dynamic_modules_utils", "diffusers.utils.constants"):
        monkeypatch.setattr(f"{name}.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize("kind", ["latent", "pixels"])
@pytest.mark.usefixtures("modules")
def test_diffusers_loads_it_and_makes_the_same_picture(
    tiny_model: Path, small_model: Path, sample: Path, tmp_path: Path, kind: str
) -> None:
    """`DiffusionPipeline.from_pretrained`, `PicsPipeline.from_pretrained` and `pics infer`."""
    model = tiny_model if kind == "latent" else small_model
    run(sample.parent, tmp_path / "out", model, dtype="fp32")
    expected = composed(tmp_path / "out")["composed_two.png"]
    np.testing.assert_array_equal(picture(PicsPipeline.from_pretrained(model), sample), expected)
    for options in ({}, {"custom_pipeline": str(model)}):
        pipe = DiffusionPipeline.from_pretrained(model, trust_remote_code=True, **options)
        assert type(pipe) is PicsPipeline
        assert {name: type(part) for name, part in pipe.components.items()} == {
            name: type(part) for name, part in PicsPipeline.from_pretrained(model).components.items()
        }
        np.testing.assert_array_equal(picture(pipe, sample), expected)


def test_in_a_process_that_has_not_imported_the_package(small_model: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom diffusers import DiffusionPipeline\nassert 'pics_cli' not in sys.modules\n"
        f"pipe = DiffusionPipeline.from_pretrained({str(small_model)!r}, trust_remote_code=True)\n"
        "print(type(pipe).__module__, pipe.dtype, pipe.device)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "pics_cli.core.inference.pipeline torch.float32 cpu"


@pytest.mark.usefixtures("modules")
def test_diffusers_runs_no_code_unasked(small_model: Path) -> None:
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        DiffusionPipeline.from_pretrained(small_model)


def test_our_loader_runs_no_code_of_a_folder(small_model: Path, sample: Path, tmp_path: Path) -> None:
    """Neither its Python files nor the classes that `model_index.json` names."""
    folder = tmp_path / "model"
    shutil.copytree(small_model, folder)
    expected = picture(PicsPipeline.from_pretrained(folder), sample)
    for path in folder.rglob("*.py"):
        path.write_text("raise SystemExit('imported')")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "unet": ["antigravity", "Anything"]}))
    np.testing.assert_array_equal(picture(PicsPipeline.from_pretrained(folder), sample), expected)


def test_precision(small_model: Path, sample: Path) -> None:
    """All parts get the UNet's; half precision gives nearly the same picture, on a CPU too."""
    half = PicsPipeline.from_pretrained(small_model, torch_dtype=torch.bfloat16)
    parts = {**half.components, "projector": half.projector.float()}
    mixed = PicsPipeline(**parts, pics=dict(half.config.pics))
    assert {value.dtype for part in mixed.model.parts.values() for value in part.parameters()} == {torch.bfloat16}
    first = picture(PicsPipeline.from_pretrained(small_model), sample).astype(float)
    assert np.abs(picture(mixed, sample) - first).mean() < 0.1 * first.std()


def test_saved_again(small_model: Path, tmp_path: Path) -> None:
    """Byte by byte, and no path of this machine stands in any file."""
    PicsPipeline.from_pretrained(small_model).save_pretrained(tmp_path / "again")
    names = sorted(path.relative_to(small_model) for path in small_model.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.*"))
    for name in names:
        written = (tmp_path / "again" / name).read_bytes()
        assert written == (small_model / name).read_bytes(), name
        assert str(small_model).encode() not in written


def test_a_projector_without_configuration_still_loads(small_model: Path, sample: Path, tmp_path: Path) -> None:
    """As pics saved it before it was a model of diffusers."""
    folder = tmp_path / "model"
    shutil.copytree(small_model, folder)
    weights = load_file(folder / "projector/diffusion_pytorch_model.safetensors")
    shutil.rmtree(folder / "projector")
    (folder / "projector").mkdir()
    save_file(weights, folder / "projector/model.safetensors")
    expected = picture(PicsPipeline.from_pretrained(small_model), sample)
    np.testing.assert_array_equal(picture(PicsPipeline.from_pretrained(folder), sample), expected)
    blank = PicsModel.from_pretrained(folder, weights=False)
    assert isinstance(blank.projector, Projector)
    assert blank.projector.weight.is_meta


@pytest.mark.usefixtures("modules")
def test_the_bundled_model_saved_anew_loads_through_diffusers(sample: Path, tmp_path: Path) -> None:
    bundled = PicsPipeline.from_pretrained("pics-mini")
    bundled.save_pretrained(tmp_path / "mini")
    assert not (tmp_path / "mini/projector/model.safetensors").exists()
    assert (MODELS / "pics-mini/vae/config.json").is_file()
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "mini", trust_remote_code=True)
    np.testing.assert_array_equal(picture(pipe, sample), picture(bundled, sample))


@pytest.mark.parametrize("name", ["unet", "scheduler"])
def test_parts_are_not_replaced(small_model: Path, name: str) -> None:
    pipe = PicsPipeline.from_pretrained(small_model)
    with pytest.raises(AttributeError, match=f"{name} of a PicsPipeline cannot be replaced: "):
        setattr(pipe, name, getattr(pipe, name))


def test_parts_that_do_not_fit(small_model: Path) -> None:
    pipe = PicsPipeline.from_pretrained(small_model)
    values = dict(pipe.config.pics)
    for change, message in (
        ({"tau": 0.25}, "tau is 0.25 in pics.json, 0.5 in unet"),
        ({"tau": -1}, r"model_index\.json: tau: got -1"),
        ({"typo": 1}, r"model_index\.json: typo: unknown key"),
    ):
        with pytest.raises(PicsError, match=message):
            PicsPipeline(**pipe.components, pics={**values, **change})
    with pytest.raises(PicsError, match=r"model_index\.json: no entry pics"):
        PicsPipeline(**pipe.components)
