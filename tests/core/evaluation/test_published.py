"""Published figures beside one's own: the recipes of papers, the table and its marks, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pics_cli.core.evaluation.methods import model_options
from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.published import check_published, published_markdown, published_table
from pics_cli.core.evaluation.records import ExampleRecord
from pics_cli.core.evaluation.results import summarize, write_results
from pics_cli.core.recipes.base import Override, plain_recipe
from pics_cli.core.recipes.evaluation import EvaluationRecipe, load_evaluation
from pics_cli.errors import PicsError


def constructed(recipe: EvaluationRecipe) -> dict[str, Any]:
    """Results of two cases, both with the value 0.5 of every metric, and an FID of 7."""
    records = [
        ExampleRecord(
            number, str(number), "apart", "apart", objects=2, similarity={"mine|x": [[1.0, 0.0], [0.0, 1.0]]},
            values={"mine|x": {name: [0.5] for name in METRICS}},
        )
        for number in range(2)
    ]  # fmt: skip
    results = summarize(records, ["mine|x"], list(METRICS), {"recipe": plain_recipe(recipe)})
    return {**results, "sets": {"inception": {"mine|x": {"frechet": 7.0}}}}


@pytest.mark.parametrize("name", ["paper_lvis", "paper_dreambooth", "paper_viton"])
def test_recipes_of_the_paper(name: str) -> None:
    recipe = load_evaluation(name)
    check_published(recipe.published)
    assert set(recipe.metrics) <= set(METRICS)
    options = model_options(recipe)
    assert (options.steps, options.guidance, options.scheduler, options.crop) == (50, 5.0, "ddim", "full")
    assert model_options(load_evaluation(name, [Override("steps", 3, "--steps")])).steps == 3


def test_ours_beside_theirs(tmp_path: Path) -> None:
    results = constructed(load_evaluation("paper_lvis"))
    table = published_table(results)
    assert table is not None
    rows = {name: cells for name, *cells in table.rows}
    assert rows["mine|x"] == [*["0.500 ±0.000"] * 4, "7.00", "0.500 ±0.000"]
    assert rows["PICS (published)"] == ["13.88", "0.582", "0.322", "18.27", "24.99", "0.253"]
    assert rows["AnyDoor (published)"][3:] == ["-", "27.17", "-"]
    assert table.headings[0] == "mPSNR (PSNR in overlap)"
    write_results(tmp_path, results, published_markdown(results))
    text = (tmp_path / "table.md").read_text()
    assert "| mine\\|x | 0.500 ±0.000 |" in text
    assert "| OmniPaint (published) | 12.2 | 0.31 |" in text
    assert "what may differ: which pictures" in text


def test_a_column_without_a_metric_of_ours() -> None:
    table = published_table(constructed(load_evaluation("paper_dreambooth")))
    assert table is not None
    assert table.headings[3] == "DreamSim (none of ours)"
    assert table.own["mine|x"][3] == "-"
    assert table.published["AnyDoor"] == ["-", "-", "-", "0.273"]


def test_recipes_without_published_figures() -> None:
    results = constructed(load_evaluation("paper_viton"))
    assert published_table(results) is None
    assert published_markdown(results) == []


def test_refused() -> None:
    unknown = Override("published.columns.PSNR", "psnr_al", "--set published.columns.PSNR")
    with pytest.raises(PicsError, match=r"published\.columns: got psnr_al, which is no metric"):
        check_published(load_evaluation("paper_lvis", [unknown]).published)
    short = Override("published.rows.PICS", [1.0], "--set published.rows.PICS")
    with pytest.raises(PicsError, match="6 figures of PICS, one a column; it has 1"):
        load_evaluation("paper_lvis", [short])
