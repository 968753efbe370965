"""`pics infer --pick`: which candidate is best, where it is said, and what later runs make of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pics_cli
from helpers.composites import SIZE, make_sample
from helpers.infer_command import infer, records
from helpers.trainees import LAYERS, small
from pics_cli.core.conditioning.alphas import joint_alpha
from pics_cli.core.conditioning.placement import grow_regions
from pics_cli.core.inference.inputs import decode, list_sample, read_parts
from pics_cli.core.inference.pick import paste_scene
from pics_cli.core.inference.prepare import window_paste
from pics_cli.core.inference.sample import CompositeOptions
from pics_cli.core.model.config import ModelConfig

# Whose discs overlap by some hundred pixels.
NEAR = [(20, 10, 80, 90), (35, 10, 95, 90)]


@pytest.fixture(scope="module")
def layers_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "layers"
    small(**{**LAYERS, "steps": 1, "guidance": 1.0, "scheduler": "ddim"}).save_pretrained(folder)
    return folder


def test_the_best_is_named_and_copied(tmp_path: Path, layers_model: Path) -> None:
    out = tmp_path / "out"
    make_sample(tmp_path / "in/-a", NEAR)
    make_sample(tmp_path / "in/b\x1b", NEAR, seed=1)
    words = ("--input", tmp_path / "in", "--output", out, "--model", layers_model, "--order", "1,0", "--num", 3)
    plain = infer(*words)
    assert plain.exit_code == 0, plain.stderr
    assert not (out / "best").exists()
    assert "rank" not in records(out)[0]
    before = {path.name: path.read_bytes() for path in (out / "composed").iterdir()}

    picked = infer(*words, "--pick")
    assert picked.exit_code == 0, picked.stderr
    assert "pictures made    0" in picked.stdout
    assert before == {path.name: path.read_bytes() for path in (out / "composed").iterdir()}
    found = records(out)
    for sample, shown in (("-a", "-a"), ("b\x1b", "b\\x1b")):
        own = [one for one in found if one["id"] == sample]
        assert sorted(one["rank"] for one in own) == [1, 2, 3]
        best = min(own, key=lambda one: one["rank"])
        assert best["mean_rank"] == min(one["mean_rank"] for one in own)
        assert set(best["ranks"]) >= {"seam", "order", "copy_paste"}
        assert (out / f"best/composed_{sample}.png").read_bytes() == (out / best["file"]).read_bytes()
        text = f"\n{shown}: candidate {best['candidate']} is the best of 3: "
        assert text in picked.stdout
        assert f"seam {best['metrics']['seam']:g}" in picked.stdout.partition(text)[2].split("\n")[0]
    manifest = (out / "manifest.jsonl").read_bytes()
    first = {path.name: path.stat().st_mtime_ns for path in (out / "best").iterdir()}

    # Again, with nothing to do; and without asking, what is known stays.
    assert infer(*words, "--pick").stdout == picked.stdout
    infer(*words)
    assert (out / "manifest.jsonl").read_bytes() == manifest
    assert first == {path.name: path.stat().st_mtime_ns for path in (out / "best").iterdir()}

    # A run that was stopped: a candidate and a sample's pick are missing, and a pick is damaged.
    (out / "composed/composed_-a_1.png").unlink()
    (out / "best/composed_b\x1b.json").write_text("{")
    assert infer(*words, "--pick").exit_code == 0
    ranks = ("id", "candidate", "rank", "mean_rank", "ranks", "metrics")
    lines = [json.loads(line) for line in manifest.splitlines()]
    assert [[one[key] for key in ranks] for one in records(out)] == [[one[key] for key in ranks] for one in lines]

    # Other pictures without a pick: none is left over; fewer and more candidates are ranked anew.
    infer(*words, "--overwrite", "--seed", 1)
    assert not list((out / "best").iterdir())
    infer(*words[:-1], 2, "--seed", 1, "--pick")
    assert sorted(one.get("rank", 0) for one in records(out)) == [0, 0, 1, 1, 2, 2]


def test_lamps_of_the_bundled_model(tmp_path: Path) -> None:
    """The lamp that the model finds is the first candidate's; the others' stand apart from it as their records say."""
    words = (
        "--input",
        Path(pics_cli.__file__).parent / "samples/egg_in_cup",
        "--output",
        tmp_path,
        "--num",
        2,
        "--pick",
    )
    done = infer(*words)
    assert done.exit_code == 0, done.stderr
    first, second = sorted(records(tmp_path), key=lambda one: one["candidate"])
    angle = abs((second["light"]["azimuth"] - first["light"]["azimuth"] + 180) % 360 - 180)
    assert (first["metrics"]["lamp"], second["metrics"]["lamp"]) == (0, round(angle))
    assert set(first["metrics"]) == {"seam", "leak", "contact", "copy_paste", "likeness", "lamp"}
    assert infer(*words, "--light", "none", "--overwrite").exit_code == 0
    assert all("lamp" not in one["metrics"] for one in records(tmp_path))


def test_one_candidate_is_nothing_to_choose_from() -> None:
    done = infer("--input", "sample", "--pick")
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --pick: there is one candidate of each sample to choose from\n")


def test_formats_and_several_at_a_time(tmp_path: Path, layers_model: Path, tiny_model: Path) -> None:
    """Every format; batches; a model that pastes nothing, of which the seam alone is known."""
    for name in ("a", "b", "c"):
        make_sample(tmp_path / "in" / name)
    words = ("--input", tmp_path / "in", "--num", 2, "--pick", "--batch-size", 2)
    done = infer(*words, "--model", layers_model, "--output", tmp_path / "w", "--output-format", "webp")
    assert done.exit_code == 0, done.stderr
    names = {path.name for path in (tmp_path / "w/best").iterdir()}
    assert names == {f"composed_{name}.{suffix}" for name in "abc" for suffix in ("json", "webp")}
    infer(*words, "--model", layers_model, "--output", tmp_path / "w", "--overwrite")
    assert {path.suffix for path in (tmp_path / "w/best").iterdir()} == {".json", ".png"}
    done = infer(*words, "--model", tiny_model, "--output", tmp_path / "t", "--steps", 1)
    assert done.exit_code == 0, done.stderr
    assert all(set(one["metrics"]) == {"seam"} for one in records(tmp_path / "t"))


@pytest.mark.parametrize("room", [0.0, 0.5])
def test_the_scene_is_what_composite_pastes(tmp_path: Path, layers_model: Path, room: float) -> None:
    """Pastes and alphas are those of the network's layers; what is kept is neither object nor ground."""
    folder = make_sample(tmp_path / "a", NEAR)
    keep = np.zeros(SIZE[::-1], np.uint8)
    keep[:, :30] = 255
    Image.fromarray(keep).save(folder / "keep.png")
    files = list_sample(folder, None)
    sample = decode(files, read_parts(files), (1, 0), (0,))
    config = ModelConfig.load(layers_model)
    pasted, (rows, columns) = paste_scene(sample, CompositeOptions(shadow_room=room), config)
    for order, ours in zip(((1, 0), (0, 1)), pasted.pastes, strict=True):
        theirs = window_paste(sample.background, sample.boxes, sample.references, config, order, shadow_room=room)
        layer = sample.background.copy()
        x0, y0, x1, y1 = theirs.part
        theirs.paint()[0](layer[y0:y1, x0:x1])
        assert np.array_equal(ours, layer[rows, columns])
        alpha = np.zeros(SIZE[::-1], np.uint8)
        assert theirs.alpha is not None
        alpha[y0:y1, x0:x1] = theirs.alpha
        free = np.s_[:, 40 - columns.start :]  # beyond the soft edge of what is kept
        assert np.array_equal(joint_alpha(*pasted.alphas)[free], alpha[rows, columns][free])
    assert np.array_equal(pasted.background, sample.background[rows, columns])
    assert (pasted.pastes[0] != pasted.pastes[1]).any()
    assert pasted.is_ordered
    assert not pasted.alphas[:, :, : 30 - columns.start].any()
    inside = np.zeros(SIZE[::-1], np.bool_)
    for left, top, right, bottom in grow_regions(NEAR, room, *SIZE):
        inside[top:bottom, left:right] = True
    inside[:, :30] = False
    assert np.array_equal(pasted.inside[free], inside[rows, columns][free])
    assert not pasted.inside[:, : 30 - columns.start].any()
