"""Samples of shards as examples: those that the generator made say what its scenes say, photographs what they can."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from helpers.making import build_folder, encoded, smooth, wide_gamut
from helpers.measured import metric_values
from helpers.training_shards import members, write_shard
from pics_cli.core.evaluation.appearance_metrics import build_reference_gallery
from pics_cli.core.evaluation.baselines import paste_references
from pics_cli.core.evaluation.example_sources import PictureExamples, ShardExamples
from pics_cli.core.evaluation.examples import Example, Reference, example_from_sample, with_pasted_orders
from pics_cli.core.evaluation.external_results import ExternalResults
from pics_cli.core.evaluation.pixel_metrics import is_order_right
from pics_cli.core.images.image_io import decode_image
from pics_cli.core.images.stored_image import decode_stored, to_srgb
from pics_cli.core.recipes.base import find_recipe
from pics_cli.core.recipes.evaluation import ShardSamples
from pics_cli.core.shards.shard_files import read_shard
from pics_cli.errors import BadSample, PicsError


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
            example = example_from_sample(key, parts, 0.75)
            meta = json.loads(parts["json"])
            assert example.front_to_back == tuple(meta["order"])
            assert example.relation in {pair["relation"] for pair in meta["pairs"]}
            assert example.true_background
            assert example.visible_masks
            assert example.full_masks
            np.testing.assert_array_equal(example.background, decode_image(parts["clean.jpg"]).rgb)
            for k in range(2):
                assert not (example.visible_masks[k] & ~example.full_masks[k]).any()
                x0, y0, x1, y1 = example.paste_boxes[k]
                assert example.full_masks[k][y0:y1, x0:x1].sum() == example.full_masks[k].sum()
                assert example.references[k].shape[2] == 4
            overlap = (example.full_masks[0] & example.full_masks[1]).any()
            assert len(example.wrong_orders) == (0 if not overlap else 4 if example.relation == "containing" else 2)
            seen += 1
    assert seen == 10


def test_the_order_can_be_told(drawn: Path) -> None:
    """By references pasted over the truth: the truth is right, that paste is wrong."""
    source = ShardExamples(ShardSamples(root="/", shards=str(drawn)), 0.75)
    examples = [source[number] for number in range(len(source))]
    gallery, told = build_reference_gallery(examples, 0), 0
    for example in examples:
        right = metric_values(example.truth, example, gallery)["order"]
        for wrong in example.wrong_orders:
            if not np.isnan(right):
                assert right == 1
                assert metric_values(wrong, example, gallery)["order"] == 0
                told += 1
    assert told


def test_the_order_is_told_in_any_light(drawn: Path) -> None:
    """References that are a stop off or of another colour, pasted as they are, half relit or wholly."""
    right, wrong = list[bool | None](), list[bool | None]()
    for path in sorted(drawn.glob("*.tar")):
        for key, parts in read_shard(path):
            example = example_from_sample(key, parts, 0.75)
            if not example.wrong_orders or example.relation == "containing":
                continue
            full = example.full_masks
            assert full
            assert example.front_to_back
            for colour in ((0.5, 0.5, 0.5), (1.6, 1.6, 1.6), (1.2, 1.0, 0.7), (0.7, 1.0, 1.2)):
                one = with_pasted_orders(replace(example, references=relit(example.references, np.array(colour))))
                for share in (0.0, 0.5, 1.0):
                    references = relit(example.references, np.array(colour) ** (1 - share))
                    for order, verdicts in ((example.front_to_back[::-1], right), (example.front_to_back, wrong)):
                        result = paste_references(example.background, example.paste_boxes, references, order)
                        rights, both = (one.truth, *one.pasted_orders), full[0] & full[1]
                        verdicts.append(is_order_right(result, rights, one.wrong_orders, both))
    told = [verdict for verdict in right if verdict is not None]
    assert len(told) >= 40
    assert np.mean(told) >= 0.95
    assert np.mean([verdict for verdict in wrong if verdict is not None]) <= 0.05


def relit(references: Sequence[Reference], colour: npt.NDArray[np.float64]) -> tuple[Reference, ...]:
    lit = [reference.copy() for reference in references]
    for reference in lit:
        reference[..., :3] = np.clip(reference[..., :3] * colour, 0, 255)
    return tuple(lit)


def test_a_photograph(tmp_path: Path) -> None:
    """References cut from the picture; regions filled; no order, no hidden parts, no true background."""
    sample = members(3)
    example: Example = example_from_sample("a", sample, 1.0)
    truth = decode_image(sample["bg.jpg"]).rgb
    np.testing.assert_array_equal(example.truth, truth)
    assert (example.front_to_back, example.full_masks, example.wrong_orders, example.true_background) == (
        None,
        None,
        (),
        False,
    )
    inside = np.zeros(truth.shape[:2], np.bool_)
    for x0, y0, x1, y1 in example.regions:
        inside[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(example.background[~inside], truth[~inside])
    assert (example.background[inside] != truth[inside]).any()
    for k, (x0, y0, x1, y1) in enumerate(example.paste_boxes):
        rgba = example.references[k]
        assert rgba.shape == (y1 - y0, x1 - x0, 4)
        solid = rgba[..., 3] == 255
        np.testing.assert_array_equal(rgba[solid][:, :3], truth[y0:y1, x0:x1][solid])
    found = metric_values(example.truth, example, build_reference_gallery([example], 0))
    assert found["missing"] == 0
    assert np.isnan(found["order"])
    with pytest.raises(BadSample):
        example_from_sample("b", {name: data for name, data in sample.items() if name != "mask1.png"}, 1.0)


def test_samples_by_number(tmp_path: Path) -> None:
    write_shard(tmp_path / "set/00000.tar", range(3))
    write_shard(tmp_path / "set/00001.tar", range(3, 5))
    source = ShardExamples(ShardSamples(root=str(tmp_path), shards="set"), 1.0)
    assert [source[number].key for number in range(len(source))] == ["0000", "0001", "0002", "0003", "0004"]
    assert len(source.distractors()) == 5
    assert source.warnings == []
    train = ShardExamples(ShardSamples(root=str(tmp_path), shards="set", split="train"), 1.0)
    assert "training split" in train.warnings[0]
    with pytest.raises(PicsError, match="nothing"):
        ShardExamples(ShardSamples(root=str(tmp_path), shards="nothing"), 1.0)


def test_pictures_are_read_as_they_look(tmp_path: Path) -> None:
    """Truth and results in another colour space, and the same in sRGB, are the same picture."""
    rgb = smooth(40, 60)
    (tmp_path / "truth").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "truth/a.png").write_bytes(encoded(rgb, "PNG", icc_profile=wide_gamut()))
    seen = to_srgb(decode_stored((tmp_path / "truth/a.png").read_bytes()))
    assert np.abs(seen.astype(int) - rgb).max() > 8
    (tmp_path / "results/a.png").write_bytes(encoded(rgb, "PNG", icc_profile=wide_gamut()))
    (tmp_path / "results/b.png").write_bytes(encoded(rgb, "PNG")[:99])
    example = PictureExamples(tmp_path / "truth")[0]
    np.testing.assert_array_equal(example.truth, seen)
    results = ExternalResults("theirs", tmp_path / "results")
    np.testing.assert_array_equal(results.read(example), seen)
    with pytest.raises(BadSample, match=r"results/b\.png: PNG cut short"):
        results.read(replace(example, key="b"))
