"""docs/leaderboard.json, the documents written from it, and what its script takes and refuses."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from helpers.in_process import Done, run_script
from pics_cli.core.inference.record import model_fingerprint
from pics_cli.core.model.bundled import bundled_model

ROOT = Path(__file__).parents[2]
BOARD = "docs/leaderboard.json"
FILES = (BOARD, "docs/leaderboard_schema.json", "docs/pics-mini.md", "README.md", "scripts/leaderboard.py")
COMMAND = "pics eval --recipe synth_bench"
Results = dict[str, Any]


def test_the_documents_are_current() -> None:
    done = run_script(ROOT / "scripts/leaderboard.py", "check")
    assert done.returncode == 0, done.stderr


def test_it_is_as_its_schema_says() -> None:
    schema = json.loads((ROOT / "docs/leaderboard_schema.json").read_text())
    board = json.loads((ROOT / BOARD).read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(board, schema)
    for spoilt in (board | {"more": 1}, board | {"rows": [board["rows"][0] | {"figures": {"all": {"psnr": 1.0}}}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(spoilt, schema)


def test_pics_mini_is_the_bundled_model() -> None:
    board = json.loads((ROOT / BOARD).read_text())
    rows = {(row["name"], row["method"]): row for row in board["rows"]}
    for method in ("parallel", "sequential"):
        assert rows["pics-mini", method]["model"]["fingerprint"] == model_fingerprint(bundled_model())
    assert {("paste", "paste"), ("poisson", "poisson")} <= set(rows)
    assert board["benchmark"]["cases"] == 1000
    assert "/work" not in json.dumps(board)


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Done]:
    """The script of a copy of the repository."""
    for name in (*FILES, "scripts/leaderboard_file.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return lambda *words: run_script(tmp_path / "scripts/leaderboard.py", *words)


def results_of(board: Results) -> Results:
    """What `pics eval` would have written of the first model's rows."""
    board = copy.deepcopy(board)
    benchmark, rows = board["benchmark"], board["rows"][:2]
    groups = benchmark["strata"]
    return {
        "kind": "pics-eval", "name": benchmark["name"], "data": benchmark["data"], "cases": benchmark["cases"],
        "strata": groups, "measured": benchmark["cases"], "recipe_hash": "another", "bad": {}, "missed": {},
        "peers": [], "warnings": [], "versions": rows[0]["versions"], "methods": [row["method"] for row in rows],
        "models": [rows[0]["model"] | {"label": "", "name": "mine"}], "computed": {"": rows[0]["computed"]},
        "figures": {group: {row["method"]: row["figures"][group] for row in rows} for group in groups},
        "differences": {
            f"{row['method']} minus {other}": {"all": values}
            for row in rows for other, values in row["differences"].items() if other in ("parallel", "sequential")
        },
    }  # fmt: skip


def without_metric(results: Results) -> None:
    for methods in results["figures"].values():
        for metrics in methods.values():
            del metrics["seam"]


def unchanged(_: Results) -> None:
    """Of another model than the rows there."""


def one_method(results: Results) -> None:
    results["methods"] = ["parallel"]


MINE = ("--name", "mine", "--command", COMMAND)
BUNDLED = ("--name", "pics-mini", "--command", COMMAND)
OTHERS = "of other cases than the leaderboard's: "
Change = Callable[[Results], object]
REFUSED: list[tuple[Change, tuple[str, ...], str]] = [
    (lambda r: r.update(kind="other"), MINE, "not the results of `pics eval`"),
    (lambda r: r["data"].update(seed=7), MINE, OTHERS + 'data: {"kind": "scenes", "seed": 7'),
    (lambda r: r.update(cases=500, measured=500), MINE, OTHERS + "cases: 500, expected 1000"),
    (lambda r: r["strata"].update(apart=1), MINE, OTHERS + 'strata: {"all": 1000, "apart": 1'),
    (lambda r: r.update(measured=999, bad={"unreadable": 1}), MINE, "999 of 1,000 cases were measured"),
    (lambda r: r.update(missed={"parallel": {"no room": 2}}), MINE, "pictures are missing of parallel"),
    (lambda r: r["models"].clear(), MINE, "no model, but the methods parallel, sequential"),
    (lambda r: r["models"].append(r["models"][0]), MINE, "2 models: expected one at most"),
    (lambda r: r["models"][0].pop("fingerprint"), MINE, "no fingerprint of its model"),
    (lambda r: r["computed"].clear(), MINE, "does not say which steps and guidance its model had"),
    (lambda r: r["peers"].append("theirs"), MINE, "has pictures of other methods (theirs), of which nothing says"),
    (lambda r: r["warnings"].append("LEAK: seen"), MINE, "says of itself: LEAK: seen"),
    (without_metric, MINE, "has no metric seam"),
    (unchanged, BUNDLED, "pics-mini, parallel: is there already, with another model"),
    (
        one_method,
        (*BUNDLED, "--replace"),
        "pics-mini: rows of several models: parallel of 0123456789abcdef, ",
    ),
    (unchanged, ("--name", " ", "--command", COMMAND), "--name ' ': no name"),
    (unchanged, ("--name", "mine", "--command", "make"), "--command 'make': no command of pics eval"),
]


@pytest.mark.parametrize(("change", "words", "message"), REFUSED, ids=[message[:40] for *_, message in REFUSED])
def test_refused(
    script: Callable[..., Done], tmp_path: Path, change: Change, words: tuple[str, ...], message: str
) -> None:
    """In one line with a hint, and the file is as it was."""
    results = results_of(json.loads((ROOT / BOARD).read_text()))
    results["models"][0]["fingerprint"] = "0123456789abcdef"
    change(results)
    (tmp_path / "results.json").write_text(json.dumps(results))
    done = script("add", tmp_path / "results.json", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[0]
    assert done.stderr.splitlines()[1:2] == [""]
    assert done.stderr.splitlines()[2].startswith("hint: ")
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (ROOT / name).read_bytes()


def test_added_replaced_and_written(script: Callable[..., Done], tmp_path: Path) -> None:
    """Rows are those of the results; what is there already stays; documents follow when they are written."""
    before = json.loads((ROOT / BOARD).read_text())
    results = results_of(before)
    path = tmp_path / "results.json"
    results["figures"]["all"]["sequential"]["seam"]["mean"] += 1e-5  # another machine rounds otherwise
    path.write_text(json.dumps(results))
    said = script("add", path, *BUNDLED).stdout
    assert said == "pics-mini, parallel: there already\npics-mini, sequential: there already\n"
    assert (tmp_path / BOARD).read_bytes() == (ROOT / BOARD).read_bytes()

    seam = results["figures"]["all"]["sequential"]["seam"]
    path.write_text(json.dumps(results).replace(json.dumps(seam), json.dumps(seam | {"mean": 99.5})))
    other = script("add", path, *BUNDLED)
    assert other.returncode == 2
    assert "sequential: is there already, with other figures: seam of all is" in other.stderr
    assert "there, here 99.5" in other.stderr

    results["models"][0]["fingerprint"] = "0123456789abcdef"
    results["figures"]["all"]["parallel"]["psnr_region"] = {"mean": 33.25, "low": 33.0, "high": 33.5, "cases": 1000}
    path.write_text(json.dumps(results))
    assert script("add", path, *MINE).stdout == "mine, parallel: added\nmine, sequential: added\n"
    after = json.loads((tmp_path / BOARD).read_text())
    count = len([row for row in before["rows"] if row["model"]])
    assert after["rows"][:count] + after["rows"][count + 2 :] == before["rows"]  # models come first
    mine = after["rows"][count]
    assert (mine["name"], mine["method"], mine["command"]) == ("mine", "parallel", COMMAND)
    assert mine["model"] == before["rows"][0]["model"] | {"fingerprint": "0123456789abcdef"}
    assert mine["differences"] == {"sequential": before["rows"][0]["differences"]["sequential"]}

    done = script("check")
    assert done.returncode == 1
    assert "not what leaderboard.json gives: README.md, pics-mini.md" in done.stderr
    assert script("write").returncode == script("check").returncode == 0
    for name in ("README.md", "docs/pics-mini.md"):
        assert "| mine | parallel | 33.25 ±0.25 |" in (tmp_path / name).read_text()

    results["figures"]["all"]["parallel"]["psnr_region"]["mean"] = 34.0
    path.write_text(json.dumps(results))
    said = script("add", path, *MINE, "--replace").stdout
    assert said == "mine, parallel: replaced\nmine, sequential: there already\n"
    assert script("check").returncode == 1


def test_a_spoilt_file(script: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / BOARD).write_text('{"schema": 2}')
    done = script("check")
    assert done.returncode == 2
    assert "leaderboard.json: no leaderboard: " in done.stderr
