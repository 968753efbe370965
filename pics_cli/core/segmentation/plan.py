"""What annotating would take (`pics annotate --plan`): some pictures are segmented and their masks thrown away."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from pics_cli.core.datasets.labels import LabelledImage, write_block
from pics_cli.core.datasets.readers.base import no_picture
from pics_cli.core.model.devices import choose_device, choose_dtype
from pics_cli.core.runtime.cluster_model import MOST_BLOCKS, START_SECONDS, Ratio, Work, ratio_of_blocks, sample_blocks
from pics_cli.core.runtime.engines import available_cores
from pics_cli.core.runtime.progress import Progress
from pics_cli.core.segmentation.blocks import AnnotationJob, encoder_batch_size
from pics_cli.core.segmentation.boxes import open_boxes
from pics_cli.core.segmentation.postprocessing import make_labels
from pics_cli.core.segmentation.preprocessing import PreparedImage, prepare
from pics_cli.core.segmentation.sam import find_checkpoint, load_sam
from pics_cli.core.segmentation.segmenter import ImageMasks, Segmenter

T = TypeVar("T")


class TriedImages(NamedTuple):
    """What consecutive images took.

    Attributes:
        images, boxes: how many.
        model: seconds of the GPU, or of one core where the model runs on a CPU.
        cpu: seconds of one core for everything else: decode, resize, encode masks.
        waiting: seconds of waiting for files.
        read, written: bytes of images, and of labels.
    """

    images: int
    boxes: int
    model: float
    cpu: float
    waiting: float
    read: int
    written: int


@dataclass(frozen=True)
class AnnotationPlan:
    """What was measured.

    Attributes:
        images: of the whole job.
        block: images of a block.
        tried: what was segmented.
        device: `cuda`, `cpu` or `mps`.
        devices: GPUs of this machine, or cores where the model runs on a CPU.
        workers: processes beside each GPU.
        load: seconds of reading the model.
    """

    images: int
    block: int
    tried: Sequence[TriedImages]
    device: str
    devices: int
    workers: int
    load: float

    def per_image(self, *columns: str) -> Ratio:
        """The sum of these columns, for each image."""
        amounts = [float(sum(getattr(block, name) for name in columns)) for block in self.tried]
        return ratio_of_blocks(amounts, [block.images for block in self.tried])

    @property
    def speed(self) -> Ratio:
        """Seconds of one GPU for an image, or of one core; a GPU may have to wait for the processes beside it."""
        if self.device == "cpu":
            return self.per_image("model", "cpu", "waiting")
        model, beside = self.per_image("model"), self.per_image("cpu", "waiting")
        return max(model, beside.of(1 / self.workers))

    @property
    def work(self) -> Work:
        """The whole job, for the model of a cluster."""
        return Work(
            items=self.images, seconds=self.speed.value, read=self.per_image("read").value,
            written=self.per_image("written").value, block=self.block, calls=1 / self.block,
        )  # fmt: skip

    @property
    def start(self) -> float:
        """Seconds until the first image is segmented."""
        return START_SECONDS + self.load


def plan_annotation(job: AnnotationJob, progress: Progress) -> AnnotationPlan:
    """Segment images that are spread over the split, and measure; nothing is kept.

    Raises:
        PicsError: dataset or model are not what they should be, such as a checkpoint that is missing.
    """
    boxes = open_boxes(job.source.recipe, job.source.split, job.source.raw)
    if not len(boxes):
        raise no_picture(boxes.annotations)
    device = choose_device(job.device)
    checkpoint = find_checkpoint(job.sam, job.checkpoint)
    progress.activity, start = "reading the model", time.perf_counter()
    sam = load_sam(checkpoint, device, choose_dtype(job.dtype, device))
    load, progress.activity = time.perf_counter() - start, ""
    batch = encoder_batch_size(job, device.type)
    segmenter = Segmenter(sam, batch_images=batch, batch_boxes=job.batch_boxes, multimask=job.multimask)
    progress.total, tried = min(len(boxes), MOST_BLOCKS * batch), list[TriedImages]()

    def segment(rows: range) -> TriedImages:
        return _segment(job, segmenter, checkpoint.shape.side, device, rows)

    segment(range(1))  # loads libraries, chooses algorithms
    for rows in sample_blocks(len(boxes), batch):
        tried.append(segment(rows))
        progress.done += len(rows)
    progress.total = round(progress.done)
    devices = torch.cuda.device_count() if device.type == "cuda" else available_cores() if device.type == "cpu" else 1
    return AnnotationPlan(len(boxes), job.options.block, tried, device.type, devices, job.workers, load)


def _segment(job: AnnotationJob, segmenter: Segmenter, side: int, device: torch.device, rows: range) -> TriedImages:
    """Images through all that a run does with them, in this process; those that cannot be read count as nothing."""
    begin = time.perf_counter()
    prepared, cpu = _timed(lambda: [prepare(job.source, row, side) for row in rows], time.process_time)
    waiting = max(0.0, time.perf_counter() - begin - cpu)
    images = [image for image in prepared if isinstance(image, PreparedImage)]
    inputs = [image.resized for image in images if image.resized is not None]
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    results, model = _timed(lambda: list(segmenter(inputs)), clock)
    masks = dict(zip([id(image) for image in images if image.resized is not None], results, strict=True))

    def label(image: PreparedImage) -> LabelledImage:
        found, annotated = masks.get(id(image)), image.annotated
        objects = (
            make_labels(
                found.packed, found.scores.tolist(), found.stability.tolist(), image.boxes, image.corners, job.options
            )
            if isinstance(found, ImageMasks)
            else []
        )
        return LabelledImage(annotated.image_id, annotated.file_name, annotated.url, *image.size, objects)

    with tempfile.TemporaryDirectory(prefix="pics-plan-") as folder:
        written, encoding = _timed(
            lambda: write_block(Path(folder, "0.jsonl.gz"), [label(image) for image in images]), time.process_time
        )
    files = [next((path for path in image.annotated.files if path.exists()), None) for image in images]
    return TriedImages(
        len(rows), sum(len(image.boxes) for image in images), model, cpu + encoding, waiting,
        sum(path.stat().st_size for path in files if path is not None), written["bytes"],
    )  # fmt: skip


def _timed(work: Callable[[], T], clock: Callable[[], float]) -> tuple[T, float]:
    start = clock()
    result = work()
    return result, clock() - start
