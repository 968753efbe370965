"""The report: heat map by relation, plots of difficulty, cases that can be linked, and its size for 1,000 cases."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.records import ExampleRecord, Failure
from pics_cli.core.evaluation.report import MOST_BYTES, write_report
from pics_cli.core.evaluation.report_cases import CaseFigures
from pics_cli.core.evaluation.report_gallery import (
    GalleryEntry,
    GalleryPicture,
    Reason,
    choose_examples,
    smaller_galleries,
)
from pics_cli.core.evaluation.report_heat import heat_maps
from pics_cli.core.evaluation.report_plots import plot_difficulty
from pics_cli.core.evaluation.results import summarize
from pics_cli.core.images.image_io import encode_jpeg

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


def noise(seed: int) -> str:
    """A picture that JPEG does not make small."""
    pixels = np.random.default_rng(seed).integers(0, 256, (256, 256, 3), np.uint8)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(pixels, 85)).decode()


def entries(records: list[ExampleRecord], url: str) -> list[GalleryEntry]:
    why = {method: Reason(0, "worst") for method in METHODS}
    pictures = [GalleryPicture(method, url, "") for method in METHODS]
    return [GalleryEntry(why, record.key, "apart", url, [url, url], url, pictures) for record in records]


@pytest.fixture(scope="module")
def thousand() -> list[ExampleRecord]:
    return constructed(1000)


def test_one_file_of_bounded_size(thousand: list[ExampleRecord], tmp_path: Path) -> None:
    """Forty cases whose pictures alone would take 30 MB: coarser pictures of fewer cases, and the page says so."""
    gallery = entries(thousand[:40], noise(0))
    assert sum(len(entry.truth) * 6 for entry in gallery) > 2 * MOST_BYTES
    write_report(tmp_path, summary(thousand), thousand, gallery)
    text = (tmp_path / "report.html").read_text()
    assert 0.5 * MOST_BYTES < len(text.encode()) <= MOST_BYTES
    (said,) = re.findall(r"JPEG quality 45, (\d+) of 40 chosen cases: the file stays below 15 MB", text)
    assert text.count('class="entry"') == int(said) > 0
    assert f'id="case-{thousand[0].key}"' in text  # the most important ones stay
    assert "<h2>Difficulty</h2>" in text
    assert text.count('<table class="heat">') == len(METHODS)
    assert "currentColor" in text
    assert "#010203" not in text
    assert "url(http" not in text
    # Every case has its figures, shown or not.
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert [case[0] for case in data["cases"]] == [record.key for record in thousand]


def test_galleries_get_smaller() -> None:
    gallery = entries(constructed(8), noise(0))
    sizes = [sum(len(entry.truth) for entry in kept) for kept, _ in smaller_galleries(gallery)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert sizes[-1] == 0
    assert next(smaller_galleries(gallery)) == (gallery, "")


def test_figures_of_cases(thousand: list[ExampleRecord]) -> None:
    """All of them where there is room; else first those that have pictures."""
    odd = replace(thousand[5], key="</script> ü/%", failed={METHODS[1]: Failure("no_room", "")})
    records = [*thousand[:5], odd, *thousand[6:]]
    results, gallery = {"methods": METHODS}, entries(records[-2:], "")
    figures = CaseFigures(results, records, ["psnr", "seam"])
    text, listed = figures.to_json(gallery)
    assert "<" not in text
    data = json.loads(text)
    assert (listed, len(data["cases"]), data["methods"]) == (1000, 1000, METHODS)
    assert list(data["metrics"]) == ["psnr", "seam"]
    assert data["cases"][3] == [thousand[3].key, "touching", 2, 0.003, [[29.97, 0.003], [28.97, 0.003]]]
    assert data["cases"][5][0] == odd.key
    assert data["cases"][5][4] == [[29.95, 0.005], "no_room"]
    assert data["galleries"]["parallel"] == [[record.key, "worst"] for record in records[-2:]]
    text, listed = figures.to_json(gallery, most_bytes=1000)
    keys = [case[0] for case in json.loads(text)["cases"]]
    assert keys == [record.key for record in [*records[: listed - 2], *records[-2:]]]
    assert 2 < listed < 20


def test_galleries_by_metric_and_method() -> None:
    records = constructed(40)
    for record in records:  # of the second method, easy cases are the bad ones
        record.values[METHODS[1]]["seam"] = [1 - (record.difficulty or 0)]
    chosen = choose_examples(records, METHODS, ["psnr_region", "seam"])
    first, second = ({r.number: why[method].text for why, r in chosen if method in why} for method in METHODS)
    assert "best by seam" in first[0]
    assert first[0].startswith("best; ")
    assert first[39] == "worst; worst by seam"
    assert len(first) == 9
    assert second[39] == "worst; best by seam"
    assert [record.number for _, record in chosen[:3]] == [0, 18, 39]  # the first of each reason comes first
    shown = sorted((why["parallel"].place, r.number) for why, r in chosen if "parallel" in why)
    assert [number for _, number in shown[:3]] == [0, 1, 2]


def test_at_most_sixty_cases(thousand: list[ExampleRecord]) -> None:
    """Of eight methods that are good and bad at different cases; each has some."""
    generator = np.random.default_rng(0)
    methods = [f"m{number}" for number in range(8)]
    records = [
        replace(record, values={m: {"psnr_region": [v], "seam": [-v]} for m, v in zip(methods, row, strict=True)})
        for record, row in zip(thousand, generator.random((len(thousand), 8)).tolist(), strict=True)
    ]
    chosen = choose_examples(records, methods, ["psnr_region", "seam"])
    assert len(chosen) == 60
    for method in methods:
        assert {text for why, _ in chosen if method in why for text in why[method].text.split("; ")} >= {
            "best", "median", "worst",
        }  # fmt: skip


def test_no_plot_without_difficulty() -> None:
    records = [ExampleRecord(0, "a", values={"parallel": {"psnr": [3.0]}})]
    assert plot_difficulty({"methods": ["parallel"]}, records, "psnr") is None
