"""The report: heat map by relation, plots of difficulty, cases that can be linked, and its size for 1,000 cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.records import ExampleRecord
from pics_cli.core.evaluation.report import GalleryEntry, choose_examples, write_report
from pics_cli.core.evaluation.report_heat import heat_maps
from pics_cli.core.evaluation.report_plots import plot_difficulty
from pics_cli.core.evaluation.results import summarize

METHODS = ["parallel", "other:parallel"]


def constructed(count: int) -> list[ExampleRecord]:
    """Records whose PSNR falls with difficulty, the second method's by 1 dB below the first's."""
    names = [name for name, metric in METRICS.items() if not metric.needs]
    records = []
    for number in range(count):
        difficulty = number / count
        stratum = ("apart", "touching")[number % 2]
        values: dict[str, dict[str, list[float | None]]] = {
            method: {name: [30 - 10 * difficulty - lag if name.startswith("psnr") else difficulty] for name in names}
            for lag, method in enumerate(METHODS)
        }
        similarity = {method: [[1.0, 0.2], [0.1, 0.9]] for method in METHODS}
        records.append(
            ExampleRecord(
                number, f"{number:08d}", stratum, stratum, objects=2, difficulty=difficulty, values=values,
                similarity=similarity,
            )
        )  # fmt: skip
    return records


def summary(records: list[ExampleRecord]) -> dict:
    provenance = {
        "recipe": {"seed": 0}, "name": "constructed", "sight": "none", "warnings": [], "recipe_hash": "0" * 64,
        "data": {}, "models": [], "computed": {}, "peers": [], "versions": {}, "unavailable": {}, "sets": {},
    }  # fmt: skip
    return summarize(records, METHODS, list(records[0].values[METHODS[0]]), provenance)


def test_shades_go_from_the_worst_to_the_best() -> None:
    results = summary(constructed(40))
    maps = heat_maps(results, ["psnr", "seam", "sharpness"])
    assert list(maps) == METHODS
    assert list(maps["parallel"]) == ["psnr", "seam"]  # of sharpness neither side is better
    shades = np.array([[cell.shade for cell in maps[method]["psnr"]] for method in METHODS])
    means = np.array([[results["figures"][s][m]["psnr"]["mean"] for s in ("apart", "touching")] for m in METHODS])
    np.testing.assert_allclose(shades, (means - means.min()) / np.ptp(means), atol=1e-4)
    assert [cell.shade for cell in maps["parallel"]["seam"]] == [1, 0]  # less is better: apart has the lower mean


def test_one_file_of_bounded_size(tmp_path: Path) -> None:
    records = constructed(1000)
    url = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
    write_report(tmp_path, summary(records), records, [GalleryEntry("worst", "00000007", "apart", url, [], url, [])])
    text = (tmp_path / "report.html").read_text()
    assert len(text) <= 15e6
    assert 'id="case-00000007"' in text
    assert "<h2>Difficulty</h2>" in text
    assert text.count('<table class="heat">') == len(METHODS)
    assert "currentColor" in text
    assert "#010203" not in text
    assert "url(http" not in text


def test_galleries_by_metric() -> None:
    chosen = choose_examples(constructed(40), "parallel", ["psnr_region", "seam"])
    reasons = {record.number: why for why, record in chosen}
    assert "best by seam" in reasons[0]
    assert "best; " in reasons[0]
    assert "worst; worst by seam" in reasons[39]
    assert len(reasons) == 9


def test_no_plot_without_difficulty() -> None:
    records = [ExampleRecord(0, "a", values={"parallel": {"psnr": [3.0]}})]
    assert plot_difficulty({"methods": ["parallel"]}, records, "psnr") is None
