"""Decoded samples: `open_shards` reads those of any shards in order, as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt

from pics_cli.core.images.cutouts import PATCH_SIZE
from pics_cli.core.images.image_io import RGB, decode_image, decode_rgba, upright_size
from pics_cli.core.images.masks import Mask
from pics_cli.core.runtime.storage import CACHE_GB
from pics_cli.core.shards.layouts import SampleParts, recut_patch, unpack_sample
from pics_cli.core.shards.remote import fetch_shard, list_remote_shards
from pics_cli.core.shards.shard_files import read_shard
from pics_cli.core.shards.shard_paths import ListedShard, is_url, list_shards
from pics_cli.errors import BadSample, PicsError


@dataclass(frozen=True, slots=True)
class Sample:
    """A decoded sample.

    Attributes:
        key: its name in the shard.
        image: uint8 RGB [H, W, 3].
        references: K patches, uint8 RGB [224, 224, 3].
        masks: K target masks, bool [H, W].
        metadata: the json of the sample, None in the research project's shards.
        clean_background: the background without the objects, uint8 RGB [H, W, 3], where the source knows it.
        alternate_views: K patches of the objects seen differently, uint8 RGBA [224, 224, 4]; None for those without.
        amodal_masks: K masks with the parts that other objects hide, bool [H, W]; None for those without.
    """

    key: str
    image: RGB
    references: tuple[RGB, ...]
    masks: tuple[Mask, ...]
    metadata: dict[str, Any] | None
    clean_background: RGB | None = None
    alternate_views: tuple[npt.NDArray[np.uint8] | None, ...] = ()
    amodal_masks: tuple[Mask | None, ...] = ()


def open_shards(path: str | Path) -> Iterator[Sample]:
    """Decode the samples of shards one after the other, in the order in which they are stored.

    Args:
        path: a folder of shards (also the research project's), a .tar file, a range such as `{00000..00010}.tar` or a
            pattern with * and ?; on this machine or in a store, as `s3://bucket/folder`; or a URL. What is not on this
            machine is fetched into the cache folder, shard by shard.

    Raises:
        PicsError: no such shards, an unfinished build; while iterating: a damaged shard or sample, naming it.
    """
    name = str(path)
    return _decode_shards(list_remote_shards(name) if is_url(name) else list_shards(name))


def _decode_shards(shards: list[ListedShard]) -> Iterator[Sample]:
    for shard in shards:
        key, source = "", shard.source
        file = source if isinstance(source, Path) else fetch_shard(source, CACHE_GB, shard.sha256)
        try:
            for key, members in read_shard(file):
                yield decode_sample(key, members)
        except BadSample as error:
            raise PicsError(
                f"{source}: {f'sample {key}: ' if key else ''}{error.reason}: {error.detail}",
                "look at the set with `pics build-shards --check DIR`",
            ) from None


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
    parts = unpack_sample(members)
    image = decode_image(parts.image).rgb
    height, width = image.shape[:2]
    references = tuple(
        recut_patch(image, mask, parts.geometry[k], k) if patch is None else decode_patch(patch, k)
        for k, (mask, patch) in enumerate(zip(parts.masks, parts.patches, strict=True))
    )
    objects = range(len(parts.masks))
    return Sample(
        key=key,
        image=image,
        references=references,
        masks=tuple(mask.full() for mask in parts.masks),
        metadata=parts.metadata or None,
        clean_background=decode_clean_background(parts, (width, height)),
        alternate_views=tuple(decode_alternate_view(parts, k) for k in objects),
        amodal_masks=tuple(parts.amodal_masks[k].full() if k in parts.amodal_masks else None for k in objects),
    )


def decode_patch(data: bytes, k: int) -> RGB:
    """The member `obj{k}.png`: uint8 [224, 224, 3].

    Raises:
        BadSample: `bad_reference` or `reference_size`.
    """
    try:
        return decode_image(data, (PATCH_SIZE, PATCH_SIZE)).rgb
    except BadSample as error:
        if error.reason == "size_mismatch":
            width, height = upright_size(data)
            sizes = f"obj{k}.png is {width}x{height}, expected {PATCH_SIZE}x{PATCH_SIZE}"
            raise BadSample("reference_size", sizes) from None
        raise BadSample("bad_reference", f"obj{k}.png: {error.detail}") from None


def decode_clean_background(parts: SampleParts, size: tuple[int, int]) -> RGB | None:
    """The member `clean.jpg`, of the picture's (width, height): uint8 [H, W, 3]; None where the sample has none.

    Raises:
        BadSample: `bad_clean`.
    """
    data = parts.extra_members.get("clean.jpg")
    if data is None:
        return None
    try:
        return decode_image(data, size).rgb
    except BadSample as error:
        raise BadSample("bad_clean", f"clean.jpg: {error.detail}") from None


def decode_alternate_view(parts: SampleParts, k: int) -> npt.NDArray[np.uint8] | None:
    """The member `alt{k}.png`, the object seen differently: uint8 [224, 224, 4]; None where the sample has none.

    Raises:
        BadSample: `bad_reference`.
    """
    data = parts.extra_members.get(f"alt{k}.png")
    if data is None:
        return None
    try:
        return decode_rgba(data, (PATCH_SIZE, PATCH_SIZE))
    except BadSample as error:
        raise BadSample("bad_reference", f"alt{k}.png: {error.detail}") from None


def depth_order(metadata: Mapping[str, Any], count: int) -> list[int] | None:
    """True order of a sample's objects, indices from front to back; None where its json has none.

    Raises:
        BadSample: `bad_json`.
    """
    order = metadata.get("order")
    if order is None:
        return None
    integers = isinstance(order, list) and all(type(k) is int for k in order)
    if not integers or sorted(order) != list(range(count)):
        raise BadSample("bad_json", f"order {order} does not name each of {count} objects once")
    return list(order)
