"""What the README shows works as written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pics_cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_own_dataset_as_the_readme_shows_it(tmp_path: Path, pics) -> None:
    """A kitchen photographed by nobody: two overlapping cups and a spoon, in the recipe's folders."""
    recipe = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert recipe
    assert len(recipe.group(1).splitlines()) <= 15
    (tmp_path / "kitchen.yaml").write_text(recipe.group(1))
    raw = tmp_path / "data/raw/kitchen"
    (raw / "photos").mkdir(parents=True)
    (raw / "annotations").mkdir()
    Image.new("RGB", (80, 60), (90, 120, 60)).save(raw / "photos/one.jpg")
    annotations = [
        {"id": k, "image_id": 1, "category_id": category, "bbox": [x, 10, 30, 30], "area": 900, "iscrowd": 0}
        | {"segmentation": [[x, 10, x + 30, 10, x + 30, 40, x, 40]]}
        for k, (category, x) in enumerate([(1, 5), (3, 8), (2, 25)])
    ]
    categories = [{"id": k, "name": name} for k, name in enumerate(("cup", "bowl", "spoon", "plate"), 1)]
    images = [{"id": 1, "file_name": "one.jpg", "width": 80, "height": 60}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (raw / "annotations/train.json").write_text(json.dumps(coco))
    done = pics("build-shards", "kitchen.yaml")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "data/train/kitchen/manifest.json").read_text())
    assert manifest["samples"] == 1  # cup and bowl, though cup and spoon overlap more


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_compositing_in_python_as_the_readme_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = (text for text in python_blocks() if "PicsPipeline" in text)
    names: dict[str, Any] = {}
    exec(block, names)
    background = Image.open(Path(pics_cli.__file__).parent / "samples/egg_in_cup/image.jpg")
    with Image.open("out.png") as written:
        assert written.size == background.size
        assert np.array_equal(np.asarray(written), np.asarray(names["result"].images[0]))
        assert not np.array_equal(np.asarray(written), np.asarray(background))
    assert names["result"].changed_outside == 0


def test_reading_shards_in_python_as_the_readme_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pics: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    pics("build-shards", "synth", "--out", "data/demo/shards", "--limit", 3, "--set", "source.size=96", "--workers", 1)
    (block,) = (text for text in python_blocks() if "open_shards" in text)
    capsys.readouterr()
    exec(block, {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("(96, 96, 3) 2" in line for line in lines)
