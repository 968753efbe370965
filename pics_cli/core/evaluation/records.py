"""Metrics of each example, and their files: JSON record and features of each example, a table of all examples."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pics_cli.core.evaluation.networks import Features
from pics_cli.core.recipes.base import digest
from pics_cli.core.runtime.files import AtomicFile, load_json, open_file, read_file, write_json
from pics_cli.errors import PicsError, reason_of

PER_SAMPLE = "per_sample.parquet"
AGAIN = "remove it and run the same command again"
_CHECKSUM = "sha256"
_EXAMPLE_COLUMNS = ("number", "key", "stratum", "relation", "iou", "objects")
# Not of tables of earlier versions.
_DIFFICULTY = "difficulty"


@dataclass
class Failure:
    """Why an example, or a method's picture of it, could not be used: a word for counting, and a sentence."""

    reason: str
    detail: str


@dataclass
class ExampleRecord:
    """Metrics of an example by every method, as its JSON file has them.

    Attributes:
        number, key: of the example.
        relation, stratum, iou, objects: its relation, its subset, the highest IoU of its boxes, and K.
        difficulty: see `overlap_difficulty`; None of fewer than two objects, and of tables that do not have it.
        values: by method and metric, of each seed; None where the metric is undefined for the example.
        similarity: by method, mean over seeds, of region i to reference j.
        failed: why a method has no picture of it.
        peers: sha256 of the files of external results, by method.
        bad: why the example could not be read; then only the number is known.
    """

    number: int
    key: str = ""
    relation: str = ""
    stratum: str = ""
    iou: float = 0.0
    objects: int = 0
    difficulty: float | None = None
    values: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    similarity: dict[str, list[list[float]]] = field(default_factory=dict)
    failed: dict[str, Failure] = field(default_factory=dict)
    peers: dict[str, str | None] = field(default_factory=dict)
    bad: Failure | None = None

    def write(self, path: Path) -> None:
        """Write its JSON file."""
        data = asdict(self)
        bad = data.pop("bad")
        data = data if bad is None else {"number": self.number, "bad": bad}
        write_json(path, {**data, _CHECKSUM: digest(data)})

    @classmethod
    def read(cls, path: Path) -> ExampleRecord:
        """Read its JSON file.

        Raises:
            PicsError: it cannot be read, or is not as it was written.
        """
        data = read_json(path)
        if data.pop(_CHECKSUM, None) != digest(data):
            raise PicsError(f"{path}: not the contents that were written (sha256 differs)", AGAIN)
        try:
            record = msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise PicsError(f"{path}: is no record of pics eval: {error}", AGAIN) from None
        if record.bad is None and not record.key:
            raise PicsError(f"{path}: is no record of pics eval: it names no case", AGAIN)
        return record


def read_json(path: Path, hint: str = AGAIN) -> dict[str, Any]:
    """A JSON file of the output folder.

    Raises:
        PicsError: it cannot be read, or holds no object.
    """
    try:
        data = load_json(read_file(path))
    except (OSError, ValueError) as error:
        raise PicsError(f"{path}: cannot be read: {reason_of(error)}", hint) from None
    if not isinstance(data, dict):
        raise PicsError(f"{path}: holds no JSON object, but {type(data).__name__}", hint)
    return data


def metric_column(records: Sequence[ExampleRecord], method: str, metric: str) -> npt.NDArray[np.float64]:
    """A method's metric of every example, mean over seeds, float64 [N]; nan where there is no value."""
    means = []
    for record in records:
        values = [v for v in record.values.get(method, {}).get(metric, ()) if v is not None]
        means.append(values[0] if len(values) == 1 else float(np.mean(values)) if values else math.nan)
    return np.array(means, np.float64)


def write_features(record_path: Path, features: Mapping[str, Features]) -> None:
    """Write an example's features beside its record, before that; keys: KIND/METHOD, the truth's have no method."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **dict(features))
    with AtomicFile(record_path.with_suffix(".npz")) as file:
        file.write(buffer.getvalue())


def read_features(record_path: Path) -> dict[str, Features]:
    """Features of an example, by KIND/METHOD.

    Raises:
        PicsError: they do not exist, or cannot be read.
    """
    path = record_path.with_suffix(".npz")
    try:
        with open_file(path) as file, np.load(file) as stored:
            return {key: stored[key] for key in stored.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        hint = f"remove {record_path} and run the same command again"
        raise PicsError(f"{path}: cannot be read: {reason_of(error)}", hint) from None


def write_per_sample(folder: Path, records: Sequence[ExampleRecord], metrics: Sequence[str]) -> None:
    """Write `per_sample.parquet`: a row for each example, method and seed, a column for each metric."""
    columns: dict[str, list[Any]] = {name: [] for name in (*_EXAMPLE_COLUMNS, _DIFFICULTY, "method", "seed", *metrics)}
    for record in records:
        for method, values in record.values.items():
            for seed in range(len(next(iter(values.values()), ()))):
                for name in (*_EXAMPLE_COLUMNS, _DIFFICULTY):
                    columns[name].append(getattr(record, name))
                columns["method"].append(method)
                columns["seed"].append(seed)
                for name in metrics:
                    columns[name].append(values[name][seed])
    types = dict.fromkeys(("key", "stratum", "relation", "method"), pa.string())
    types |= dict.fromkeys(("number", "objects", "seed"), pa.int64())
    table = pa.table({name: pa.array(values, types.get(name, pa.float64())) for name, values in columns.items()})
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    with AtomicFile(folder / PER_SAMPLE) as file:
        file.write(buffer.getvalue().to_pybytes())


def read_per_sample(path: Path) -> dict[str, ExampleRecord]:
    """Records of examples by key, with their metrics alone, from a `per_sample.parquet`.

    Raises:
        PicsError: it does not exist, or cannot be read.
    """
    try:
        with open_file(path) as file:
            rows = pq.read_table(file).to_pylist()
        if missing := {*_EXAMPLE_COLUMNS, "method", "seed"} - {*(rows[0] if rows else ())}:
            raise ValueError(f"no column {', '.join(sorted(missing))}")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise PicsError(
            f"{path}: cannot be read: {reason_of(error)}", "it lies beside the results.json of `pics eval`"
        ) from None
    records: dict[int, ExampleRecord] = {}
    for row in rows:
        example = {name: row.pop(name) for name in _EXAMPLE_COLUMNS}
        difficulty = row.pop(_DIFFICULTY, None)
        record = records.setdefault(example["number"], ExampleRecord(**example, difficulty=difficulty))
        del row["seed"]
        values = record.values.setdefault(row.pop("method"), {})
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    return {record.key: record for record in records.values()}
