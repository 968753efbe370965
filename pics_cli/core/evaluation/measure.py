"""One example by all methods: the pictures and their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from pics_cli.core.evaluation.appearance_metrics import ReferenceGallery
from pics_cli.core.evaluation.composites import Composite, ExampleContext
from pics_cli.core.evaluation.examples import reverse_objects
from pics_cli.core.evaluation.methods import Method
from pics_cli.core.evaluation.metrics import compute_metrics
from pics_cli.core.evaluation.networks import Features, ImageEncoder, Inception, Lpips
from pics_cli.core.evaluation.records import ExampleRecord, Failure
from pics_cli.core.evaluation.source_base import ExampleSource
from pics_cli.core.evaluation.subsets import subset_of
from pics_cli.errors import BadSample


def measure_example(
    source: ExampleSource,
    number: int,
    methods: Mapping[str, Method],
    gallery: ReferenceGallery,
    metrics: Sequence[str],
    networks: Sequence[ImageEncoder | Inception | Lpips] = (),
    reverse: bool = True,
) -> tuple[ExampleRecord, dict[str, Features]]:
    """Metrics of one example by every method, or what is wrong with it.

    Args:
        source, number: where the example is from, and which it is.
        methods: by name.
        gallery: see `ReferenceGallery`.
        metrics: names of those to compute.
        networks: of learnt metrics.
        reverse: also make models' pictures with the objects the other way round, for `order_dependence`.

    Returns:
        The record; and features of whole pictures, float32 [1, d], by `KIND/METHOD`: of the truth, which has no method,
        and of each method's first picture.
    """
    try:
        example = source[number]
    except BadSample as error:
        return ExampleRecord(number, bad=Failure(error.reason, error.detail)), {}
    encoders = [network for network in networks if not isinstance(network, Lpips)]
    features = {f"{encoder.kind}/": encoder([example.truth]) for encoder in encoders}
    context = ExampleContext(example, gallery, {network.kind: network for network in networks})
    reversed_example = reverse_objects(example)
    record = ExampleRecord(
        number, example.key, example.relation, subset_of(example.relation, example.iou), round(example.iou, 5),
        len(example.references), _round(context.difficulty),
    )  # fmt: skip
    for name, method in methods.items():
        if method.file_sha256 is not None:
            record.peers[name] = method.file_sha256(example.key)
        try:
            pictures = [method.composite(example, seed) for seed in range(method.seeds)]
        except BadSample as error:
            record.failed[name] = Failure(error.reason, error.detail)
            continue
        again = method.by_model and reverse
        composites = [
            Composite(picture, context, partial(method.composite, reversed_example, seed) if again else None)
            for seed, picture in enumerate(pictures)
        ]
        by_seed = [compute_metrics(composite, metrics) for composite in composites]
        record.values[name] = {metric: [_round(values[metric]) for values in by_seed] for metric in metrics}
        record.similarity[name] = np.mean([c.similarity for c in composites], axis=0).round(4).tolist()
        features |= {f"{encoder.kind}/{name}": encoder(pictures[:1]) for encoder in encoders}
    return record, features


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
