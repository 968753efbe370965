"""Segment Anything over batches: the image encoder on several images at once, the mask decoder on boxes in chunks.

segment-anything's own predictor takes one image at a time; in float32 the masks here are the same.

n: boxes of an image, H, W: its height and width, s: side of the square that the model sees.
"""

from __future__ import annotations

import logging
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
from pics_cli.core.model.devices import is_out_of_memory
from pics_cli.core.segmentation.postprocessing import PackedMasks, concatenate, pack_masks
from pics_cli.core.segmentation.preprocessing import ResizedImage
from pics_cli.errors import FAILED, BadSample, PicsError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# By how much the threshold on logits is raised and lowered to measure stability, as in segment-anything.
_STABILITY_OFFSET = 1.0
# The most logits of a chunk of boxes at the image's size: 1 GB in float32.
_MAX_LOGITS = 1 << 28


class ImageMasks(NamedTuple):
    """Masks of an image's boxes, in their order.

    Attributes:
        packed: a mask for each box.
        scores: float32 [n], the IoU that the model predicts for each mask.
        stability: float32 [n], IoU of the masks at a higher and a lower threshold; 0 where both are empty.
    """

    packed: PackedMasks
    scores: npt.NDArray[np.float32]
    stability: npt.NDArray[np.float32]

    @property
    def masks(self) -> Mask:
        """bool [n, H, W]."""
        return np.stack(list(self.packed)) if len(self.scores) else np.zeros((0, *self.packed.size), np.bool_)


class Segmenter:
    """Predicts a mask for each box of an image.

    Args:
        sam: segment-anything's `Sam`, on its device; the image encoder may be in half precision.
        batch_images: pictures that the encoder takes at once, at most.
        batch_boxes: boxes that the decoder takes at once, at most.
        multimask: predict three masks for each box and take the one with the best score; else the single one.
    """

    def __init__(self, sam: Any, *, batch_images: int, batch_boxes: int, multimask: bool) -> None:
        self.sam, self.multimask = sam, multimask
        self.batch_images, self.batch_boxes = batch_images, batch_boxes
        self._dtype: torch.dtype = next(sam.image_encoder.parameters()).dtype
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[ResizedImage]) -> Iterator[ImageMasks | BadSample]:
        """Masks of each image, in order; for an image that is too large for the memory, its error.

        Raises:
            PicsError: out of memory with one image at a time; a model whose scores are not finite.
        """
        start = 0
        while start < len(pictures):
            batch = pictures[start : start + self.batch_images]
            features = self._none_if_out_of_memory(partial(self._encode, batch))
            if features is None:
                if len(batch) == 1:
                    advice = "take a smaller model (--sam vit_b), --dtype bf16, or a device with more memory"
                    raise PicsError("out of memory with --batch-images 1", advice, FAILED)
                self.batch_images = len(batch) // 2
                logger.warning("out of memory: going on with --batch-images %d", self.batch_images)
                continue
            for feature, picture in zip(features, batch, strict=True):
                try:
                    yield self._decode(feature, picture)
                except BadSample as error:
                    yield error
            start += len(batch)

    def _none_if_out_of_memory(self, work: Callable[[], T]) -> T | None:
        """The result of a call; None where it runs out of memory, so that the caller tries a smaller batch."""
        try:
            return work()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None

    def _encode(self, batch: Sequence[ResizedImage]) -> Tensor:
        """Image embeddings of a batch, float32 [B, c, h, w]."""
        sam = self.sam
        squares = [sam.preprocess(torch.from_numpy(image.rgb).to(sam.device).permute(2, 0, 1)) for image in batch]
        features: Tensor = sam.image_encoder(torch.stack(squares).to(self._dtype)).float()
        return features

    def _decode(self, feature: Tensor, picture: ResizedImage) -> ImageMasks:
        boxes = torch.from_numpy(self._resize.apply_boxes(picture.boxes, picture.size)).float().to(feature.device)
        parts: list[tuple[PackedMasks, Tensor, Tensor]] = []
        height, width = picture.size
        chunk, start = max(1, min(self.batch_boxes, _MAX_LOGITS // (height * width))), 0
        while start < len(boxes):
            chunk_boxes = boxes[start : start + chunk]
            part = self._none_if_out_of_memory(partial(self._masks, feature, chunk_boxes, picture))
            if part is None:
                if len(chunk_boxes) == 1:
                    raise BadSample("too_large", f"{width}x{height}: out of memory with one box at a time")
                chunk = len(chunk_boxes) // 2  # for this image alone: others may be smaller
                logger.warning("out of memory: %dx%d goes on with --batch-boxes %d", width, height, chunk)
                continue
            parts.append(part)
            start += len(chunk_boxes)
        empty = torch.zeros(0)
        scores = torch.cat([empty, *(scores for _, scores, _ in parts)]).numpy()
        stability = torch.cat([empty, *(stability for _, _, stability in parts)]).numpy()
        if not np.isfinite(scores).all():
            advice = "try --dtype fp32; pics check-sam says whether the weights work"
            raise PicsError("the model's scores are no numbers", advice, FAILED)
        return ImageMasks(concatenate([masks for masks, _, _ in parts], picture.size), scores, stability)

    def _masks(self, feature: Tensor, boxes: Tensor, picture: ResizedImage) -> tuple[PackedMasks, Tensor, Tensor]:
        """Masks, scores and stability (float32 [n], on the CPU) of boxes [n, 4] in the model's square."""
        logits, scores = self.logits(feature, boxes, picture)
        masks = logits > self.sam.mask_threshold
        stability = calculate_stability_score(logits, self.sam.mask_threshold, _STABILITY_OFFSET).nan_to_num(0)
        return pack_masks(masks.cpu().numpy()), scores.float().cpu(), stability.float().cpu()

    def logits(self, feature: Tensor, boxes: Tensor, picture: ResizedImage) -> tuple[Tensor, Tensor]:
        """Logits, float32 [n, H, W], and scores [n] of boxes [n, 4] in the model's square."""
        sam = self.sam
        sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
        small, scores = sam.mask_decoder(
            image_embeddings=feature[None],
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=self.multimask,
        )
        # Only the best mask is enlarged.
        best = scores.argmax(1, keepdim=True)
        small = small.gather(1, best[..., None, None].expand(-1, -1, *small.shape[2:]))
        logits = sam.postprocess_masks(small, picture.rgb.shape[:2], picture.size)[:, 0]
        return logits, scores.gather(1, best)[:, 0]
