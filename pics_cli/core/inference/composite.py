"""Samples to pictures, in memory: what `pics infer`, `pics eval` and `PicsPipeline` share.

B: samples of a batch, n: candidates of each, K: objects, S: model size, h, w: sides of a window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from pics_cli.core.conditioning.placement import choose_window
from pics_cli.core.images.geometry import Box, Letterbox
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.lighting import Lighting
from pics_cli.core.images.stored_image import StoredImage, put_back
from pics_cli.core.inference.batch_compositor import BatchCompositor, DenoisingStep, NoiseFunction
from pics_cli.core.inference.layers import Coverage, Layers, separate
from pics_cli.core.inference.paste import changed_outside
from pics_cli.core.inference.prepare import PreparedSample, prepare
from pics_cli.core.inference.sample import CompositeOptions, CompositeSample, candidate_lighting
from pics_cli.core.model.gate_trace import GateTrace
from pics_cli.core.model.regions import Regions
from pics_cli.errors import BadSample

if TYPE_CHECKING:  # it loads diffusers and transformers, which a run that finds all pictures finished does without
    from pics_cli.core.model.pics_model import PicsModel


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where the network saw a sample's objects and how it weighed them.

    Attributes:
        window: what the network saw of the background, uint8 [h, w, 3].
        boxes: of the objects, in the window's pixels.
        order: of the objects, back to front.
        alpha: weight of each object in the interaction gate, float32 [K, S, S] in 0..1, nan outside overlaps; None in
            sequential mode, where no objects meet.
        cover_codes: which objects cover each token at each resolution, finest first: int [side, side], bit k set for
            object k; empty in sequential mode.
    """

    window: RGB
    boxes: list[Box]
    order: list[int]
    alpha: npt.NDArray[np.float32] | None
    cover_codes: list[npt.NDArray[np.integer]]


@dataclass(frozen=True, eq=False)
class CompositeResult:
    """A finished picture.

    Attributes:
        sample: what it was made from.
        candidate: its number among the sample's pictures.
        image: uint8 RGB [H, W, 3], of the background's size, sRGB.
        window: what the network saw of the background, half-open, in pixels.
        feather: width of the blend at the border of the boxes, in pixels of the background.
        order: of the objects, back to front.
        unguided: objects whose region falls between the latent's cells, so that their references reach no token.
        shares: what part of its box each object fills; see `prepare.object_shares`.
        lighting: by which its shadows were cast; None where the model casts none.
        regions: in which pixels may have changed: the sample's boxes, or wider ones for shadows.
        seconds: spent on it: its share of its batch's denoising, and pasting.
        explanation: None where it was not asked for.
        opaque: alpha of the objects in a background with alpha; see `PastedImage`.
        coverage: of the objects; None where it was not asked for.
    """

    sample: CompositeSample
    candidate: int
    image: RGB
    window: Box
    feather: int
    order: list[int]
    unguided: list[int]
    shares: list[float]
    lighting: Lighting | None
    regions: list[Box]
    seconds: float
    explanation: Explanation | None = None
    opaque: npt.NDArray[np.uint8] | None = None
    coverage: Coverage | None = None

    @cached_property
    def stored(self) -> StoredImage:
        """The picture as the background's file stores its pixels: with its depth, alpha and colour profile."""
        stored = self.sample.stored or StoredImage(self.sample.background)
        return put_back(stored, self.sample.background, self.image, self.opaque)

    @cached_property
    def layers(self) -> Layers:
        """The picture taken apart.

        Raises:
            ValueError: `composite` was called without `layers`.
        """
        if self.coverage is None:
            raise ValueError("no layers of a picture that was made without: ask for them by layers=True")
        background = self.sample.stored or StoredImage(self.sample.background)
        return separate(background, self.stored.pixels, self.coverage, self.order)

    @property
    def changed_outside(self) -> int:
        """Number of pixels outside the regions, or kept, that are not stored as the background's: 0, or it broke."""
        before = self.sample.background if self.sample.stored is None else self.sample.stored.pixels
        return changed_outside(before, self.stored.pixels, self.regions, self.sample.keep)


def composite(
    model: PicsModel,
    samples: Iterable[CompositeSample],
    options: CompositeOptions,
    *,
    batch_size: int = 1,
    explain: bool = False,
    layers: bool = False,
    noise: NoiseFunction | None = None,
    handle_error: Callable[[CompositeSample, BadSample], None] | None = None,
    callback_on_batch_start: Callable[[Sequence[CompositeSample]], None] | None = None,
    callback_on_step_end: Callable[[DenoisingStep], None] | None = None,
) -> Iterator[CompositeResult]:
    """Composite objects into their backgrounds; nothing is read or written.

    Consecutive samples with as many objects and candidates go through the network together. Outside a sample's boxes
    no pixel changes.

    Args:
        model: the networks.
        samples: iterated in a thread, a batch ahead of the network, so that they may be read from files on the way.
        options: what decides the pixels; what they leave open is the model's.
        batch_size: samples (in sequential mode: pictures) that go through the network at a time.
        explain: give each result an `Explanation`.
        layers: let each result have `layers`.
        noise: from a sample's name, a candidate and an insertion step (0 in parallel mode) to float32 [c, h, w] of the
            latent's shape; None: `PicsModel.noise` with the options' seed.
        handle_error: takes a sample that cannot be composited, and why, from the reading thread; None: it is raised.
        callback_on_batch_start: called before a batch enters the network.
        callback_on_step_end: called after each denoising step.

    Yields:
        All candidates of a sample, then those of the next.

    Raises:
        BadSample: `order`, `empty_reference` or `tiny_region`, if there is no `handle_error`.
        ValueError: a sample whose parts do not fit together; see `prepare_network_inputs`.
        PicsError: an option of an unknown value; the network gave values that are not finite.
    """
    options = options.resolve(model.config)
    seed = options.seed
    batch_compositor = BatchCompositor(
        model,
        options,
        batch_size,
        noise or (lambda name, candidate, step: model.noise(seed, name, candidate, step)),
        callback_on_step_end,
        layers,
    )
    prepared = _prepare_all(samples, options, model, handle_error)
    batches = _batches(prepared, batch_size)
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = reader.submit(next, batches, None)
            if callback_on_batch_start is not None:
                callback_on_batch_start([prepared.sample for prepared in batch])
            yield from _finish(batch_compositor, batch, explain)


def _prepare_all(
    samples: Iterable[CompositeSample],
    options: CompositeOptions,
    model: PicsModel,
    handle_error: Callable[[CompositeSample, BadSample], None] | None,
) -> Iterator[PreparedSample]:
    for sample in samples:
        try:
            if not model.config.shadows:
                yield prepare(sample, options, model.config)
                continue
            estimated = _estimate_lighting(sample, options, model)
            for candidate in sample.candidates:
                lighting = candidate_lighting(options.light, estimated, candidate, options.seed, sample.name)
                yield prepare(sample, options, model.config, (candidate,), lighting)
        except BadSample as error:
            if handle_error is None:
                raise
            handle_error(sample, error)


def _estimate_lighting(sample: CompositeSample, options: CompositeOptions, model: PicsModel) -> Lighting:
    height, width = sample.background.shape[:2]
    x0, y0, x1, y1 = choose_window(sample.boxes, width, height, options.crop, model.config.window_size)
    letterbox = Letterbox(x1 - x0, y1 - y0, model.config.image_size)
    return model.estimate_lighting(letterbox.forward(sample.background[y0:y1, x0:x1], antialias=True))


def _batches(samples: Iterable[PreparedSample], size: int) -> Iterator[list[PreparedSample]]:
    """Consecutive samples with as many objects and candidates."""
    batch: list[PreparedSample] = []
    for prepared in samples:
        if batch and (len(batch) == size or _batch_key(prepared) != _batch_key(batch[0])):
            yield batch
            batch = []
        batch.append(prepared)
    if batch:
        yield batch


def _batch_key(prepared: PreparedSample) -> tuple[int, int, bool]:
    return len(prepared.boxes), len(prepared.candidates), prepared.gate_bias is None


def _finish(compositor: BatchCompositor, batch: Sequence[PreparedSample], explain: bool) -> Iterator[CompositeResult]:
    """The results of a batch, with the time that each took."""
    joint = compositor.options.mode == "parallel"
    trace = GateTrace() if explain and joint else None
    start = time.monotonic()
    images = compositor.joint(batch, trace) if joint else compositor.sequential(batch)
    explanations: list[Explanation | None] | None = None
    shared = 0.0
    for index, candidate, image, opaque, coverage in images:
        seconds = time.monotonic() - start
        if explanations is None:  # the first comes when the network is done with all of them
            explanations = _explain(compositor.model, batch, trace) if explain else [None] * len(batch)
            shared, seconds = seconds / sum(len(prepared.candidates) for prepared in batch), 0.0
        prepared = batch[index]
        yield CompositeResult(
            sample=prepared.sample,
            candidate=candidate,
            image=image,
            window=prepared.window,
            feather=prepared.feather,
            order=prepared.order,
            unguided=prepared.unguided,
            shares=prepared.shares,
            lighting=prepared.lighting,
            regions=compositor.regions(prepared),
            seconds=shared + seconds,
            explanation=explanations[index],
            opaque=opaque,
            coverage=coverage,
        )
        start = time.monotonic()


def _explain(model: PicsModel, batch: Sequence[PreparedSample], trace: GateTrace | None) -> list[Explanation | None]:
    size, objects = model.config.image_size, len(batch[0].boxes)
    alphas = None if trace is None else trace.mean_weights(objects, size).numpy()
    explanations: list[Explanation | None] = []
    for index, prepared in enumerate(batch):
        alpha, codes = None, []
        if alphas is not None:
            alpha = alphas[index] if len(alphas) else np.full((objects, size, size), np.nan, np.float32)
            regions = Regions(torch.from_numpy(prepared.inputs.masks[None]))
            sides = [model.config.latent_size >> level for level in range(len(model.unet.config.block_out_channels))]
            codes = [regions.table(side, side).codes[0].view(side, side).numpy() for side in sides]
        explanations.append(Explanation(prepared.window_image, prepared.boxes, prepared.order, alpha, codes))
    return explanations
