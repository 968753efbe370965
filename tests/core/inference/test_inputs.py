"""Sample folders, masks of every kind, single-picture flags, and every fault by name."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.composites import BOXES, SIZE, make_sample, mask_of, scene, thing
from pics_cli.core.inference.inputs import (
    check_files,
    decode,
    find_folders,
    list_sample,
    parse_box,
    part_hashes,
    read_parts,
    single_sample,
)
from pics_cli.errors import BadSample, PicsError


def test_a_sample_folder_is_read(tmp_path: Path) -> None:
    folder = make_sample(tmp_path / "-a", [*BOXES, (0, 0, 10, 96)])
    thing(1, alpha=False).save(folder / "object_1.png")
    thing(2, alpha=False).convert("RGBA").save(folder / "object_2.png")
    files = list_sample(folder, None)
    assert files.id == "-a"
    inputs = decode(files, read_parts(files))
    assert np.array_equal(inputs.background, np.asarray(scene()))
    assert inputs.boxes == (*BOXES, (0, 0, 10, 96))
    assert [one.shape[2] for one in inputs.references] == [4, 3, 3]
    assert np.array_equal(inputs.references[0], np.asarray(thing(0)))
    assert list(part_hashes(read_parts(files))) == [
        "background", "object_0", "mask_0", "object_1", "mask_1", "object_2", "mask_2",
    ]  # fmt: skip
    assert len(list_sample(folder, 2).objects) == 2


def test_what_a_sample_keeps(tmp_path: Path) -> None:
    folder = make_sample(tmp_path / "a")
    mask_of((0, 0, 30, 90)).save(folder / "Keep.PNG")
    files = list_sample(folder, 1)
    assert files.keep == folder / "Keep.PNG"
    inputs = decode(files, read_parts(files))
    assert inputs.keep is not None
    assert inputs.keep.sum() == 30 * 90
    assert "keep" in part_hashes(read_parts(files))
    (folder / "Keep.PNG").write_bytes(b"no mask")
    with pytest.raises(BadSample, match=r"Keep\.PNG: ") as caught:
        decode(files, read_parts(files))
    assert caught.value.reason == "bad_mask"
    (folder / "keep.jpg").touch()
    with pytest.raises(BadSample, match=r"both Keep\.PNG and keep\.jpg"):
        list_sample(folder, 1)
    (folder / "Keep.PNG").unlink()
    (folder / "keep.jpg").rename(folder / "keep.gif")
    with pytest.raises(BadSample, match=r"keep\.gif: not one of the kinds that are read") as caught:
        list_sample(folder, 1)
    assert caught.value.reason == "missing_keep"


def test_numbers_may_start_anywhere(tmp_path: Path) -> None:
    folder = make_sample(tmp_path / "a")
    for old, new in ((1, 10), (0, 9)):
        (folder / f"object_{old}.png").rename(folder / f"object_{new}.PNG")
        (folder / f"object_{old}_mask.png").rename(folder / f"object_{new}_mask.png")
    assert [one.reference.name for one in list_sample(folder, None).objects] == ["object_9.PNG", "object_10.PNG"]


def test_numbers_are_not_counted_through(tmp_path: Path) -> None:
    folder = make_sample(tmp_path / "a")
    (folder / "object_1.png").rename(folder / "object_20241129123456.png")
    (folder / "object_1_mask.png").rename(folder / "object_20241129123456_mask.png")
    with pytest.raises(BadSample, match=r"object_1\.png: no such file, though there is a later one"):
        list_sample(folder, 2)
    assert len(list_sample(folder, 1).objects) == 1


def test_very_many_folders(tmp_path: Path) -> None:
    for i in range(3000):
        folder = tmp_path / f"{i:05d}"
        folder.mkdir()
        (folder / ("image.png" if i % 3 else "other.txt")).touch()
    start = time.monotonic()
    assert len(find_folders(tmp_path)) == 2000
    assert time.monotonic() - start < 3


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    """Nobody writes into it, and it could be read but once."""
    folder = make_sample(tmp_path / "a")
    (folder / "object_0.png").unlink()
    os.mkfifo(folder / "object_0.png")
    files = list_sample(folder, None)
    for read in (check_files, read_parts):
        with pytest.raises(BadSample, match="is a pipe, expected a file"):
            read(files)


def test_a_gap_in_the_numbers_is_a_missing_object(tmp_path: Path) -> None:
    """Both files of an object misspelt must not mean a composite without it."""
    folder = make_sample(tmp_path / "a")
    (folder / "object_1.png").rename(folder / "object_2.png")
    (folder / "object_1_mask.png").rename(folder / "object_2_mask.png")
    with pytest.raises(BadSample, match=r"object_1\.png: no such file, though there is a later one") as error:
        list_sample(folder, None)
    assert error.value.reason == "missing_object"
    assert len(list_sample(folder, 1).objects) == 1


def _spoil(folder: Path, change: str) -> None:
    kind, _, name = change.partition(" ")
    path = folder / name
    if kind == "lose":
        path.unlink()
    elif kind == "copy":
        (folder / name.replace(".png", ".jpg")).write_bytes(path.read_bytes())
    elif kind == "gif":
        path.rename(path.with_suffix(".gif"))
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "clear":
        Image.new("RGBA", (9, 9)).save(path)


@pytest.mark.parametrize(
    ("change", "objects", "reason", "words"),
    [
        ("lose image.png", None, "missing_image", "a/image.jpg (or .png, .webp): no such file"),
        ("copy image.png", None, "two_files", "both image.jpg and image.png"),
        (
            "lose object_1.png",
            None,
            "missing_object",
            "a/object_1.png: no such file, though object_1_mask.png is there",
        ),
        ("lose object_1_mask.png", None, "missing_mask", "a/object_1_mask.png: no such file, though object_1.png is"),
        ("gif image.png", None, "missing_image", "a/image.gif: not one of the kinds that are read: png, jpg"),
        ("gif object_1_mask.png", None, "missing_mask", "a/object_1_mask.gif: not one of the kinds that are read: png"),
        ("none ", 3, "too_few_objects", "a: 2 objects, --obj-thr asks for 3"),
        ("cut image.png", None, "truncated_image", "a/image.png: "),
        ("cut object_0.png", None, "truncated_image", "a/object_0.png: "),
        ("cut object_0_mask.png", None, "bad_mask", "a/object_0_mask.png: "),
        ("clear object_0.png", None, "empty_reference", "a/object_0.png: every pixel is transparent"),
    ],
)
def test_faults_of_a_sample_are_named(
    tmp_path: Path, change: str, objects: int | None, reason: str, words: str
) -> None:
    folder = make_sample(tmp_path / "a")
    for k in range(2):  # so large that cutting hits their pixels
        Image.effect_noise((64, 64), 50).save(folder / f"object_{k}.png")
        Image.effect_noise(SIZE, 200).save(folder / f"object_{k}_mask.png")
    _spoil(folder, change)

    def read() -> None:
        files = list_sample(folder, objects)
        decode(files, read_parts(files))

    with pytest.raises(BadSample) as caught:
        read()
    assert caught.value.reason == reason
    assert words in caught.value.detail


def test_a_folder_of_samples(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pics_cli")
    for name in ("b", "-a", "10"):
        make_sample(tmp_path / name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half/object_0.png").touch()  # without a background: a bad sample, not no sample
    samples = find_folders(tmp_path)
    assert [path.name for path in samples] == ["-a", "10", "b", "half"]
    assert caplog.messages == [
        f"--input {tmp_path}: links that lead nowhere, passed over: gone",
        "no sample in 1 folders, passed over: notes",
    ]
    assert find_folders(tmp_path / "b") == [tmp_path / "b"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "nowhere: no such folder"),
        ("file.txt", "file.txt: is a file, expected a folder"),
        ("empty", "empty: no sample: looked for image.* and object_*"),
    ],
)
def test_inputs_without_a_sample(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty/inside").mkdir(parents=True)
    (tmp_path / "file.txt").touch()
    with pytest.raises(PicsError) as caught:
        find_folders(tmp_path / name)
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "1.5,2,3,4", "", "1;2;3;4"])
def test_malformed_boxes(text: str) -> None:
    with pytest.raises(PicsError, match="expected four whole numbers x,y,w,h"):
        parse_box(text)


def test_boxes() -> None:
    assert parse_box("3, 4,10,20") == (3, 4, 13, 24)
    with pytest.raises(PicsError, match="width 0 and height 5, both must be at least 1"):
        parse_box("3,4,0,5")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "bg.png: no --object to put into it"),
        ("box=1,2,3,4 object=a.png", "--box 1,2,3,4 stands before any --object"),
        ("object=a.png", "--object a.png: no region: neither --box nor --mask follows it"),
        ("object=a.png object=b.png box=1,2,3,4", "--object a.png: no region"),
        ("object=a.png box=1,2,3,4 mask=m.png", "--object a.png: two regions, the second is --mask m.png"),
        ("object=a.png box=1,2", "--box 1,2: expected four whole numbers"),
    ],
)
def test_single_picture_words_that_do_not_fit(words: str, message: str) -> None:
    pairs = [tuple(word.split("=")) for word in words.split()]
    with pytest.raises(PicsError) as caught:
        single_sample(Path("bg.png"), pairs)  # type: ignore[arg-type]
    assert message in caught.value.message


def test_boxes_must_lie_in_the_picture(tmp_path: Path) -> None:
    scene().save(tmp_path / "bg.png")
    thing(0).save(tmp_path / "a.png")
    words = [("object", str(tmp_path / "a.png")), ("box", "")]
    for box, inside in (("0,0,120,96", True), ("100,0,21,5", False), ("-1,0,9,9", False), ("0,90,5,7", False)):
        words[1] = ("box", box)
        files = single_sample(tmp_path / "bg.png", words)
        if inside:
            assert decode(files, read_parts(files)).boxes == ((0, 0, 120, 96),)
        else:
            with pytest.raises(BadSample, match="box_outside") as caught:
                decode(files, read_parts(files))
            assert f"box {box} (x,y,w,h) of {tmp_path / 'a.png'} leaves the background, which is 120x96" in str(
                caught.value.detail
            )
    words[0] = ("object", str(tmp_path / "none.png"))
    with pytest.raises(BadSample, match="missing_object"):
        read_parts(single_sample(tmp_path / "bg.png", words))
