"""A sample: the members of a shard as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from pics_cli.core.data.layouts import cut_again, unpack
from pics_cli.core.data.masks import Mask
from pics_cli.core.data.pictures import RGB, decode_alpha, decode_picture
from pics_cli.errors import BadSample


@dataclass(frozen=True, slots=True)
class Sample:
    """A decoded sample.

    Attributes:
        background: uint8 RGB [H, W, 3].
        references: K patches, uint8 RGB [224, 224, 3].
        masks: K target masks, bool [H, W].
        meta: the json of the sample, None in the research project's shards.
        clean: the background without the objects, uint8 RGB [H, W, 3], where the source knows it.
        alternates: K patches of the objects seen differently, uint8 RGBA [224, 224, 4]; None for those without.
        full: K masks with the parts that other objects hide, bool [H, W]; None for those without.
    """

    key: str
    background: RGB
    references: tuple[RGB, ...]
    masks: tuple[Mask, ...]
    meta: dict[str, Any] | None
    clean: RGB | None = None
    alternates: tuple[npt.NDArray[np.uint8] | None, ...] = ()
    full: tuple[Mask | None, ...] = ()


def escape_key(key: str) -> str:
    """A key that holds no dot and no slash, reversibly: webdataset splits names at the first dot."""
    return quote(key, safe="", errors="surrogateescape").replace(".", "%2E")


def unescape_key(key: str) -> str:
    """Inverse of `escape_key`."""
    return unquote(key, errors="surrogateescape")


def decode_sample(key: str, members: Mapping[str, bytes]) -> Sample:
    """Decode the members of a sample, of either layout, ours or the research project's, in any order.

    Raises:
        BadSample: a member is missing or damaged, or a mask does not fit its picture.
    """
    parts = unpack(members)
    background = decode_picture(parts.picture).rgb
    references, masks, full = [], [], []
    for k, (box_mask, patch) in enumerate(zip(parts.masks, parts.patches, strict=True)):
        if (box_mask.height, box_mask.width) != background.shape[:2]:
            size = f"{box_mask.width}x{box_mask.height}"
            raise BadSample("mask_size", f"mask{k}.png is {size}, its picture {_size(background)} (width x height)")
        area = box_mask.area
        if not area:
            raise BadSample("empty_mask", f"mask{k}.png has no pixel set")
        if area == box_mask.height * box_mask.width:
            raise BadSample("full_mask", f"mask{k}.png covers the whole picture")
        masks.append(box_mask.full())
        if patch is None:
            references.append(cut_again(background, box_mask, parts.meta, k))
        else:
            references.append(_decode(patch, f"obj{k}.png", "bad_reference"))
        whole = parts.full[k].full() if k in parts.full else None
        if whole is not None and whole.shape != background.shape[:2]:
            raise BadSample("mask_size", f"full{k}.png is not of its picture's size, {_size(background)}")
        full.append(whole)
    clean = None
    if "clean.jpg" in parts.others:
        clean = _decode(parts.others["clean.jpg"], "clean.jpg", "bad_clean")
        if clean.shape != background.shape:
            raise BadSample("bad_clean", f"clean.jpg is {_size(clean)}, its picture {_size(background)}")
    alternates = tuple(_alternate(parts.others.get(f"alt{k}.png"), k) for k in range(len(masks)))
    meta = parts.meta or None
    return Sample(key, background, tuple(references), tuple(masks), meta, clean, alternates, tuple(full))


def _decode(data: bytes, name: str, reason: str) -> RGB:
    try:
        return decode_picture(data).rgb
    except BadSample as error:
        raise BadSample(reason, f"{name}: {error.detail}") from None


def _alternate(data: bytes | None, k: int) -> npt.NDArray[np.uint8] | None:
    if data is None:
        return None
    try:
        return decode_alpha(data)
    except BadSample as error:
        raise BadSample("bad_reference", f"alt{k}.png: {error.detail}") from None


def _size(array: RGB) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
