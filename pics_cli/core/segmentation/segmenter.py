"""Segment Anything over batches: the image encoder on several pictures at once, the mask decoder on boxes in chunks.

segment-anything's own predictor takes one picture at a time. In float32 this gives its masks again.

n: boxes of a picture, H, W: its height and width, s: side of the square that the model sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.utils.amg import calculate_stability_score
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from pics_cli.core.images.masks import Mask
from pics_cli.core.model.devices import out_of_memory
from pics_cli.core.segmentation.postprocessing import Packed, pack, together
from pics_cli.core.segmentation.preprocessing import Ready
from pics_cli.errors import FAILED, BadSample, PicsError

T = TypeVar("T")

# How far the threshold is moved up and down to say how stable a mask is, as in segment-anything.
OFFSET = 1.0
# Logits of a chunk of boxes at the picture's size: 1 GB in float32.
_PIXELS = 1 << 28


class Segmented(NamedTuple):
    """Masks of a picture's boxes, in their order.

    Attributes:
        packed: of each box.
        scores: float32 [n], the IoU that the model expects of each.
        stability: float32 [n], IoU of the masks at a higher and a lower threshold; 0 where there is none.
    """

    packed: Packed
    scores: npt.NDArray[np.float32]
    stability: npt.NDArray[np.float32]

    @property
    def masks(self) -> Mask:
        """bool [n, H, W]."""
        return self.packed.masks()


class Segmenter:
    """Masks for boxes.

    Args:
        sam: segment-anything's `Sam`, on its device; the image encoder may be in half precision.
        batch_images: pictures that the encoder takes at once, at most.
        batch_boxes: boxes that the decoder takes at once, at most.
        multimask: predict three masks for each box and take the one with the best score; else the single one.
        note: told when a batch is halved for want of memory.
    """

    def __init__(
        self, sam: Any, *, batch_images: int, batch_boxes: int, multimask: bool, note: Callable[[str], None]
    ) -> None:
        self.sam, self.multimask, self._note = sam, multimask, note
        self.batch_images, self.batch_boxes = batch_images, batch_boxes
        self._dtype: torch.dtype = next(sam.image_encoder.parameters()).dtype
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[Ready]) -> Iterator[Segmented | BadSample]:
        """Masks of each picture, in order; or what is wrong with it: too large for the memory with one box at a time.

        Raises:
            PicsError: out of memory with one picture at a time; a model whose scores are no numbers.
        """
        at = 0
        while at < len(pictures):
            batch = pictures[at : at + self.batch_images]
            features = self._fitting(partial(self._encode, batch))
            if features is None:
                if len(batch) == 1:
                    advice = "take a smaller model (--sam vit_b), --dtype bf16, or a device with more memory"
                    raise PicsError("out of memory with --batch-images 1", advice, FAILED)
                self.batch_images = len(batch) // 2
                self._note(f"out of memory: going on with --batch-images {self.batch_images}")
                continue
            for feature, picture in zip(features, batch, strict=True):
                try:
                    yield self._decode(feature, picture)
                except BadSample as error:
                    yield error
            at += len(batch)

    def _fitting(self, work: Callable[[], T]) -> T | None:
        """What the work gives; None where memory ran out, so that less is to be tried at a time."""
        try:
            return work()
        except Exception as error:
            if not out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _encode(self, batch: Sequence[Ready]) -> Tensor:
        """float32 [B, c, h, w]."""
        sam = self.sam
        squares = [sam.preprocess(torch.from_numpy(one.rgb).to(sam.device).permute(2, 0, 1)) for one in batch]
        features: Tensor = sam.image_encoder(torch.stack(squares).to(self._dtype)).float()
        return features

    def _decode(self, feature: Tensor, picture: Ready) -> Segmented:
        sides = torch.from_numpy(self._resize.apply_boxes(picture.boxes, picture.size)).float().to(feature.device)
        found: list[tuple[Packed, Tensor, Tensor]] = []
        height, width = picture.size
        most, at = max(1, min(self.batch_boxes, _PIXELS // (height * width))), 0
        while at < len(sides):
            part = sides[at : at + most]
            made = self._fitting(partial(self._masks, feature, part, picture))
            if made is None:
                if len(part) == 1:
                    raise BadSample("too_large", f"{width}x{height}: out of memory with one box at a time")
                most = len(part) // 2  # for this picture alone: others may be smaller
                self._note(f"out of memory: {width}x{height} goes on with --batch-boxes {most}")
                continue
            found.append(made)
            at += len(part)
        masks = together([each for each, _, _ in found], picture.size)
        nothing = torch.zeros(0)
        scores = torch.cat([nothing, *(each for _, each, _ in found)]).numpy()
        stability = torch.cat([nothing, *(each for _, _, each in found)]).numpy()
        if not np.isfinite(scores).all():
            advice = "try --dtype fp32; python scripts/check_sam.py says whether the weights work"
            raise PicsError("the model's scores are no numbers", advice, FAILED)
        return Segmented(masks, scores, stability)

    def _masks(self, feature: Tensor, boxes: Tensor, picture: Ready) -> tuple[Packed, Tensor, Tensor]:
        """Masks, and scores and stability float32 [n], on the CPU, of some boxes in the model's square."""
        logits, scores = self.logits(feature, boxes, picture)
        masks = logits > self.sam.mask_threshold
        stability = calculate_stability_score(logits, self.sam.mask_threshold, OFFSET).nan_to_num(0)
        return pack(masks.cpu().numpy()), scores.float().cpu(), stability.float().cpu()

    def logits(self, feature: Tensor, boxes: Tensor, picture: Ready) -> tuple[Tensor, Tensor]:
        """Logits float32 [n, H, W] and scores [n] of some boxes, [n, 4] in the model's square."""
        sam = self.sam
        sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
        small, scores = sam.mask_decoder(
            image_embeddings=feature[None],
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=self.multimask,
        )
        # Only the mask that is kept is enlarged.
        best = scores.argmax(1, keepdim=True)
        small = small.gather(1, best[..., None, None].expand(-1, -1, *small.shape[2:]))
        logits = sam.postprocess_masks(small, picture.rgb.shape[:2], picture.size)[:, 0]
        return logits, scores.gather(1, best)[:, 0]
