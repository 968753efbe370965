"""Sample folders, masks of every kind, single-picture flags, and every fault by name."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from composites import BOXES, SIZE, make_sample, mask_of, scene, thing
from pics_cli.core.inference.inputs import (
    decode,
    find_folders,
    list_sample,
    mask_region,
    parse_box,
    part_hashes,
    read_parts,
    single_sample,
)
from pics_cli.errors import BadSample, PicsError

BOX = BOXES[0]


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_alpha(colour: int, mode: str = "RGBA") -> Image.Image:
    image = Image.new("RGB" if mode == "RGBA" else "L", SIZE, (colour,) * 3 if mode == "RGBA" else colour)
    image.putalpha(mask_of(BOX, mode="L"))
    return image


def palette(colours: list[int]) -> Image.Image:
    image = Image.fromarray(np.asarray(mask_of(BOX, mode="L")) // 255, "L").convert("P")
    image.putpalette(colours)
    return image


def sixteen(high: int) -> Image.Image:
    return Image.fromarray((np.asarray(mask_of(BOX, mode="L")) > 0).astype(np.uint16) * high)


def coloured() -> Image.Image:
    empty = Image.new("L", SIZE)
    return Image.merge("RGB", [mask_of(BOX, mode="L"), empty, empty])


MASKS: dict[str, Callable[[], bytes]] = {
    "1 bit": lambda: encoded(mask_of(BOX)),
    "grey": lambda: encoded(mask_of(BOX, mode="L")),
    "rgb": lambda: encoded(mask_of(BOX, mode="RGB")),
    "red": lambda: encoded(coloured()),
    "rgba whose alpha varies": lambda: encoded(with_alpha(255)),
    "rgba, black": lambda: encoded(with_alpha(0)),
    "la": lambda: encoded(with_alpha(255, "LA")),
    "rgba, opaque": lambda: encoded(mask_of(BOX, mode="RGBA")),
    "palette": lambda: encoded(palette([0, 0, 0, 255, 255, 255])),
    "palette, label colours": lambda: encoded(palette([0, 0, 0, 128, 0, 0])),
    "palette, one colour transparent": lambda: encoded(palette([9, 9, 9, 9, 9, 9]), transparency=0),
    "16 bit": lambda: encoded(sixteen(65535)),
    "16 bit, 0 and 1": lambda: encoded(sixteen(1)),
    "0 and 1": lambda: encoded(Image.fromarray(np.asarray(mask_of(BOX, mode="L")) // 255)),
    "webp": lambda: encoded(mask_of(BOX, mode="RGB"), "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_kind(kind: str) -> None:
    assert mask_region(MASKS[kind](), "m.png", SIZE) == BOX


def test_ringing_of_a_jpeg_does_not_widen_a_region() -> None:
    data = encoded(mask_of(BOX, mode="L"), "JPEG", quality=20)
    values = np.asarray(Image.open(io.BytesIO(data)))
    ys, xs = np.nonzero(values)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) != BOX, "no ringing: the test shows nothing"
    assert mask_region(data, "m.jpg", SIZE) == BOX


def test_a_mask_is_turned_as_its_picture_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = mask_of(BOX, mode="L").transpose(Image.Transpose.ROTATE_90)
    assert mask_region(encoded(stored, "JPEG", quality=95, exif=exif), "m.jpg", SIZE) == BOX


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (encoded(mask_of(BOX, (50, 40))), "mask_size", "m.png is 50x40, its background 120x96"),
        (
            encoded(Image.new("L", SIZE)),
            "empty_mask",
            "m.png: no pixel is set (the highest value is 0, set is above 127)",
        ),
        (encoded(sixteen(255)), "empty_mask", "the highest value is 255, set is above 32767"),
        (encoded(mask_of(BOX))[:60], "bad_mask", "m.png: "),
        (b"", "bad_mask", "m.png: the file is empty"),
        (b"no picture", "bad_mask", "m.png: not a picture of a known kind"),
    ],
)
def test_bad_masks_are_named(data: bytes, reason: str, words: str) -> None:
    with pytest.raises(BadSample) as caught:
        mask_region(data, "m.png", SIZE)
    assert caught.value.reason == reason
    assert words in caught.value.detail


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


def test_numbers_may_start_anywhere(tmp_path: Path) -> None:
    folder = make_sample(tmp_path / "a")
    for old, new in ((1, 10), (0, 9)):
        (folder / f"object_{old}.png").rename(folder / f"object_{new}.PNG")
        (folder / f"object_{old}_mask.png").rename(folder / f"object_{new}_mask.png")
    assert [one.reference.name for one in list_sample(folder, None).objects] == ["object_9.PNG", "object_10.PNG"]


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
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half/object_0.png").touch()  # without a background: a bad sample, not no sample
    samples = find_folders(tmp_path)
    assert [path.name for path in samples] == ["-a", "10", "b", "half"]
    assert caplog.messages == ["no sample in 1 folders, passed over: notes"]
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
