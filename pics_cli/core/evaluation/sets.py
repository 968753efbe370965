"""Features of whole pictures on disk, a small file for each case, and distances of methods to the truth by them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from pics_cli.core.evaluation.backbones import Backbone, Features
from pics_cli.core.evaluation.distances import ENOUGH, frechet, kernel_estimate
from pics_cli.core.evaluation.encoder import Found
from pics_cli.core.evaluation.results import Record
from pics_cli.core.files import AtomicFile
from pics_cli.errors import PicsError

# Distances with fewer pictures than this mean nothing at all.
_LEAST = 2


def save_features(record: Path, features: Mapping[str, Features]) -> None:
    """Write a case's features beside its record, before that one; keys: KIND/METHOD, the truth has no method."""
    sink = io.BytesIO()
    np.savez(sink, allow_pickle=False, **dict(features))
    with AtomicFile(record.with_suffix(".npz")) as file:
        file.write(sink.getvalue())


def distances_of(
    folder: Path, records: Sequence[Record], methods: Sequence[str], encoders: Sequence[Found | Backbone], seed: int
) -> dict[str, Any]:
    """Fréchet and kernel distance of every method to the truth, by encoder.

    Args:
        folder: of the records.
        records: of all cases.
        methods: by name.
        encoders: whose features there are; Inception's make the distances FID and KID.
        seed: of the kernel distance's subsets.

    Raises:
        PicsError: features of a case are gone.
    """
    found: dict[str, Any] = {}
    for encoder in encoders:
        if encoder.kind == "lpips":  # compares two pictures, no sets
            continue
        rows: dict[str, list[Features]] = {}
        for record in records:
            if "bad" in record:
                continue
            path = folder / f"{record['number']:06d}.npz"
            try:
                with np.load(path) as stored:
                    for key in stored.files:
                        kind, _, method = key.partition("/")
                        if kind == encoder.kind:
                            rows.setdefault(method, []).append(stored[key])
            except (OSError, ValueError, EOFError, BadZipFile) as error:
                hint = f"remove {path.with_suffix('.json')} and run the same command again"
                raise PicsError(f"{path}: cannot be read: {error}", hint) from None
        if not all(np.isfinite(row).all() for some in rows.values() for row in some):
            raise PicsError(f"{encoder.name}: features that are no numbers", "is this encoder's file whole?")
        truth = np.concatenate(rows[""]).astype(np.float64)
        each: dict[str, Any] = {}
        for method in methods:
            features = np.concatenate(rows.get(method, [np.zeros((0, truth.shape[1]))])).astype(np.float64)
            if len(features) >= _LEAST and len(truth) >= _LEAST:
                kernel = kernel_estimate(features, truth, seed)
                each[method] = {
                    "pictures": len(features), "enough": len(features) >= ENOUGH,
                    "frechet": _digits(frechet(features, truth)),
                    "kernel": dict(zip(("mean", "low", "high"), map(_digits, kernel), strict=False)),
                }  # fmt: skip
        found[encoder.kind] = each
    return found


def _digits(value: float) -> float | None:
    """Six digits that count; None of no number."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
