"""Batches of prepared samples through the network, and its pictures back into the backgrounds.

B: samples of a batch, n: candidates of each, S: model size, h, w: sides of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pics_cli.core.conditioning.alphas import joint_alpha
from pics_cli.core.conditioning.network_inputs import NetworkInputs
from pics_cli.core.conditioning.placement import from_window, grow_regions
from pics_cli.core.images.cutouts import is_blank
from pics_cli.core.images.geometry import Box, Letterbox
from pics_cli.core.images.image_io import RGB
from pics_cli.core.inference.blend import blend_layers, seen_alphas
from pics_cli.core.inference.layers import Coverage, region_coverage
from pics_cli.core.inference.match import MatchedObjects
from pics_cli.core.inference.overlaps import order_prior, settle_layers, tight_boxes
from pics_cli.core.inference.paste import less_kept, paste_back
from pics_cli.core.inference.prepare import PreparedSample, WindowPaste, window_inputs, window_paste
from pics_cli.core.inference.sample import Bytes, CompositeOptions, CompositeSample
from pics_cli.core.model.blending import LayerBlend
from pics_cli.core.model.gate_trace import GateTrace

if TYPE_CHECKING:  # it loads diffusers and transformers, which a run that finds all pictures finished does without
    from pics_cli.core.model.pics_model import PicsModel

NoiseFunction = Callable[[str, int, int], torch.Tensor]


@dataclass(frozen=True, eq=False)
class DenoisingStep:
    """A denoising step that is done.

    Attributes:
        samples: names of the samples in the network's batch; a sample's name stands once for each of its candidates in
            sequential mode.
        number: of the step, from 1.
        count: of the steps that the scheduler takes, which may be more than were asked for.
        timestep: of the noise schedule.
        latents: after the step, [B · n, c, h, w]; not to be written to.
    """

    samples: tuple[str, ...]
    number: int
    count: int
    timestep: float
    latents: torch.Tensor


class NetworkOutput(NamedTuple):
    """Pictures uint8 [B, n, S, S, 3], and how the layers of the control image were blended, where that is known."""

    pictures: npt.NDArray[np.uint8]
    blend: LayerBlend | None


class PastedImage(NamedTuple):
    """A picture that is done.

    Attributes:
        number: of its sample in the batch.
        candidate: its number among the sample's pictures.
        image: uint8 [H, W, 3], of the background's size.
        opaque: uint8 [H, W], alpha of the objects pasted into a background with alpha; None: of one without, or not
            known.
        coverage: of its objects, where it was asked for.
    """

    number: int
    candidate: int
    image: RGB
    opaque: Bytes | None
    coverage: Coverage | None


class BatchCompositor(NamedTuple):
    """Runs batches through the network and pastes its pictures back; fields as the arguments of `composite`."""

    model: PicsModel
    options: CompositeOptions
    batch_size: int
    noise: NoiseFunction
    callback_on_step_end: Callable[[DenoisingStep], None] | None
    coverage: bool

    def joint(self, batch: Sequence[PreparedSample], trace: GateTrace | None) -> Iterator[PastedImage]:
        """All objects of a sample in one pass."""
        bias = None if batch[0].gate_bias is None else torch.tensor([prepared.gate_bias for prepared in batch])
        names = [prepared.sample.name for prepared in batch]
        output = self._denoise(names, [prepared.inputs for prepared in batch], self._noise(batch, 0), bias, trace)
        for b, prepared in enumerate(batch):
            sample = prepared.sample
            paste = self._paste(
                prepared, prepared.window_image, prepared.boxes, sample.references, prepared.known_order
            )
            (shown,) = from_window([paste.part], prepared.window)
            painted = self._painted_boxes(self.regions(prepared), sample.references)
            matched = self._matched(output, paste)
            for n, candidate in enumerate(prepared.candidates):
                objects = None if matched is None else matched.painters(self.options.seed, sample.name, candidate)
                picture, seen = self._at_window_size(
                    output, b, n, prepared.window_image, prepared.boxes, paste, objects
                )
                image = paste_back(
                    sample.background, picture, shown, painted, prepared.feather, paste.alpha, sample.keep
                )
                coverage = self._coverage(prepared, image, shown, seen)
                yield PastedImage(b, candidate, image, _opaque(sample, [(shown, paste.alpha)]), coverage)

    def sequential(self, batch: Sequence[PreparedSample]) -> Iterator[PastedImage]:
        """One object after the other, back to front, each into the picture with those before."""
        windows = [[prepared.window_image for _ in prepared.candidates] for prepared in batch]
        entries = [(b, n) for b in range(len(batch)) for n in range(len(windows[b]))]
        alphas: dict[tuple[int, int], list[tuple[Box, Bytes | None]]] = {entry: [] for entry in entries}
        seen: dict[tuple[int, int], Bytes] = {}
        for b, n in entries if self.coverage else ():
            seen[b, n] = np.zeros((len(batch[b].boxes), *batch[b].window_image.shape[:2]), np.uint8)
        for step in range(len(batch[0].boxes)):
            noise = self._noise(batch, step)
            for start in range(0, len(entries), self.batch_size):
                part = entries[start : start + self.batch_size]
                objects = []
                for b, _ in part:
                    k = batch[b].order[step]
                    objects.append(([batch[b].boxes[k]], [batch[b].sample.references[k]]))
                names = [batch[b].sample.name for b, _ in part]
                inputs = [
                    window_inputs(
                        windows[b][n],
                        boxes,
                        references,
                        self.model.config,
                        fit=self.options.fit,
                        lighting=batch[b].lighting,
                        shadow_room=self.options.shadow_room,
                    )
                    for (b, n), (boxes, references) in zip(part, objects, strict=True)
                ]
                output = self._denoise(names, inputs, torch.stack([noise[b, n] for b, n in part])[:, None])
                for index, ((b, n), (boxes, references)) in enumerate(zip(part, objects, strict=True)):
                    before = windows[b][n]
                    paste = self._paste(batch[b], before, boxes, references)
                    matched = self._matched(output, paste)
                    keys = (batch[b].sample.name, batch[b].candidates[n], batch[b].order[step])
                    painters = None if matched is None else matched.painters(self.options.seed, *keys)
                    picture, seen_now = self._at_window_size(output, index, 0, before, boxes, paste, painters)
                    wider = grow_regions(boxes, self.options.shadow_room, before.shape[1], before.shape[0])
                    painted = self._painted_boxes(wider, references)
                    windows[b][n] = paste_back(
                        before, picture, paste.part, painted, batch[b].feather, paste.alpha, batch[b].window_keep
                    )
                    if seen_now is not None:
                        x0, y0, x1, y1 = paste.part
                        shown = seen[b, n][:, y0:y1, x0:x1]
                        shown[:] = np.rint(shown * (1 - seen_now / np.float32(255)))
                        shown[batch[b].order[step]] = seen_now[0]
                    alphas[b, n].append((from_window([paste.part], batch[b].window)[0], paste.alpha))
        for b, prepared in enumerate(batch):
            x0, y0, x1, y1 = prepared.window
            for n, candidate in enumerate(prepared.candidates):
                image = prepared.sample.background.copy()
                image[y0:y1, x0:x1] = windows[b][n]
                coverage = self._coverage(prepared, image, prepared.window, seen.get((b, n)))
                yield PastedImage(b, candidate, image, _opaque(prepared.sample, alphas[b, n]), coverage)

    def regions(self, prepared: PreparedSample) -> list[Box]:
        """Where pixels may change, in the background's pixels."""
        height, width = prepared.window_image.shape[:2]
        return from_window(grow_regions(prepared.boxes, self.options.shadow_room, width, height), prepared.window)

    def _coverage(self, prepared: PreparedSample, image: RGB, box: Box, seen: Bytes | None) -> Coverage | None:
        """Of a finished picture; a model that pastes nothing knows no outlines: an object's is then its region's.

        Args:
            image: uint8 [H, W, 3], the picture.
            box, seen: as in `Coverage`, of the picture before anything is kept; None: not known.
        """
        if not self.coverage:
            return None
        if self.model.config.hint == "background" or seen is None:
            return region_coverage(prepared.sample.background, image, self.regions(prepared), prepared.order)
        return Coverage(box, less_kept(seen, prepared.sample.keep, box))

    def _paste(
        self,
        prepared: PreparedSample,
        window_image: RGB,
        boxes: Sequence[Box],
        references: Sequence[Bytes],
        order: Sequence[int] | None = None,
    ) -> WindowPaste:
        """What is pasted of some objects of a sample into a picture of its window."""
        return window_paste(
            window_image,
            boxes,
            references,
            self.model.config,
            order,
            fit=self.options.fit,
            lighting=prepared.lighting,
            shadow_room=self.options.shadow_room,
        )

    def _painted_boxes(self, boxes: Sequence[Box], references: Sequence[Bytes]) -> list[Box]:
        """The regions that change: not those of empty references, where the control image shows the background."""
        if self.model.config.hint in ("background", "collage"):  # these control images blank or fill every region
            return list(boxes)
        return [box for box, reference in zip(boxes, references, strict=True) if not is_blank(reference)]

    def _noise(self, batch: Sequence[PreparedSample], step: int) -> torch.Tensor:
        """float32 [B, n, c, h, w]."""
        noise = [
            torch.stack([self.noise(prepared.sample.name, n, step) for n in prepared.candidates]) for prepared in batch
        ]
        return torch.stack(noise)

    def _denoise(
        self,
        names: Sequence[str],
        inputs: Sequence[NetworkInputs],
        noise: torch.Tensor,
        bias: torch.Tensor | None = None,
        trace: GateTrace | None = None,
    ) -> NetworkOutput:
        config = self.model.config

        def on_step(number: int, count: int, timestep: torch.Tensor, latents: torch.Tensor) -> None:
            if self.callback_on_step_end is not None:
                self.callback_on_step_end(DenoisingStep(tuple(names), number, count, float(timestep), latents))

        blends: list[LayerBlend] | None = [] if config.correct_hint and config.on_pixels else None
        pictures = self.model(
            inputs,
            noise,
            steps=self.options.steps,
            guidance=self.options.guidance,
            scheduler=self.options.scheduler,
            order_bias=bias,
            callback_on_step_end=on_step,
            trace=trace,
            layer_blends=blends,
        )
        return NetworkOutput(pictures, blends[0] if blends else None)

    def _matched(self, output: NetworkOutput, paste: WindowPaste) -> MatchedObjects | None:
        return None if output.blend is None or self.options.match == "none" else paste.match()

    def _at_window_size(
        self,
        output: NetworkOutput,
        b: int,
        n: int,
        window_image: RGB,
        boxes: Sequence[Box],
        paste: WindowPaste,
        objects: Sequence[Callable[[RGB], None] | None] | None,
    ) -> tuple[RGB, Bytes | None]:
        """Candidate n of sample b at its window's size: uint8 [h, w, 3], of what is pasted's part.

        And how much of each object is seen there, uint8 [K, h, w], where that is asked for and known. `objects` is that
        of `layer_painters`.
        """
        height, width = window_image.shape[:2]
        if output.blend is None:
            x0, y0, x1, y1 = paste.part
            square = Letterbox(width, height, output.pictures.shape[2])
            picture = square.inverse(output.pictures[b, n])[y0:y1, x0:x1]
            return picture, self._seen((width, height), paste, None)
        logits, gain, residual, *strength = (each[b, n].numpy() for each in output.blend if each is not None)
        if self.model.config.hint == "layers" and paste.network_alphas is not None:
            prior = self._order_prior(paste.network_alphas, paste.guess)
            logits = settle_layers(logits, paste.network_alphas, self.model.config.share_sharpness, prior)
        if paste.shadows is not None:  # which may reach between the regions
            boxes = [paste.part]
        shadows = (strength[0], paste.shadows) if strength else ()
        painters = paste.paint(objects=objects)
        picture = blend_layers(window_image, paste.part, painters, logits, gain, residual, boxes, *shadows)
        return picture, self._seen((width, height), paste, logits if len(logits) > 1 else None)

    def _seen(self, size: tuple[int, int], paste: WindowPaste, logits: npt.NDArray[np.float32] | None) -> Bytes | None:
        if not self.coverage or paste.alphas is None:
            return None
        return seen_alphas(size, paste.part, paste.alphas(), paste.orders, logits)

    def _order_prior(self, alphas: Bytes, guess: Sequence[int] | None) -> npt.NDArray[np.float32] | None:
        """What the model says of the order by the objects' boxes; None where it is known, or not asked."""
        if guess is None or len(alphas) < 2:
            return None
        log_odds = self.model.estimate_order(tight_boxes(alphas))
        return None if log_odds is None else order_prior(alphas, guess, log_odds)


def _opaque(sample: CompositeSample, alphas: Sequence[tuple[Box, Bytes | None]]) -> Bytes | None:
    """uint8 [H, W], alpha of what was pasted into a sample's background, by parts of it; see `PastedImage`."""
    if sample.stored is None or not sample.stored.has_alpha:
        return None
    opaque = np.zeros(sample.background.shape[:2], np.uint8)
    for box, alpha in alphas:
        if alpha is None:
            return None
        x0, y0, x1, y1 = box
        opaque[y0:y1, x0:x1] = joint_alpha(opaque[y0:y1, x0:x1], less_kept(alpha, sample.keep, box))
    return opaque
