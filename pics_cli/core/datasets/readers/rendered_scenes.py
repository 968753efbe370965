"""Reader of path-traced scenes: models, panoramas and photographs are read, everything else is drawn from the seed."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from dataclasses import asdict
from functools import partial
from importlib.metadata import version

from pics_cli.core.datasets.readers.base import DatasetSplit, Reader
from pics_cli.core.datasets.readers.drawn_scenes import SceneCanvas
from pics_cli.core.datasets.readers.split_files import check_split
from pics_cli.core.datasets.scene import Instance, ItemId, Scene
from pics_cli.core.images.lighting import Lighting
from pics_cli.core.recipes.sources import RenderedSource
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.core.scenes.drawn.render import RenderedScene
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.core.scenes.rendered.material import open_material
from pics_cli.core.scenes.rendered.plan import plan_scene
from pics_cli.core.scenes.rendered.render import render_scene
from pics_cli.core.scenes.rendered.spec import RenderedPlan
from pics_cli.errors import FAILED, BadSample, PicsError

# Scenes are planned twice, when groups are chosen and when they are rendered, often by the same process.
_KEPT_PLANS = 512


class RenderedSceneReader(Reader):
    """Scenes by number; see `Reader` for the attributes.

    Raises:
        PicsError: a folder of the raw material is missing, or holds nothing that can be used.
    """

    annotations = None
    categories = ()

    def __init__(self, dataset: DatasetSplit) -> None:
        recipe, source = dataset.recipe, dataset.recipe.source
        assert isinstance(source, RenderedSource)
        check_split(source, dataset.split, recipe.name)
        if dataset.raw is None:
            raise PicsError(f"{recipe.name}: no raw folder named", "name the folder around models with --raw DIR")
        self._split, self._seed, self._samples = source.splits[dataset.split], recipe.seed, source.samples
        weights = tuple(source.relations.items())
        self._settings = SceneSettings(source.size, recipe.pairs.objects, weights, source.view.turn, source.view.light)
        self.bad_records = BadRecords()
        models, hdris, grounds = (dataset.raw / name for name in (source.models, source.hdris, source.grounds))
        self._material = open_material(models, hdris, grounds, self._split.pool, self.bad_records)
        names = [model.entry.name for model in self._material.models]
        names += [path.name for path in (*self._material.hdris, *self._material.grounds)]
        self.source = {
            "format": "rendered", "models": len(self._material.models), "hdris": len(self._material.hdris),
            "grounds": len(self._material.grounds), "listing": hashlib.sha256("\n".join(names).encode()).hexdigest(),
            **{name: version(name) for name in ("mitsuba", "pyoidn", "trimesh")},
        }  # fmt: skip
        self._plans: OrderedDict[int, RenderedPlan] = OrderedDict()

    def __len__(self) -> int:
        return self._split.scenes

    def scene(self, item_id: ItemId) -> Scene:
        """The scene of that number, planned and not rendered yet."""
        plan = self._plan(int(item_id))
        lighting = Lighting(**asdict(plan.lighting.lamp), pitch=math.degrees(plan.camera.pitch))
        canvas = SceneCanvas(partial(_render, plan), lighting)
        instances = [
            Instance(
                box=plan.boxes[i],
                area=plan.areas[i],
                category=placed.entry.category,
                annotation_id=i,
                mask=partial(canvas.mask, i),
                mask_source="rendered",
            )
            for i, placed in enumerate(plan.objects)
        ]
        size = self._settings.size
        return Scene(f"{item_id:08d}", int(item_id), (), size, size, tuple(instances), canvas.draw)

    def _plan(self, number: int) -> RenderedPlan:
        if number not in self._plans:
            try:
                plan = plan_scene(self._settings, self._material, self._split.pool, self._samples, self._seed, number)
            except PicsError as error:
                if error.exit_code != FAILED:
                    raise
                raise BadSample("no_room", error.message) from None
            self._plans[number] = plan
            if len(self._plans) > _KEPT_PLANS:
                self._plans.popitem(last=False)
        return self._plans[number]


def _render(plan: RenderedPlan) -> RenderedScene:
    try:
        return render_scene(plan)
    except ValueError as error:
        raise BadSample("bad_material", str(error)) from None
