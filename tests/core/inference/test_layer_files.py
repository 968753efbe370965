"""Folders of layers and OpenRaster files: written, read, edited, and damaged."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageCms

from pics_cli.core.images.image_io import encode_png
from pics_cli.core.images.stored_image import StoredImage, decode_stored
from pics_cli.core.inference.layer_files import merge_files, open_raster_path, read_layers, write_layers
from pics_cli.core.inference.layers import Coverage, merge, separate
from pics_cli.core.inference.marking import SOURCE_TYPE
from pics_cli.errors import PicsError

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def write(folder: Path, dtype: type = np.uint8, channels: int = 3) -> StoredImage:
    """Layers of any composite in a folder; returns the composite."""
    rng = np.random.default_rng(channels)
    highest = np.iinfo(dtype).max
    before, after = rng.integers(0, highest, (2, 40, 60, channels), dtype, endpoint=True)
    after[:, :20] = before[:, :20]
    if channels == 4:
        after[:, 30:, 3] = before[:, 30:, 3] = highest
    seen = rng.choice(np.array([0, 80, 255], np.uint8), (1, 40, 20))
    layers = separate(StoredImage(before, PROFILE), after, Coverage((30, 0, 50, 40), seen), [0])
    write_layers(folder, layers)
    return StoredImage(after, PROFILE)


def edit(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    path.write_bytes(encode_png(change(decode_stored(path.read_bytes()).pixels.copy())))


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 3), (np.uint8, 4), (np.uint16, 3), (np.uint16, 4)])
def test_files_recombine(tmp_path: Path, dtype: type, channels: int) -> None:
    folder = tmp_path / "layers_a.b"
    composite = write(folder, dtype, channels)
    layers, _ = read_layers(folder)
    np.testing.assert_array_equal(merge(layers), composite.pixels)
    merged = merge_files(folder)
    assert merged == (folder / "merged.png", 5 + (channels == 4), True)
    data = merged.path.read_bytes()
    assert decode_stored(data).icc_profile == PROFILE
    assert SOURCE_TYPE.encode() in data, "marked as composited by a network"
    np.testing.assert_array_equal(decode_stored(data).pixels, composite.pixels)
    first = open_raster_path(folder).read_bytes()
    assert open_raster_path(folder).name == "layers_a.b.ora"
    write(folder, dtype, channels)
    assert open_raster_path(folder).read_bytes() == first, "the same layers, the same bytes"
    assert merged.path.exists(), "it is the user's"


@pytest.mark.parametrize("channels", [3, 4])
def test_the_open_raster_file(tmp_path: Path, channels: int) -> None:
    """As its specification has it: what a program of any kind stacks from it is the picture, up to rounding."""
    composite = write(tmp_path / "a", channels=channels)
    with zipfile.ZipFile(tmp_path / "a.ora") as archive:
        first = archive.infolist()[0]
        assert (first.filename, first.compress_type, archive.read(first)) == ("mimetype", 0, b"image/openraster")
        image = ElementTree.fromstring(archive.read("stack.xml"))
        assert image.attrib == {"version": "0.0.3", "w": "60", "h": "40", "xres": "72", "yres": "72"}
        merged = decode_stored(archive.read("mergedimage.png"))
        np.testing.assert_array_equal(merged.pixels, composite.pixels)
        assert max(Image.open(io.BytesIO(archive.read("Thumbnails/thumbnail.png"))).size) <= 256
        layers = image.findall("./stack/layer")
        listed = {"mimetype", "stack.xml", "mergedimage.png", "Thumbnails/thumbnail.png"}
        assert set(archive.namelist()) == listed | {layer.attrib["src"] for layer in layers}
        stacked = [layer for layer in layers if layer.attrib["visibility"] == "visible"]
        hidden = [layer.attrib["name"] for layer in layers if layer not in stacked]
        assert hidden == (["rest minus", "rest plus"] if channels == 4 else [])
        operators = [(layer.attrib["name"], layer.attrib["composite-op"]) for layer in stacked]
        assert operators == [
            ("lighter", "svg:plus"), ("darker", "svg:multiply"), ("object 0", "svg:src-over"),
            *[("shade", "svg:src-over")] * (channels == 4), ("light", "svg:multiply"), ("background", "svg:src-over"),
        ]  # fmt: skip
        canvas = np.zeros((40, 60, 3))
        for layer in reversed(stacked):
            rgba = np.asarray(Image.open(io.BytesIO(archive.read(layer.attrib["src"]))).convert("RGBA")) / 255
            colour, alpha = rgba[..., :3], rgba[..., 3:]
            if layer.attrib["composite-op"] == "svg:multiply":
                canvas = canvas * (1 - alpha) + canvas * colour * alpha
            elif layer.attrib["composite-op"] == "svg:plus":
                canvas = np.minimum(canvas + colour * alpha, 1)
            else:
                canvas = canvas * (1 - alpha) + colour * alpha
        opaque = slice(30, None) if channels == 4 else slice(None)
        assert np.abs(np.rint(canvas * 255) - composite.pixels[..., :3])[:, opaque].max() <= 1


def test_edited_layers(tmp_path: Path) -> None:
    """Programs save alpha or none as they like; what was painted is in the picture."""
    folder = tmp_path / "a"
    composite = write(folder).pixels.astype(int)
    for name in ("background", "light", "darker", "lighter"):
        assert merge_files(folder, overwrite=True).unchanged
        fill = 0 if name == "lighter" else 255

        def other_mode(pixels: np.ndarray, fill: int = fill) -> np.ndarray:
            if pixels.shape[2] == 3:
                return np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
            return np.where(pixels[..., 3:] > 0, pixels[..., :3], np.uint8(fill))

        edit(folder / f"{name}.png", other_mode)
    assert merge_files(folder, overwrite=True).unchanged

    def paint(pixels: np.ndarray) -> np.ndarray:
        pixels[:5, :5] = (9, 8, 7, 255)
        return pixels

    edit(folder / "object_0.png", paint)
    merged = merge_files(folder, tmp_path / "out.png")
    assert (merged.path, merged.unchanged) == (tmp_path / "out.png", False)
    found = decode_stored(merged.path.read_bytes()).pixels
    assert (found[:5, :5] == (9, 8, 7)).all()
    np.testing.assert_array_equal(found[5:], composite[5:])


def rewrite(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda a: (a / "light.png").unlink(), "a/light.png: no such layer, which layers.json names"),
        (lambda a: (a / "background.png").unlink(), "a/background.png: no such layer"),
        (lambda a: (a / "layers.json").unlink(), "a: no folder of layers (no layers.json in it)"),
        (lambda a: (a / "layers.json").write_text("[" * 9999), "a/layers.json: not as pics writes it"),
        (lambda a: rewrite(a / "layers.json", stack=[{"name": "x", "operator": "burn"}]), "not as pics writes it"),
        (lambda a: rewrite(a / "layers.json", stack=[{"name": "../x", "operator": "plus"}]), "'../x' is no name of"),
        (lambda a: (a / "light.png").write_bytes(b"no PNG"), "a/light.png: "),
        (
            lambda a: edit(a / "object_0.png", lambda pixels: pixels[:30]),
            "a/object_0.png: is 60x30, expected 60x40, the size of all layers (width x height)",
        ),
        (
            lambda a: edit(a / "object_0.png", lambda pixels: pixels[..., :3]),
            "a/object_0.png: has 8 bits without alpha, expected 8 bits with alpha",
        ),
        (
            lambda a: edit(a / "lighter.png", lambda pixels: pixels.astype(np.uint16) * 257),
            "a/lighter.png: has 16 bits with alpha, expected 8 bits",
        ),
        (
            lambda a: edit(a / "background.png", lambda pixels: np.dstack([pixels, pixels[..., 0]])),
            "a/background.png: has 8 bits with alpha, expected 8 bits without alpha",
        ),
    ],
)
def test_what_cannot_be_merged(tmp_path: Path, damage: Callable[[Path], object], text: str) -> None:
    write(tmp_path / "a")
    damage(tmp_path / "a")
    with pytest.raises(PicsError) as caught:
        merge_files(tmp_path / "a")
    assert text in caught.value.message
    assert caught.value.exit_code == 2
    assert not (tmp_path / "a/merged.png").exists()


def test_no_layer_is_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    write(folder)
    (tmp_path / "link.png").symlink_to(folder / "light.png")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for path in (folder / "object_0.png", folder / "layers.json", tmp_path / "link.png"):
        with pytest.raises(PicsError, match="would be overwritten"):
            merge_files(folder, path, overwrite=True)
    merge_files(folder)
    with pytest.raises(PicsError, match=r"merged\.png: is there already"):
        merge_files(folder)
    assert {path: path.read_bytes() for path in folder.iterdir() if path.name != "merged.png"} == before
