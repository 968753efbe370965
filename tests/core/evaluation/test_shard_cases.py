"""Samples of shards as cases: those that the generator made say what its scenes say, photographs what they can."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from making import build_folder
from pics_cli.core.evaluation.example_sets import ShardCases
from pics_cli.core.evaluation.examples import Case, case_of
from pics_cli.core.evaluation.metrics import MEASURES, judge, sight_of
from pics_cli.core.images.image_io import decode_image
from pics_cli.core.recipes.base import find_recipe
from pics_cli.core.recipes.evaluation import ShardSamples
from pics_cli.core.shards.shard_files import read_shard
from pics_cli.errors import BadSample, PicsError
from training_shards import members, write_shard


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 10 scenes."""
    out = tmp_path_factory.mktemp("drawn") / "shards"
    build_folder(find_recipe("synth"), None, out, limit=10, source__size=128, shards__size=4)
    return out


def test_drawn_samples_say_everything(drawn: Path) -> None:
    seen = 0
    for path in sorted(drawn.glob("*.tar")):
        for key, parts in read_shard(path):
            case = case_of(key, parts, 0.75)
            meta = json.loads(parts["json"])
            assert case.front == tuple(meta["order"])
            assert case.relation in {pair["relation"] for pair in meta["pairs"]}
            assert case.clean
            np.testing.assert_array_equal(case.background, decode_image(parts["clean.jpg"]).rgb)
            for k in range(2):
                assert not (case.visible[k] & ~case.full[k]).any()
                x0, y0, x1, y1 = case.places[k]
                assert case.full[k][y0:y1, x0:x1].sum() == case.full[k].sum()
                assert case.references[k].shape[2] == 4
            overlap = (case.full[0] & case.full[1]).any()
            assert len(case.wrong) == (0 if not overlap else 2 if case.relation == "containing" else 1)
            seen += 1
    assert seen == 10


def test_the_order_can_be_told(drawn: Path) -> None:
    """By references pasted over the truth: the truth is right, that paste is wrong."""
    source = ShardCases(ShardSamples(root="/", shards=str(drawn)), 0.75)
    cases = [source.case(number) for number in range(len(source))]
    sight, told = sight_of(cases, 0), 0
    for case in cases:
        right = judge(case.truth, case, sight, MEASURES).values["order"]
        for wrong in case.wrong:
            if not np.isnan(right):
                assert right == 1
                assert judge(wrong, case, sight, MEASURES).values["order"] == 0
                told += 1
    assert told


def test_a_photograph(tmp_path: Path) -> None:
    """References cut from the picture; regions filled; no order, no hidden parts, no true background."""
    sample = members(3)
    case: Case = case_of("a", sample, 1.0)
    truth = decode_image(sample["bg.jpg"]).rgb
    np.testing.assert_array_equal(case.truth, truth)
    assert (case.front, case.full, case.wrong, case.clean) == (None, None, (), False)
    inside = np.zeros(truth.shape[:2], np.bool_)
    for x0, y0, x1, y1 in case.regions:
        inside[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(case.background[~inside], truth[~inside])
    assert (case.background[inside] != truth[inside]).any()
    for k, (x0, y0, x1, y1) in enumerate(case.places):
        rgba = case.references[k]
        assert rgba.shape == (y1 - y0, x1 - x0, 4)
        solid = rgba[..., 3] == 255
        np.testing.assert_array_equal(rgba[solid][:, :3], truth[y0:y1, x0:x1][solid])
    found = judge(case.truth, case, sight_of([case], 0), MEASURES).values
    assert found["missing"] == 0
    assert np.isnan(found["order"])
    with pytest.raises(BadSample):
        case_of("b", {name: data for name, data in sample.items() if name != "mask1.png"}, 1.0)


def test_samples_by_number(tmp_path: Path) -> None:
    write_shard(tmp_path / "set/00000.tar", range(3))
    write_shard(tmp_path / "set/00001.tar", range(3, 5))
    source = ShardCases(ShardSamples(root=str(tmp_path), shards="set"), 1.0)
    assert [source.case(number).key for number in range(len(source))] == ["0000", "0001", "0002", "0003", "0004"]
    assert len(source.others()) == 5
    assert source.warnings == []
    train = ShardCases(ShardSamples(root=str(tmp_path), shards="set", split="train"), 1.0)
    assert "training split" in train.warnings[0]
    with pytest.raises(PicsError, match="nothing"):
        ShardCases(ShardSamples(root=str(tmp_path), shards="nothing"), 1.0)
