"""Figures that a paper prints, laid beside one's own: a table of the paper's columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pics_cli.core.evaluation.metrics import METRICS, check_names
from pics_cli.core.evaluation.results import as_markdown, format_cell
from pics_cli.core.evaluation.subsets import ALL
from pics_cli.core.recipes.evaluation import PublishedFigures

# Of a set of pictures, and so no entry of METRICS.
_FID = "fid"


class PublishedTable(NamedTuple):
    """Own and published figures under the paper's headings.

    Attributes:
        headings: of the columns, without that of the methods.
        own, published: cells by method.
        source, differs: see `PublishedFigures`.
    """

    headings: list[str]
    own: dict[str, list[str]]
    published: dict[str, list[str]]
    source: str
    differs: str

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The method and its cells; published ones are marked as such."""
        marked = {f"{method} (published)": cells for method, cells in self.published.items()}
        return [(method, *cells) for method, cells in {**self.own, **marked}.items()]

    @property
    def notes(self) -> tuple[str, str]:
        """Source and differences as sentences."""
        return f"published figures: {self.source}", f"what may differ: {self.differs}"


def check_published(published: PublishedFigures | None) -> None:
    """Raise PicsError for a column that is laid beside no metric there is."""
    if published is not None:
        names = [name for name in published.columns.values() if name not in (None, _FID)]
        check_names([name for name in names if name is not None], "published.columns")


def published_table(results: Mapping[str, Any]) -> PublishedTable | None:
    """The table of a `results.json`; None where its recipe has no published figures."""
    published = results["recipe"].get("published")
    if published is None:
        return None
    columns: dict[str, str | None] = published["columns"]
    own = {method: [_own_cell(results, method, name) for name in columns.values()] for method in results["methods"]}
    rows = {
        method: ["-" if value is None else f"{value:g}" for value in figures]
        for method, figures in published["rows"].items()
    }
    headings = [_heading(title, name) for title, name in columns.items()]
    return PublishedTable(headings, own, rows, published["source"], published["differs"])


def published_markdown(results: Mapping[str, Any]) -> list[str]:
    """Lines of `table.md`: the table and its notes; none where there are no published figures."""
    table = published_table(results)
    if table is None:
        return []
    rows = [("method", *table.headings), ("---", *["---:"] * len(table.headings))]
    rows += [(as_markdown(name), *cells) for name, *cells in table.rows]
    return [*(f"| {' | '.join(row)} |" for row in rows), "", *(f"{note}  " for note in table.notes)]


def _heading(title: str, name: str | None) -> str:
    """The paper's, and the metric that ours in this column are."""
    if name is None:
        return f"{title} (none of ours)"
    return title if name == _FID else f"{title} ({METRICS[name].title})"


def _own_cell(results: Mapping[str, Any], method: str, name: str | None) -> str:
    if name == _FID:
        distance = results["sets"].get("inception", {}).get(method)
        return "-" if distance is None else f"{distance['frechet']:.2f}"
    figures = results["figures"][ALL][method]
    return format_cell(figures[name]) if name in figures else "-"
