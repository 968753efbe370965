"""`pics infer --layers` and `pics merge-layers` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.composites import composed, make_sample
from helpers.infer_command import infer, records, typed
from pics_cli.core.inference import worker


def test_layers_beside_their_pictures(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made where they are missing, kept where they were edited, removed with the picture that they are of."""
    monkeypatch.chdir(tmp_path)
    make_sample(tmp_path / "in/s")
    words = ["--input", "in", "--model", tiny_model, "--steps", "1", "--num", "2"]
    assert infer(*words).exit_code == 0
    before = composed(tmp_path / "results/in")
    assert "layers" not in records(tmp_path / "results/in")[0]
    done = infer(*words, "--layers")
    assert done.exit_code == 0, done.stderr
    assert "2 finished pictures have no layers: they are made again" in done.stderr
    assert "layers recombine               0 values differ" in done.stdout
    listed = [record["layers"] for record in records(tmp_path / "results/in")]
    assert listed == [{"folder": f"layers/layers_s{n}", "values_differing": 0} for n in ("", "_1")]
    for (name, picture), other in zip(composed(tmp_path / "results/in").items(), before.values(), strict=True):
        np.testing.assert_array_equal(picture, other)
        folder = f"results/in/layers/{name.replace('composed', 'layers').removesuffix('.png')}"
        done = typed("merge-layers", folder)
        assert done.exit_code == 0, done.stderr
        assert "as the composite    yes, to the bit" in done.stdout
        np.testing.assert_array_equal(np.asarray(Image.open(f"{folder}/merged.png")), picture)
    edited = tmp_path / "results/in/layers/layers_s/object_0.png"
    edited.write_bytes((edited.parent / "object_1.png").read_bytes())
    done = infer(*words, "--layers")
    assert (done.exit_code, "there already 2" in " ".join(done.stdout.split())) == (0, True)
    assert edited.read_bytes() == (edited.parent / "object_1.png").read_bytes()
    done = typed("merge-layers", edited.parent, "--output", "x.png")
    assert (done.exit_code, "as the composite    no: edited" in done.stdout) == (0, True)
    assert infer(*words, "--overwrite").exit_code == 0
    assert [path.name for path in (tmp_path / "results/in/layers").rglob("*") if path.is_file()] == ["merged.png"] * 2
    monkeypatch.setattr(worker, "values_differing", lambda *_: 3)
    done = infer(*words, "--layers")
    assert done.exit_code == 1
    assert "error: layers recombine: 6 values differ, which must be none" in done.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nowhere"], "nowhere: no folder of layers (no layers.json in it)"),
        (["a.png"], "a.png: no folder of layers"),
        (["b"], "b/layers.json: 'a\\x00b' is no name of a layer"),
        (["b", "--output", f"{'x' * 300}.png"], "x.png: the name is too long"),
        ([".", "--output", "x.jpg"], "--output x.jpg: expected the name of a .png file"),
        ([], "Usage: root merge-layers [OPTIONS] {DIR}"),
    ],
)
def test_what_cannot_be_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], text: str) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("a.png")
    Path("b").mkdir()
    stack = [{"name": "a\0b", "operator": "plus"}]
    Path("b/layers.json").write_text(
        json.dumps({"size": [4, 4], "bits": 8, "alpha": False, "stack": stack, "sha256": ""})
    )
    done = typed("merge-layers", *words)
    assert done.exit_code == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
