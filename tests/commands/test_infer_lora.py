"""`pics infer --lora`, `PicsPipeline.load_lora` and `pics eval --lora`: pixels, records, resuming, what is refused."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.adapters import make_adapter
from helpers.composites import BOXES, composed, make_sample, scene, thing
from helpers.infer_command import infer, records, typed
from pics_cli import PicsPipeline
from pics_cli.core.model.adapters import WEIGHTS_FILE, AdapterChoice, load_adapter
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.errors import PicsError


@pytest.fixture(scope="module")
def place(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample, two adapters, one of another model, and the base model with both in it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("lora")
    make_sample(folder / "in/s")
    for seed, name in enumerate("ab"):
        make_adapter(folder / name, tiny_model, seed=seed)
    make_adapter(folder / "foreign", tiny_model, ends=("attn2.to_k",))
    tensors = load_file(folder / "foreign" / WEIGHTS_FILE)
    name = next(name for name in tensors if ".lora_A." in name)
    save_file({**tensors, name: torch.zeros(4, 320)}, folder / "foreign" / WEIGHTS_FILE)
    choices = [AdapterChoice(folder / "a", 0.5), AdapterChoice(folder / "b", -1.0)]
    merged = PicsModel.from_pretrained(tiny_model, adapters=list(map(load_adapter, choices)))
    merged.save_pretrained(folder / "merged")
    (folder / "no_adapter").mkdir()
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(place)
    return place


def made(out: Path, model: Path, *words: str) -> np.ndarray:
    done = infer("--input", "in", "--model", model, "--steps", 1, "--device", "cpu", "--output", out, *words)
    assert done.exit_code == 0, done.stderr
    return composed(out)["composed_s.png"]


def test_pixels(here: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Two with weights: those of the merged model to the bit; of weight 0: those of the base to the bit."""
    base, merged = made(tmp_path / "base", tiny_model), made(tmp_path / "merged", here / "merged")
    assert np.array_equal(made(tmp_path / "two", tiny_model, "--lora", "a:0.5", "--lora", "b:-1"), merged)
    assert np.array_equal(made(tmp_path / "none", tiny_model, "--lora", "a:0", "--lora", "b:0.0"), base)
    read_when_used = made(tmp_path / "disk", tiny_model, "--lora", "a:0.5", "--lora", "b:-1", "--memory", "sequential")
    assert np.array_equal(read_when_used, merged)
    one = made(tmp_path / "one", tiny_model, "--lora", "a")
    assert len({picture.tobytes() for picture in (base, merged, one)}) == 3
    (record,) = records(tmp_path / "two")
    digest = sha256((here / "a/adapter.json").read_bytes() + (here / "a" / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert record["model"]["adapters"][0] == {"name": "a", "sha256": digest, "weight": 0.5}
    assert [one["name"] for one in record["model"]["adapters"]] == ["a", "b"]
    assert "adapters" not in records(tmp_path / "base")[0]["model"]
    pipe = PicsPipeline.from_pretrained(tiny_model)
    pipe.load_lora("a", 0.5)
    pipe.load_lora(here / "b", weight=-1.0)
    folder = here / "in/s"
    objects, masks = ([folder / f"object_{k}{end}.png" for k in range(2)] for end in ("", "_mask"))
    result = pipe(folder / "image.png", objects, masks=masks, name="s", steps=1, output_type="np")
    assert np.abs(np.asarray(result.images[0]).astype(int) - merged).max() <= 1  # added one after the other
    assert [one["weight"] for one in result.metadata["adapters"]] == [0.5, -1.0]


def test_other_adapters_are_not_mixed(here: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A folder is resumed with the same adapters, wherever they lie now, and refused with others."""
    out = tmp_path / "out"
    made(out, tiny_model, "--lora", "a:0.5")
    (tmp_path / "copy").mkdir()
    for path in (here / "a").iterdir():
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    words = ["--input", "in", "--model", tiny_model, "--steps", 1, "--device", "cpu", "--output", out]
    again = infer(*words, "--lora", f"{tmp_path / 'copy'}:0.5", "--lora", "b:0")
    assert again.exit_code == 0, again.stderr
    assert "there already" in again.stdout
    for others, shown in ((("--lora", "a:0.6"), "this run a:0.6 ("), (("--lora", "b:0.5"), "this run b:0.5 ("),
                          ((), "this run none")):  # fmt: skip
        done = infer(*words, *others)
        assert done.exit_code == 2
        assert "adapters: the folder has a:0.5 (" in done.stderr
        assert shown in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere", "--lora nowhere: no such folder"),
        ("no_adapter", "--lora no_adapter: no adapter (adapter.json is missing)"),
        ("in/s/image.png", "--lora in/s/image.png: no adapter (adapter.json is missing)"),
        ("a:5", "--lora a:5: weight: got 5, expected a number from -4 to 4"),
        ("a:nan", "weight: got nan, expected a number"),
        ("a:strong", "weight: got strong, expected a number"),
        ("foreign", "--lora foreign: made for another model: "),
    ],
)
def test_refused(here: Path, tiny_model: Path, tmp_path: Path, text: str, message: str) -> None:
    done = infer(
        "--input", "in", "--model", tiny_model, "--lora", text, "--output", tmp_path / "out", "--device", "cpu"
    )
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    if text == "foreign":
        assert ".lora_A.weight is [4, 320], expected [4, 48]" in done.stderr


def test_the_bundled_model_has_other_layers(here: Path, tmp_path: Path) -> None:
    done = infer("--input", "in", "--lora", "a", "--output", tmp_path / "out", "--device", "cpu")
    assert done.exit_code == 2
    assert "--lora a: made for another model: " in done.stderr
    assert "was trained on" in done.stderr


def test_of_the_pipeline(here: Path, tiny_model: Path) -> None:
    pipe = PicsPipeline.from_pretrained(tiny_model)
    with pytest.raises(PicsError, match=r"b: weight: got -4\.5, expected a number from -4 to 4"):
        pipe.load_lora("b", -4.5)
    with pytest.raises(PicsError, match="no such folder"):
        pipe.load_lora("nowhere")
    pipe.load_lora("b", 0.0)
    plain = PicsPipeline.from_pretrained(tiny_model)
    pictures = [one(scene(), [thing(0)], BOXES[:1], steps=1).images[0].tobytes() for one in (pipe, plain)]
    assert pictures[0] == pictures[1]
    pipe.to("cpu")
    assert [one["name"] for one in pipe.adapters] == ["b"]


def test_eval_measures_with_and_without(here: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The same model twice, the second with an adapter: other figures; its weight is part of the folder."""
    words = ["eval", "--recipe", "synth_bench", "--set", "scenes.size=96", "--device", "cpu", "--limit", 2,
             "--steps", 1, "--metrics", "psnr_region", "--methods", "parallel", "--model", tiny_model,
             "--model", f"mine={tiny_model}", "--output", tmp_path / "out"]  # fmt: skip
    done = typed(*words, "--lora", "mine=a:0.5")
    assert done.exit_code == 0, done.stderr
    results = json.loads((tmp_path / "out/results.json").read_text())
    figures = results["figures"]["all"]
    assert figures["parallel"] != figures["mine:parallel"]
    assert results["models"][1]["name"] == f"{tiny_model} + a:0.5"
    assert results["models"][1]["adapters"][0]["weight"] == 0.5
    assert "adapters" not in results["models"][0]
    other = typed(*words, "--lora", "mine=a:0.6")
    assert other.exit_code == 2
    assert "models.1.adapters" in other.stderr
    unknown = typed(*words, "--lora", "yours=a")
    assert unknown.exit_code == 2
    assert "--lora yours=a: no model called 'yours', known: mine" in unknown.stderr
