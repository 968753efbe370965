"""The choice of a group made again and again, each time after the faults of the last one were mended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pics_cli.core.datasets.pairs import Boxes, Group, choose_group, grow, is_candidate, take_largest
from pics_cli.core.datasets.scene import Instance, Scene, Skip
from pics_cli.core.images.geometry import box_iou, is_nested
from pics_cli.core.recipes.dataset import PairSettings


class Rechoice:
    """Groups that `choose_group` would pick, at the cost of what has changed: for every box the one behind it that it
    overlaps most is remembered. (1,200 objects with a fault each took 9 s where all was compared every time.)

    Attributes:
        instances: the scene's, mended so far.
    """

    def __init__(self, scene: Scene, rule: PairSettings) -> None:
        self._scene, self._rule = scene, rule
        self.instances = list(scene.instances)
        count = len(self.instances)
        self._boxes_N4, self._areas_N = np.zeros((count, 4)), np.zeros(count)  # both 0: not to be chosen
        self._best_N, self._partner_N = np.zeros(count), np.zeros(count, np.int64)
        self._by_area = rule.objects == 1 or rule.rule == "largest"
        for i in range(count):
            self._enter(i)
        if not self._by_area:
            self._rank(range(count))

    def mend(self, i: int, instance: Instance) -> None:
        """Put another instance in the place of the i-th."""
        self.instances[i] = instance
        if self._scene.known_pairs is not None:
            return
        self._enter(i)
        if self._by_area:
            return
        self._rank([i, *np.flatnonzero((self._partner_N == i) & (self._best_N > 0)).tolist()])
        best, partner, values = self._best_N[:i], self._partner_N[:i], self._overlaps(i, slice(0, i))
        better = (values > best) | ((values == best) & (values > 0) & (partner > i))  # the first of equals
        best[better], partner[better] = values[better], i

    def choose(self) -> Group | Skip:
        """The group of the scene as mended; a Skip where there is none."""
        if self._scene.known_pairs is not None:  # a few
            return choose_group(replace(self._scene, instances=tuple(self.instances)), self._rule)
        if self._by_area:
            order = np.argsort(-self._areas_N, kind="stable")[: np.count_nonzero(self._areas_N)].tolist()
            few = len(order) < self._rule.objects
            return Skip("too_few_objects") if few else take_largest(order, self._boxes_N4, self._rule)
        first = int(self._best_N.argmax()) if self.instances else 0
        if not self._best_N[first] > 0:
            return Skip("no_overlap")
        return grow((first, int(self._partner_N[first])), self._boxes_N4, self._rule)

    def _enter(self, i: int) -> None:
        instance = self.instances[i]
        taken = instance.mask is not None and is_candidate(instance, self._scene, self._rule)
        self._boxes_N4[i] = instance.box if taken else 0.0
        self._areas_N[i] = instance.area if taken else 0.0

    def _rank(self, rows: Iterable[int]) -> None:
        """Look for the box behind each that overlaps it most, the first of equals."""
        for i in rows:
            values = self._overlaps(i, slice(i + 1, None))
            at = int(values.argmax()) if len(values) else 0
            self._best_N[i], self._partner_N[i] = values.max(initial=0.0), i + 1 + at

    def _overlaps(self, i: int, others: slice) -> Boxes:
        """IoU of a box with others, float [N]; 0 where the two may not be together."""
        one, rest = self._boxes_N4[i : i + 1], self._boxes_N4[others]
        values: Boxes = box_iou(one, rest)[0]
        if self._rule.contained == "drop":
            values[is_nested(one, rest)[0]] = 0
        return values
