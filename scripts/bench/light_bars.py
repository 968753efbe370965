"""What a compositor does to light, in figures that `pics eval` does not have; every one against a plain paste.

    python scripts/bench/light_bars.py data/test/Rendered --model pics-mini --limit 200

- **do no harm**: objects cut out of a picture and put back into its clean plate, under their own light: mean change
  inside them, in grey levels. A paste changes nothing.
- **sharpness over gain²**: gradient energy inside them over that of the picture, divided by the square of what they
  were darkened or lightened by. A paste has 1.
- **relit**: the same objects 1.5 stops lighter and darker: the share of the error in log light that is taken back. A
  paste takes back nothing.
- **same side**: scenes of objects apart whose shadows lie on one side, by the centres of what was darkened.
- **grounds**: by how much two objects darken uniform ground of grey 30 to 235 around them.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.evaluation.pixel_metrics import luminance, sharpness
from pics_cli.core.evaluation.statistics import Estimate, bootstrap_mean
from pics_cli.core.images.cutouts import fit_object
from pics_cli.core.images.geometry import Box, scale_box
from pics_cli.core.images.lighting import from_linear, to_linear
from pics_cli.core.images.masks import box_mask
from pics_cli.core.inference.composite import composite
from pics_cli.core.inference.sample import CompositeOptions, CompositeSample
from pics_cli.core.loading.augment import cut_reference
from pics_cli.core.model.bundled import bundled_model, is_bundled
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.shards.samples import Sample, open_shards

Bytes = npt.NDArray[np.uint8]

GREYS = (30, 60, 100, 150, 200, 235)
STOPS = (-1.5, 1.5)
# Darkening of the ground that counts as shadow, in grey levels.
_SHADOW = 4


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", help="folder of shards of drawn or rendered scenes")
    parser.add_argument("--model", default="pics-mini")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    given = parser.parse_args()
    model = PicsModel.from_pretrained(bundled_model() if is_bundled(given.model) else given.model)
    bars = LightBars(model)
    for sample in itertools.islice(open_shards(given.shards), given.limit):
        bars.add(sample)
    figures = bars.figures()
    for name, (mean, low, high, count) in figures.items():
        print(f"{name:28} {mean:8.3f}  [{low:.3f}, {high:.3f}]  n = {count}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


class LightBars:
    """Gathers the figures of one model."""

    def __init__(self, model: PicsModel) -> None:
        self.model = model
        self.values: dict[str, list[float]] = {}

    def add(self, sample: Sample) -> None:
        """Measure a sample of two or more objects whose clean plate is known."""
        assert sample.clean_background is not None
        masks = [box_mask(mask) for mask in sample.masks]
        boxes = [_region(mask.box, self.model.config.fill, sample.image.shape) for mask in masks]
        if None in boxes:  # it reaches out of the picture: the paste would not be where the object was
            return
        regions = tuple(box for box in boxes if box is not None)
        objects = [cut_reference(sample.image, mask) for mask in masks]
        order = sample.metadata["order"][::-1] if sample.metadata else None
        relation = sample.metadata["pairs"][0]["relation"] if sample.metadata else None
        if relation == "apart":  # whole objects: what is cut out of the picture is all of them
            for number, stops in enumerate((0.0, *STOPS)):
                references = tuple(expose(rgba, stops) for rgba in objects)
                result = self._composite(sample.clean_background, regions, references, order)
                for mask in sample.masks:
                    inside = cv2.erode(mask.view(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
                    if inside.sum() < 60:
                        continue
                    if number == 0:
                        change = result[inside].astype(float) - sample.image[inside]
                        self._put("do no harm, levels", float(np.abs(change).mean()))
                        gain = luminance(result)[inside].mean() / luminance(sample.image)[inside].mean()
                        self._put("sharpness over gain²", sharpness(result, sample.image, inside) / float(gain) ** 2)
                    else:
                        self._put("relit, share", taken_back(result, sample.image, inside, stops))
            self._sides(sample.clean_background, regions, tuple(objects))
        if relation == "apart" and len(self.values.get("grounds, factor", [])) < 20:
            self._grounds(sample.clean_background.shape, regions, tuple(objects))

    def figures(self) -> dict[str, Estimate]:
        """Mean, 95 % interval and count of each figure."""
        return {name: bootstrap_mean(np.array(values)) for name, values in self.values.items()}

    def _put(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def _composite(
        self, background: Bytes, boxes: tuple[Box, ...], references: tuple[Bytes, ...], order: list[int] | None = None
    ) -> Bytes:
        sample = CompositeSample("bars", background, boxes, references, None if order is None else tuple(order))
        (result,) = composite(self.model, [sample], CompositeOptions())
        return result.image

    def _sides(self, background: Bytes, boxes: tuple[Box, ...], references: tuple[Bytes, ...]) -> None:
        result = self._composite(background, boxes, references)
        darker = background.mean(2) - result.mean(2)
        sides = []
        for box, reference in zip(boxes, references, strict=True):
            ground = darker.copy()
            left, top, fitted = fit_object(scale_box(box, self.model.config.fill), reference)
            alpha = cv2.dilate(fitted[..., 3], np.ones((3, 3), np.uint8))
            ground[top : top + alpha.shape[0], left : left + alpha.shape[1]][alpha > 0] = 0
            part = np.maximum(ground[box[1] : box[3], box[0] : box[2]] - _SHADOW, 0)
            if part.sum() > 30 * _SHADOW:
                x = (np.arange(part.shape[1]) * part.sum(0)).sum() / part.sum() / part.shape[1] - 0.5
                sides.append(float(x))
        if len(sides) > 1 and min(map(abs, sides)) > 0.06:  # both lie clearly to a side
            self._put("same side, share", float(len({side > 0 for side in sides}) == 1))
        self._put("with a shadow, share", len(sides) / len(boxes))

    def _grounds(self, shape: tuple[int, ...], boxes: tuple[Box, ...], references: tuple[Bytes, ...]) -> None:
        darkening = []
        for grey in GREYS:
            background = np.full(shape, grey, np.uint8)
            result = self._composite(background, boxes, references)
            ground = np.zeros(shape[:2], bool)
            for box in boxes:
                ground[box[1] : box[3], box[0] : box[2]] = True
            for box, reference in zip(boxes, references, strict=True):
                left, top, fitted = fit_object(scale_box(box, self.model.config.fill), reference)
                alpha = cv2.dilate(fitted[..., 3], np.ones((3, 3), np.uint8))
                ground[top : top + alpha.shape[0], left : left + alpha.shape[1]][alpha > 0] = False
            linear = to_linear(result[ground] / 255).mean() / to_linear(np.float64(grey / 255))
            darkening.append(1 - float(linear))
            self._put(f"ground of {grey}, darker by", darkening[-1])
        self._put("grounds, factor", max(darkening) / max(min(darkening), 1e-3))


def _region(box: Box, fill: float, shape: tuple[int, ...]) -> Box | None:
    """The region whose paste box is `box`; None where it reaches out of the picture."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    dx, dy = round((width / fill - width) / 2), round((height / fill - height) / 2)
    grown = x0 - dx, y0 - dy, x1 + dx, y1 + dy
    inside = grown[0] > 0 and grown[1] > 0 and grown[2] < shape[1] and grown[3] < shape[0]
    return grown if inside else None


def expose(rgba: Bytes, stops: float) -> Bytes:
    """An object, uint8 [h, w, 4], in linear light times 2^stops."""
    levels = from_linear(np.clip(to_linear(np.arange(256) / 255) * 2**stops, 0, 1))
    table = np.rint(255 * levels).astype(np.uint8)
    return np.dstack([table[rgba[..., :3]], rgba[..., 3]])


def taken_back(result: Bytes, truth: Bytes, inside: npt.NDArray[np.bool_], stops: float) -> float:
    """Share of an exposure error that a result takes back: 0 for a paste, 1 for the truth, of mean log light."""
    pasted = expose(np.dstack([truth, np.full(truth.shape[:2], 255, np.uint8)]), stops)[..., :3]
    shown, true, wrong = (
        np.log(to_linear(picture[inside].mean(0) / 255).mean() + 1e-4) for picture in (result, truth, pasted)
    )
    return float(1 - abs(shown - true) / max(abs(wrong - true), 1e-6))


if __name__ == "__main__":
    main()
