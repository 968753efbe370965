"""Draw the sample folders that come with the package.

    python scripts/make_samples.py [--out pics_cli/samples] [--raw data/raw/rendered]

Each is a folder with the clean background, and of each object a reference with alpha and its region as a mask: what
`pics infer` takes. Most are scenes of `synth`'s held-out pool, whose shapes, textures and colours no training picture
has; a seed, the relations and an index name a scene. The references show the objects turned by up to 5 degrees and lit
from another side. One object is cut out of a photograph (docs/credits.md). The same versions of NumPy, OpenCV and
Pillow write the same bytes again. Three are path traced, of models and panoramas of the test pool; they are made where
--raw names what `scripts/fetch_models.sh` fetched, with the extra [render].
"""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pics_cli.core.images.geometry import Box
from pics_cli.core.recipes.sources import SceneRelation
from pics_cli.core.scenes.drawn.plan import plan_scene
from pics_cli.core.scenes.drawn.render import RenderedScene, render_scene
from pics_cli.core.scenes.drawn.spec import ScenePlan, SceneSettings
from sample_drawing import Bytes, cup, full_box, reference, region

SIZE = 384
QUALITY = 94
# Of the rendered scenes: paths a pixel, largest turn of a reference in degrees, seed.
PATHS, TURN, RENDERED_SEED = 48, 10, 2026


@dataclass(frozen=True)
class Scene:
    """One sample.

    Attributes:
        seed, relations, index: which scene of `synth` it is, from the held-out pool.
        objects: which of the scene's objects become object_0, object_1, …
        shows: what a picture that is right shows, and a mere paste does not.
        moved: by how many pixels all objects are moved right and down, on a ground that is alike everywhere.
        cup: the object of the scene whose place the cup of the photograph takes, as wide as that one.
    """

    seed: int
    relations: tuple[SceneRelation, ...]
    index: int
    objects: tuple[int, ...]
    shows: str
    moved: tuple[int, int] = (0, 0)
    cup: int | None = None

    def plan(self) -> ScenePlan:
        """The scene's plan."""
        weights = tuple((relation, 1.0) for relation in self.relations)
        return plan_scene(SceneSettings(SIZE, len(self.objects), weights, 5, 0.35), "held_out", self.seed, self.index)


SCENES: dict[str, Scene] = {
    "fruit_in_bowl": Scene(
        2025, ("containing",), 240, (0, 1),
        "containing: the bowl's near wall hides the foot of the fruit, its far wall is behind the fruit",
    ),
    "egg_in_cup": Scene(
        2024, ("containing",), 160, (0, 1),
        "containing: the cup's lip closes around the egg, of which only the upper half is seen",
    ),
    "jug_on_table": Scene(
        2024, ("supporting",), 269, (0, 1),
        "supporting: the table's box reaches lower, yet the jug stands in front of it and shades its top",
    ),
    "cup_on_stool": Scene(
        2027, ("supporting",), 3676, (0, 1),
        "supporting: the cup is in front of the stool and stands on its seat, with a shadow under it",
    ),
    "egg_before_cup": Scene(
        2024, ("occluding",), 1939, (0, 1),
        "occluding: the egg is nearer than the cup, and each has a shadow of its own on the tiles",
    ),
    "bowl_and_egg": Scene(
        2024, ("touching",), 533, (0, 1),
        "touching: bowl and egg stand side by side, each with a shadow under it",
    ),
    "espresso_and_lemon": Scene(
        2027, ("touching", "occluding"), 461, (0, 1),
        "touching: a photographed cup with its saucer and a drawn lemon, grounded under one light",
        moved=(54, -24),
        cup=0,
    ),
    "bowl_on_table_egg_behind": Scene(
        2024, ("supporting", "occluding"), 782, (0, 1, 2),
        "supporting and occluding: the bowl before the table that carries it, and the egg behind both",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class ModelScene:
    """A sample of 3D models.

    Attributes:
        relation, index: which scene of the rendered test pool it is.
        objects: see `Scene`.
        shows: what a picture that is right shows.
    """

    relation: SceneRelation
    index: int
    shows: str
    objects: tuple[int, ...] = (0, 1)


RENDERED: dict[str, ModelScene] = {
    "milk_on_clothes": ModelScene(
        "supporting", 3, "supporting: the carton stands on the pile of clothes, in the low light around them"
    ),
    "chair_before_car": ModelScene(
        "occluding", 8, "occluding: the toy car is seen between the legs of the chair; soft light, faint shadows"
    ),
    "laptop_on_cabinet": ModelScene(
        "supporting", 5, "supporting: the laptop stands on the cabinet's top, both darkened to the dusk around them"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """A sample before it is written.

    Attributes:
        background: uint8 RGB [H, W, 3].
        references: uint8 RGBA [h, w, 4], one of each object.
        regions: where each may be painted.
        drawn: the scene as `synth` draws it, with its objects.
    """

    background: Bytes
    references: tuple[Bytes, ...]
    regions: tuple[Box, ...]
    drawn: RenderedScene


def make(scene: Scene) -> Sample:
    """Draw one sample."""
    plan = scene.plan()
    drawn = render_scene(plan)
    references, regions = [], []
    for k in scene.objects:
        x0, y0, x1, y1 = full_box(drawn.full_masks[k])
        if k == scene.cup:
            picture = cup()
            y0 = y1 - round((x1 - x0) * picture.shape[0] / picture.shape[1])
        else:
            picture = reference(plan, k)
        references.append(picture)
        right, down = scene.moved
        regions.append(region((x0 + right, y0 + down, x1 + right, y1 + down), SIZE, SIZE))
    return Sample(drawn.clean, tuple(references), tuple(regions), drawn)


def make_rendered(scene: ModelScene, raw: Path) -> Sample:
    """Render one sample; what it needs is loaded here, since most samples need none of it."""
    from pics_cli.core.runtime.bad_samples import BadRecords
    from pics_cli.core.scenes.rendered.material import open_material
    from pics_cli.core.scenes.rendered.plan import plan_scene as plan_models
    from pics_cli.core.scenes.rendered.render import render_scene as render_models

    material = open_material(raw / "models", raw / "hdris", raw / "grounds", "test", BadRecords())
    settings = SceneSettings(SIZE, 2, ((scene.relation, 1.0),), TURN, 1.0)
    drawn = render_models(plan_models(settings, material, "test", PATHS, RENDERED_SEED, scene.index))
    references, regions = [], []
    for k in scene.objects:
        x, y, width, height = cv2.boundingRect(drawn.alternates[k][..., 3])
        # A clear frame around it, as references of the drawn samples have.
        inside = drawn.alternates[k][y : y + height, x : x + width]
        framed = np.pad(inside, ((2, 2), (2, 2), (0, 0)), constant_values=255)
        framed[..., 3] = np.pad(inside[..., 3], 2)
        references.append(framed)
        regions.append(region(full_box(drawn.full_masks[k]), SIZE, SIZE))
    return Sample(drawn.clean, tuple(references), tuple(regions), drawn)


def write(sample: Sample, folder: Path) -> None:
    """Write one sample's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    height, width = sample.background.shape[:2]
    picture = Image.fromarray(sample.background)
    (folder / "image.jpg").write_bytes(_encoded(picture, "JPEG", quality=QUALITY, subsampling=0))
    for k, (rgba, box) in enumerate(zip(sample.references, sample.regions, strict=True)):
        mask = np.zeros((height, width), np.uint8)
        cv2.rectangle(mask, box[:2], (box[2] - 1, box[3] - 1), 255, cv2.FILLED)
        (folder / f"object_{k}.png").write_bytes(_encoded(Image.fromarray(rgba), "PNG", optimize=True))
        bits = Image.fromarray(mask).convert("1", dither=Image.Dither.NONE)
        (folder / f"object_{k}_mask.png").write_bytes(_encoded(bits, "PNG", optimize=True))


def _encoded(picture: Image.Image, kind: str, **options: int | bool) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def main() -> None:
    """Write all samples, or those named."""
    parser = argparse.ArgumentParser(description="Draw the sample folders that come with the package.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "pics_cli" / "samples")
    parser.add_argument("--only", nargs="+", choices=[*SCENES, *RENDERED], metavar="NAME")
    parser.add_argument(
        "--raw", type=Path, metavar="DIR", help="raw material of recipe rendered, for the rendered ones"
    )
    arguments = parser.parse_args()
    for name in arguments.only or [*SCENES, *(RENDERED if arguments.raw else ())]:
        if name in RENDERED and arguments.raw is None:
            parser.error(f"{name} is rendered: name its raw material with --raw (scripts/fetch_models.sh gets it)")
        sample = make(SCENES[name]) if name in SCENES else make_rendered(RENDERED[name], arguments.raw)
        write(sample, arguments.out / name)
        print(f"{name}: {(SCENES.get(name) or RENDERED[name]).shows}")


if __name__ == "__main__":
    main()
