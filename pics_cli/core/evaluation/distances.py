"""Features of whole pictures on disk, a small file for each case, and distances of methods to the truth by them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from scipy import linalg

from pics_cli.core.evaluation.image_encoders import Found
from pics_cli.core.evaluation.published_networks import Backbone, Features
from pics_cli.core.evaluation.results import Record
from pics_cli.core.evaluation.statistics import LEVEL, Estimate
from pics_cli.core.runtime.files import AtomicFile
from pics_cli.core.runtime.rng import generator
from pics_cli.errors import PicsError

Floats = npt.NDArray[np.float64]

# Fewer pictures than that and the distance is mostly that of their number (Heusel et al. 2017 take 50,000).
ENOUGH = 2048
# Subsets of a kernel distance, and pictures of each, as published (Bińkowski et al. 2018), at most.
SUBSETS, SUBSET = 100, 1000


def frechet(one: Floats, other: Floats) -> float:
    """Squared Fréchet distance between normal distributions fitted to two sets [n, d] and [m, d].

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½), Dowson and Landau 1982; of Inception features known as FID (Heusel et al.,
    NeurIPS 2017). Covariances are unbiased.

    Raises:
        ValueError: fewer than two of either.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(f"{len(one)} and {len(other)} pictures have no covariance")
    a, b = (np.asarray(each, np.float64) for each in (one, other))
    first, second = (np.atleast_2d(np.cov(each, rowvar=False)) for each in (a, b))
    # tr((Σ₁ Σ₂)^½) is the sum of the roots of the eigenvalues of the product, which are real and not negative.
    roots = np.sqrt(np.clip(linalg.eigvals(first @ second).real, 0, None)).sum()
    apart = a.mean(0) - b.mean(0)
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * roots)


def kernel(one: Floats, other: Floats) -> float:
    """Squared maximum mean discrepancy of two sets, unbiased, kernel (xᵀy / d + 1)³ (KID, Bińkowski et al., ICLR 2018).

    Raises:
        ValueError: fewer than two of either.
    """
    n, m = len(one), len(other)
    if min(n, m) < 2:
        raise ValueError(f"{n} and {m} pictures are too few for a kernel distance")
    a, b = (np.asarray(each, np.float64) for each in (one, other))
    inner_a, inner_b, across = (((x @ y.T) / a.shape[1] + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    within = (inner_a.sum() - np.trace(inner_a)) / (n * (n - 1)) + (inner_b.sum() - np.trace(inner_b)) / (m * (m - 1))
    return float(within - 2 * across.mean())


def kernel_estimate(one: Floats, other: Floats, seed: int) -> Estimate:
    """Mean kernel distance of 100 random subsets of half the pictures, 1,000 at most; and the 95 % interval over them.

    `scenes` of the estimate are the pictures. Fewer than four have no halves: their interval is nan.
    """
    least = min(len(one), len(other))
    size = min(SUBSET, least // 2)
    if size < 2:
        return Estimate(kernel(one, other), float("nan"), float("nan"), least)
    rng = generator(seed, "kernel", len(one), len(other))
    found = np.array(
        [
            kernel(one[rng.choice(len(one), size, replace=False)], other[rng.choice(len(other), size, replace=False)])
            for _ in range(SUBSETS)
        ]
    )
    low, high = np.quantile(found, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Estimate(float(found.mean()), float(low), float(high), least)


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
