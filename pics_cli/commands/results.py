"""What commands print with --json: a class for each result, and the JSON schema of what a command may print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, ClassVar

Counts = Mapping[str, int]


class _Record:
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, kw_only=True)
class Problem(_Record):
    """An error."""

    message: str
    """What was found, and what is allowed."""
    hint: str | None
    """What to do next."""
    exit_code: int
    """Of the command."""


@dataclass(frozen=True, kw_only=True)
class Failure(_Record):
    """A command that ended with an error before it had a result."""

    error: Problem
    """What went wrong."""


@dataclass(frozen=True, kw_only=True)
class FailedSample(_Record):
    """A sample or picture that could not be used."""

    id: str
    """Its name."""
    reason: str
    """One word."""
    detail: str
    """What was found."""


@dataclass(frozen=True, kw_only=True)
class Composites(_Record):
    """`pics infer`."""

    output: Path
    """Folder of the results, with composed/ and manifest.jsonl."""
    samples: int
    """That were to be composited."""
    written: int
    """Pictures made."""
    finished_before: int
    """Pictures that were there already."""
    seconds: float
    """Spent on the pictures made."""
    peak_memory: int
    """Bytes."""
    peak_memory_of: str
    """`cuda`: allocated on the GPU; `process`: resident."""
    changed_outside: int
    """Pixels changed outside the regions."""
    layer_differences: int | None
    """Values in which recombined layers differ from their pictures; null: no layers were asked for."""
    best: dict[str, int]
    """By sample, the best candidate of --pick."""
    notes: list[str]
    """What is to be known of samples."""
    failures: list[FailedSample]
    """Samples without a picture."""
    sheet: Path | None
    """Of --sheet."""


@dataclass(frozen=True, kw_only=True)
class TrainingRun(_Record):
    """`pics train`."""

    folder: Path
    """Of logs and checkpoints."""
    step: int
    """Optimiser steps that the model has been trained for."""
    new_steps: int
    """Of them, made by this run."""
    seconds: float
    """Of training, without validation and saving."""
    samples: int
    """Used by this run."""
    peak_memory: int
    """Bytes."""
    peak_memory_of: str
    """`cuda`: allocated on the GPU; `process`: resident."""
    metrics: Mapping[str, float | None]
    """Newest values of the log."""
    bad_samples: int
    """Unreadable ones, listed in bad.json."""
    model: Path
    """Folder of the trained model or adapter."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(_Record):
    """`pics train --plan`."""

    recipe: dict[str, Any]
    """As resolved."""
    memory: dict[str, float]
    """Bytes at the peak of a step by what they are for, `peak` in all; `parameters` and those `trained`."""
    tables: dict[str, dict[str, str]]
    """What is shown of data, model and memory, as text."""


@dataclass(frozen=True, kw_only=True)
class Written(_Record):
    """`pics train --preview` and `--export`."""

    path: Path
    """What was written."""


@dataclass(frozen=True, kw_only=True)
class Evaluation(_Record):
    """`pics eval`; results.json has more."""

    results: Path
    """The file results.json."""
    name: str
    """Of the recipe."""
    measured: int
    """Cases."""
    figures: dict[str, dict[str, dict[str, dict[str, float | None]]]]
    """By subset of the cases, method and metric: mean, low and high end of its 95 % interval, number of cases."""
    sets: dict[str, Any]
    """Metrics of whole sets of pictures (FID, KID) by kind of features and method."""
    unavailable: dict[str, str]
    """Metrics that were not computed, and why."""
    bad: Counts
    """Cases that could not be measured, by reason."""
    missed: dict[str, Counts]
    """By method, cases of which it has no picture, by reason."""
    warnings: list[str]
    """What is to be known of them."""


@dataclass(frozen=True, kw_only=True)
class Difference(_Record):
    """A metric of the first evaluation minus the second's."""

    subset: str
    """Of the cases."""
    method: str
    """Compared; two names where none is in both."""
    metric: str
    """By name."""
    mean: float | None
    """Of the cases that both have."""
    low: float | None
    """End of the 95 % interval."""
    high: float | None
    """End of the 95 % interval."""
    cases: int
    """How many."""


@dataclass(frozen=True, kw_only=True)
class Comparison(_Record):
    """`pics eval --compare`."""

    cases: int
    """That both have."""
    differences: list[Difference]
    """Of each metric."""
    warnings: list[str]
    """What is to be known of them."""


@dataclass(frozen=True, kw_only=True)
class Build(_Record):
    """`pics build-shards`; manifest.json has more."""

    folder: Path
    """Of the shards."""
    complete: bool
    """Whether all shards of the split are there; with --range others may make the rest."""
    pictures: int | None
    """Looked at; null while shards are missing."""
    samples: int | None
    """Kept; null while shards are missing."""
    shards: int
    """That are there."""
    bytes: int | None
    """Of the shards; null while some are missing."""
    resumed: int
    """Shards that were there before."""
    skipped: Counts
    """Pictures without a sample, by reason."""
    bad: Counts
    """Unreadable pictures, by reason."""
    bad_records: Counts
    """Annotations left out, by reason."""
    in_use: list[str]
    """Shards that other runs are building."""


@dataclass(frozen=True, kw_only=True)
class Inspection(_Record):
    """What `pics build-shards --inspect` finds."""

    pictures: int
    """Looked into."""
    objects: int
    """In them."""
    masks: Counts
    """Objects by the form of their mask."""
    crowds: int
    """Objects marked as crowds."""
    ignored: int
    """Objects marked as not to be used."""
    categories: Counts
    """Objects by category."""
    faults: Counts
    """By reason."""


@dataclass(frozen=True, kw_only=True)
class DryRun(_Record):
    """`pics build-shards --dry-run` and `--inspect`."""

    pictures: int
    """Of the split, or of --limit."""
    candidates: int
    """That would be tried."""
    skipped: Counts
    """Pictures without a pair, by reason."""
    bad: Counts
    """Unreadable pictures, by reason."""
    bad_records: Counts
    """Annotations left out, by reason."""
    inspection: Inspection | None
    """Of --inspect."""


@dataclass(frozen=True, kw_only=True)
class ShardFault(_Record):
    """An error in a shard."""

    shard: str
    """Its name."""
    key: str
    """Of the sample; empty: the shard itself."""
    reason: str
    """One word."""
    detail: str
    """What was found."""


@dataclass(frozen=True, kw_only=True)
class Check(_Record):
    """`pics build-shards --check`."""

    folder: Path
    """That was checked."""
    shards: int
    """In it."""
    samples: int
    """In them."""
    objects: Mapping[int, int]
    """Samples by their number of objects."""
    errors: list[ShardFault]
    """All that was found."""


@dataclass(frozen=True, kw_only=True)
class ConvertedShards(_Record):
    """`pics build-shards --convert`."""

    folder: Path
    """Of the new shards."""
    layout: str
    """Of them."""
    samples: int
    """In them."""
    shards: int
    """How many."""
    bytes: int
    """Of the new shards."""
    bytes_before: int
    """Of the old ones."""
    bad: Counts
    """Samples left out, by reason."""
    resumed: int
    """Shards that were there before."""


@dataclass(frozen=True, kw_only=True)
class Estimate(_Record):
    """An estimate from what was tried."""

    value: float | None
    """Of it; null: none."""
    margin: float | None
    """Two of its standard errors; null: not known."""


@dataclass(frozen=True, kw_only=True)
class ClusterForecast(_Record):
    """What a cluster would take."""

    nodes: int
    """Machines."""
    workers: int
    """Cores or GPUs of all of them."""
    seconds: float
    """From start to end."""
    limit: str
    """What takes longest: workers, blocks, network or driver."""
    read_rate: float
    """Bytes a second asked of the storage."""
    write_rate: float
    """Bytes a second written to it."""


@dataclass(frozen=True, kw_only=True)
class JobPlan(_Record):
    """`pics build-shards --plan` and `pics annotate --plan`."""

    name: str
    """Of dataset and split."""
    pictures: int
    """Of the whole job."""
    tried: int
    """Of them, for this plan."""
    per_picture: dict[str, Estimate]
    """Seconds and bytes: what the job takes for one."""
    seconds: Estimate
    """Of the whole job on this machine."""
    clusters: list[ClusterForecast]
    """The same on clusters."""


@dataclass(frozen=True, kw_only=True)
class Labels(_Record):
    """`pics annotate`."""

    folder: Path
    """Of the labels."""
    complete: bool
    """Whether all blocks are there."""
    pictures: int
    """That have labels."""
    of_pictures: int
    """In all."""
    blocks: int
    """That are there."""
    of_blocks: int
    """In all."""
    boxes: int
    """That have a mask."""
    made: Counts
    """Pictures and boxes segmented by this run."""
    seconds: float
    """That this took."""
    dropped: Counts
    """Boxes without a mask, by reason."""
    flags: Counts
    """Masks that look wrong, by reason."""
    bad: Counts
    """Unreadable pictures, by reason."""
    bad_records: Counts
    """Annotations left out, by reason."""
    in_use: list[str]
    """Blocks that other runs are making."""


@dataclass(frozen=True, kw_only=True)
class MergedLayers(_Record):
    """`pics merge-layers`."""

    layers: int
    """Put together."""
    unchanged: bool
    """Whether the picture is the composite, to the bit."""
    picture: Path
    """That was written."""


@dataclass(frozen=True, kw_only=True)
class Push(_Record):
    """`pics push`."""

    repository: str
    """owner/name."""
    files: Counts
    """Bytes by name, with the card."""
    left_out: list[str]
    """Files that stay."""
    own_card: bool
    """Whether the card is the user's own."""
    card: str
    """Text of README.md."""
    commit: str | None
    """Its address; null with --dry-run."""


@dataclass(frozen=True, kw_only=True)
class ConvertedModel(_Record):
    """`pics convert`."""

    folder: Path
    """Of the model."""
    mapped: int
    """Tensors that became others."""
    not_needed: Counts
    """Tensors left out, by reason."""
    listing: Path
    """File that accounts for every tensor."""


@dataclass(frozen=True, kw_only=True)
class NewModel(_Record):
    """`pics new-model`."""

    folder: Path
    """Of the model."""
    parameters: int
    """How many."""


@dataclass(frozen=True, kw_only=True)
class SamCheck(_Record):
    """`pics check-sam`."""

    scenes: list[list[float]]
    """IoU of each scene's masks."""
    mean: float
    """Of all."""
    least: float
    """Asked for."""


@dataclass(frozen=True, kw_only=True)
class Page(_Record):
    """`pics ui`, once it serves."""

    address: str
    """To open in a browser, with the token if there is one."""


@dataclass(frozen=True, kw_only=True)
class RecipeEntry(_Record):
    """A recipe of the package."""

    name: str
    """By which commands find it."""
    kind: str
    """dataset, training or evaluation."""
    summary: str
    """One line."""


@dataclass(frozen=True, kw_only=True)
class Recipes(_Record):
    """`pics recipes`."""

    recipes: list[RecipeEntry]
    """All of the package."""


@dataclass(frozen=True, kw_only=True)
class ResolvedRecipe(_Record):
    """`pics recipes NAME`."""

    name: str
    """As it was given."""
    kind: str
    """dataset, training or evaluation."""
    path: Path
    """Of the file."""
    recipe: dict[str, Any]
    """Every value."""
    defaults: list[str]
    """Keys of values that the file leaves to their defaults."""


@dataclass(frozen=True, kw_only=True)
class Device(_Record):
    """A device that torch sees."""

    name: str
    """As --device takes it."""
    model: str
    """Of the hardware."""
    memory: int | None
    """Bytes; null: not known."""
    precision: str
    """That --dtype auto takes on it."""
    precision_full_size: str
    """That it takes for a full-size model."""


@dataclass(frozen=True, kw_only=True)
class CacheKind(_Record):
    """Entries of one kind."""

    kind: str
    """Folder in the cache."""
    entries: int
    """How many."""
    bytes: int
    """Of all."""
    oldest_days: float | None
    """Since the oldest was made, or used where it was fetched."""
    newest_days: float | None
    """Since the newest was."""


@dataclass(frozen=True, kw_only=True)
class Environment(_Record):
    """`pics env`."""

    pics: str
    """Version."""
    python: str
    """Version."""
    platform: str
    """System and machine."""
    libraries: dict[str, str | None]
    """Versions; null: not installed."""
    cuda: str | None
    """That torch was built for; null: none."""
    cores: int
    """Of the CPU that this process may use."""
    memory: int | None
    """Bytes of main memory; null: not known."""
    devices: list[Device]
    """The first is that of --device auto; none: torch is not installed."""
    cache: Path
    """Folder of pics (PICS_CACHE)."""
    cache_bytes: int
    """In it."""
    hub_cache: Path | None
    """Folder of the Hugging Face hub's client; null: not installed."""
    hub_cache_bytes: int
    """In it."""
    free_disk: int
    """Bytes where the command was started."""
    free_disk_cache: int
    """Bytes where the cache is."""
    missing_extras: dict[str, list[str]]
    """By extra of the package, the libraries that it lacks."""


@dataclass(frozen=True, kw_only=True)
class Cache(_Record):
    """`pics cache`."""

    folder: Path
    """Of the cache."""
    kinds: list[CacheKind]
    """What it holds, or with `clean` what was removed."""
    hub_cache: Path | None
    """Folder of the Hugging Face hub's client, which pics does not clean; null: not installed."""
    hub_cache_bytes: int
    """In it."""
    removed: bool
    """Whether it was."""


# By command; of `pics explain` the record that the picture carries, as it is in manifest.jsonl.
RESULTS: dict[str, tuple[Any, ...]] = {
    "annotate": (Labels, JobPlan),
    "build-shards": (Build, DryRun, JobPlan, Check, ConvertedShards),
    "cache": (Cache,),
    "check-sam": (SamCheck,),
    "convert": (ConvertedModel,),
    "env": (Environment,),
    "eval": (Evaluation, Comparison),
    "explain": (dict[str, Any],),
    "infer": (Composites,),
    "merge-layers": (MergedLayers,),
    "new-model": (NewModel,),
    "push": (Push,),
    "recipes": (Recipes, ResolvedRecipe),
    "train": (TrainingRun, TrainingPlan, Written),
    "ui": (Page,),
}


def schema(command: str) -> dict[str, Any]:
    """JSON schema of what a command prints with --json; `error` stands beside a result that there is in spite of it."""
    from pydantic import TypeAdapter

    found = TypeAdapter(reduce(or_, (*RESULTS[command], Failure))).json_schema()
    for result in RESULTS[command]:
        if result.__name__ in found["$defs"]:
            found["$defs"][result.__name__]["properties"]["error"] = {"$ref": "#/$defs/Problem"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
