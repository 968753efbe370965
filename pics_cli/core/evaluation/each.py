"""Figures of every case as a table on disk, one row for each method and seed, and read back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pics_cli.core.evaluation.results import EACH, Record
from pics_cli.core.files import AtomicFile
from pics_cli.errors import PicsError

_FACTS = ("number", "key", "stratum", "relation", "iou", "objects")


def write_each(folder: Path, records: Sequence[Record], names: Sequence[str]) -> None:
    """`per_sample.parquet`: number, key, stratum, relation, iou and objects of the case, method, seed, and figures."""
    columns: dict[str, list[Any]] = {name: [] for name in (*_FACTS, "method", "seed", *names)}
    for record in records:
        for method, values in record.get("values", {}).items():
            for seed in range(len(next(iter(values.values()), ()))):
                for name in _FACTS:
                    columns[name].append(record[name])
                columns["method"].append(method)
                columns["seed"].append(seed)
                for name in names:
                    columns[name].append(values[name][seed])
    text, whole = pa.string(), pa.int64()
    kinds = {"number": whole, "key": text, "stratum": text, "relation": text, "objects": whole, "method": text,
             "seed": whole}  # fmt: skip
    arrays = {name: pa.array(values, kinds.get(name, pa.float64())) for name, values in columns.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink)
    with AtomicFile(folder / EACH) as file:
        file.write(sink.getvalue().to_pybytes())


def read_each(path: Path) -> list[dict[str, Any]]:
    """Records of cases, as `results.column` takes them, from such a table.

    Raises:
        PicsError: it is not there, or none.
    """
    try:
        rows = pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise PicsError(f"{path}: cannot be read: {error}", "it lies beside the results.json of `pics eval`") from None
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for row in rows:
        record = found.setdefault((row["number"], row["key"]), {**{name: row[name] for name in _FACTS}, "values": {}})
        values = record["values"].setdefault(row["method"], {})
        for name, value in row.items():
            if name not in (*_FACTS, "method", "seed"):
                values.setdefault(name, []).append(value)
    return list(found.values())
