"""docs/leaderboard.json: its parts, and results of `pics eval` as rows of it.

docs/leaderboard_schema.json is the JSON schema of these classes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from pics_cli.core.evaluation.methods import BASELINES
from pics_cli.core.evaluation.results import known_metrics, read_results
from pics_cli.core.evaluation.subsets import ALL
from pics_cli.core.runtime.files import AtomicFile, read_file
from pics_cli.errors import PicsError

SCHEMA: Literal[1] = 1
# Relative, and below 1 absolute: figures have five decimals, and pixels' rounding depends on the processor.
_ROUNDING = 1e-4
_MEASURE = "measure all cases of the benchmark with one model: pics eval --recipe synth_bench --model DIR"


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mean with its 95 % interval over so many cases; null where no case has a value."""

    mean: float | None
    low: float | None
    high: float | None
    cases: int


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model of a row: hash of its files, hash of its training recipe, steps, side of its square in pixels, and
    sha256 and weight of adapters."""

    fingerprint: str
    recipe_hash: str | None
    trained_steps: int
    image_size: int
    adapters: list[dict[str, str | float]]


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A method of an evaluation.

    Attributes:
        name: of the model; of the method where no model has part in it.
        method: as `pics eval` calls it.
        model: None for methods without one.
        computed: settings of the model: steps, guidance, scheduler and so on; None without one.
        versions: of the package and of libraries.
        command: by which it was measured.
        figures: by group of cases and metric.
        differences: this method minus others of the same evaluation, paired by case, over all cases; by the other
            method and metric.
    """

    name: str
    method: str
    model: Model | None
    computed: dict[str, Any] | None
    versions: dict[str, str]
    command: str
    figures: dict[str, dict[str, Figure]]
    differences: dict[str, dict[str, Figure]]


class Benchmark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all rows are measured on: the recipe's name, its data, the number of cases, and that of each group."""

    name: str
    data: dict[str, Any]
    cases: int
    strata: dict[str, int]


class Leaderboard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows of a benchmark: those of models first."""

    schema: Literal[1]
    benchmark: Benchmark
    rows: list[Row]


def read_leaderboard(path: Path) -> Leaderboard:
    """The file.

    Raises:
        PicsError: it cannot be read, or is not as its schema says.
    """
    try:
        return msgspec.json.decode(read_file(path), type=Leaderboard)
    except (OSError, msgspec.DecodeError) as error:
        raise PicsError(f"{path}: no leaderboard: {error}", "take back the file as it was committed") from None


def leaderboard_text(board: Leaderboard) -> str:
    """As JSON, a line for each figure."""
    text = json.dumps(msgspec.to_builtins(board), indent=1)
    return re.sub(r'\{\s+("mean": [^{}]+?)\s+\}', lambda found: f"{{{' '.join(found[1].split())}}}", text) + "\n"


def schema_text() -> str:
    """The JSON schema of the file."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | msgspec.json.schema(Leaderboard), indent=1) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with AtomicFile(path) as file:
        file.write(text.encode())


def read_rows(path: Path, name: str, command: str, metrics: Sequence[str]) -> tuple[Benchmark, list[Row]]:
    """A `results.json` as rows, and what they were measured on.

    Args:
        path: of the file.
        name: of its model.
        command: by which it was measured.
        metrics: that a row has to have.

    Raises:
        PicsError: it is something else, or its figures cannot stand beside others: cases or pictures are missing, it
            does not say of what model they are, or lacks a metric.
    """
    results = read_results(path)
    _check(path, results, metrics)
    (model,) = results["models"] or [None]
    known = known_metrics(results)
    rows = []
    for method in results["methods"]:
        own = None if method in BASELINES else model
        pairs = {
            title.removeprefix(f"{method} minus "): groups[ALL]
            for title, groups in results["differences"].items()
            if title.startswith(f"{method} minus ")
        }
        row = {
            "name": method if own is None else name,
            "method": method,
            "model": own and {"adapters": [], **{key: own[key] for key in Model.__struct_fields__ if key in own}},
            # `mode` is that of the settings, not of the method.
            "computed": own and {k: v for k, v in results["computed"][own["label"]].items() if k != "mode"},
            "versions": results["versions"],
            "command": command,
            "figures": {
                group: {metric: methods[method][metric] for metric in known}
                for group, methods in results["figures"].items()
            },
            "differences": {other: {metric: values[metric] for metric in known} for other, values in pairs.items()},
        }
        rows.append(msgspec.convert(row, Row))
    return Benchmark(results["name"], results["data"], results["cases"], results["strata"]), rows


def _check(path: Path, results: Mapping[str, Any], metrics: Sequence[str]) -> None:
    """Raise PicsError for results whose figures cannot stand beside others."""
    models = results["models"]
    of_models = [method for method in results["methods"] if method not in BASELINES]
    lacking = [name for name in metrics if name not in known_metrics(results)]
    faults = {
        f"has pictures of other methods ({', '.join(results['peers'])}), of which nothing says what made them": results[
            "peers"
        ],
        f"{len(models)} models: expected one at most": len(models) > 1,
        f"no model, but the methods {', '.join(of_models)}": of_models and not models,
        "no fingerprint of its model": any(not model.get("fingerprint") for model in models),
        "does not say which steps and guidance its model had": any(
            not {"steps", "guidance"} <= results["computed"].get(model["label"], {}).keys() for model in models
        ),
        f"{results['measured']:,} of {results['cases']:,} cases were measured": results["bad"]
        or results["measured"] != results["cases"],
        f"pictures are missing of {', '.join(results['missed'])}": results["missed"],
        f"has no metric {', '.join(lacking)}": lacking,
        f"says of itself: {'; '.join(results['warnings'])}": results["warnings"],
    }
    for fault, found in faults.items():
        if found:
            raise PicsError(f"{path}: {fault}", _MEASURE)


def check_benchmark(path: Path, found: Benchmark, expected: Benchmark) -> None:
    """Raise PicsError for results of other cases than the file's."""
    for name in expected.__struct_fields__:
        wanted, own = getattr(expected, name), getattr(found, name)
        if wanted != own:
            shown = f"{json.dumps(own)}, expected {json.dumps(wanted)}"
            raise PicsError(f"{path}: of other cases than the leaderboard's: {name}: {shown}", _MEASURE)


def with_rows(board: Leaderboard, rows: Sequence[Row], replace: bool) -> tuple[Leaderboard, list[str]]:
    """The file with these rows, and what became of each: added, replaced or there already.

    Args:
        board: as it was.
        rows: of one evaluation.
        replace: those of the same name and method.

    Raises:
        PicsError: there is a row of that name and method with other figures, and `replace` is not set; or rows of one
            name would be of several models.
    """
    kept, said = {(row.name, row.method): row for row in board.rows}, []
    for row in rows:
        key = (row.name, row.method)
        there = kept.get(key)
        other = None if there is None else _difference(there, row)
        same = there is not None and other is None
        if other is not None and not replace:
            others = "--replace, and measure the other rows anew, too" if row.model is None else "--replace, or --name"
            raise PicsError(f"{row.name}, {row.method}: is there already, with {other}", others)
        if not same:
            kept[key] = row
        said.append(f"{row.name}, {row.method}: {'there already' if same else 'replaced' if there else 'added'}")
    for name in {row.name for row in rows}:
        prints = {row.method: row.model and row.model.fingerprint for row in kept.values() if row.name == name}
        if len(set(prints.values())) > 1:
            lines = ", ".join(f"{method} of {print_ or 'none'}" for method, print_ in prints.items())
            raise PicsError(f"{name}: rows of several models: {lines}", "measure all methods of the model, or --name")
    ordered = sorted(kept.values(), key=lambda row: row.model is None)
    return Leaderboard(board.schema, board.benchmark, ordered), said


def _difference(there: Row, row: Row) -> str | None:
    """In what two evaluations differ, in words; None: they are of one thing. The command may be another one."""
    if there.model != row.model:
        return "another model"
    if there.computed != row.computed:
        return "other settings"
    if {group: set(values) for group, values in there.figures.items()} != {g: set(v) for g, v in row.figures.items()}:
        return "other metrics or groups of cases"
    for group, values in there.figures.items():
        for metric, old in values.items():
            new = row.figures[group][metric]
            if not _is_close(old, new):
                return f"other figures: {metric} of {group} is {old.mean} there, here {new.mean}"
    return None


def _is_close(a: Figure, b: Figure) -> bool:
    """Whether two figures are the same but for rounding, which is another one on another machine."""
    pairs = ((a.mean, b.mean), (a.low, b.low), (a.high, b.high))
    return a.cases == b.cases and all(
        x == y if x is None or y is None else math.isclose(x, y, rel_tol=_ROUNDING, abs_tol=_ROUNDING) for x, y in pairs
    )
