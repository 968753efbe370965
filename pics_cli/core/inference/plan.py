"""Before any work: which pictures are to be made, which are there, and what stands in the way."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pics_cli.core.inference.inputs import SampleFiles, list_sample, part_hashes
from pics_cli.core.inference.job import Failure, Job
from pics_cli.core.inference.record import Damaged, Foreign, changes, composed_name, read_record
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.errors import BadSample, PicsError

_SHOWN = 5
# Bytes of a picture's name: file systems end at 255, and a temporary name is longer.
_LONGEST = 235


class Task(NamedTuple):
    """A sample with something left to do.

    Attributes:
        candidates: those to be made; none: only its sheet is missing.
        record: what every one of its records starts with.
    """

    files: SampleFiles
    candidates: tuple[int, ...]
    record: dict[str, Any]


@dataclass
class Plan:
    """What a look at the inputs and the output folder says.

    Attributes:
        there: pictures that an earlier run made and that would be the same now.
        clashes: pictures that are there and would not, one line each.
        damaged: files that stand in a picture's place and are none; they are replaced.
        unexplained: finished samples without the pictures that `--explain` asks for.
    """

    tasks: list[Task] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    there: int = 0
    clashes: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unexplained: int = 0

    def add(self, other: Plan) -> None:
        """Take in another process's share."""
        self.tasks += other.tasks
        self.failures += other.failures
        self.there += other.there
        self.clashes += other.clashes
        self.damaged += other.damaged
        self.unexplained += other.unexplained


def make_plan(job: Job, common: Mapping[str, Any], ranks: Ranks) -> Plan:
    """Look at all samples, every process at its share, and give everybody the whole plan.

    Args:
        job: what is asked for.
        common: what every record holds: model, seed, settings.
        ranks: the processes.

    Raises:
        PicsError: two pictures of one name; pictures in the folder that were made otherwise.
    """
    _refuse_twins(job)
    plan = Plan()
    for share in ranks.run_on_all(lambda: _look(job, common, job.samples[ranks.rank :: ranks.size])):
        plan.add(share)
    if plan.clashes:
        more = f"\n  and {len(plan.clashes) - _SHOWN} more" if len(plan.clashes) > _SHOWN else ""
        raise PicsError(
            "made otherwise before, and not replaced:\n  " + "\n  ".join(plan.clashes[:_SHOWN]) + more,
            "redo them with --overwrite, or choose another --output",
        )
    plan.tasks.sort(key=lambda task: (len(task.files.objects), len(task.candidates), task.files.id))
    plan.failures.sort()
    return plan


def sample_id(sample: Path | SampleFiles) -> str:
    """What a sample is called."""
    return sample.id if isinstance(sample, SampleFiles) else sample.name


def _refuse_twins(job: Job) -> None:
    names: dict[str, str] = {}
    for sample in map(sample_id, job.samples):
        for candidate in range(job.num):
            name = composed_name(sample, candidate)
            if (other := names.setdefault(name, sample)) != sample:
                raise PicsError(
                    f"samples {other} and {sample} would both write {name}",
                    "rename one of them, or composite them into different folders (--output)",
                )


def _look(job: Job, common: Mapping[str, Any], samples: Sequence[Path | SampleFiles]) -> Plan:
    plan = Plan()
    for sample in samples:
        try:
            if len(os.fsencode(composed_name(sample_id(sample), job.num))) > _LONGEST:
                raise BadSample("long_name", f"its pictures' names would be longer than {_LONGEST} bytes; rename it")
            files = sample if isinstance(sample, SampleFiles) else list_sample(sample, job.objects)
            record = {
                "id": sample_id(sample),
                "inputs": {
                    **part_hashes(files),
                    **{f"box_{k}": list(one.box) for k, one in enumerate(files.objects) if one.box is not None},
                },
                "files": {part: str(path) for part, path in files.parts().items()},
                **common,
            }
        except BadSample as error:
            plan.failures.append(Failure(sample_id(sample), error.reason, error.detail))
            continue
        wanted = tuple(k for k in range(job.num) if job.overwrite or not _is_there(job, record, k, plan))
        plan.there += job.num - len(wanted)
        if job.explain and not wanted and not explain_path(job.output, files.id, "regions").exists():
            plan.unexplained += 1
        if wanted or (job.grid and not grid_path(job.output, files.id).exists()):
            plan.tasks.append(Task(files, wanted, record))
    return plan


def _is_there(job: Job, record: Mapping[str, Any], candidate: int, plan: Plan) -> bool:
    path = composed_path(job.output, record["id"], candidate)
    try:
        there = read_record(path)
    except Damaged as error:
        plan.damaged.append(f"{path}: {error}")
        return False
    except Foreign:
        plan.clashes.append(f"{path}: a picture that pics did not write")
        return False
    if there is None:
        return False
    if lines := changes(there, {**record, "candidate": candidate}):
        plan.clashes.append(f"{path}: {'; '.join(lines)}")
    return True


def composed_path(output: Path, sample: str, candidate: int) -> Path:
    """Where a composite lies."""
    return output / "composed" / composed_name(sample, candidate)


def grid_path(output: Path, sample: str) -> Path:
    """Where inputs and results side by side lie."""
    return output / "grids" / f"grid_{sample}.png"


def explain_paths(output: Path, sample: str) -> list[Path]:
    """All of them."""
    return [explain_path(output, sample, what) for what in ("regions", "alpha", "routing")]


def explain_path(output: Path, sample: str, what: str) -> Path:
    """Where a picture of what happened inside lies."""
    return output / "explain" / f"{sample}_{what}.png"
