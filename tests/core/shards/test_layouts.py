"""The compact layout holds the same samples bit for bit, and conversion there and back gives the same bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from demo_data import make_bdd, make_cityscapes, make_viton
from helpers import oracle
from helpers.making import build_folder
from pics_cli.core.shards.layouts import unpack_sample
from pics_cli.core.shards.samples import Sample, decode_sample
from pics_cli.errors import BadSample


def samples(folder: Path) -> dict[str, Sample]:
    return {key: decode_sample(key, members) for key, members in oracle.read_tars(folder).items()}


def assert_equal(a: Sample, b: Sample) -> None:
    """Every array and all of the json, but for the masks in it."""
    metas = [json.loads(json.dumps(sample.metadata)) for sample in (a, b)]
    for meta in metas:
        for entry in meta["objects"]:
            entry["mask"].pop("rle", None)
            entry.pop("full", None)
    assert metas[0] == metas[1]
    assert (a.clean_background is None) == (b.clean_background is None)
    pairs: list[tuple[Any, Any]] = [(a.image, b.image), *zip(a.references, b.references, strict=True)]
    pairs += [*zip(a.masks, b.masks, strict=True), *zip(a.amodal_masks, b.amodal_masks, strict=True)]
    pairs += [(a.clean_background, b.clean_background), *zip(a.alternate_views, b.alternate_views, strict=True)]
    for left, right in pairs:
        assert (left is None and right is None) or np.array_equal(left, right)


@pytest.fixture(scope="module")
def raws(tmp_path_factory: pytest.TempPathFactory, lvis_raw: Path) -> dict[str, Path | None]:
    out = tmp_path_factory.mktemp("raws")
    return {
        "lvis": lvis_raw,
        "viton_hd": make_viton(out, 3),
        "bdd100k": make_bdd(out, 6),
        "cityscapes": make_cityscapes(out, 3, size=(256, 512)),
        "synth": None,
    }


SYNTH = {"source__size": 96, "source__splits__train__scenes": 8, "pairs__objects": 3}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("lvis", {}),
    ("lvis", {"pairs__objects": 3, "pairs__min_area_ratio": 0.01}),
    ("viton_hd", {}),
    ("viton_hd", {"compat": True}),
    ("bdd100k", {}),
    ("cityscapes", {}),
    ("cityscapes", {"compat": True}),
    ("synth", SYNTH),
]


FEW = 10  # samples of a kind


@pytest.fixture(scope="module")
def compact(raws: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes]]:
    """Key and members of a compact sample; not to be changed."""
    _, out = build_folder(
        "bdd100k", raws["bdd100k"], tmp_path_factory.mktemp("compact") / "out", shards__layout="compact", limit=3
    )
    return next(iter(oracle.read_tars(out).items()))


@pytest.mark.parametrize(("recipe", "values"), KINDS, ids=lambda value: value if isinstance(value, str) else "")
def test_both_layouts_hold_the_same_samples(
    recipe: str, values: dict[str, Any], raws: Mapping[str, Path], tmp_path: Path, pics: Callable[..., Any]
) -> None:
    out = {}
    for layout in ("published", "compact"):
        _, out[layout] = build_folder(
            recipe, raws[recipe], tmp_path / layout, limit=FEW, shards__layout=layout, **values
        )
    published, compact = samples(out["published"]), samples(out["compact"])
    assert list(published) == list(compact)
    assert len(published) >= 3
    for key, sample in published.items():
        assert_equal(sample, compact[key])
    # In compat the patches of Cityscapes come from the PNG, which is not stored, so they are kept.
    kept = recipe == "cityscapes" and "compat" in values
    for members in oracle.read_tars(out["compact"]).values():
        assert not [name for name in members if name.startswith("mask")]
        assert kept == any(name.startswith("obj") for name in members)

    # There and back by the command; the patches are not forgotten where they cannot be cut again.
    for start, end in (("published", "compact"), ("compact", "published")):
        done = pics("build-shards", "--convert", out[start], "--out", tmp_path / f"from_{start}", "--workers", 1)
        assert done.returncode == 0, done.stderr
        for path in out[end].glob("*.tar"):
            assert (tmp_path / f"from_{start}" / path.name).read_bytes() == path.read_bytes()
    manifests = [
        json.loads((folder / "manifest.json").read_text()) for folder in (out["compact"], tmp_path / "from_published")
    ]
    for key in ("samples", "shards", "recipe", "recipe_sha256", "split", "skipped", "bad"):
        assert manifests[0][key] == manifests[1][key]


def test_compact_is_smaller(raws: Mapping[str, Path], tmp_path: Path) -> None:
    sizes = {}
    for layout in ("published", "compact"):
        manifest, _ = build_folder("lvis", raws["lvis"], tmp_path / layout, limit=FEW, shards__layout=layout)
        sizes[layout] = sum(shard["bytes"] for shard in manifest["shards"])
    assert sizes["compact"] < 0.75 * sizes["published"]


# --- the research project's shards ------------------------------------------------------------------------------------


def grey_png(mask: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG")
    return file.getvalue()


def as_published(folder: Path, out: Path) -> dict[str, dict[str, bytes]]:
    """Shards as the research project's look: no json, 8-bit masks, no manifest."""
    found = {}
    for key, members in oracle.read_tars(folder).items():
        plain = {name: data for name, data in members.items() if name != "json"}
        found[key] = {
            name: grey_png(oracle.read_mask(data)) if name.startswith("mask") else data for name, data in plain.items()
        }
    out.mkdir()
    oracle.write_tar(out / "00007.tar", found)
    return found


@pytest.mark.parametrize("compat", [True, False])
def test_published_shards_get_our_json(
    compat: bool, raws: Mapping[str, Path], tmp_path: Path, pics: Callable[..., Any]
) -> None:
    _, built = build_folder("bdd100k", raws["bdd100k"], tmp_path / "built", compat=compat)
    found = as_published(built, tmp_path / "BDD100K")
    for layout in (None, "published"):
        more = ["--layout", layout] if layout else []
        out = tmp_path / f"out_{layout}"
        words = ("--convert", tmp_path / "BDD100K", "--out", out, "--split", "val", "--workers", 1)
        done = pics("build-shards", *words, *more)
        assert done.returncode == 0, done.stderr
        assert pics("build-shards", "--check", out, "--workers", 1).returncode == 0
        assert [path.name for path in out.glob("*.tar")] == ["00007.tar"]
        truth, converted = samples(built), samples(out)
        for key, sample in converted.items():
            assert np.array_equal(sample.image, truth[key].image)
            for k in range(2):
                assert np.array_equal(sample.masks[k], truth[key].masks[k])
                assert np.array_equal(sample.references[k], truth[key].references[k])
            meta, known = sample.metadata or {}, truth[key].metadata or {}
            assert (meta["dataset"], meta["split"], meta["image_id"]) == ("BDD100K", "val", key)
            assert (meta["width"], meta["height"]) == (known["width"], known["height"])
            for thing, entry in zip(meta["objects"], known["objects"], strict=True):
                assert thing["category"] is None
                assert thing["box"] == entry["box"]
                assert thing["patch"] == entry["patch"]
        for key, members in oracle.read_tars(out).items():
            assert members["bg.jpg"] == found[key]["bg.jpg"]
            assert ("obj0.png" in members) == (layout == "published")


def test_a_patch_that_cannot_be_cut_again_is_kept(
    raws: Mapping[str, Path], tmp_path: Path, pics: Callable[..., Any]
) -> None:
    _, built = build_folder("bdd100k", raws["bdd100k"], tmp_path / "built")
    found = as_published(built, tmp_path / "plain")
    key = next(iter(found))
    file = io.BytesIO()
    strange = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    Image.fromarray(strange).save(file, "PNG")
    found[key]["obj1.png"] = file.getvalue()
    oracle.write_tar(tmp_path / "plain/00007.tar", found)
    alone = ("--workers", 1)
    assert pics("build-shards", "--convert", tmp_path / "plain", "--out", tmp_path / "out", *alone).returncode == 0
    members = oracle.read_tars(tmp_path / "out")[key]
    assert {name for name in members if name.startswith("obj")} == {"obj1.png"}
    sample = samples(tmp_path / "out")[key]
    assert np.array_equal(sample.references[1], strange)
    assert (sample.metadata or {})["objects"][1]["patch"] == {"crop": None, "padding": None}
    assert pics("build-shards", "--convert", tmp_path / "out", "--out", tmp_path / "back", *alone).returncode == 0
    assert oracle.read_tars(tmp_path / "back")[key]["obj1.png"] == found[key]["obj1.png"]


# --- damage -----------------------------------------------------------------------------------------------------------


def edited(members: Mapping[str, bytes], path: str, value: Any) -> dict[str, bytes]:
    """The json of a sample with one value replaced."""
    meta = json.loads(members["json"])
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    at = meta
    for part in parents:
        at = at[part]
    at[last] = value
    return {**members, "json": json.dumps(meta).encode()}


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("objects.0.mask.rle.counts", "xyz", "bad_mask"),
        ("objects.0.mask.rle.counts", 7, "bad_json"),
        ("objects.0.mask.rle.size", [3, 4], "mask_size"),
        ("objects.0.mask.rle.size", [3], "bad_json"),
        ("objects.0.mask.rle.size", ["a", "b"], "bad_json"),
        ("objects.0.mask.rle.size", [60000, 60000], "mask_size"),
        ("objects.0.mask.rle.size", [-2, -3], "bad_json"),
        ("objects.0.mask.rle.size", [True, 2.5], "bad_json"),
        ("objects.0.mask.rle", {"size": [4, 5], "counts": "0d"}, "mask_size"),
        ("objects.0.full", [1], "bad_json"),
        ("objects.0.full", {"rle": {"size": [4, 5], "counts": "0d"}}, "mask_size"),
        ("objects.0.patch.crop", [0, 0, 0, 0], "bad_json"),
        ("objects.0.patch.crop", [-1, 0, 5, 5], "bad_json"),
        ("objects.0.patch", [1], "bad_json"),
        ("objects.0.mask.rle", 3, "bad_json"),
        ("objects.0.mask", None, "bad_json"),
        ("objects.0.patch.crop", [0, 0, 10**6, 10], "bad_json"),
        ("objects.0.patch.crop", [5, 5, 4, 4], "bad_json"),
        ("objects.0.patch.crop", None, "bad_json"),
        ("objects.0.patch.padding", 1e9, "bad_json"),
        ("objects.0.patch.padding", "1.2", "bad_json"),
        ("objects.0.patch", None, "bad_json"),
        ("objects", [], "missing_member"),
        ("objects.1.mask", {"source": "rle"}, "bad_json"),
        ("schema", 99, "bad_json"),
    ],
)
def test_damaged_json_of_a_compact_sample(
    compact: tuple[str, dict[str, bytes]], path: str, value: Any, reason: str
) -> None:
    key, members = compact
    decode_sample(key, members)
    with pytest.raises(BadSample) as caught:
        decode_sample(key, edited(members, path, value))
    assert caught.value.reason == reason


def test_unpacking_does_not_change_what_it_reads(compact: tuple[str, dict[str, bytes]]) -> None:
    _, members = compact
    before = dict(members)
    unpack_sample(members)
    assert members == before
