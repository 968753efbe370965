"""One case by all methods: its pictures made, and every figure of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pics_cli.core.evaluation.case import turned
from pics_cli.core.evaluation.encoder import Encoder, Features, cosines, object_crops, reference_crops
from pics_cli.core.evaluation.makers import Maker
from pics_cli.core.evaluation.measures import LEARNT, MEASURES, Sight, between, judge, known_of, number_of
from pics_cli.core.evaluation.sources import Cases
from pics_cli.core.evaluation.strata import stratum
from pics_cli.errors import BadSample, PicsError


def measure(
    cases: Cases,
    number: int,
    methods: Mapping[str, Maker],
    sight: Sight,
    names: Sequence[str],
    encoders: Sequence[Encoder] = (),
) -> tuple[dict[str, Any], dict[str, Features]]:
    """Figures of one case by every method, as plain data; what is wrong with it, where something is.

    Returns:
        The record, and by encoder and method the features of whole pictures, the truth's among them.
    """
    try:
        case = cases.case(number)
    except BadSample as error:
        return {"number": number, "bad": {"reason": error.reason, "detail": error.detail}}, {}
    looks = {encoder.kind: (encoder, encoder(reference_crops(case.references))) for encoder in encoders}
    features = {f"{kind}/": encoder([case.truth]) for kind, (encoder, _) in looks.items()}
    values, similarity, failed, peers = (dict[str, Any]() for _ in range(4))
    known = known_of(case)
    for name, method in methods.items():
        if method.sha256 is not None:
            peers[name] = method.sha256(case.key)
        try:
            pictures = [method.make(case, seed) for seed in range(method.seeds)]
        except BadSample as error:
            failed[name] = {"reason": error.reason, "detail": error.detail}
            continue
        judged = [judge(picture, case, sight, names, known) for picture in pictures]
        found = [one.values for one in judged]
        if "order_dependence" in names and method.by_model and len(case.references) > 1:
            other = turned(case)
            for seed, one in enumerate(found):
                one["order_dependence"] = between(pictures[seed], method.make(other, seed), case)
        for kind, (encoder, references) in looks.items():
            features[f"{kind}/{name}"] = encoder(pictures[:1])
            for picture, one in zip(pictures, found, strict=True):
                if case.references:
                    likeness = float(cosines(encoder(object_crops(picture, case)), references).mean())
                    one[f"{kind}_i"] = number_of(case.key, f"{kind}_i", likeness)
        values[name] = {each: [_plain(one.get(each, float("nan"))) for one in found] for each in names}
        similarity[name] = np.mean([one.similarity for one in judged], axis=0).round(4).tolist()
    record = {
        "number": number, "key": case.key, "relation": case.relation, "stratum": stratum(case.relation, case.iou),
        "iou": round(case.iou, 5), "objects": len(case.references), "values": values, "similarity": similarity,
        "failed": failed, "peers": peers,
    }  # fmt: skip
    return record, features


def _plain(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None


def wanted(asked: Sequence[str], kinds: set[str]) -> tuple[list[str], dict[str, str]]:
    """Figures to compute, and those that cannot be, with the reason.

    Raises:
        PicsError: none of those asked for can be computed.
    """
    missing = {
        name: f"needs --features with {kind.upper()} weights" for name, kind in LEARNT.items() if kind not in kinds
    }
    names = [name for name in MEASURES if name not in missing and (not asked or name in asked)]
    if not names:
        raise PicsError(f"--metrics {asked[0]}: {missing[asked[0]]}", "such as --features facebook/dinov2-base")
    return names, {name: why for name, why in missing.items() if not asked or name in asked}
