"""`pics eval` as it is typed: figures, files, resuming, processes, comparing, and the ways in which it can go wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import Result

from helpers.backbone_files import published_files
from helpers.browser import look
from helpers.infer_command import typed
from helpers.tiny_encoders import save_clip, save_dino
from helpers.trainees import CORRECTING, small
from helpers.training_shards import write_shard
from helpers.two_ranks import in_processes, in_threads
from pics_cli.core.evaluation import example_sources
from pics_cli.core.evaluation.evaluator import EvaluationJob
from pics_cli.core.evaluation.example_sources import open_examples
from pics_cli.core.evaluation.examples import draw_example
from pics_cli.core.evaluation.methods import composite_by_baseline
from pics_cli.core.evaluation.metrics import METRICS
from pics_cli.core.evaluation.run import EvaluationProgress, evaluate
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.base import Override
from pics_cli.core.recipes.evaluation import load_evaluation
from pics_cli.core.recipes.training_sections import DataSettings, TrainingSet
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.shards.shard_sets import resolve_shard_sets

SMALL = ("--recipe", "synth_bench", "--set", "scenes.size=96", "--device", "cpu")
# Without distractors, plots and structural similarity.
QUICK = (*SMALL, "--metrics", "psnr,untouched")


@pytest.fixture(scope="module", autouse=True)
def _scenes_are_drawn_once() -> Iterator[None]:
    """What `draw_example` gives is a function of its arguments alone; its own tests hold it to that."""
    with mock.patch.object(example_sources, "draw_example", cache(draw_example)):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "small"
    meaning = {**CORRECTING, "hint": "overlay", "fill": 0.8, "steps": 1, "guidance": 1.0}
    small(stirred=True, **meaning).save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: object) -> Result:
    return typed("eval", *map(str, words))


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A scene of each relation by all methods, two seeds."""
    out = tmp_path_factory.mktemp("eval") / "out"
    found = run(*SMALL, "--model", model, "--limit", 5, "--seeds", 2, "--output", out)
    assert found.exit_code == 0, found.stderr
    assert "PSNR in regions" in found.stdout
    return out


def test_all_files(done: Path) -> None:
    found = results(done)
    assert found["methods"] == ["parallel", "sequential", "paste", "poisson"]
    assert found["strata"]["all"] == found["measured"] == 5
    thirds = [count for name, count in found["strata"].items() if name.startswith("difficulty")]
    assert sum(thirds) == 5
    assert len(found["difficulty_limits"]) == 2
    assert set(found["figures"]["all"]["paste"]) == {name for name, metric in METRICS.items() if not metric.needs}
    assert found["models"][0]["trained_steps"] == 0
    assert found["computed"][""]["steps"] == 1
    rows = pq.read_table(done / "per_sample.parquet").to_pylist()
    assert len(rows) == 5 * (2 + 2 + 1 + 1)
    for method in found["methods"]:
        for metric in ("psnr_region", "seam", "untouched"):
            by_key: dict[str, list[float]] = {}
            for row in rows:
                if row["method"] == method and row[metric] is not None:
                    by_key.setdefault(row["key"], []).append(row[metric])
            mean = np.mean([np.mean(values) for values in by_key.values()])
            assert found["figures"]["all"][method][metric]["mean"] == pytest.approx(mean, abs=1e-4)
    assert found["figures"]["all"]["parallel"]["untouched"]["mean"] == 0
    reversed_of = {row["key"] for row in rows if row["order_dependence"] is not None}
    assert len(reversed_of) == found["figures"]["all"]["parallel"]["order_dependence"]["cases"] == 2  # every fourth
    lead = found["differences"]["parallel minus paste"]["all"]["psnr_region"]
    means = [found["figures"]["all"][name]["psnr_region"]["mean"] for name in ("parallel", "paste")]
    assert lead["mean"] == pytest.approx(means[0] - means[1], abs=2e-5)
    table = (done / "table.md").read_text()
    assert table.count("\n") == 2 + 4 * len(found["strata"])
    assert "PSNR in regions, dB ↑" in table


def test_the_report_needs_nothing_from_elsewhere(done: Path) -> None:
    text = (done / "report.html").read_text()
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", text)
    assert not re.search(r"url\((?!#)", text)
    assert text.count("data:image/jpeg;base64,") > 20
    assert "<svg" in text
    for words in ("best", "median", "worst", "parallel minus poisson", "grey levels"):
        assert words in text


def test_more_cases_in_the_same_folder(here: Path) -> None:
    baselines = ("--methods", "paste,poisson")
    assert run(*QUICK, *baselines, "--limit", 2, "--output", "out").exit_code == 0
    first = (here / "out/cases/000000.json").stat().st_mtime_ns
    assert run(*QUICK, *baselines, "--limit", 3, "--output", "out").exit_code == 0
    assert results(here / "out")["measured"] == 3
    assert (here / "out/cases/000000.json").stat().st_mtime_ns == first
    refused = run(*QUICK, "--methods", "paste", "--limit", 3, "--output", "out")
    assert refused.exit_code == 2
    assert "was begun otherwise" in refused.stderr
    assert "methods" in refused.stderr
    assert run(*QUICK, "--methods", "paste", "--limit", 1, "--output", "out", "--overwrite").exit_code == 0
    assert results(here / "out")["methods"] == ["paste"]
    assert len(list((here / "out/cases").iterdir())) == 1


def job(output: Path, **options: Any) -> EvaluationJob:
    """Small scenes, as `SMALL` has them."""
    overrides = [
        Override("scenes.size", 96, "--set"),
        *(Override(key, value, "--set") for key, value in options.items()),
    ]
    return EvaluationJob(load_evaluation("synth_bench", overrides), output)


def test_two_ranks_are_one(here: Path) -> None:
    options = {"limit": 3, "methods": ["paste"], "metrics": ["psnr_region", "identity", "order"]}
    evaluate(job(here / "one", **options), Ranks(), EvaluationProgress())
    in_threads(lambda ranks: evaluate(job(here / "two", **options), ranks, EvaluationProgress()))
    for name in ("results.json", "per_sample.parquet", "report.html"):
        assert (here / "two" / name).read_bytes() == (here / "one" / name).read_bytes()


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny DINOv2 and a tiny CLIP."""
    folder = tmp_path_factory.mktemp("encoders")
    save_dino(folder / "dino")
    save_clip(folder / "clip")
    return folder


Run = tuple[tuple[str, ...], Path, Result]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, model: Path, encoders: Path) -> Run:
    """A run with learnt features, two seeds: its options, its output, and what it said."""
    names = [word for kind in ("dino", "clip") for word in ("--features", str(encoders / kind))]
    words = (*SMALL, "--model", str(model), "--methods", "parallel,paste", "--limit", "4", "--seeds", "2")
    output = tmp_path_factory.mktemp("learnt") / "out"
    return (*words, *names), output, run(*words, *names, "--output", output)


@pytest.mark.slow
def test_two_processes_are_one(here: Path, learnt: Run) -> None:
    """As a launcher starts them, with learnt features: what no model made to the last digit.

    What one made differs by single grey levels: torch takes other kernels in a process of several, on some CPUs.
    """
    words, alone, _ = learnt
    (first, out, error), (second, silent, _) = in_processes(here, "eval", *words, "--output", "two")
    assert (first, second) == (0, 0), error
    assert "PSNR in regions" in out
    assert not silent
    one, two = (pq.read_table(folder / "per_sample.parquet").to_pylist() for folder in (alone, here / "two"))
    assert len(one) == len(two) == 4 * (2 + 1)
    for ours, theirs in zip(one, two, strict=True):
        if ours["method"] == "paste":
            assert ours == theirs
            continue
        for name, value in ours.items():
            assert theirs[name] == (pytest.approx(value, abs=0.01) if isinstance(value, float) else value), name
    ours, theirs = (results(folder) for folder in (alone, here / "two"))
    assert theirs["sets"]["dino"]["paste"] == ours["sets"]["dino"]["paste"]
    assert theirs["figures"]["all"]["paste"] == ours["figures"]["all"]["paste"]
    assert theirs["models"] == ours["models"]


def test_pictures_of_others(here: Path) -> None:
    """A method's own pictures, measured as that method is."""
    words = (*QUICK, "--limit", 3)
    assert run(*words, "--methods", "paste", "--output", "ours").exit_code == 0
    source = open_examples(job(here).recipe, 0.75)
    (here / "theirs").mkdir()
    for number in range(2):
        example = source[number]
        Image.fromarray(composite_by_baseline("paste", example)).save(here / "theirs" / f"composed_{example.key}.png")
    found = run(*words, "--methods", "paste", "--input", "peer=theirs", "--output", "both")
    assert found.exit_code == 0, found.stderr
    assert "peer: no picture of 1 of 3 cases (1 no_picture); its means are of the others" in found.stderr
    both = results(here / "both")
    assert both["missed"] == {"peer": {"no_picture": 1}}
    lead = both["differences"]["paste minus peer"]["all"]["psnr"]
    assert (lead["mean"], lead["cases"]) == (0, 2)
    # Pictures of other names: told at once, and no result without the method.
    (here / "odd").mkdir()
    Image.fromarray(example.truth).save(here / "odd/out_0.png")
    odd = run(*words, "--methods", "paste", "--input", "odd=odd", "--output", "none")
    assert odd.exit_code == 2
    assert "--input odd: no picture of the first cases, called 00000000, 00000001, 00000002; it has out_0" in odd.stderr
    assert "error: odd: no picture of any of 3 cases; the first: odd: no 00000000.png" in odd.stderr
    assert not (here / "none/results.json").exists()
    # The missing one comes, and another is made anew: both are looked at.
    example = source[2]
    Image.fromarray(composite_by_baseline("paste", example)).save(here / "theirs" / f"{example.key}.PNG")
    Image.fromarray(255 - source[0].truth).save(here / "theirs/composed_00000000.png")
    assert run(*words, "--methods", "paste", "--input", "peer=theirs", "--output", "both").exit_code == 0
    again = results(here / "both")
    assert again["missed"] == {}
    assert again["differences"]["paste minus peer"]["all"]["psnr"]["mean"] > 1


def test_pictures_against_pictures(here: Path) -> None:
    rng = np.random.default_rng(0)
    for folder in ("truth", "made"):
        (here / folder).mkdir()
    for number in range(3):
        truth = rng.integers(0, 200, (40, 50, 3)).astype(np.uint8)
        Image.fromarray(truth).save(here / f"truth/{number}.png")
        Image.fromarray(truth + np.uint8(10)).save(here / f"made/{number}.png")
    found = run("--reference", "truth", "--input", "made", "--output", "out")
    assert found.exit_code == 0, found.stderr
    figures = results(here / "out")["figures"]["all"]["made"]
    assert figures["psnr"]["mean"] == pytest.approx(20 * np.log10(25.5), abs=1e-4)
    assert figures["seam"]["cases"] == 0
    (here / "other").mkdir()
    Image.fromarray(truth).save(here / "other/x.png")
    refused = run("--reference", "truth", "--input", "other", "--output", "out2")
    assert refused.exit_code == 2
    assert "no sample in common with --reference: x, … against 0, 1, 2, …" in refused.stderr
    Image.fromarray(truth[:20]).save(here / "made/1.png")
    sizes = run("--reference", "truth", "--input", "made", "--output", "out3")
    assert sizes.exit_code == 0
    assert "made: no picture of 1 of 3 cases (1 other_size)" in sizes.stderr
    for number in (0, 2):
        (here / f"made/{number}.png").unlink()
    none = run("--reference", "truth", "--input", "made", "--output", "out4", "--limit", 2)
    assert none.exit_code == 2
    assert "no method has a picture of any case" in none.stderr
    assert "made/1.png: 50x20, the truth is 50x40" in none.stderr or "made: no 0.png" in none.stderr


def test_samples_of_shards(here: Path) -> None:
    write_shard(here / "set/00000.tar", range(4))
    found = run("--shards", "set", "--methods", "paste,poisson", "--output", "out")
    assert found.exit_code == 0, found.stderr
    figures = results(here / "out")["figures"]["all"]
    # Pasting what was cut from the picture itself gives the picture again.
    assert figures["paste"]["psnr_region"]["mean"] > figures["poisson"]["psnr_region"]["mean"]
    assert results(here / "out")["data"]["samples"] == 4
    none = run("--shards", "set", "--methods", "paste", "--set", "references=truth", "--output", "truth")
    assert none.exit_code == 2
    assert re.search(r"no case could be measured: 4 no_clean_plate; the first: \S+: the background", none.stderr)


def test_a_model_that_has_seen_the_samples(here: Path, model: Path) -> None:
    """Its pics.json says which shards it was trained on; exactly those are warned of."""
    write_shard(here / "set/00000.tar", range(2))
    write_shard(here / "other/00000.tar", range(2, 5))
    (seen,) = resolve_shard_sets(DataSettings(root=".", sets={"a": TrainingSet(shards="set")}), "train")
    PicsModel.from_pretrained(model).save_pretrained(here / "trained")
    replace(ModelConfig.load(here / "trained"), trained_on=[seen.contents_sha256]).save(here / "trained")
    for name, leaks in (("set", True), ("other", False)):
        words = ("--shards", name, "--model", "trained", "--methods", "parallel", "--metrics", "psnr")
        found = run(*words, "--output", f"out_{name}", "--device", "cpu")
        assert found.exit_code == 0, found.stderr
        assert ("LEAK: trained was trained on shards of these names" in found.stderr) == leaks
        assert len(results(here / f"out_{name}")["warnings"]) == leaks
        assert ("LEAK" in (here / f"out_{name}/report.html").read_text()) == leaks


def test_learnt_features(learnt: Run, encoders: Path, model: Path) -> None:
    """Encoders named: figures of objects, distances of sets; what was measured with others is refused."""
    options, output, found = learnt
    words = (*options, "--output", str(output))
    assert found.exit_code == 0, found.stderr
    both = results(output)
    assert set(both["unavailable"]) == {"lpips", "lpips_region", "lpips_overlap"}
    for kind in ("dino", "clip"):
        for method in ("parallel", "paste"):
            assert 0 < both["figures"]["all"][method][f"{kind}_i"]["mean"] <= 1
            collapsed = [both["figures"]["all"][method][f"collapse_{limit}"]["mean"] for limit in (40, 50, 60)]
            assert collapsed == sorted(collapsed)
            one = both["sets"][kind][method]
            assert (one["pictures"], one["enough"]) == (4, False)
            assert one["frechet"] > 0
            assert one["kernel"]["low"] < one["kernel"]["high"]
    assert [one["name"] for one in both["features"]] == [str(encoders / kind) for kind in ("dino", "clip")]
    assert all(len(one["weights"]) == 64 for one in both["features"])
    assert both["models"][0]["name"] == str(model)
    assert "fewer than 2,048" in found.stderr
    twice = run(*words, "--features", encoders / "dino")
    assert twice.exit_code == 2
    assert "name one of each kind" in twice.stderr
    # One that is missing is measured again: the same bytes everywhere.
    names = ("results.json", "table.md", "per_sample.parquet", "report.html")
    before = {name: (output / name).read_bytes() for name in names}
    (output / "cases/000002.json").unlink()
    again = run(*words)
    assert again.exit_code == 0, again.stderr
    assert {name: (output / name).read_bytes() for name in names} == before
    refused = run(*options[:-2], "--output", output)
    assert refused.exit_code == 2
    assert "was begun otherwise" in refused.stderr


def test_published_figures(here: Path) -> None:
    """FID, KID and LPIPS from files of weights; of the truth itself they are 0."""
    inception, alexnet = (published_files() / f"{name}.pth" for name in ("inception", "alexnet"))
    words = (*SMALL, "--methods", "paste,poisson", "--limit", 2, "--output", "out", "--metrics", "lpips,lpips_region")
    found = run(*words, "--features", inception, "--features", alexnet)
    assert found.exit_code == 0, found.stderr
    one = results(here / "out")
    assert set(one["sets"]) == {"inception"}
    assert one["sets"]["inception"]["paste"]["frechet"] > 0
    assert "inception features, paste: FID " in found.stderr
    assert ">FID ↓<" in (here / "out/report.html").read_text()
    for name in ("lpips", "lpips_region"):
        assert one["figures"]["all"]["paste"][name]["mean"] > 0
    whole, region = (one["figures"]["all"]["paste"][name]["mean"] for name in ("lpips", "lpips_region"))
    assert region > whole  # nothing differs elsewhere
    example = open_examples(job(here).recipe, 0.75)[0]
    for folder, picture in (("truth", example.truth), ("same", example.truth), ("other", example.background)):
        (here / folder).mkdir()
        Image.fromarray(picture).save(here / folder / "a.png")
    own = ("--reference", "truth", "--input", "same", "--input", "other", "--output", "pictures")
    found = run(*own, "--features", alexnet)
    assert found.exit_code == 0, found.stderr
    figures = results(here / "pictures")["figures"]["all"]
    assert figures["same"]["lpips"]["mean"] == 0
    assert figures["other"]["lpips"]["mean"] > 0


def test_resume_goes_on_with_what_was_begun(here: Path) -> None:
    words = (*SMALL, "--methods", "paste", "--metrics", "psnr", "--output", "out", "--resume")
    none = run(*words, "--limit", 1)
    assert none.exit_code == 2
    assert "--resume: nothing was begun in out" in none.stderr
    assert not (here / "out").exists()
    assert run(*words[:-1], "--limit", 1).exit_code == 0
    found = run(*words, "--limit", 2)
    assert found.exit_code == 0, found.stderr
    assert results(here / "out")["measured"] == 2
    both = run(*words, "--overwrite")
    assert both.exit_code == 2
    assert "--resume and --overwrite exclude each other" in both.stderr


def test_without_weights_the_rest_is_computed(done: Path) -> None:
    found = results(done)
    assert found["unavailable"] == {
        "clip_i": "needs --features with CLIP weights",
        **dict.fromkeys(("dino_i", "collapse_40", "collapse_50", "collapse_60"), "needs --features with DINO weights"),
        **dict.fromkeys(("lpips", "lpips_region", "lpips_overlap"), "needs --features with LPIPS weights"),
    }  # fmt: skip
    assert found["sets"] == {}


def test_compare(here: Path, done: Path) -> None:
    less = ("--methods", "paste,poisson", "--metrics", "psnr_region,order", "--limit", 3)
    assert run(*SMALL, *less, "--output", "other").exit_code == 0
    found = run("--compare", done / "results.json", "other/results.json")
    assert found.exit_code == 0, found.stderr
    assert "3 cases in common of 5 and 3" in found.stderr
    assert "recipe_hash" in found.stderr
    assert re.search(r"all \(3\) +paste +psnr_region", found.stdout)
    assert "parallel" not in found.stdout
    assert f"other data: {done}" not in found.stderr
    assert "difficulty" not in found.stdout
    assert "subsets of the cases: --verbose" in found.stderr
    assert "difficulty" in run("--compare", done / "results.json", "other/results.json", "--verbose").stdout
    itself = run("--compare", done / "results.json", done / "results.json")
    assert re.search(r"all \(5\) +parallel +psnr_region +\+0 +\+0 to \+0", itself.stdout)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ((), "name what is to be evaluated"),
        (("--recipe", "synth_bench", "--shards", "x"), "one of --recipe NAME, --shards DIR"),
        (("--recipe", "synth_bnech"), "did you mean synth_bench or synth?"),
        (("--recipe", "lvis"), "kind"),
        ((*SMALL, "--metrics", "psnr,order_dependance"), "did you mean order_dependence?"),
        ((*SMALL, "--methods", "paste,glue"), "methods"),
        ((*SMALL, "--model", "nowhere/none/at-all"), "nowhere"),
        ((*SMALL, "--methods", "paste", "--input", "gone"), "--input gone: no such folder"),
        ((*SMALL, "--methods", "paste", "--input", "paste=."), "a second method called 'paste'"),
        ((*SMALL, "--model", "a=x", "--model", "a=y"), "a second model called 'a'"),
        (("--reference", "."), "no pictures to hold against it"),
        (("--reference", ".", "--input", "."), "no picture in it"),
        (("--reference", ".", "--input", ".", "--methods", "paste"), "leave out --model, --methods"),
        (("--shards", "gone"), "gone: no such folder"),
        ((*SMALL, "--set", "scenes.count=0"), "scenes.count"),
        ((*SMALL, "--features", "gone"), "--features gone: no such folder"),
        ((*SMALL, "--features", "gone.pth"), "--features gone.pth: no such file"),
        ((*SMALL, "--metrics", "lpips"), "--metrics lpips: needs --features with LPIPS weights"),
        ((*SMALL, "--metrics", "dino_i"), "--metrics dino_i: needs --features with DINO weights"),
        ((*SMALL, "--methods", "paste", "--input", "=."), "a method's name is not empty"),
        (("--compare", "a.json", "b.json"), "a.json: cannot be read"),
    ],
)
def test_refused(here: Path, words: tuple[str, ...], text: str) -> None:
    found = run(*words, *(("--output", "out") if "--compare" not in words else ()))
    assert found.exit_code == 2, found.stderr
    assert text in found.stderr
    assert "Traceback" not in found.stderr
    assert not (here / "out").exists() or not list((here / "out").rglob("*.json"))


def test_what_can_be_computed_is(here: Path) -> None:
    found = run(*SMALL, "--methods", "paste", "--limit", 2, "--metrics", "psnr,dino_i", "--output", "out")
    assert found.exit_code == 0, found.stderr
    assert "not computed: dino_i (needs --features with DINO weights)\n" in found.stderr
    assert list(results(here / "out")["figures"]["all"]["paste"]) == ["psnr"]


@pytest.mark.parametrize("name", ["results.json", "cases/000001.json"])
def test_a_folder_of_somebody_elses(here: Path, name: str) -> None:
    (here / "out/cases").mkdir(parents=True)
    (here / "out" / name).write_text("mine")
    found = run(*SMALL, "--methods", "paste", "--limit", 1, "--output", "out", "--overwrite")
    assert found.exit_code == 2
    assert "which pics eval did not begin" in found.stderr
    assert (here / "out" / name).read_text() == "mine"


def test_other_precision_is_refused(here: Path, model: Path) -> None:
    words = (*QUICK, "--model", model, "--methods", "parallel", "--limit", 1, "--output", "out")
    assert run(*words).exit_code == 0
    found = run(*words, "--dtype", "bf16")
    assert found.exit_code == 2
    assert 'dtype: the folder has "float32", this run "bfloat16"' in found.stderr


@pytest.mark.slow
def test_killed_in_the_middle(here: Path) -> None:
    """With -9, again and again; the results are those of a run that was left alone."""
    options = {"limit": 8, "methods": ["paste", "poisson"], "metrics": ["psnr_region", "order", "seam"]}
    evaluate(job(here / "whole", **options), Ranks(), EvaluationProgress())
    for least in (2, 5):
        work = (job(here / "killed", **options), Ranks(), EvaluationProgress())
        running = get_context("fork").Process(target=evaluate, args=work)  # torch is imported already
        running.start()
        until = time.monotonic() + 90
        while len(list((here / "killed").glob("cases/*.json"))) < least and time.monotonic() < until:
            time.sleep(0.005)
        running.kill()
        running.join()
        assert running.exitcode == -signal.SIGKILL
    evaluate(job(here / "killed", **options), Ranks(), EvaluationProgress())
    for name in ("results.json", "per_sample.parquet", "report.html", "table.md"):
        assert (here / "killed" / name).read_bytes() == (here / "whole" / name).read_bytes()


@pytest.mark.parametrize("name", ["cases/000001.json", "begun.json"])
@pytest.mark.parametrize("peers", [(), ("--input", "peer=pictures")])
def test_a_damaged_file_is_named(here: Path, name: str, peers: tuple[str, ...]) -> None:
    (here / "pictures").mkdir()
    Image.new("RGB", (96, 96)).save(here / "pictures/00000000.png")
    words = (*QUICK, "--methods", "paste", "--limit", 2, "--output", "out", *peers)
    assert run(*words).exit_code == 0
    (here / "out" / name).write_text("{")
    found = run(*words)
    assert found.exit_code == 2
    assert f"{name}: cannot be read" in found.stderr


def test_a_second_model_may_be_called_anything(here: Path, model: Path) -> None:
    words = (*QUICK, "--model", model, "--model", f"first={model}", "--methods", "parallel", "--limit", 1)
    assert run(*words, "--output", "out").exit_code == 0
    found = results(here / "out")
    assert found["methods"] == ["parallel", "first:parallel"]
    assert [one["label"] for one in found["models"]] == ["", "first"]
    lead = found["differences"]["parallel minus first:parallel"]["all"]["psnr"]
    assert (lead["mean"], lead["low"], lead["high"]) == (0, 0, 0)


def test_another_reference_of_one_size_is_noticed(here: Path) -> None:
    for folder in ("truth", "made"):
        (here / folder).mkdir()
        Image.new("RGB", (32, 32), (9, 9, 9)).save(here / folder / "a.bmp")
        Image.new("RGB", (32, 32), (9, 9, 9)).save(here / folder / "a.png", compress_level=0)
    words = ("--reference", "truth", "--input", "made", "--output", "out")
    first = run(*words)
    assert first.exit_code == 0, first.stderr
    before = (here / "truth/a.png").stat().st_size
    Image.new("RGB", (32, 32), (200, 9, 9)).save(here / "truth/a.png", compress_level=0)
    assert (here / "truth/a.png").stat().st_size == before
    found = run(*words)
    assert found.exit_code == 2
    assert "other files than when the folder was begun" in found.stderr


def test_pictures_of_one_case(here: Path) -> None:
    for folder in ("truth", "twice", "prefix", "lr=1e-4/out", "a|b<i>\x1b[1m"):
        (here / folder).mkdir(parents=True)
        Image.new("RGB", (32, 32), (9, 9, 9)).save(here / folder / "a.png")
    Image.new("RGB", (32, 32), (8, 9, 9)).save(here / "twice/a.jpg")
    Image.new("RGB", (32, 32), (8, 9, 9)).save(here / "prefix/composed_a.png")
    words = ("--reference", "truth", "--output", "out", "--input")
    for folder, names in (("twice", "a.jpg and a.png"), ("prefix", "a.png and composed_a.png")):
        done = run(*words, folder)
        assert done.exit_code == 2
        assert f"--input {folder}: both {names} are pictures of a" in done.stderr
    # A folder whose name holds an equals sign, and one that Markdown and terminals would take for something else.
    done = run(*words, "lr=1e-4/out", "--input", "a|b<i>\x1b[1m")
    assert done.exit_code == 0, done.stderr
    assert results(here / "out")["methods"] == ["out", "a|b<i>\x1b[1m"]
    table = (here / "out/table.md").read_text()
    assert r"| a\|b&lt;i&gt; \[1m |" in table
    assert "\x1b" not in done.stdout + done.stderr + table
    assert "99.00" in done.stdout  # the figures are there, of the picture that is the truth
    done = run("--reference", "truth", "--input", "lr=1e-4/out", "--output", "lr=1e-4/out")
    assert "is --input lr=1e-4/out, which this run reads" in done.stderr


def test_files_of_another_shape_are_named(here: Path) -> None:
    words = (*QUICK, "--methods", "paste", "--limit", 1, "--output", "out")
    assert run(*words).exit_code == 0
    record, whole = here / "out/cases/000000.json", (here / "out/cases/000000.json").read_text()
    listed = whole.replace('"values": {', '"values": [], "was": {')
    renamed = whole.replace('"psnr"', '"psn"')
    for text in ("[]", "{}", '{"number": 0}', listed, renamed, "[" * 100_000, '{"bad": 1}'):
        record.write_text(text)
        done = run(*words)
        assert done.exit_code == 2, text[:40]
        assert "cases/000000.json: " in done.stderr
        assert "fault of pics" not in done.stderr
    record.write_text(whole)
    (here / "out/begun.json").write_text("[1]")
    assert "begun.json: holds no JSON object, but list" in run(*words).stderr
    for text in ("[]", '{"kind": "pics-eval"}', '{"kind": "pics-eval", "name": 1}'):
        (here / "odd.json").write_text(text)
        done = run("--compare", "odd.json", "odd.json")
        assert done.exit_code == 2
        assert "odd.json: " in done.stderr
    os.mkfifo("pipe.json")  # nobody writes into it
    assert "pipe.json: cannot be read: is a pipe, expected a file" in run("--compare", "pipe.json", "pipe.json").stderr
    (here / "out/per_sample.parquet").unlink()
    os.mkfifo(here / "out/per_sample.parquet")
    done = run("--compare", "out/results.json", "out/results.json")
    assert (done.exit_code, "is a pipe, expected a file" in done.stderr) == (2, True)


@pytest.mark.slow
@pytest.mark.browser
def test_in_a_browser(done: Path) -> None:
    """No message in the console, pictures load, tables sort, methods choose pictures, cases have pages."""
    seen = look(done / "report.html")
    chosen = seen["gallery_0"], seen["gallery_1"]
    assert sorted(chosen[0]) == sorted(chosen[1]) == [f"{number:08d}" for number in range(5)]  # all of so few
    assert chosen[0] != chosen[1]
    assert seen["rows"] == 5
    assert "00000000" in seen["case"]
    assert "PSNR in regions" in seen["case"]
    assert "Paired differences" not in seen["case"]
    assert seen["case_pictures"] > 4 + 4  # inputs, and each method's with the truth over it
    assert "no figures of such a case" in seen["no_case"]
    assert seen["report_again"]
    assert seen["errors"] == []
    assert seen["pictures"] > 20
    assert seen["broken"] == 0
    assert seen["sorted"] == sorted(seen["sorted"], reverse=True)
    assert seen["sorted"] != seen["before"]
    assert seen["again"] == sorted(seen["sorted"])
