"""Methods by name: how each makes its picture of an example.

A new baseline is a function of a background, boxes, references and order with a line in `BASELINES`, and its name in
the recipe's `Method`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pics_cli.core.evaluation.baselines import blend_poisson, paste_references
from pics_cli.core.evaluation.examples import Example, Reference
from pics_cli.core.evaluation.external_results import ExternalResults
from pics_cli.core.images.geometry import Box, clip_box, scale_box
from pics_cli.core.images.image_io import RGB, decode_image, encode_png
from pics_cli.core.inference.batch import Compositor
from pics_cli.core.inference.inputs import ObjectFiles, SampleFiles, part_hashes
from pics_cli.core.inference.job import Job as InferJob
from pics_cli.core.inference.job import Progress, Report
from pics_cli.core.inference.plan import Task, composed_path
from pics_cli.core.inference.record import model_fingerprint
from pics_cli.core.inference.run import resolve
from pics_cli.core.model.bundled import bundled_model, is_bundled
from pics_cli.core.model.config import DOWNLOAD_PATTERNS, ModelConfig
from pics_cli.core.model.devices import choose_device, choose_dtype
from pics_cli.core.model.hub import snapshot
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.evaluation import EvaluationRecipe
from pics_cli.errors import BadSample

Baseline = Callable[[RGB, Sequence[Box], Sequence[Reference], Sequence[int]], RGB]

MODEL_METHODS = ("parallel", "sequential")
BASELINES: dict[str, Baseline] = {"paste": paste_references, "poisson": blend_poisson}


@dataclass(frozen=True)
class Method:
    """How pictures of examples are made.

    Attributes:
        composite: an example to its picture, uint8 [H, W, 3], with the noise of a seed; raises BadSample.
        seeds: how many pictures it makes of an example: one where there is no noise in it.
        by_model: whether a model makes them.
        file_sha256: of the file of an example by its key, None where there is none, if the pictures are external files.
    """

    composite: Callable[[Example, int], RGB]
    seeds: int = 1
    by_model: bool = False
    file_sha256: Callable[[str], str | None] | None = None


@dataclass(frozen=True)
class ModelFolder:
    """A model to be evaluated.

    Attributes:
        label: prefix of its methods' names; empty for the first.
        name: as the user gave it: folder, repository, or name of the bundled one.
        folder: where its files are.
    """

    label: str
    name: str
    folder: Path

    @cached_property
    def config(self) -> ModelConfig:
        """Its `pics.json`."""
        return ModelConfig.load(self.folder)


@dataclass(frozen=True)
class ModelRecord:
    """What results say of a model; keys as in `results.json`."""

    label: str
    name: str
    fingerprint: str
    recipe_hash: str | None
    trained_steps: int
    image_size: int
    device: str
    dtype: str


def find_models(recipe: EvaluationRecipe, names: Mapping[str, str]) -> list[ModelFolder]:
    """The models that the recipe's methods need, of those named (by label); none where no method needs one.

    Raises:
        PicsError: one does not exist.
    """
    if not set(recipe.methods) & set(MODEL_METHODS):
        return []
    return [
        ModelFolder(label, name, bundled_model() if is_bundled(name) else snapshot(name, "--model", DOWNLOAD_PATTERNS))
        for label, name in names.items()
    ]


def describe_model(model: ModelFolder, device_name: str, dtype_name: str, rank_device: str | None) -> ModelRecord:
    """What results say of a model; devices and dtype as `open_methods` takes them."""
    device, config = choose_device(device_name, rank_device), model.config
    return ModelRecord(
        label=model.label,
        name=model.name,
        fingerprint=model_fingerprint(model.folder),
        recipe_hash=config.recipe_hash,
        trained_steps=config.trained_steps,
        image_size=config.image_size,
        device=device.type,
        dtype=str(choose_dtype(dtype_name, device, config.full_size)).removeprefix("torch."),
    )


def open_methods(
    recipe: EvaluationRecipe,
    models: Sequence[ModelFolder],
    external: Sequence[ExternalResults],
    device_name: str,
    dtype_name: str,
    rank_device: str | None,
) -> tuple[dict[str, Method], dict[str, dict[str, Any]]]:
    """Methods by name, those of models first, then baselines, then external results; and models' settings by label.

    Methods of the first model are called `parallel` and `sequential`, those of others `LABEL:parallel`.

    Args:
        recipe: its methods, seeds and steps.
        models: see `find_models`.
        external: pictures of other methods.
        device_name, dtype_name: as on the command line.
        rank_device: of this process; None: as `device_name` says.
    """
    methods, settings = dict[str, Method](), dict[str, dict[str, Any]]()
    for model in models:
        device = choose_device(device_name, rank_device)
        dtype = choose_dtype(dtype_name, device, model.config.full_size)
        network = PicsModel.from_pretrained(model.folder, dtype=dtype, device=device)
        by_seed = [ModelCompositor(network, recipe.seed + k, recipe.steps) for k in range(recipe.seeds)]
        settings[model.label] = {**asdict(by_seed[0].settings), "device": device.type}
        for mode in recipe.methods:
            if mode in MODEL_METHODS:
                name = f"{model.label}:{mode}" if model.label else mode
                methods[name] = Method(partial(_composite_by_model, by_seed, mode), recipe.seeds, by_model=True)
    for name in recipe.methods:
        if name in BASELINES:
            methods[name] = Method(partial(composite_by_baseline, name))
    for results in external:
        methods[results.name] = Method(results.read, file_sha256=results.sha256)
    return methods, settings


def composite_by_baseline(name: str, example: Example, _seed: int = 0) -> RGB:
    """The picture of a baseline of that name: objects in their own boxes, in the order that models are given."""
    return BASELINES[name](example.background, example.paste_boxes, example.references, example.order)


def _composite_by_model(by_seed: Sequence[ModelCompositor], mode: str, example: Example, seed: int) -> RGB:
    return by_seed[seed].composite(example, mode)


class ModelCompositor:
    """A model with its own settings, all others as `pics infer` has them by default.

    Examples go through files, which `pics infer` reads and writes: what is measured is what a user gets.

    Args:
        model: the network.
        seed: of the noise.
        steps: denoising steps; None: the model's.
    """

    def __init__(self, model: PicsModel, seed: int, steps: int | None = None) -> None:
        self.model, self.seed, self.steps = model, seed, steps
        self.settings = resolve(self._job((), Path(), "parallel"), model.config, model.dtype)

    def _job(self, samples: tuple[SampleFiles, ...], output: Path, mode: str) -> InferJob:
        return InferJob(samples, output, "", seed=self.seed, mode=mode, steps=self.steps)

    def composite(self, example: Example, mode: str) -> RGB:
        """The picture of an example.

        Args:
            example: what is to be composited.
            mode: `parallel`: all objects in one pass; `sequential`: one after the other, back to front, each into the
                picture with those before.

        Raises:
            BadSample: `pics infer` refuses the sample.
        """
        name = example.key
        with TemporaryDirectory() as folder:
            output = Path(folder, "out")
            done = composed_path(output, name, 0)
            done.parent.mkdir(parents=True)
            files = write_sample(example, Path(folder), name, self.model.config.fill)
            job, report = self._job((files,), output, mode), Report()
            settings = resolve(job, self.model.config, self.model.dtype)
            task = Task(files, (0,), {"inputs": part_hashes(files)})
            Compositor(job, settings, self.model, Progress(), report, {}).run([task])
            if report.failures:
                raise BadSample(report.failures[0].reason, report.failures[0].detail)
            return decode_image(done.read_bytes()).rgb


def write_sample(example: Example, folder: Path, name: str, object_scale: float) -> SampleFiles:
    """An example as a user would give it: the picture without objects, references with alpha, regions as boxes.

    Args:
        example: what is to be composited.
        folder: for the files.
        name: of the sample.
        object_scale: share of a region's sides that this model's objects take, so that they are as large as by others.
    """
    height, width = example.background.shape[:2]
    regions = [clip_box(scale_box(box, 1 / object_scale), width, height) for box in example.paste_boxes]
    background = folder / "image.png"
    background.write_bytes(encode_png(example.background))
    objects = []
    for k, (region, reference) in enumerate(zip(regions, example.references, strict=True)):
        path = folder / f"object_{k}.png"
        path.write_bytes(encode_png(reference))
        objects.append(ObjectFiles(path, None, region))
    return SampleFiles(name, background, tuple(objects))
