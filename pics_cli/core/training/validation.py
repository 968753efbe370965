"""Looking at a model while it trains: loss by timestep, and whether it listens to the references.

The figures are of fixed samples, timesteps and noise, so that they can be compared from one time to the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pics_cli.core.images.geometry import Box
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.sheets import TILE_GAP, Tile, draw_box, draw_sheet, fit_height, object_colour, patch_column
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.runtime.rng import generator
from pics_cli.core.training.objective import Draws, Step, box_masks, fixed_draws, hint_kinds

_HEIGHT = 256


class Composite:
    """A prepared sample as the pipeline wants it; see `pics_cli.core.model.pipeline.NetworkInput`."""

    def __init__(self, arrays: Mapping[str, Any], size: int) -> None:
        boxes, content = (torch.from_numpy(np.asarray(arrays[name])) for name in ("boxes", "content"))
        masks = box_masks(boxes[None], size)
        self.control_image: npt.NDArray[np.uint8] = arrays["control_image"]
        self.control_mask: npt.NDArray[np.int8] = hint_kinds(masks, content[None])[0].numpy()
        self.masks: npt.NDArray[np.bool_] = masks[0].numpy()
        self.references: npt.NDArray[np.uint8] = arrays["references"]


def results(pipeline: PicsModel, samples: Sequence[Held], seed: int, steps: int | None) -> list[RGB]:
    """What the pipeline makes of each sample, uint8 [S, S, 3]; its noise is a function of seed and key."""
    made = []
    for held in samples:
        noise = pipeline.noise(seed, held.key)[None, None]
        composite = Composite(held.own, pipeline.config.image_size)
        made.append(pipeline([composite], noise, steps=steps)[0, 0])
    return made


def draw(title: str, samples: Sequence[Held], made: Sequence[RGB]) -> RGB:
    """A row for each sample: hint with regions, references, target, result."""
    tiles: list[Tile] = []
    for held, result in zip(samples, made, strict=True):
        hint, scale = fit_height(np.ascontiguousarray(held.own["control_image"][..., :3]), _HEIGHT)
        for k, box in enumerate(held.own["boxes"].tolist()):
            whole: Box = (box[0], box[1], box[2], box[3])
            draw_box(hint, whole, scale, object_colour(k), 2)
        tiles += [
            Tile(hint, ("hint and regions", held.key)),
            Tile(patch_column(list(held.own["references"]), _HEIGHT), ("references",)),
            Tile(fit_height(held.own["target"], _HEIGHT)[0], ("target",)),
            Tile(fit_height(result, _HEIGHT)[0], ("result",)),
        ]
    widths = [sum(tile.rgb.shape[1] + TILE_GAP for tile in tiles[at : at + 4]) for at in range(0, len(tiles), 4)]
    return draw_sheet(title, tiles, _HEIGHT, max(widths) + TILE_GAP)


# Standard errors by which swapped references must raise the loss, to say that the model listens.
CLEARLY = 2.0
# And the least share by which they must raise it: far below, it is rounding.
NOTABLE = 0.001


class Held(NamedTuple):
    """A sample that is never trained on, composed in several ways.

    Attributes:
        key: of the sample.
        ways: arrays as `training_sample.prepare` makes them, by way. `own`: as they are; `swapped`: with the references
            exchanged among the objects; `encoder`: exchanged for the encoder alone, where the hint shows them, too.
    """

    key: str
    ways: Mapping[str, Mapping[str, Any]]

    @property
    def own(self) -> Mapping[str, Any]:
        """The sample as it is."""
        return self.ways["own"]


class Figures(NamedTuple):
    """Losses of one sample: in each part of the noise schedule; and inside the regions, by way."""

    bins: list[float]
    regions: dict[str, float]


def held(key: str, own: Mapping[str, Any], swapped: Mapping[str, Any] | None, hint: str) -> Held:
    """A sample to look at; `swapped`: None where there is but one object; `hint`: its kind."""
    ways = {"own": own}
    if swapped is not None:
        ways["swapped"] = swapped
        if hint != "background":
            ways["encoder"] = {**own, "references": swapped["references"]}
    return Held(key, ways)


@torch.no_grad()
def look(
    step: Step,
    samples: Sequence[Held],
    draws: Draws,
    seed: int,
    *,
    bins: int,
    batch: int,
    device: torch.device,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    stop: Callable[[], bool] = lambda: False,
) -> list[Figures] | None:
    """Figures of each sample.

    Args:
        step: forward pass and losses.
        samples: what to look at.
        draws: of the training; timesteps are fixed here, conditions kept.
        seed: of noise and timesteps.
        bins: parts of the noise schedule, each with one timestep.
        batch: samples at a time.
        device: of the networks.
        collate: puts samples into a batch.
        stop: asked between batches whether to give up.

    Returns:
        None where it was given up.
    """
    jobs = [(at, part, way) for at, one in enumerate(samples) for part in range(bins) for way in one.ways]
    loss: dict[tuple[int, int, str], tuple[float, float]] = {}
    for start in range(0, len(jobs), batch):
        if stop():
            return None
        some = jobs[start : start + batch]
        made = []
        for at, part, way in some:
            rng = generator(seed, "validation", samples[at].key, part)
            low, high = (draws.timesteps * edge // bins for edge in (part, part + 1))
            made.append({**samples[at].ways[way], **fixed_draws(draws, rng, low, high)})
        losses = step(collate(made), device)
        for job, weighted, region in zip(some, losses.weighted.tolist(), losses.region.tolist(), strict=True):
            loss[job] = weighted, region
    return [
        Figures(
            [loss[at, part, "own"][0] for part in range(bins)],
            {way: float(np.mean([loss[at, part, way][1] for part in range(bins)])) for way in one.ways},
        )
        for at, one in enumerate(samples)
    ]


def summarise(figures: Sequence[Figures]) -> dict[str, float]:
    """Means over samples, for the log: `loss`, `loss_0` … (least noise first), and the condition probe.

    The probe is the loss inside the regions with the references as they are (`probe_own`) and exchanged among the
    objects (`probe_swapped`), how much more the latter is (`probe_rise`, a share), and that rise in its own standard
    errors over the samples (`probe_z`). Where the hint shows the references, `probe_encoder`, `…_rise` and `…_z` are
    the same with the hint as it is: of what the encoder sees alone. Without two samples of two objects there is none.
    """
    bins = np.array([one.bins for one in figures])
    values = {"loss": float(bins.mean())}
    values |= {f"loss_{part}": float(mean) for part, mean in enumerate(bins.mean(0))}
    for way, name in (("swapped", "probe"), ("encoder", "probe_encoder")):
        pairs = np.array([(one.regions["own"], one.regions[way]) for one in figures if way in one.regions])
        if len(pairs) < 2:
            continue
        own, other = pairs.mean(0)
        rise = pairs[:, 1] - pairs[:, 0]
        error = rise.std(ddof=1) / math.sqrt(len(rise))
        values |= {"probe_own": float(own), f"probe_{way}": float(other)}
        values[f"{name}_rise"] = float((other - own) / own) if own > 0 else 0.0
        values[f"{name}_z"] = float(rise.mean() / error) if error > 0 else 0.0
    return values


def verdict(values: Mapping[str, float]) -> str:
    """One line on a validation, for people."""
    words = f"validation loss {values['loss']:.4f}"
    for name, what in (("probe", "references swapped"), ("probe_encoder", "in the encoder alone")):
        if f"{name}_z" in values:
            rise, z = values[f"{name}_rise"], values[f"{name}_z"]
            clear = "clear" if z > CLEARLY and rise > NOTABLE else "not clear"
            words += f"; {what}: {rise:+.1%} in the regions ({clear}: z {z:.1f})"
    return words
