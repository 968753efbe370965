"""One case by all methods: its pictures made, and every figure of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pics_cli.core.evaluation.example_sets import Cases
from pics_cli.core.evaluation.examples import Case, turned
from pics_cli.core.evaluation.image_encoders import Encoder, cosines, object_crops, reference_crops
from pics_cli.core.evaluation.methods import Maker
from pics_cli.core.evaluation.metrics import LEARNT, MEASURES, Sight, between, covers, judge, known_of, number_of
from pics_cli.core.evaluation.published_networks import Features, Inception, Lpips
from pics_cli.core.evaluation.subsets import stratum
from pics_cli.core.images.image_io import RGB
from pics_cli.errors import BadSample, PicsError

# Weights of each kind that most people take.
_SUCH = {"dino": "facebook/dinov2-base", "clip": "openai/clip-vit-large-patch14", "lpips": "alexnet"}


def measure(
    cases: Cases,
    number: int,
    methods: Mapping[str, Maker],
    sight: Sight,
    names: Sequence[str],
    networks: Sequence[Encoder | Inception | Lpips] = (),
) -> tuple[dict[str, Any], dict[str, Features]]:
    """Figures of one case by every method, as plain data; what is wrong with it, where something is.

    Returns:
        The record, and by encoder and method the features of whole pictures, the truth's among them.
    """
    try:
        case = cases.case(number)
    except BadSample as error:
        return {"number": number, "bad": {"reason": error.reason, "detail": error.detail}}, {}
    wholes = [each for each in networks if not isinstance(each, Lpips)]
    looks = [(each, each(reference_crops(case.references))) for each in networks if isinstance(each, Encoder)]
    features = {f"{each.kind}/": each([case.truth]) for each in wholes}
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
        features |= {f"{each.kind}/{name}": each(pictures[:1]) for each in wholes}
        for picture, one in zip(pictures, found, strict=True):
            for each in networks:
                if isinstance(each, Lpips):
                    one.update(perceptual(each, picture, case))
            for encoder, references in looks:
                if case.references:
                    likeness = float(cosines(encoder(object_crops(picture, case)), references).mean())
                    one[f"{encoder.kind}_i"] = number_of(case.key, f"{encoder.kind}_i", likeness)
        values[name] = {each: [_plain(one.get(each, float("nan"))) for one in found] for each in names}
        similarity[name] = np.mean([one.similarity for one in judged], axis=0).round(4).tolist()
    record = {
        "number": number, "key": case.key, "relation": case.relation, "stratum": stratum(case.relation, case.iou),
        "iou": round(case.iou, 5), "objects": len(case.references), "values": values, "similarity": similarity,
        "failed": failed, "peers": peers,
    }  # fmt: skip
    return record, features


def perceptual(network: Lpips, picture: RGB, case: Case) -> dict[str, float]:
    """LPIPS of a picture to the truth: of the whole, and its map's mean where regions are and where they overlap."""
    found = network(picture, case.truth)
    if found is None:
        return {}
    whole, parts = found
    inside, overlap = covers(case)
    at = {"lpips_region": inside, "lpips_overlap": overlap}
    means = {name: float(parts[mask].mean()) for name, mask in at.items() if mask.any()}
    return {name: number_of(case.key, name, value) for name, value in {"lpips": whole, **means}.items()}


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
        raise PicsError(f"--metrics {asked[0]}: {missing[asked[0]]}", f"such as --features {_SUCH[LEARNT[asked[0]]]}")
    return names, {name: why for name, why in missing.items() if not asked or name in asked}
