"""Validation while a model trains: loss by timestep, and whether the model heeds the references.

Losses are of fixed samples, timesteps and noise, so that they can be compared from one time to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from pics_cli.core.conditioning.network_inputs import NetworkInputs
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.sheets import TILE_GAP, Tile, draw_box, draw_sheet, fit_height, object_colour, patch_column
from pics_cli.core.loading.loader import collate
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.runtime.rng import generator
from pics_cli.core.training.objective import DiffusionLoss, NoiseSampler, box_masks, control_mask

# The model heeds the references if swapping them raises the loss by more than so many standard errors …
MIN_Z = 2.0
# … and by more than this share: far below, it is rounding.
MIN_RISE = 0.001
_SHEET_HEIGHT = 256


class ValidationSample(NamedTuple):
    """A sample that is never trained on, in up to three variants.

    Attributes:
        key: of the sample.
        variants: arrays as `training_sample.prepare` makes them. `own`: as they are; `swapped`: with the references
            exchanged among the objects; `encoder`: exchanged for the encoder alone, where the control image shows them.
    """

    key: str
    variants: Mapping[str, Mapping[str, Any]]

    @property
    def own(self) -> Mapping[str, Any]:
        """The sample as it is."""
        return self.variants["own"]


class SampleLosses(NamedTuple):
    """Losses of one validation sample.

    Attributes:
        bins: in each part of the noise schedule, least noise first.
        regions: inside the regions, mean over these parts, by variant of the sample.
    """

    bins: list[float]
    regions: dict[str, float]


def validation_sample(
    key: str, own: Mapping[str, Any], swapped: Mapping[str, Any] | None, hint: str
) -> ValidationSample:
    """A validation sample from its arrays; `swapped` is None for a single object, `hint` is the model's kind."""
    variants = {"own": own}
    if swapped is not None:
        variants["swapped"] = swapped
        if hint != "background":
            variants["encoder"] = {**own, "references": swapped["references"]}
    return ValidationSample(key, variants)


@torch.no_grad()
def validation_losses(
    loss: DiffusionLoss,
    samples: Sequence[ValidationSample],
    sampler: NoiseSampler,
    seed: int,
    *,
    bins: int,
    batch_size: int,
    device: torch.device,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[SampleLosses] | None:
    """Losses of each sample.

    Args:
        sampler: as in training, but timesteps are fixed and conditions kept.
        seed: of noise and timesteps.
        bins: parts of the noise schedule, each with one timestep.
        batch_size: forward passes at a time.
        should_stop: whether to give up; called before each batch.

    Returns:
        None where it gave up.
    """
    passes = [
        (number, part, variant)
        for number, sample in enumerate(samples)
        for part in range(bins)
        for variant in sample.variants
    ]
    weighted: dict[tuple[int, int, str], float] = {}
    region: dict[tuple[int, int, str], float] = {}
    for start in range(0, len(passes), batch_size):
        if should_stop():
            return None
        chunk = passes[start : start + batch_size]
        rows = []
        for number, part, variant in chunk:
            rng = generator(seed, "validation", samples[number].key, part)
            low, high = (sampler.timesteps * edge // bins for edge in (part, part + 1))
            rows.append({**samples[number].variants[variant], **sampler.for_validation(rng, low, high)})
        batch = collate(rows)
        assert isinstance(batch, dict)
        losses = loss(batch, device)
        weighted |= zip(chunk, losses.weighted.tolist(), strict=True)
        region |= zip(chunk, losses.region.tolist(), strict=True)
    return [
        SampleLosses(
            [weighted[number, part, "own"] for part in range(bins)],
            {
                variant: float(np.mean([region[number, part, variant] for part in range(bins)]))
                for variant in sample.variants
            },
        )
        for number, sample in enumerate(samples)
    ]


def summarise(losses: Sequence[SampleLosses]) -> dict[str, float]:
    """Means over samples, for the log: `loss`, `loss_0` … (least noise first), and the condition probe.

    The probe is the loss inside the regions with the references as they are (`probe_own`) and exchanged among the
    objects (`probe_swapped`), how much more the latter is (`probe_rise`, a share), and that rise in its own standard
    errors over the samples (`probe_z`). Where the control image shows the references, `probe_encoder`, `…_rise` and
    `…_z` are the same with the control image as it is: the encoder's part alone. Without two samples of two objects
    there is no probe.
    """
    bins = np.array([sample.bins for sample in losses])
    metrics = {"loss": float(bins.mean())}
    metrics |= {f"loss_{part}": float(mean) for part, mean in enumerate(bins.mean(0))}
    for variant, name in (("swapped", "probe"), ("encoder", "probe_encoder")):
        pairs = np.array(
            [(sample.regions["own"], sample.regions[variant]) for sample in losses if variant in sample.regions]
        )
        if len(pairs) < 2:
            continue
        own, other = pairs.mean(0)
        rise = pairs[:, 1] - pairs[:, 0]
        error = rise.std(ddof=1) / math.sqrt(len(rise))
        metrics |= {"probe_own": float(own), f"probe_{variant}": float(other)}
        metrics[f"{name}_rise"] = float((other - own) / own) if own > 0 else 0.0
        metrics[f"{name}_z"] = float(rise.mean() / error) if error > 0 else 0.0
    return metrics


def describe(metrics: Mapping[str, float]) -> str:
    """A validation in one line, from the metrics of `summarise`."""
    text = f"validation loss {metrics['loss']:.4f}"
    for name, change in (("probe", "references swapped"), ("probe_encoder", "in the encoder alone")):
        if f"{name}_z" in metrics:
            rise, z = metrics[f"{name}_rise"], metrics[f"{name}_z"]
            clear = "clear" if z > MIN_Z and rise > MIN_RISE else "not clear"
            text += f"; {change}: {rise:+.1%} in the regions ({clear}: z {z:.1f})"
    return text


def network_inputs(arrays: Mapping[str, Any], size: int) -> NetworkInputs:
    """The arrays of a training sample as the model takes them at inference; S: `size`."""
    boxes, content = (torch.from_numpy(np.asarray(arrays[name])) for name in ("boxes", "content"))
    masks = box_masks(boxes[None], size)
    mask = control_mask(masks, content[None])
    return NetworkInputs(
        control_image=arrays["control_image"],
        control_mask=mask[0].numpy(),
        masks=masks[0].numpy(),
        references=arrays["references"],
        fade=arrays.get("fade"),
    )


def composite_samples(model: PicsModel, samples: Sequence[ValidationSample], seed: int, steps: int | None) -> list[RGB]:
    """What the model makes of each sample, uint8 [S, S, 3]; its noise is a function of seed and key.

    The samples' arrays are the network's inputs already, drawn from the true masks: `inference.composite` would draw
    others from a background and cut-outs, and paste the picture back.
    """
    return [
        model(
            [network_inputs(sample.own, model.config.image_size)],
            model.noise(seed, sample.key)[None, None],
            steps=steps,
        )[0, 0]
        for sample in samples
    ]


def draw_validation_sheet(title: str, samples: Sequence[ValidationSample], results: Sequence[RGB]) -> RGB:
    """A row for each sample: control image with regions, references, target, result; uint8 [H, W, 3]."""
    tiles: list[Tile] = []
    for sample, result in zip(samples, results, strict=True):
        picture, scale = fit_height(np.ascontiguousarray(sample.own["control_image"][..., :3]), _SHEET_HEIGHT)
        for k, box in enumerate(sample.own["boxes"].tolist()):
            draw_box(picture, tuple(box), scale, object_colour(k), 2)
        tiles += [
            Tile(picture, ("hint and regions", sample.key)),
            Tile(patch_column(list(sample.own["references"]), _SHEET_HEIGHT), ("references",)),
            Tile(fit_height(sample.own["target"], _SHEET_HEIGHT)[0], ("target",)),
            Tile(fit_height(result, _SHEET_HEIGHT)[0], ("result",)),
        ]
    widths = [sum(tile.rgb.shape[1] + TILE_GAP for tile in tiles[row : row + 4]) for row in range(0, len(tiles), 4)]
    return draw_sheet(title, tiles, _SHEET_HEIGHT, max(widths) + TILE_GAP)
