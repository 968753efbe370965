"""Reader of the built-in scene generator: nothing is read, everything is drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

from pics_cli.core.datasets.readers.base import Reader
from pics_cli.core.datasets.readers.split_files import check_split
from pics_cli.core.datasets.scene import DrawnImage, Instance, ItemId, PairRelation, Scene
from pics_cli.core.images.image_io import encode_jpeg
from pics_cli.core.images.lighting import Lighting
from pics_cli.core.images.masks import BoxMask, box_mask
from pics_cli.core.recipes.dataset import DatasetRecipe
from pics_cli.core.recipes.sources import SynthSource
from pics_cli.core.runtime.bad_samples import BadRecords
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import RenderedScene, render_scene
from pics_cli.core.scenes.drawn.shapes import CATEGORIES
from pics_cli.core.scenes.drawn.spec import SceneSettings
from pics_cli.errors import BadSample, PicsError


class DrawnSceneReader(Reader):
    """Scenes by number; see `Reader` for the attributes."""

    annotations = None
    categories = CATEGORIES

    def __init__(self, recipe: DatasetRecipe, split: str) -> None:
        source = recipe.source
        assert isinstance(source, SynthSource)
        check_split(source, split, recipe.name)
        self._split, self._seed = source.splits[split], recipe.seed
        weights, view = tuple(source.relations.items()), source.view
        self._settings = SceneSettings(source.size, recipe.pairs.objects, weights, view.turn, view.light, view.detail)
        self.source = {"format": "synth"}
        self.bad_records = BadRecords()

    def __len__(self) -> int:
        return self._split.scenes

    def scene(self, item_id: ItemId) -> Scene:
        """The scene of that number, planned and not drawn yet."""
        try:
            plan = plan_scene(self._settings, self._split.pool, self._seed, int(item_id))
        except PicsError as error:
            raise BadSample("no_room", error.message) from None
        canvas = SceneCanvas(partial(render_scene, plan), plan.lighting)
        instances = [
            Instance(
                box=planned.box,
                area=planned.area,
                category=planned.category,
                annotation_id=i,
                mask=partial(canvas.mask, i),
                mask_source="drawn",
            )
            for i, planned in enumerate(plan.objects)
        ]
        size = self._settings.size
        return Scene(f"{item_id:08d}", int(item_id), (), size, size, tuple(instances), canvas.draw)


class SceneCanvas:
    """A scene that is rendered once however often it is asked for.

    Args:
        render: renders it.
        lighting: its lamp, and the camera's angle.
    """

    def __init__(self, render: Callable[[], RenderedScene], lighting: Lighting) -> None:
        self._render, self._lighting = render, lighting

    @cached_property
    def _rendered(self) -> RenderedScene:
        return self._render()

    def mask(self, i: int) -> BoxMask:
        """The visible part of an object."""
        return box_mask(self._rendered.masks[i])

    def draw(self) -> DrawnImage:
        """The picture with its ground truth."""
        scene = self._rendered
        image, clean = encode_jpeg(scene.image), encode_jpeg(scene.clean)
        pairs = {pair.objects: PairRelation(pair.relation, pair.subject) for pair in scene.pairs}
        full = tuple(box_mask(mask) for mask in scene.full_masks)
        return DrawnImage(image, clean, full, scene.alternates, scene.order, pairs, self._lighting)
