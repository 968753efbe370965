"""InstaOrder: pairs whose order people say, from the json to samples whose order is judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import oracle
from helpers.making import build_folder
from helpers.measured import metric_values
from helpers.published_sets import BAR_COLOURS, bars, write_instaorder
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit, Reader
from pics_cli.core.datasets.readers.instaorder import Depth, Occlusion, OrderRecord, find_fronts
from pics_cli.core.evaluation.appearance_metrics import build_reference_gallery
from pics_cli.core.evaluation.example_sources import ShardExamples
from pics_cli.core.evaluation.examples import draw_example, with_guessed_order
from pics_cli.core.evaluation.pixel_metrics import is_order_right
from pics_cli.core.recipes.base import Override, find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.recipes.evaluation import ShardSamples
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.errors import BadSample, PicsError

HIDES = {0: {"occlusion": [{"order": "0<1", "count": 2}]}, 1: {"occlusion": [{"order": "1<0", "count": 1}]}}


def reader_of(raw: Path, **values: Any) -> Reader:
    overrides = [Override(key.replace("__", "."), value, key) for key, value in values.items()]
    return open_reader(DatasetSplit(load_dataset(find_recipe("instaorder"), overrides), "val", raw))


def test_samples_have_the_order_that_people_say(tmp_path: Path) -> None:
    raw = write_instaorder(tmp_path / "coco", {i: HIDES[i % 2] for i in (1, 2, 3)})
    manifest, out = build_folder("instaorder", raw, tmp_path / "out", "val")
    assert manifest["samples"] == 3
    for key, sample in oracle.read_tars(out).items():
        meta = json.loads(sample["json"])
        front = int(key) % 2
        assert [each["category"] for each in meta["objects"]] == ["bench", "post"]
        assert meta["order"] == [front, 1 - front]
        assert meta["pairs"][0].keys() == {"objects", "iou", "relation"}


def test_the_order_of_a_photograph_is_judged(tmp_path: Path) -> None:
    """Of samples without hidden parts: the truth is right, the other order is wrong."""
    raw = write_instaorder(tmp_path / "coco", {i: HIDES[i % 2] for i in (1, 2)})
    _, out = build_folder("instaorder", raw, tmp_path / "out", "val")
    source = ShardExamples(ShardSamples(root="/", shards=str(out)), 1.0)
    for number in range(2):
        example = source[number]
        front = (number + 1) % 2
        assert example.front_to_back == (front, 1 - front)
        assert example.full_masks is None
        (overlap,) = example.overlaps
        assert not (overlap.where & ~bars(front)[1][front]).any()
        gallery = build_reference_gallery([example], 0)
        swapped = example.truth.copy()
        swapped[30:60, 50:75] = BAR_COLOURS[1 - front]
        assert metric_values(example.truth, example, gallery, ["order"]) == {"order": 1}
        assert metric_values(swapped, example, gallery, ["order"]) == {"order": 0}


def test_guessed_orders_agree_with_exact_ones() -> None:
    """Drawn scenes as if they were photographs, held against renderings of both orders."""
    settings = SceneSettings(128, 2, (("occluding", 1.0),), 5, 0.3, 2)
    verdicts = []
    for index in range(25):
        exact = draw_example(settings, 3, index, 0.75)
        photograph = with_guessed_order(replace(exact, full_masks=None, overlaps=(), pasted_orders=()))
        if photograph.overlaps and exact.overlaps:
            guess = photograph.wrong_orders, photograph.overlaps[0].where
            verdicts.append([is_order_right(it, (exact.truth,), *guess) for it in (exact.truth, exact.wrong_orders[0])])
    told = [verdict for verdict in verdicts if None not in verdict]
    assert len(told) >= 15
    assert all(right for right, _ in told)
    assert np.mean([wrong for _, wrong in told]) <= 0.1


ORDERS: list[tuple[dict[str, Any], bool, dict[tuple[int, int], int]]] = [
    ({"occlusion": ["0<1", "2<1"]}, False, {(0, 1): 0, (1, 2): 2}),
    ({"occlusion": ["0<1 & 1<0"]}, True, {}),  # each hides a part of the other
    ({"occlusion": ["0<1", "1<0"]}, True, {}),
    ({"depth": [("2<0", False)]}, False, {}),
    ({"depth": [("2<0", False), ("0=1", False), ("1<2", True)]}, True, {(0, 2): 2}),
    ({"occlusion": ["0<1"], "depth": [("1<0", False)]}, True, {(0, 1): 0}),  # who hides is in front
    ({"occlusion": ["0<1 & 1<0"], "depth": [("1<0", False)]}, True, {}),
]


@pytest.mark.parametrize(("said", "nearer", "fronts"), ORDERS)
def test_who_is_in_front(said: Mapping[str, Any], nearer: bool, fronts: dict[tuple[int, int], int]) -> None:
    occlusion = [Occlusion(order) for order in said.get("occlusion", ())]
    depth = [Depth(order, overlap) for order, overlap in said.get("depth", ())]
    assert find_fronts(OrderRecord(1, [5, 6, 7], occlusion, depth), nearer) == fronts


def test_pairs_of_which_nothing_is_said_are_skipped(tmp_path: Path) -> None:
    """Without a record or an order, with one of objects apart; and with depth alone, unless asked for."""
    depth = {"depth": [{"order": "1<0", "overlap": False, "count": 2}]}
    raw = write_instaorder(tmp_path / "coco", {1: {}, 2: {"occlusion": [{"order": "0<2"}]}, 3: depth, 4: {}})
    path = raw / "annotations/InstaOrder_val2017.json"
    path.write_text(json.dumps({"annotations": json.loads(path.read_text())["annotations"][:3]}))
    manifest, _ = build_folder("instaorder", raw, tmp_path / "out", "val")
    assert (manifest["samples"], manifest["skipped"]) == (0, {"no_known_pair": 3, "no_overlap": 1})
    manifest, out = build_folder("instaorder", raw, tmp_path / "nearer", "val", source__nearer=True)
    assert manifest["samples"] == 1
    (sample,) = oracle.read_tars(out).values()
    assert json.loads(sample["json"])["order"] == [1, 0]


def test_a_fault_of_the_first_pair_leads_to_another_known_one(tmp_path: Path) -> None:
    """A box that contradicts its mask: chosen anew, among known pairs alone."""
    raw = write_instaorder(tmp_path / "coco", {2: HIDES[0], 3: HIDES[1]})
    path = raw / "annotations/instances_val2017.json"
    data = json.loads(path.read_text())
    data["annotations"][1]["bbox"] = [0, 20, 60, 20]
    path.write_text(json.dumps(data))
    manifest, _ = build_folder("instaorder", raw, tmp_path / "out", "val")
    assert (manifest["samples"], manifest["skipped"]) == (1, {"box_mask_disagree": 1})
    manifest, _ = build_folder("instaorder", raw, tmp_path / "mask", "val", pairs__box_mask_disagree="mask")
    assert manifest["samples"] == 2


BAD = [
    ({"occlusion": [{"order": "0<3"}]}, "order '0<3' of 3 objects, expected two of 0 to 2"),
    ({"occlusion": [{"order": "1<1"}]}, "order '1<1' of 3 objects"),
    ({"occlusion": [{"order": "0>1"}]}, "order is '0>1', expected such as '0<1'"),
    ({"depth": [{"count": 2}]}, "Object missing required field `order`"),
    ({"instance_ids": [10, 10, 12]}, "an annotation given twice in instance_ids"),
    ({"image_id": None}, "Expected `int`, got `null`"),
]


@pytest.mark.parametrize(("record", "words"), BAD)
def test_bad_records_are_counted(tmp_path: Path, record: dict[str, Any], words: str) -> None:
    reader = reader_of(write_instaorder(tmp_path, {1: record, 2: HIDES[0]}))
    assert reader.bad_records.counts == {"bad_order_record": 1}
    assert words in reader.bad_records.lines[0]
    assert "InstaOrder_val2017.json" in reader.bad_records.lines[0]
    assert len(reader) == 2


def test_what_does_not_belong_together_is_told(tmp_path: Path) -> None:
    raw = write_instaorder(tmp_path, {1: HIDES[1] | {"instance_ids": [10, 99, 12]}})
    with pytest.raises(BadSample, match=r"unknown_instance.*image id 1: no annotation 99 in COCO's file"):
        reader_of(raw).scene(1)
    orders = raw / "annotations/InstaOrder_val2017.json"
    orders.write_text(json.dumps({"annotations": [{"image_id": "x"}]}))
    with pytest.raises(PicsError, match="none of its records can be used; 1 bad_order_record"):
        reader_of(raw)
    orders.unlink()
    with pytest.raises(PicsError, match=r"no annotations/InstaOrder_val2017\.json or InstaOrder_val2017\.json"):
        reader_of(raw)


@pytest.mark.parametrize("values", [{"pairs__objects": 3}, {"pairs__rule": "largest"}, {"compat": True}])
def test_only_pairs_are_known(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(PicsError, match="for format instaorder, of whose pairs people say"):
        reader_of(write_instaorder(tmp_path, {1: HIDES[1]}), **values)
