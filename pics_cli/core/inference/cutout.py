"""References without alpha, cut out before they are composited: from a plain background by its colour, else from their
photograph by GrabCut or Segment Anything.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from pics_cli.core.images.cutouts import is_blank
from pics_cli.core.images.geometry import Box
from pics_cli.core.images.grabcut import grab_cut, largest_parts
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask
from pics_cli.core.images.matting import remove_fringe, rgba_from_mask, rim_width
from pics_cli.core.images.plain_background import PlainBackground, background_mask, find_plain_background
from pics_cli.core.inference.sample import Bytes
from pics_cli.core.model.config import HintKind
from pics_cli.core.runtime.extras import require
from pics_cli.core.segmentation.checkpoints import CHECKPOINTS, DOWNLOAD, FOLDER, find_local_model
from pics_cli.errors import BadSample, PicsError

Cutout = Literal["auto", "grabcut", "sam", "none"]
# How a reference was cut out; `alpha` and `none`: it was not.
Method = Literal["alpha", "plain", "grabcut", "sam", "none"]

# Parts of its picture that an object takes; what is smaller or larger was not found.
_SMALLEST, _LARGEST = 0.002, 0.95
# Of a photograph's border that a cut-out object may touch.
_MAX_BORDER = 0.6
# Margin of Segment Anything's box around what GrabCut finds, in longer sides of it.
_MARGIN = 0.03
_WAYS_OUT = "give it an alpha channel, or take it as it is with --cutout none"


class CutReference(NamedTuple):
    """A reference ready to be composited.

    Attributes:
        picture: uint8 [h, w, 4], or [h, w, 3] where it was left as it is.
        method: how it was cut out.
        note: what the user should know about it, such as that it is a photograph; None: nothing.
    """

    picture: Bytes
    method: Method
    note: str | None = None


class ReferenceCutter:
    """Cuts objects out of references that have no alpha.

    Args:
        cutout: `auto`: a plain background is taken away by its colour, a photograph's by Segment Anything where its
            weights lie in `checkpoints/`, else by GrabCut; `grabcut`, `sam`: all that have no alpha in this way;
            `none`: references stay as they are.
        hint: kind of control image of the model. With `background` nothing is pasted and the encoder sees references
            on white as published: `auto` then is `none`.
        device: where Segment Anything computes.

    Raises:
        PicsError: an unknown value; `sam` without weights; weights without the packages that use them.
    """

    def __init__(self, cutout: Cutout, hint: HintKind, device: torch.device) -> None:
        if cutout not in ("auto", "grabcut", "sam", "none"):
            raise PicsError(f"cutout: got {cutout}, expected one of auto, grabcut, sam, none")
        self.cutout: Cutout = "none" if cutout == "auto" and hint == "background" else cutout
        self._pastes = hint != "background"
        self._device = device
        self._sam_name = find_local_model() if self.cutout in ("auto", "sam") else None
        self._sam: Any = None
        if cutout == "sam" and self._sam_name is None:
            raise PicsError(
                f"--cutout sam: no weights of Segment Anything in {FOLDER}/ ({', '.join(CHECKPOINTS.values())})",
                f"get {DOWNLOAD.format(CHECKPOINTS['vit_b'])} and put it there, or take --cutout grabcut",
            )
        if self._sam_name is not None:
            require("annotate", f"--cutout {cutout} with Segment Anything")

    @property
    def description(self) -> str:
        """What decides the pixels of cut-outs, for the record: the value, and the tool for photographs."""
        tool = "grabcut" if self._sam_name is None else f"sam {self._sam_name}"
        return f"{self.cutout} ({tool})" if self.cutout in ("auto", "sam") else self.cutout

    def __call__(self, reference: Bytes, name: str) -> CutReference:
        """Cut out one reference.

        Args:
            reference: uint8 [h, w, 3] or [h, w, 4].
            name: what messages call it.

        Raises:
            BadSample: `uncut_reference` where no object is found, or nearly everything is.
        """
        if reference.shape[2] == 4:
            if reference[..., 3].min() < 255:
                return CutReference(reference if self.cutout == "none" else remove_fringe(reference), "alpha")
            reference = reference[..., :3]
        if is_blank(reference):
            return CutReference(reference, "none")
        plain = find_plain_background(reference) if self.cutout in ("auto", "none") else None
        if self.cutout == "none":
            note = f"{name} is a photograph with its background, taken as it is (--cutout none)"
            return CutReference(reference, "none", note if plain is None and self._pastes else None)
        if plain is not None:
            return CutReference(_cut_plain(reference, plain, name), "plain")
        method: Method = "sam" if self._sam_name is not None else "grabcut"
        mask, exactness = self._cut_photograph(reference, name)
        _check(mask, name, "GrabCut" if method == "grabcut" else "Segment Anything")
        tool = "GrabCut" if method == "grabcut" else f"Segment Anything ({self._sam_name})"
        note = f"{name} has neither alpha nor a plain background: cut out of its photograph by {tool}"
        rim = max(1.5 * exactness, 1.5)
        return CutReference(
            rgba_from_mask(reference, mask, (rim, rim)), method, note if self.cutout == "auto" else None
        )

    def _cut_photograph(self, rgb: RGB, name: str) -> tuple[Mask, float]:
        """The object's mask, and the pixels by which its outline may be off."""
        mask, exactness = grab_cut(rgb)
        if self._sam_name is None:
            return mask, exactness
        return self._segment(rgb, _box_around(mask), name), 1.0

    def _segment(self, rgb: RGB, box: Box, name: str) -> Mask:
        # Imported here: a run without photographs does without it.
        from pics_cli.core.segmentation.preprocessing import resize_for_sam
        from pics_cli.core.segmentation.sam import find_checkpoint, load_sam
        from pics_cli.core.segmentation.segmenter import Segmenter

        if self._sam is None:
            checkpoint = find_checkpoint(str(self._sam_name), None)
            self._sam = load_sam(checkpoint, self._device, torch.float32)
        segmenter = Segmenter(self._sam, batch_images=1, batch_boxes=1, multimask=True)
        try:
            image = resize_for_sam(rgb, np.array([box], np.float64), self._sam.image_encoder.img_size)
            (found,) = segmenter([image])
            if isinstance(found, BadSample):
                raise found
        except BadSample as error:
            raise BadSample(error.reason, f"{name}: {error.detail}") from None
        return largest_parts(found.masks[0])


def _cut_plain(rgb: RGB, background: PlainBackground, name: str) -> Bytes:
    mask = ~background_mask(rgb, background)
    _check(mask, name, "its background's colour")
    return rgba_from_mask(rgb, mask, (0.5, rim_width(background.distance(rgb), mask)), background.colours)


def _check(mask: Mask, name: str, tool: str) -> None:
    """Refuse a mask that is no object's."""
    part = float(mask.mean())
    border = float(np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean())
    if part < _SMALLEST:
        raise BadSample("uncut_reference", f"{name}: no object found by {tool}; {_WAYS_OUT}")
    if part > _LARGEST or (border > _MAX_BORDER and part > 0.5):
        found = f"{tool} takes {part:.0%} of the picture for the object"
        raise BadSample("uncut_reference", f"{name}: {found}; {_WAYS_OUT}")


def _box_around(mask: Mask) -> Box:
    """The box of a mask with a margin; nearly the whole picture where the mask holds next to nothing or everything."""
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not _SMALLEST < mask.mean() < _LARGEST:
        rows, columns = np.array([height * 0.05, height * 0.95]), np.array([width * 0.05, width * 0.95])
    margin = _MARGIN * max(rows[-1] - rows[0], columns[-1] - columns[0])
    x0, y0 = max(int(columns[0] - margin), 0), max(int(rows[0] - margin), 0)
    return x0, y0, min(int(columns[-1] + margin) + 1, width), min(int(rows[-1] + margin) + 1, height)
