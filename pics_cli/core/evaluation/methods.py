"""Ways to make a composite of a drawn scene: by a model as `pics infer` uses it, and the baselines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from pics_cli.core.data.pictures import RGB, decode_picture, encode_png
from pics_cli.core.evaluation.baselines import collage, poisson
from pics_cli.core.evaluation.case import Case
from pics_cli.core.geometry import clip_box, scaled
from pics_cli.core.inference.batch import Compositor
from pics_cli.core.inference.inputs import ObjectFiles, SampleFiles, part_hashes
from pics_cli.core.inference.job import Job, Progress, Report
from pics_cli.core.inference.plan import Task, composed_path
from pics_cli.core.inference.run import resolve
from pics_cli.core.model.pipeline import PicsPipeline
from pics_cli.errors import BadSample

Method = Callable[[Case], RGB]

BY_MODEL = ("parallel", "sequential")
BASELINES = ("paste", "poisson")
METHODS = (*BY_MODEL, *BASELINES)


class WithModel:
    """A model with its own settings, all others as `pics infer` has them by default.

    Scenes go through files, which `pics infer` reads and writes: what is measured is what a user gets.

    Args:
        pipeline: the model.
        seed: of the noise.
        steps: denoising steps; None: the model's.
    """

    def __init__(self, pipeline: PicsPipeline, seed: int, steps: int | None = None) -> None:
        self.pipeline, self.seed, self.steps = pipeline, seed, steps
        self.settings = resolve(self._job((), Path(), "parallel"), pipeline.config, pipeline.dtype)

    def parallel(self, case: Case) -> RGB:
        """Both objects in one pass. Raises BadSample, as `sequential` does, where `pics infer` refuses the sample."""
        return self._composite(case, "parallel")

    def sequential(self, case: Case) -> RGB:
        """One object after the other, back to front, each into the picture with those before."""
        return self._composite(case, "sequential")

    def _job(self, samples: tuple[SampleFiles, ...], output: Path, mode: str) -> Job:
        return Job(samples, output, "", seed=self.seed, mode=mode, steps=self.steps)

    def _composite(self, case: Case, mode: str) -> RGB:
        name = case.key
        with TemporaryDirectory() as folder:
            output = Path(folder, "out")
            done = composed_path(output, name, 0)
            done.parent.mkdir(parents=True)
            files = write_sample(case, Path(folder), name, self.pipeline.config.fill)
            job, report = self._job((files,), output, mode), Report()
            settings = resolve(job, self.pipeline.config, self.pipeline.dtype)
            task = Task(files, (0,), {"inputs": part_hashes(files)})
            Compositor(job, settings, self.pipeline, Progress(), report, {}).run([task])
            if report.failures:
                raise BadSample(report.failures[0].reason, report.failures[0].detail)
            return decode_picture(done.read_bytes()).rgb


def write_sample(case: Case, folder: Path, name: str, fill: float) -> SampleFiles:
    """A case as a user would give it: the picture without objects, references with alpha, regions as boxes.

    Args:
        case: what is to be composited.
        folder: for the files.
        name: of the sample.
        fill: share of a region's sides that this model's objects take, so that they come out as large as by others.
    """
    height, width = case.background.shape[:2]
    regions = [clip_box(scaled(place, 1 / fill), width, height) for place in case.places]
    background = folder / "image.png"
    background.write_bytes(encode_png(case.background))
    objects = []
    for k, (region, reference) in enumerate(zip(regions, case.references, strict=True)):
        path = folder / f"object_{k}.png"
        path.write_bytes(encode_png(reference))
        objects.append(ObjectFiles(path, None, region))
    return SampleFiles(name, background, tuple(objects))


def baseline(name: str) -> Method:
    """`paste` or `poisson`: at the objects' own places, in the order that the models are given."""
    how = {"paste": collage, "poisson": poisson}[name]
    return lambda case: how(case.background, case.places, case.references, case.order)


def method(name: str, model: WithModel | None) -> Method:
    """The method of a name of `METHODS`; those of `BY_MODEL` need one."""
    if name in BASELINES:
        return baseline(name)
    assert model is not None, f"{name} needs a model"
    return {"parallel": model.parallel, "sequential": model.sequential}[name]
