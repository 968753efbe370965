"""Examples of one object and its shadow: pictures with the shadow and without it, as DESOBAv2 has them.

Liu et al., "Shadow Generation for Composite Image Using Diffusion Model", CVPR 2024: of photographs of outdoor scenes
the shadow of one object was removed by a network. The object is in both pictures of a pair; what it hides is not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from pics_cli.core.evaluation.examples import Example
from pics_cli.core.evaluation.external_results import read_picture
from pics_cli.core.evaluation.shadow_metrics import OBJECT_MARGIN
from pics_cli.core.evaluation.source_base import ExampleSource, hash_listing
from pics_cli.core.evaluation.subsets import UNKNOWN
from pics_cli.core.images.geometry import clip_box, scale_box
from pics_cli.core.images.inpainting import fill_hole
from pics_cli.core.images.masks import Mask, box_mask
from pics_cli.core.loading.augment import cut_reference
from pics_cli.core.recipes.evaluation import ShadowPairs
from pics_cli.core.runtime.storage import list_folder, location
from pics_cli.errors import BadSample, PicsError, read_error

_ENDINGS = (".jpg", ".png", ".jpeg", ".webp")
_ENDING = re.compile(r"\.(jpg|png|jpeg|webp)$")
# Masks are stored as JPEG: a value from here on is white.
_WHITE = 128


class ShadowExamples(ExampleSource):
    """Pairs in the order of their list.

    The truth is the picture with the shadow. The background is the one without, in which the object, grown by two
    pixels, is filled smoothly from around it: ground that near to an object is not judged, so that all ground that is
    judged is true. The reference is cut from the picture without the shadow.

    Raises:
        PicsError: no such folder or list, or a list that names nothing.
    """

    def __init__(self, pairs: ShadowPairs, object_scale: float) -> None:
        self._root, self._pairs, self._object_scale = location(pairs.root), pairs, object_scale
        self.folders = [self._root]
        self._names = self._read_names(self._root / pairs.names.format(split=pairs.split))
        files = dict(self._existing_files())
        self.provenance = {
            "kind": "shadows", "fill": object_scale, "pairs": len(self._names), "listing": hash_listing(files),
        }  # fmt: skip
        seen = "these pairs are of a training split: models that were trained on them have seen the answers"
        self.warnings = [seen] if pairs.split == "train" else []

    def _read_names(self, path: Path) -> list[str]:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            hint = "name the data set's folder with --set shadows.root=DIR, its splits with shadows.split"
            raise PicsError(f"{path}: no such list of pairs", hint) from None
        except OSError as error:
            raise read_error(path, error) from None
        except UnicodeDecodeError as error:
            raise PicsError(f"{path}: no text: {error.reason}", "expected a list of pairs, one name a line") from None
        stripped = (line.strip() for line in lines)
        names = list(dict.fromkeys(_ENDING.sub("", name) for name in stripped if name))
        for name in names:
            if "/" in name or "\\" in name or name.startswith("."):
                raise PicsError(f"{path}: got {name!r}, expected names of files without folders")
        if not names:
            raise PicsError(f"{path}: lists no pair", "expected one name a line")
        return names

    @cached_property
    def _listed(self) -> dict[str, set[str]]:
        """Names of the files in each folder."""
        pairs = self._pairs
        listed = {}
        for folder in (pairs.shadow, pairs.shadow_free, pairs.object_masks, pairs.shadow_masks):
            try:
                listed[folder] = set(list_folder(self._root / folder))
            except OSError as error:
                raise read_error(self._root / folder, error) from None
        return listed

    def _find(self, folder: str, name: str) -> Path | None:
        """The file of a pair in one of the folders."""
        known = self._listed[folder]
        return next((self._root / folder / (name + end) for end in _ENDINGS if name + end in known), None)

    def _existing_files(self) -> Iterator[tuple[str, Path]]:
        for name in self._names:
            for folder in self._listed:
                if path := self._find(folder, name):
                    yield f"{folder}/{name}", path

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, number: int) -> Example:
        name, pairs = self._names[number], self._pairs
        folders = (pairs.shadow, pairs.shadow_free, pairs.object_masks, pairs.shadow_masks)
        paths = []
        for folder in folders:
            if (path := self._find(folder, name)) is None:
                raise BadSample("missing_image", f"{self._root / folder}: no picture called {name}")
            paths.append(path)
        truth, shadow_free = read_picture(paths[0]), read_picture(paths[1])
        height, width = truth.shape[:2]
        if shadow_free.shape != truth.shape:
            other = f"{shadow_free.shape[1]}x{shadow_free.shape[0]}"
            raise BadSample("size_mismatch", f"{paths[1]}: {other}, the picture with the shadow {width}x{height}")
        visible, shadow = (_read_mask(path, (height, width)) for path in paths[2:])
        hole = cv2.dilate(visible.view(np.uint8), np.ones((2 * OBJECT_MARGIN + 1,) * 2, np.uint8)).view(np.bool_)
        mask = box_mask(visible)
        return Example(
            key=name, background=fill_hole(shadow_free, hole), truth=truth,
            references=(cut_reference(shadow_free, mask),), paste_boxes=(mask.box,),
            regions=(clip_box(scale_box(mask.box, 1 / self._object_scale), width, height),), order=(0,),
            visible_masks=(visible,), full_masks=(visible,), shadow_masks=(shadow & ~visible,),
            true_background=True, relation=UNKNOWN,
        )  # fmt: skip


def _read_mask(path: Path, shape: tuple[int, int]) -> Mask:
    """A mask that is not empty, bool [H, W]."""
    rgb = read_picture(path)
    if rgb.shape[:2] != shape:
        sizes = f"{rgb.shape[1]}x{rgb.shape[0]}, its picture {shape[1]}x{shape[0]}"
        raise BadSample("size_mismatch", f"{path}: {sizes}")
    mask: Mask = rgb.max(axis=2) >= _WHITE
    if not mask.any():
        raise BadSample("empty_mask", f"{path}: no pixel of {_WHITE} or more")
    return mask
