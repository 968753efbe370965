"""Figures of samples: the compact layout against the published one, and drawing scenes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from statistics import median

import numpy as np
from PIL import Image

from common import Bench, Row, cpu_time, demo, spread
from demo_drawing import photo
from pics_cli.core.datasets.build_blocks import build_block, choose_block
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.recipes.base import Override, find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.recipes.sources import SceneRelation
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import render_scene
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.core.shards.samples import decode_sample
from pics_cli.core.shards.shard_files import read_shard

RELATIONS: tuple[tuple[SceneRelation, float], ...] = (
    ("apart", 1.0),
    ("touching", 1.0),
    ("occluding", 3.0),
    ("supporting", 2.0),
    ("containing", 2.0),
)


def compact(bench: Bench) -> Iterator[Row]:
    """Bytes and reading time of the same LVIS-like samples in both layouts."""
    count = bench.pictures or 200
    raw = demo(bench, "lvis", count)
    sizes, members = [], []
    for layout in ("published", "compact"):
        recipe = load_dataset(find_recipe("lvis"), [Override("shards.layout", layout, "--layout")])
        source, out = DatasetSplit(recipe, "train", raw), bench.work / layout
        out.mkdir()
        chosen, _ = choose_block(source, open_reader(source).item_ids(0, count))
        stats = build_block(source, out, 0, chosen)
        sizes.append(stats["bytes"] / stats["samples"])
        members.append([dict(sample) for _, sample in read_shard(out / "00000.tar")])
    rounds = []
    for turn in range(bench.repeats + 1):
        spent = [0.0, 0.0]
        for i in range(len(members[0])):
            for side in (0, 1) if (i + turn) % 2 else (1, 0):
                spent[side] += cpu_time(decode_sample, "key", members[side][i])[0]
        rounds.append(spent)
    ratios = [published / packed for published, packed in rounds[1:]]
    share = sizes[1] / sizes[0]
    yield Row(
        "compact, size of published", f"{share:.2f} ({sizes[1] / 1e3:.0f} against {sizes[0] / 1e3:.0f} kB a sample)"
    )
    yield Row("  reading, speed of published", spread(ratios))


def synth(bench: Bench) -> Iterator[Row]:
    """Scenes a second in one thread, planning and every member included; beside it what decoding a JPEG takes here."""
    count = bench.pictures or 100
    small = SceneSettings(256, 2, RELATIONS, 25.0, 0.5)
    file = io.BytesIO()
    Image.fromarray(photo(np.random.default_rng(0), 480, 640)).save(file, "JPEG", quality=95)
    data = file.getvalue()
    rates, ratios = [], []
    for turn in range(bench.repeats + 1):
        drawn = cpu_time(lambda turn=turn: [render_scene(plan_scene(small, "train", turn, i)) for i in range(count)])[0]
        read = cpu_time(lambda: [Image.open(io.BytesIO(data)).convert("RGB") for _ in range(count)])[0]
        rates.append(count / drawn)
        ratios.append(drawn / read)
    rates, ratios = rates[1:], ratios[1:]  # the first reads the textures
    shown = f"{median(rates):.1f} scenes/s per thread ({min(rates):.1f} to {max(rates):.1f})"
    yield Row("synth, 256x256, two objects", shown, ">= 25", median(rates) >= 25)
    yield Row("  one scene, in 640x480 JPEGs decoded", spread(ratios))
    large = SceneSettings(512, 2, RELATIONS, 25.0, 0.5)
    seconds = cpu_time(lambda: [render_scene(plan_scene(large, "train", 0, i)) for i in range(count // 4)])[0]
    yield Row("  512x512", f"{count // 4 / seconds:.1f} scenes/s per thread")
