"""What is asked for, which pictures are missing, and what stands in the way; settled before any work."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pics_cli.core.images.output_formats import SUFFIXES, OutputFormat
from pics_cli.core.inference.cutout import Cutout
from pics_cli.core.inference.inputs import SampleFiles, check_files, list_sample, part_hashes, read_parts
from pics_cli.core.inference.layer_files import MANIFEST as LAYERS_MANIFEST
from pics_cli.core.inference.layer_files import layer_paths
from pics_cli.core.inference.mask_region import RegionRule
from pics_cli.core.inference.pick import BEST, Judge, pick_path, read_pick
from pics_cli.core.inference.record import (
    MANIFEST,
    Damaged,
    Foreign,
    changes,
    composed_name,
    input_record,
    read_record,
)
from pics_cli.core.inference.sample import CompositeOptions, Order
from pics_cli.core.model.adapters import AdapterChoice
from pics_cli.core.runtime.files import load_json, open_file
from pics_cli.core.runtime.outputs import NamedPath, refuse_other_picture, refuse_overwriting
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.runtime.resumable import ResumableFolder
from pics_cli.core.runtime.storage import file_names, is_remote
from pics_cli.errors import BadSample, PicsError, read_error

# Bytes of a picture's name: file systems allow 255, and a temporary name is longer.
_MAX_NAME_BYTES = 235
_MAX_RECORD_BYTES = 1 << 20
# Sheets that explain a result.
EXPLANATIONS = ("regions", "alpha", "routing")


@dataclass(frozen=True)
class InferenceJob:
    """Samples to be composited into one folder.

    Attributes:
        samples: sample folders, or a sample given file by file.
        output: folder of the results.
        model: folder, hub repository, or name of the bundled model.
        adapters: added to its weights.
        objects: take the first so many objects of each folder; None: all.
        order: of the objects of every sample; see `CompositeSample`.
        cutout: how references without alpha are cut out; see `ReferenceCutter`.
        region: what of a mask is the region; see `find_region`.
        num: candidates of each sample.
        format: that the pictures are written in.
        pick: ranks the candidates of each sample, of which there are several; None: nobody does.
        overwrite: make pictures again that exist.
        grid, explain: write the sheets of these names beside the pictures.
        layers: write each picture's layers beside it.
        sheet: a PNG of all samples with their first results; None: not asked for.
    """

    samples: tuple[Path | SampleFiles, ...]
    output: Path
    model: str
    options: CompositeOptions = field(default_factory=CompositeOptions)
    objects: int | None = None
    order: Order | None = None
    cutout: Cutout = "auto"
    region: RegionRule = "box"
    adapters: tuple[AdapterChoice, ...] = ()
    num: int = 1
    batch_size: int = 1
    device: str = "auto"
    dtype: str = "auto"
    memory: str = "auto"
    compile: bool = False
    format: OutputFormat = "png"
    pick: Judge | None = None
    overwrite: bool = False
    grid: bool = False
    explain: bool = False
    layers: bool = False
    sheet: Path | None = None

    @property
    def folder(self) -> ResumableFolder:
        """The output folder, which later runs complete."""
        return ResumableFolder(self.output, "--output", "made", "redo its pictures with --overwrite")


class FailedSample(NamedTuple):
    """A sample that could not be composited: its id, one word for counting, what is wrong with it."""

    id: str
    reason: str
    detail: str


class Task(NamedTuple):
    """A sample with something left to do.

    Attributes:
        files: of the sample.
        candidates: those to be made; none: only its grid is missing, or which of them is best.
        hashes: sha256 of its files, by part, where finished candidates were compared with them; they must not have
            changed when the others are made. None: not read yet.
    """

    files: SampleFiles
    candidates: tuple[int, ...]
    hashes: dict[str, str] | None


@dataclass
class InferencePlan:
    """What is left to do, and what the inputs and the output folder hold already.

    Attributes:
        finished: pictures of earlier runs that would be the same now.
        clashes: pictures that exist and would not, one line each.
        damaged: files named as pictures that are no whole PNGs, one line each; they are replaced.
        unexplained: finished samples without the pictures that `--explain` asks for.
        unlayered: finished pictures without the layers that `--layers` asks for; they are made again.
    """

    tasks: list[Task] = field(default_factory=list)
    failures: list[FailedSample] = field(default_factory=list)
    finished: int = 0
    clashes: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unexplained: int = 0
    unlayered: int = 0

    def add(self, other: InferencePlan) -> None:
        """Take in another process's share."""
        self.tasks += other.tasks
        self.failures += other.failures
        self.finished += other.finished
        self.clashes += other.clashes
        self.damaged += other.damaged
        self.unexplained += other.unexplained
        self.unlayered += other.unlayered


def make_plan(job: InferenceJob, common: Mapping[str, Any], ranks: Ranks) -> InferencePlan:
    """Check all samples, in every process its share, and give every process the whole plan.

    Args:
        job: what is asked for.
        common: what every record holds: model, seed, settings.
        ranks: the processes.

    Raises:
        PicsError: two pictures of one name; pictures in the folder that were made otherwise; an output that is an
            input.
    """
    _check_names(job)
    _check_outputs(job)
    plan = InferencePlan()
    for share in ranks.run_on_all(lambda: _plan_share(job, common, job.samples[ranks.rank :: ranks.size])):
        plan.add(share)
    job.folder.refuse(plan.clashes)
    plan.tasks.sort(key=lambda task: (len(task.files.objects), len(task.candidates), task.files.id))
    plan.failures.sort()
    return plan


def sample_id(sample: Path | SampleFiles) -> str:
    """Name of a sample."""
    return sample.id if isinstance(sample, SampleFiles) else sample.name


def _check_names(job: InferenceJob) -> None:
    """Refuse samples of which two would write a picture of one name."""
    samples: dict[str, str] = {}
    for sample in map(sample_id, job.samples):
        for candidate in range(job.num):
            name = composed_name(sample, candidate)
            if (other := samples.setdefault(name, sample)) != sample:
                raise PicsError(
                    f"samples {other} and {sample} would both write {name}",
                    "rename one of them, or composite them into different folders (--output)",
                )


def _check_outputs(job: InferenceJob) -> None:
    """Refuse an output folder that is a sample, or holds another's manifest, and a sheet among the pictures."""
    folders = [("the sample", sample) for sample in job.samples if isinstance(sample, Path)]
    refuse_overwriting([("--output", job.output)], folders)
    if job.sheet is not None:
        own = [("the results", job.output / name) for name in ("composed", "grids", "explain", "layers", BEST)]
        refuse_overwriting([("--sheet", job.sheet)], [], own)
    if not _is_own_manifest(job.output / MANIFEST):
        job.folder.resumes(None, {}, f"a {MANIFEST} that pics infer did not write")


def _is_own_manifest(path: Path) -> bool:
    """Whether a manifest is as `write_manifest` writes it, or not there.

    Raises:
        PicsError: it cannot be read, so that nobody knows whose it is.
    """
    try:
        with open_file(path) as file:
            first = file.readline(_MAX_RECORD_BYTES)
            record = load_json(first) if first else {"candidate": 0}  # no picture has been made yet
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise read_error(path, error, "choose another --output, or move it away") from None
    except ValueError:
        return False
    return isinstance(record, dict) and "candidate" in record


def _written_files(job: InferenceJob) -> Iterator[NamedPath]:
    """Files that are there and that the run would replace: what is not there is no input either."""
    if job.sheet is not None:
        yield "--sheet", job.sheet
    remote = is_remote(job.output)  # whose files have no second name: they are inputs if they are called so
    if not remote and not job.output.exists():
        return
    for sample in map(sample_id, job.samples):
        paths = [composed_path(job.output, sample, candidate, job.format) for candidate in range(job.num)]
        others = [other for path in paths for other in other_formats(path)]
        for candidate in range(job.num) if job.layers and not remote else ():
            others += layer_paths(layers_path(job.output, sample, candidate))
        for path in (*paths, *others, grid_path(job.output, sample), *explain_paths(job.output, sample)):
            if remote or path.exists():
                yield "--output", path


def _plan_share(job: InferenceJob, common: Mapping[str, Any], samples: Sequence[Path | SampleFiles]) -> InferencePlan:
    plan, exists = InferencePlan(), _look_up(job.output / "composed")
    inputs = list[NamedPath]()
    for sample in samples:
        try:
            if len(os.fsencode(composed_name(sample_id(sample), job.num, job.format))) > _MAX_NAME_BYTES:
                raise BadSample(
                    "long_name", f"its pictures' names would be longer than {_MAX_NAME_BYTES} bytes; rename it"
                )
            files = sample if isinstance(sample, SampleFiles) else list_sample(sample, job.objects)
            inputs += files.parts().items()
            existing = {} if job.overwrite else _existing_records(job, files.id, plan, exists)
            check_files(files)
            # Inputs are read now only to compare them with those of finished pictures; others when it is their turn.
            hashes = part_hashes(read_parts(files)) if existing else None
        except BadSample as error:
            plan.failures.append(FailedSample(sample_id(sample), error.reason, error.detail))
            continue
        for candidate, record in existing.items():
            wanted = {**input_record(files, hashes or {}), **common, "candidate": candidate}
            if lines := changes(record, wanted):
                plan.clashes.append(f"{composed_path(job.output, files.id, candidate, job.format)}: {'; '.join(lines)}")
        if job.layers:
            done = {n for n in existing if (layers_path(job.output, files.id, n) / LAYERS_MANIFEST).is_file()}
            plan.unlayered += len(existing) - len(done)
            existing = {n: record for n, record in existing.items() if n in done}
        missing = tuple(candidate for candidate in range(job.num) if candidate not in existing)
        plan.finished += len(existing)
        if job.explain and not missing and not explain_path(job.output, files.id, "regions").exists():
            plan.unexplained += 1
        if missing or needs_grid(job, files.id) or needs_pick(job, files.id):
            plan.tasks.append(Task(files, missing, hashes))
    refuse_overwriting(_written_files(job), inputs)
    if job.sheet is not None:
        refuse_other_picture("--sheet", job.sheet)
    return plan


def _look_up(folder: Path) -> Callable[[Path], bool]:
    """Tells whether a file of the folder exists. A store is asked once for all of them."""
    if not is_remote(folder):
        return Path.exists
    names = file_names(folder)
    return lambda path: path.name in names


def _existing_records(
    job: InferenceJob, sample: str, plan: InferencePlan, exists: Callable[[Path], bool]
) -> dict[int, dict[str, Any]]:
    """Records of a sample's finished candidates, by number; other files of their names are noted in the plan."""
    records = {}
    for candidate in range(job.num):
        path = composed_path(job.output, sample, candidate, job.format)
        for other in other_formats(path):
            if exists(other):
                plan.clashes.append(f"{other}: --output-format: the folder has {other.suffix}, this run {path.suffix}")
        try:
            if exists(path) and (record := read_record(path)) is not None:
                records[candidate] = record
        except Damaged as error:
            plan.damaged.append(f"{path}: {error}")
        except Foreign:
            plan.clashes.append(f"{path}: a picture that pics did not write")
    return records


def composed_path(output: Path, sample: str, candidate: int, format: OutputFormat = "png") -> Path:
    """Path of a composite."""
    return output / "composed" / composed_name(sample, candidate, format)


def other_formats(path: Path) -> list[Path]:
    """Paths of the same composite in other formats: there is one of them at a time."""
    return [path.with_suffix(suffix) for suffix in SUFFIXES.values() if suffix != path.suffix]


def layers_path(output: Path, sample: str, candidate: int) -> Path:
    """Path of the folder of a composite's layers."""
    return output / "layers" / composed_name(sample, candidate).replace("composed", "layers", 1).removesuffix(".png")


def needs_grid(job: InferenceJob, sample: str) -> bool:
    """Whether a sample's sheet is asked for and missing."""
    return job.grid and not grid_path(job.output, sample).exists()


def needs_pick(job: InferenceJob, sample: str) -> bool:
    """Whether the best of a sample's candidates is asked for and not known yet."""
    if job.pick is None:
        return False
    pick = read_pick(pick_path(job.output, sample))
    return pick is None or len(pick[1]) != job.num


def grid_path(output: Path, sample: str) -> Path:
    """Path of the sheet of a sample's inputs and results side by side."""
    return output / "grids" / f"grid_{sample}.png"


def explain_paths(output: Path, sample: str) -> list[Path]:
    """Paths of all sheets that explain a sample's results."""
    return [explain_path(output, sample, what) for what in EXPLANATIONS]


def explain_path(output: Path, sample: str, what: str) -> Path:
    """Path of a sheet that explains a result: one of `EXPLANATIONS`."""
    return output / "explain" / f"{sample}_{what}.png"
