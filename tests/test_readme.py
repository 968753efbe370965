"""What the README shows works as written."""

from __future__ import annotations

import json
import re
from pathlib import Path

from PIL import Image

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
