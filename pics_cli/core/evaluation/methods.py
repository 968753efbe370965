"""Every method of an evaluation by name, and what its pictures are made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pics_cli.core.evaluation.baselines import collage, poisson
from pics_cli.core.evaluation.examples import Case
from pics_cli.core.evaluation.job import Job, Peer
from pics_cli.core.images.geometry import clip_box, scale_box
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
from pics_cli.core.runtime.files import file_sha256
from pics_cli.errors import BadSample


@dataclass(frozen=True)
class Maker:
    """A method.

    Attributes:
        make: a case to its picture, with the noise of a seed.
        seeds: how many pictures it makes of a case: one where there is no noise in it.
        by_model: whether a model makes them.
        sha256: of the file of a sample, where they are somebody's files.
    """

    make: Callable[[Case, int], RGB]
    seeds: int = 1
    by_model: bool = False
    sha256: Callable[[str], str | None] | None = None


def model_folders(job: Job) -> dict[str, Path]:
    """Folders of the models that the methods need, by label.

    Raises:
        PicsError: one is not there.
    """
    if not set(job.recipe.methods) & set(BY_MODEL):
        return {}
    return {
        label: bundled_model() if is_bundled(name) else snapshot(name, "--model", DOWNLOAD_PATTERNS)
        for label, name in job.models.items()
    }


def model_records(job: Job, folders: Mapping[str, Path], device: str | None) -> list[dict[str, Any]]:
    """What is to be known of the models, for the results; `device`: of this process."""
    found = []
    for label, folder in folders.items():
        config = ModelConfig.load(folder)
        place = choose_device(job.device, device)
        found.append(
            {
                "label": label,
                "name": job.models[label],
                "fingerprint": model_fingerprint(folder),
                "recipe_hash": config.recipe_hash,
                "trained_steps": config.trained_steps,
                "image_size": config.image_size,
                "device": place.type,
                "dtype": str(choose_dtype(job.dtype, place, config.full_size)).removeprefix("torch."),
            }
        )
    return found


def makers(job: Job, folders: Mapping[str, Path], device: str | None) -> tuple[dict[str, Maker], dict[str, Any]]:
    """Methods by name, in the recipe's order, then those of others; and how the models compute.

    Args:
        job: whose.
        folders: of the models, by label.
        device: of this process; None: as the job says.
    """
    from pics_cli.core.model.pics_model import PicsModel

    recipe, found, settings = job.recipe, dict[str, Maker](), dict[str, Any]()
    for label, folder in folders.items():
        place = choose_device(job.device, device)
        dtype = choose_dtype(job.dtype, place, ModelConfig.load(folder).full_size)
        pipeline = PicsModel.from_pretrained(folder, dtype=dtype, device=place)
        with_model = [WithModel(pipeline, recipe.seed + k, recipe.steps) for k in range(recipe.seeds)]
        settings[label] = {**asdict(with_model[0].settings), "device": place.type}
        for name in recipe.methods:
            if name in BY_MODEL:
                found[method_name(label, name)] = Maker(_by_model(with_model, name), recipe.seeds, True)
    for name in recipe.methods:
        if name in BASELINES:
            found[name] = Maker(_by_baseline(name))
    for peer in job.peers:
        found[peer.name] = Maker(_of_peer(peer), sha256=partial(peer_sha256, peer))
    return found, settings


def method_name(label: str, name: str) -> str:
    """`parallel` of the first model, `LABEL:parallel` of the others."""
    return f"{label}:{name}" if label else name


def _by_model(with_model: list[WithModel], name: str) -> Callable[[Case, int], RGB]:
    def make(case: Case, seed: int) -> RGB:
        one = with_model[seed]
        return one.parallel(case) if name == "parallel" else one.sequential(case)

    return make


def _by_baseline(name: str) -> Callable[[Case, int], RGB]:
    method = baseline(name)
    return lambda case, _seed: method(case)


def _of_peer(peer: Peer) -> Callable[[Case, int], RGB]:
    def make(case: Case, _seed: int) -> RGB:
        path = peer_file(peer, case.key)
        if path is None:
            raise BadSample("no_picture", f"{peer.folder}: no {case.key}.png")
        rgb = decode_image(path.read_bytes()).rgb
        if rgb.shape != case.truth.shape:
            sizes = ["x".join(str(side) for side in each.shape[1::-1]) for each in (rgb, case.truth)]
            raise BadSample("other_size", f"{path}: {sizes[0]}, the truth is {sizes[1]}")
        return rgb

    return make


def peer_file(peer: Peer, key: str) -> Path | None:
    """The picture that somebody made of a sample, called after it or as `pics infer` calls it; None: there is none."""
    return peer.files.get(key)


def peer_sha256(peer: Peer, key: str) -> str | None:
    """Of that picture."""
    path = peer_file(peer, key)
    return None if path is None else file_sha256(path)


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

    def __init__(self, pipeline: PicsModel, seed: int, steps: int | None = None) -> None:
        self.pipeline, self.seed, self.steps = pipeline, seed, steps
        self.settings = resolve(self._job((), Path(), "parallel"), pipeline.config, pipeline.dtype)

    def parallel(self, case: Case) -> RGB:
        """Both objects in one pass. Raises BadSample, as `sequential` does, where `pics infer` refuses the sample."""
        return self._composite(case, "parallel")

    def sequential(self, case: Case) -> RGB:
        """One object after the other, back to front, each into the picture with those before."""
        return self._composite(case, "sequential")

    def _job(self, samples: tuple[SampleFiles, ...], output: Path, mode: str) -> InferJob:
        return InferJob(samples, output, "", seed=self.seed, mode=mode, steps=self.steps)

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
            return decode_image(done.read_bytes()).rgb


def write_sample(case: Case, folder: Path, name: str, fill: float) -> SampleFiles:
    """A case as a user would give it: the picture without objects, references with alpha, regions as boxes.

    Args:
        case: what is to be composited.
        folder: for the files.
        name: of the sample.
        fill: share of a region's sides that this model's objects take, so that they come out as large as by others.
    """
    height, width = case.background.shape[:2]
    regions = [clip_box(scale_box(place, 1 / fill), width, height) for place in case.places]
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
