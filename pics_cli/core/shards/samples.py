"""A sample: the members of a shard as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import PATCH_SIZE
from pics_cli.core.images.image_io import RGB, decode_alpha, decode_picture, upright_size
from pics_cli.core.images.masks import Mask
from pics_cli.core.shards.layouts import cut_again, unpack
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
    references = []
    for k, (mask, patch) in enumerate(zip(parts.masks, parts.patches, strict=True)):
        if patch is None:
            references.append(cut_again(background, mask, parts.geometry[k], k))
        else:
            references.append(decode_patch(patch, k))
    clean, alternates = None, []
    try:
        if data := parts.others.get("clean.jpg"):
            clean = decode_picture(data, (background.shape[1], background.shape[0])).rgb
    except BadSample as error:
        raise BadSample("bad_clean", f"clean.jpg: {error.detail}") from None
    for k in range(len(parts.masks)):
        data = parts.others.get(f"alt{k}.png")
        try:
            alternates.append(None if data is None else decode_alpha(data, (PATCH_SIZE, PATCH_SIZE)))
        except BadSample as error:
            raise BadSample("bad_reference", f"alt{k}.png: {error.detail}") from None
    masks = tuple(mask.full() for mask in parts.masks)
    full = tuple(parts.full[k].full() if k in parts.full else None for k in range(len(masks)))
    meta = parts.meta or None
    return Sample(key, background, tuple(references), masks, meta, clean, tuple(alternates), full)


def decode_patch(data: bytes, k: int) -> RGB:
    """The member `obj{k}.png`: uint8 [224, 224, 3].

    Raises:
        BadSample: `bad_reference` or `reference_size`.
    """
    try:
        return decode_picture(data, (PATCH_SIZE, PATCH_SIZE)).rgb
    except BadSample as error:
        if error.reason == "size_mismatch":
            width, height = upright_size(data)
            shown = f"obj{k}.png is {width}x{height}, expected {PATCH_SIZE}x{PATCH_SIZE}"
            raise BadSample("reference_size", shown) from None
        raise BadSample("bad_reference", f"obj{k}.png: {error.detail}") from None
