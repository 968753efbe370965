"""Groups of examples that metrics are reported for: relations, numbers of objects, thirds by difficulty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pics_cli.core.evaluation.records import ExampleRecord
from pics_cli.core.evaluation.subsets import ALL, SUBSETS

THIRDS = ("difficulty, lowest third", "difficulty, middle third", "difficulty, highest third")


def split_records(records: Sequence[ExampleRecord]) -> dict[str, list[ExampleRecord]]:
    """Records by the name of their group; none is empty, and each record is in several.

    All of them; by subset (`SUBSETS`); by number of objects, where that varies; by thirds of difficulty, where that
    does.
    """
    groups = {ALL: [*records]} | {name: [r for r in records if r.stratum == name] for name in SUBSETS}
    counts = sorted({record.objects for record in records})
    if len(counts) > 1:
        groups |= {f"{count} objects": [r for r in records if r.objects == count] for count in counts}
    limits = difficulty_limits(records)
    if limits is not None:
        known = [(r, r.difficulty) for r in records if r.difficulty is not None]
        for third, name in enumerate(THIRDS):
            groups[name] = [r for r, value in known if sum(value > limit for limit in limits) == third]
    return {name: members for name, members in groups.items() if members}


def difficulty_limits(records: Sequence[ExampleRecord]) -> tuple[float, float] | None:
    """The highest difficulty of the lowest and of the middle third; None where all examples are equally difficult.

    Examples of one difficulty are in one third, which then has more than a third of them: those without overlap.
    """
    values = [record.difficulty for record in records if record.difficulty is not None]
    if len(set(values)) < 2:
        return None
    lower, upper = (float(np.quantile(values, share, method="inverted_cdf")) for share in (1 / 3, 2 / 3))
    return lower, upper
