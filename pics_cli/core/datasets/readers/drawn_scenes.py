"""Reader of the built-in scene generator: nothing is read, everything is drawn from the seed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from importlib.metadata import version
from typing import Any

from pics_cli.core.datasets.readers.files import known_split
from pics_cli.core.datasets.scene import Drawn, Instance, Item, Scene, Truth
from pics_cli.core.images.image_io import encode_jpeg
from pics_cli.core.images.masks import BoxMask, box_mask
from pics_cli.core.recipes.dataset import DatasetRecipe, SynthSource
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import RenderedScene, render_scene
from pics_cli.core.scenes.drawn.shapes import CATEGORIES
from pics_cli.core.scenes.drawn.spec import ScenePlan, SceneSettings
from pics_cli.errors import BadSample, PicsError


class SynthReader:
    """Scenes by number; see `Reader` for the attributes."""

    place = None
    categories = CATEGORIES

    def __init__(self, recipe: DatasetRecipe, split: str) -> None:
        assert isinstance(recipe.source, SynthSource)
        known_split(recipe.source, split, recipe.name)
        source = recipe.source
        self._split, self._seed = source.splits[split], recipe.seed
        weights = tuple((relation, weight) for relation, weight in source.relations.items())
        view = source.view
        self._style = SceneSettings(source.size, recipe.pairs.objects, weights, view.turn, view.light, view.detail)
        self.source = {"format": "synth", "scikit-image": version("scikit-image")}  # which brings textures
        self.bad: dict[str, Any] = {"counts": {}, "lines": []}

    def __len__(self) -> int:
        return self._split.scenes

    def items(self, start: int, stop: int) -> Sequence[Item]:
        """Numbers of the scenes start to stop, from 0."""
        return range(start, min(stop, len(self)))

    def scene(self, item: Item) -> Scene:
        """The scene of that number, planned and not drawn yet."""
        try:
            plan = plan_scene(self._style, self._split.pool, self._seed, int(item))
        except PicsError as error:
            raise BadSample("no_room", error.message) from None
        canvas = _Canvas(plan)
        instances = [
            Instance(
                box=thing.box,
                area=thing.area,
                category=thing.category,
                annotation_id=i,
                mask=partial(canvas.mask, i),
                mask_source="drawn",
            )
            for i, thing in enumerate(plan.objects)
        ]
        size = self._style.size
        return Scene(f"{item:08d}", int(item), (), size, size, tuple(instances), canvas.drawn)


class _Canvas:
    """A plan, drawn once however much is asked of it."""

    def __init__(self, plan: ScenePlan) -> None:
        self._plan = plan

    @cached_property
    def _rendered(self) -> RenderedScene:
        return render_scene(self._plan)

    def mask(self, i: int) -> BoxMask:
        return box_mask(self._rendered.masks[i])

    def drawn(self) -> Drawn:
        found = self._rendered
        pairs = {pair.objects: Truth(pair.relation, pair.subject) for pair in found.pairs}
        full = tuple(box_mask(mask) for mask in found.full_masks)
        return Drawn(encode_jpeg(found.image), encode_jpeg(found.clean), full, found.alternates, found.order, pairs)
