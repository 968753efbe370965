"""Scalabel files, frames and labels that cannot be used: counted and named, and everything else is built."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import oracle
from helpers.making import build_folder, encoded, smooth
from helpers.street import bdd_label, put, rle, write_bdd
from helpers.street_oracle import told
from pics_cli.errors import PicsError

Change = Callable[[dict[str, Any]], object]

SIZE = (64, 96)
JSON = "labels/ins_seg/rles/ins_seg_train.json"
IMAGES = "images/10k/train"


def mask(x0: int, y0: int, x1: int, y1: int) -> Any:
    found = np.zeros(SIZE, bool)
    found[y0:y1, x0:x1] = True
    return found


def frame(name: str = "good.jpg", **more: Any) -> dict[str, Any]:
    labels = [bdd_label("1", mask(10, 10, 40, 40)), bdd_label("2", mask(30, 20, 70, 50))]
    return {"name": name, "labels": labels, **more}


def first(**change: Any) -> Change:
    """Change keys of the first label; None removes nothing, it is null."""
    return lambda frame: frame["labels"][0].update(change)


def counts(change: Callable[[str], str]) -> Change:
    """Change the first label's run lengths."""
    return lambda frame: frame["labels"][0]["rle"].update(counts=change(frame["labels"][0]["rle"]["counts"]))


def without(key: str) -> Change:
    return lambda frame: frame["labels"][0].pop(key)


def unchanged(frame: dict[str, Any]) -> None:
    """The record is good, the picture is not."""


def short(height: int) -> dict[str, Any]:
    """Run lengths of the first rows alone, said to be those of the whole frame."""
    return {"counts": rle(mask(10, 10, 40, 40)[:height])["counts"], "size": list(SIZE)}


BROKEN: dict[str, tuple[Change, str, str]] = {  # reason, and what the detail says
    "labels null": (lambda frame: frame.update(labels=None), "no_annotations", ""),
    "labels missing": (lambda frame: frame.pop("labels"), "no_annotations", ""),
    "labels empty": (lambda frame: frame.update(labels=[]), "no_annotations", ""),
    "labels object": (lambda frame: frame.update(labels={}), "bad_frame_record", "`$.labels`"),
    "label null": (lambda frame: frame["labels"].append(None), "bad_frame_record", "`$.labels[2]`"),
    "rle null": (first(rle=None), "no_masks", ""),
    "rle missing": (without("rle"), "no_masks", ""),
    "rle empty": (first(rle={}), "no_masks", ""),
    "rle text": (first(rle="x"), "bad_frame_record", "rle"),
    "box and rle null": (first(rle=None, box2d=None), "too_few_objects", ""),
    "box without x1": (lambda frame: frame["labels"][0]["box2d"].pop("x1"), "bad_frame_record", "x1"),
    "box inside out": (first(box2d={"x1": 40, "y1": 10, "x2": 10, "y2": 40}), "too_few_objects", ""),
    "attributes list": (first(attributes=[]), "bad_frame_record", "attributes"),
    "counts malformed": (counts(lambda text: "}" + text), "bad_mask", "do not add up"),
    "counts unterminated": (counts(lambda text: text[:-1] + chr(ord(text[-1]) + 32)), "too_few_objects", ""),
    "counts empty": (first(rle={"counts": "", "size": list(SIZE)}), "too_few_objects", ""),
    "counts not ascii": (counts(lambda text: text + "é"), "too_few_objects", ""),
    "counts too short": (first(rle=short(50)), "bad_mask", "do not add up to 64 x 96"),
    "counts too long": (counts(lambda text: text + "99"), "bad_mask", "do not add up"),
    "list too short": (first(rle={"counts": [100, 2000, 10], "size": list(SIZE)}), "too_few_objects", ""),
    "size turned": (first(rle=rle(mask(10, 10, 40, 40).T)), "size_mismatch", "annotated as 64x96"),
    "second size turned": (
        lambda frame: frame["labels"][1]["rle"].update(size=[96, 64]), "bad_mask", "height, width [96, 64]"
    ),
    "size absurd": (first(rle={"counts": "0", "size": [10**9, 10**9]}), "bad_frame_record", "claims"),
    "frame size": (lambda frame: frame.update(size={"width": 95, "height": 64}), "size_mismatch", "annotated as 95x64"),
    "frame size zero": (lambda frame: frame.update(size={"width": 0, "height": 64}), "bad_frame_record", "claims 0"),
    "picture missing": (unchanged, "missing_image", "images/10k/train/picture missing.jpg"),
    "picture empty": (unchanged, "unreadable_image", "empty"),
    "picture cut": (unchanged, "truncated_image", ""),
    "polygon of two points": (
        first(rle=None, poly2d=[{"vertices": [[1, 1], [9, 9]], "types": "LL", "closed": True}]), "no_masks", ""
    ),
    "polygon far outside": (
        first(rle=None, poly2d=[{"vertices": [[1, 1], [9e9, 9], [9, 9]], "types": "LLL", "closed": True}]),
        "too_few_objects", "",
    ),
    "polygon of older files": (
        first(rle=None, poly2d=[[[1, 1, "L"], [9, 9, "L"], [1, 9, "L"]]]), "bad_frame_record", "poly2d"
    ),
}  # fmt: skip
SKIPS = ("no_annotations", "no_masks", "too_few_objects")


def write(root: Path, frames: Any, pictures: tuple[str, ...] = ()) -> Path:
    """The json as given, and a picture for every good frame and every name."""
    raw = write_bdd(root, [], {name: smooth(*SIZE) for name in ("good", "last", *pictures)})
    put(raw / JSON, frames if isinstance(frames, str | bytes) else json.dumps(frames))
    return raw


def test_broken_frames_are_counted_and_named(tmp_path: Path) -> None:
    frames = [frame()]
    for name, (change, _, _) in BROKEN.items():
        frames.append(copy.deepcopy(frame(f"{name}.jpg")))
        change(frames[-1])
    raw = write(tmp_path, {"frames": [*frames, frame("last.jpg")]}, tuple(BROKEN))
    (raw / IMAGES / "picture missing.jpg").unlink()
    put(raw / IMAGES / "picture empty.jpg", b"")
    put(raw / IMAGES / "picture cut.jpg", encoded(smooth(*SIZE))[:600])
    manifest, out = build_folder("bdd100k", raw, tmp_path / "out")
    found = told(manifest, out)
    assert found.keys == ["good", "last"]
    assert manifest["pictures"] == len(BROKEN) + 2
    for number, (name, (_, reason, detail)) in enumerate(BROKEN.items(), 1):
        if reason in SKIPS:
            assert number not in found.bad, name
        else:
            assert found.bad[number][0] == reason, (name, found.bad[number])
            assert detail in found.bad[number][1], name
    for reason in SKIPS:
        assert manifest["skipped"][reason] == sum(expected == reason for _, expected, _ in BROKEN.values())


@pytest.mark.parametrize(
    "change",
    [
        first(box2d=None), without("box2d"), first(category=None), without("category"), first(id=None), without("id"),
        first(attributes=None), without("attributes"), first(id=7), first(poly2d=[]),
        first(rle={"counts": oracle.mask_to_runs(mask(10, 10, 40, 40)), "size": list(SIZE)}),
        lambda frame: frame.update(size=None, url=None, videoName=None, attributes={"weather": "clear"}),
        lambda frame: frame.update(size={"width": 96, "height": 64}, timestamp=1.5, frameIndex=None),
    ],
)  # fmt: skip
def test_what_may_be_missing_or_null(tmp_path: Path, change: Change) -> None:
    given = frame()
    change(given)
    manifest, out = build_folder("bdd100k", write(tmp_path, {"frames": [given]}), tmp_path / "out")
    assert told(manifest, out).keys == ["good"]
    found = [oracle.read_mask(oracle.read_tars(out)["good"][f"mask{k}.png"]) for k in (0, 1)]
    assert np.array_equal(found[0], mask(10, 10, 40, 40))
    assert np.array_equal(found[1], mask(30, 20, 70, 50))


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        ({"labels": []}, "bad_frame_record", "`name`"),
        ({"name": None}, "bad_frame_record", "`$.name`"),
        ({"name": 5}, "bad_frame_record", "`$.name`"),
        (frame(), "duplicate_frame", "good.jpg given twice"),
    ],
)
def test_frames_without_name_and_duplicates_are_bad_records(
    tmp_path: Path, bad: Any, reason: str, detail: str, bare: bool
) -> None:
    frames = [frame(), bad, frame("last.jpg")]
    manifest, out = build_folder("bdd100k", write(tmp_path, frames if bare else {"frames": frames}), tmp_path / "out")
    assert told(manifest, out).keys == ["good", "last"]
    assert manifest["bad"]["records"] == {reason: 1}
    (line,) = manifest["bad_records"]
    assert line.startswith(f"{reason}: ")
    assert detail in line


def test_frame_that_is_no_json_is_not_lost(tmp_path: Path) -> None:
    # Python writes NaN, which JSON does not know: the file is still cut at its frames, and that one is named.
    frames = [frame(), frame("odd.jpg"), frame("last.jpg")]
    frames[1]["labels"][0]["box2d"]["x1"] = float("nan")
    manifest, out = build_folder("bdd100k", write(tmp_path, {"frames": frames}, ("odd",)), tmp_path / "out")
    assert told(manifest, out).keys == ["good", "last"]
    assert sum(manifest["bad"]["records"].values()) + len(manifest["bad_pictures"]) == 1


def test_frame_nested_beyond_measure(tmp_path: Path) -> None:
    frames = [frame(), frame("odd.jpg", url="deep"), frame("last.jpg")]
    text = json.dumps({"frames": frames}).replace('"deep"', "[" * 5000 + "]" * 5000)
    manifest, out = build_folder("bdd100k", write(tmp_path, text, ("odd",)), tmp_path / "out")
    assert {"good", "last"} <= set(told(manifest, out).keys)


@pytest.mark.parametrize("names", [("x.jpg", "x.png"), ("x.jpg", "x"), ("v/x.jpg", ("v", "x.jpg"))])
def test_names_that_differ_by_their_ending_alone_get_two_keys(tmp_path: Path, names: Any) -> None:
    frames = [frame(name) if isinstance(name, str) else frame(name[1], videoName=name[0]) for name in names]
    raw = write(tmp_path, {"frames": frames}, ("x",))
    for name in ("x", "x.png"):
        put(raw / IMAGES / name, (raw / IMAGES / "x.jpg").read_bytes())
    manifest, out = build_folder("bdd100k", raw, tmp_path / "out")
    told(manifest, out)  # asserts that no key is given twice and that no picture is lost


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"images": []}, "no 'frames' in it"),
        ({"frames": None}, "'frames' is not a list"),
        ({"frames": {}}, "'frames' is not a list"),
        (json.dumps({"frames": [frame()]})[:-3], "truncated or not JSON"),
        (json.dumps([frame(), frame("x.jpg")])[:-9], "truncated or not JSON"),
        (b"", "the file is empty"),
        ("<html>", "top level is no JSON"),
        ('"text"', "top level is a string"),
        ([1, 2], "expected an object in 'frames'"),
        ({"frames": [[]]}, "expected an object in 'frames'"),
    ],
)
def test_file_that_cannot_be_used(tmp_path: Path, contents: Any, message: str) -> None:
    raw = write(tmp_path, contents)
    with pytest.raises(PicsError) as found:
        build_folder("bdd100k", raw, tmp_path / "out")
    assert message in found.value.message
    assert str(raw / JSON) in found.value.message


@pytest.mark.parametrize("contents", [[], {"frames": []}, {"frames": [], "config": {"frames": 3}}])
def test_file_without_frames(tmp_path: Path, pics: Callable[..., Any], contents: Any) -> None:
    raw = write(tmp_path, contents)
    manifest, out = build_folder("bdd100k", raw, tmp_path / "out")
    assert told(manifest, out).keys == []
    assert manifest["pictures"] == 0


def test_command_on_a_file_without_frames_says_so(tmp_path: Path, pics: Callable[..., Any]) -> None:
    done = pics("build-shards", "bdd100k", "--raw", write(tmp_path, []), "--out", "new", "--workers", 1)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "no picture gave a sample: \n" not in done.stderr  # an empty list of reasons


def test_class_that_the_file_lacks(tmp_path: Path) -> None:
    raw = write(tmp_path, {"frames": [frame()]})
    with pytest.raises(PicsError, match=r"'cat' not among the 1 categories of .*ins_seg_train\.json"):
        build_folder("bdd100k", raw, tmp_path / "out", pairs__classes__include=["cat"])
