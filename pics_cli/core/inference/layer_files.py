"""Layers of a composite as files: a folder of PNGs, which is read again, and an OpenRaster file beside it.

OpenRaster: https://www.openraster.org/baseline/file-layout-spec.html and layer-stack-spec.html.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import msgspec
import numpy as np
from PIL import Image

from pics_cli.core.images.output_formats import encode_result
from pics_cli.core.images.pixels import Pixels
from pics_cli.core.images.stored_image import StoredImage, decode_stored, encode_stored, to_srgb
from pics_cli.core.inference.layers import Layer, Layers, Operator, merge
from pics_cli.core.inference.marking import make_packet
from pics_cli.core.runtime.files import AtomicFile, load_json, make_folder, read_file, write_json
from pics_cli.core.runtime.outputs import refuse_overwriting
from pics_cli.core.runtime.storage import remove_files
from pics_cli.errors import BadSample, PicsError, read_error

MANIFEST = "layers.json"
_BACKGROUND, _REST = "background.png", ("rest_plus.png", "rest_minus.png")
_THUMBNAIL = 256
_NAMES = ("light.png", "shade.png", "object_*.png", "darker.png", "lighter.png")
_OUR_FILES = (_BACKGROUND, *_NAMES, *_REST, "*.tmp", MANIFEST)


class _Entry(msgspec.Struct):
    name: str
    operator: Operator


class _Manifest(msgspec.Struct):
    """What `layers.json` says.

    Attributes:
        size: width and height.
        bits: of each value.
        alpha: whether the background has some, and there is `rest_plus.png` and `rest_minus.png`.
        stack: the other layers, bottom to top; their files are NAME.png.
        sha256: of the composite's values.
    """

    size: tuple[int, int]
    bits: Literal[8, 16]
    alpha: bool
    stack: list[_Entry]
    sha256: str


def open_raster_path(folder: Path) -> Path:
    """Path of the OpenRaster file of a folder of layers."""
    return folder.with_name(f"{folder.name}.ora")


def layer_paths(folder: Path) -> list[Path]:
    """Files that `write_layers` wrote, or could replace: those that are there."""
    paths = [path for pattern in _OUR_FILES for path in sorted(folder.glob(pattern))] if folder.is_dir() else []
    return [path for path in (*paths, open_raster_path(folder)) if path.is_file()]


def refuse_other_files(folder: Path) -> None:
    """Refuse a folder whose files would be taken for layers and replaced, though it holds none, such as a sample's.

    Raises:
        PicsError: it is such a folder.
    """
    if not (folder / MANIFEST).is_file() and (found := layer_paths(folder)):
        raise PicsError(
            f"{found[0]}: is there already, and {folder} holds no layers (no {MANIFEST})", "choose another folder"
        )


def remove_layers(folder: Path) -> None:
    """Remove what `write_layers` wrote; other files stay."""
    remove_files(reversed(layer_paths(folder)))  # the manifest, which says that all is there, first


def write_layers(folder: Path, layers: Layers) -> None:
    """Write a folder of PNGs of the background's size and depth, `layers.json` when all are there, and FOLDER.ora.

    Raises:
        PicsError: they cannot be written.
    """
    remove_layers(folder)
    make_folder(folder)
    composite = layers.background._replace(pixels=merge(layers))
    files = {_BACKGROUND: encode_stored(layers.background)}
    for layer in layers.stack:
        files[f"{layer.name}.png"] = encode_stored(layers.background._replace(pixels=layers.whole(layer.pixels)))
    for name, pixels in zip(_REST, layers.rest or (), strict=False):
        files[name] = encode_stored(StoredImage(layers.whole(pixels)))
    for name, data in files.items():
        with AtomicFile(folder / name) as file:
            file.write(data)
    with AtomicFile(open_raster_path(folder)) as file:
        file.write(_open_raster(layers, composite, files))
    height, width, channels = composite.pixels.shape
    manifest = _Manifest(
        size=(width, height),
        bits=16 if composite.pixels.dtype == np.uint16 else 8,
        alpha=channels == 4,
        stack=[_Entry(layer.name, layer.operator) for layer in layers.stack],
        sha256=_sha256(composite.pixels),
    )
    write_json(folder / MANIFEST, msgspec.to_builtins(manifest))


def read_layers(folder: Path) -> tuple[Layers, str]:
    """The layers of a folder, perhaps edited, and the sha256 of the composite that they were made of.

    Raises:
        PicsError: no folder of layers, a layer is missing, or has another size or mode than it was written with.
    """
    manifest = _read_manifest(folder)
    background = _read_layer(folder / _BACKGROUND, manifest)
    if background.has_alpha != manifest.alpha:
        background = background._replace(pixels=_opaque(background, folder / _BACKGROUND, manifest))
    stack = []
    for entry in manifest.stack:
        path = folder / f"{entry.name}.png"
        layer = _read_layer(path, manifest)
        if not layer.has_alpha and entry.operator == "src-over":
            raise _wrong_mode(path, layer, manifest, "with alpha")
        pixels = layer.pixels
        if not layer.has_alpha:
            pixels = _stacked(pixels, np.full(pixels.shape[:2], np.iinfo(pixels.dtype).max, pixels.dtype))
        stack.append(Layer(entry.name, entry.operator, pixels))
    rest = None
    if manifest.alpha:
        plus, minus = (_read_layer(folder / name, manifest) for name in _REST)
        for name, layer in zip(_REST, (plus, minus), strict=True):
            if not layer.has_alpha:
                raise _wrong_mode(folder / name, layer, manifest, "with alpha")
        rest = plus.pixels, minus.pixels
    return Layers(background, (0, 0, *manifest.size), tuple(stack), rest), manifest.sha256


class MergedFile(NamedTuple):
    """A picture put together: its path, of how many layers, and whether it is the composite that they were made of."""

    path: Path
    layers: int
    unchanged: bool


def merge_files(folder: Path, output: Path | None = None, overwrite: bool = False) -> MergedFile:
    """Put the layers of a folder together, with the background's colour profile.

    Args:
        folder: of the layers.
        output: PNG to write; None: `merged.png` in the folder.
        overwrite: replace it if it is there; never a layer.

    Raises:
        PicsError: see `read_layers`; the output is there already, is a layer, or cannot be written.
    """
    path = output or folder / "merged.png"
    manifest = _read_manifest(folder)
    names = [MANIFEST, _BACKGROUND, *_REST, *(f"{entry.name}.png" for entry in manifest.stack)]
    inputs = [("the layer", folder / name) for name in names]
    refuse_overwriting([("--output", path)], [*inputs, ("the layers", open_raster_path(folder))])
    if path.exists() and not overwrite:
        raise PicsError(f"{path}: is there already", "replace it with --overwrite, or choose another --output")
    layers, sha256 = read_layers(folder)
    pixels = merge(layers)
    with AtomicFile(path) as file:
        file.write(_marked(layers.background._replace(pixels=pixels)))
    return MergedFile(path, len(layers.stack) + 1, _sha256(pixels) == sha256)


def _marked(picture: StoredImage) -> bytes:
    """PNG of a whole picture, marked as composited by a network; without a record, for anything may be edited."""
    return encode_result(picture, "png", make_packet({}, ""))


def _sha256(pixels: Pixels) -> str:
    """sha256 (hex) of a picture's values."""
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / MANIFEST
    hint = "name a folder that pics infer --layers wrote: DIR/layers/layers_ID"
    try:
        manifest = msgspec.convert(load_json(read_file(path)), _Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise PicsError(f"{folder}: no folder of layers (no {MANIFEST} in it)", hint) from None
    except OSError as error:
        raise read_error(path, error) from None
    except (ValueError, msgspec.ValidationError) as error:
        raise PicsError(f"{path}: not as pics writes it: {error}", hint) from None
    for entry in manifest.stack:
        if Path(entry.name).name != entry.name or "\0" in entry.name:
            raise PicsError(f"{path}: {entry.name!r} is no name of a layer", hint)
    return manifest


def _read_layer(path: Path, manifest: _Manifest) -> StoredImage:
    try:
        stored = decode_stored(read_file(path))
    except FileNotFoundError:
        raise PicsError(f"{path}: no such layer, which {MANIFEST} names", "make the layers again") from None
    except OSError as error:
        raise read_error(path, error) from None
    except BadSample as error:
        raise PicsError(f"{path}: {error.detail}", "save it as PNG again, or make the layers again") from None
    height, width, _ = stored.pixels.shape
    if (width, height) != manifest.size:
        shown = "{}x{}".format(*manifest.size)
        raise PicsError(
            f"{path}: is {width}x{height}, expected {shown}, the size of all layers (width x height)",
            "save it on a canvas of that size",
        )
    if _bits(stored) != manifest.bits:
        raise _wrong_mode(path, stored, manifest, "")
    return stored


def _opaque(background: StoredImage, path: Path, manifest: _Manifest) -> Pixels:
    """A background that an editor gave alpha, without it where it says nothing."""
    pixels = background.pixels
    if manifest.alpha or (pixels[..., 3] < np.iinfo(pixels.dtype).max).any():
        raise _wrong_mode(path, background, manifest, "with alpha" if manifest.alpha else "without alpha")
    return _stacked(*np.moveaxis(pixels[..., :3], 2, 0))


def _stacked(*channels: Pixels) -> Pixels:
    """Channels [H, W] or [H, W, C] as one picture."""
    return np.concatenate([channel.reshape(*channel.shape[:2], -1) for channel in channels], axis=2)


def _bits(stored: StoredImage) -> int:
    return 8 * stored.pixels.dtype.itemsize


def _wrong_mode(path: Path, stored: StoredImage, manifest: _Manifest, wanted: str) -> PicsError:
    found = f"{_bits(stored)} bits {'with' if stored.has_alpha else 'without'} alpha"
    expected = f"{manifest.bits} bits {wanted}".strip()
    return PicsError(f"{path}: has {found}, expected {expected}", "save it so, or make the layers again")


def _open_raster(layers: Layers, composite: StoredImage, files: Mapping[str, bytes]) -> bytes:
    """A zip file of the layers, its first member stored uncompressed; the same bytes for the same layers."""
    height, width = composite.pixels.shape[:2]
    image = ElementTree.Element("image", version="0.0.3", w=str(width), h=str(height), xres="72", yres="72")
    stack = ElementTree.SubElement(image, "stack")
    operators = {_BACKGROUND: "src-over", **{f"{layer.name}.png": layer.operator for layer in layers.stack}}
    for name in reversed(list(files)):  # the topmost first
        attributes = {"composite-op": f"svg:{operators.get(name, 'src-over')}"}
        attributes["visibility"] = "visible" if name in operators else "hidden"
        title = name.removesuffix(".png").replace("_", " ")
        ElementTree.SubElement(
            stack, "layer", {"name": title, "src": f"data/{name}", "x": "0", "y": "0", "opacity": "1.0", **attributes}
        )
    thumbnail = Image.fromarray(to_srgb(composite))
    thumbnail.thumbnail((_THUMBNAIL, _THUMBNAIL))
    members: dict[str, Any] = {
        "mimetype": b"image/openraster",
        "stack.xml": ElementTree.tostring(image, encoding="UTF-8", xml_declaration=True),
        **{f"data/{name}": data for name, data in files.items()},
        "mergedimage.png": _marked(composite),
        "Thumbnails/thumbnail.png": encode_stored(StoredImage(np.asarray(thumbnail))),
    }
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return data.getvalue()
