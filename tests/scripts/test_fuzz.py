"""The fuzz script: a short run without failures, failures that are seen, the same inputs for the same seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import fuzz
import fuzz_areas
from fuzz import Input, Result, Trial, schedule, table, watched
from fuzz_areas import AREAS, Area, Fault, Tried
from fuzz_mutations import damage_bytes, damage_json, damage_yaml


def test_a_short_run_fails_nowhere() -> None:
    """Without the areas that load torch."""
    inputs = schedule(["pictures", "masks", "shards", "recipes"], 250)
    bad = [each for each in watched(inputs, seed=0, seconds=8) if each.ending in fuzz.FAILURES]
    assert bad == []


def test_damage_is_a_function_of_the_seed() -> None:
    whole = {damage_bytes: bytes(range(256)), damage_json: b'{"a": [1, {"b": 2}]}', damage_yaml: b"a: b"}
    for damage, data in whole.items():
        made = [damage(data, np.random.default_rng(seed))[0] for seed in range(50)]
        assert made == [damage(data, np.random.default_rng(seed))[0] for seed in range(50)]
        assert len(set(made)) > 10
        assert sum(each != data for each in made) > 40


def test_every_part_of_a_schedule_has_every_area() -> None:
    inputs = schedule(list(AREAS), 20_000)
    assert len(inputs) >= 20_000
    assert len(set(inputs)) == len(inputs)
    assert {each.area for each in inputs[: len(inputs) // 10]} == set(AREAS)


class _Hostile(Area):
    """Ends in a way of its own by turns."""

    title, planned = "hostile", 5

    def attempt(self, rng: np.random.Generator) -> Tried:
        way = int(rng.integers(4))
        if way == 0:
            raise Fault("this is a fault of pics")
        if way == 1:
            (self.folder.parent / "stray").touch()
        if way == 2:
            np.ones(1 << 26)
        return Tried("silent" if way == 3 else "refused", str(way))


def test_failures_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(AREAS, "hostile", _Hostile)
    monkeypatch.setattr(fuzz, "MEMORY_KB", fuzz._peak_kb() + 300_000)
    for name in ("HOME", "PICS_CACHE", "HF_HUB_OFFLINE", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    root = tmp_path / "root"
    root.mkdir()
    tester, found = Trial(root, 0), set()
    tester.area("hostile")
    for number in range(40):
        found.add(tester.attempt(Input("hostile", number)).ending)
        (root / "stray").unlink(missing_ok=True)
    assert found == {"traceback", "outside", "memory", "silent"}


def test_a_process_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says nothing for too long: here, as long as a process takes to start."""
    monkeypatch.setattr(fuzz, "SETUP_SECONDS", 0.0)
    found = list(watched([Input("masks", 0), Input("masks", 1)], 0, 60))
    assert [each.ending for each in found] == ["hang", "hang"]


def test_the_table_counts() -> None:
    counted = Counter(["refused", "refused", "silent"])
    assert "| masks | 3 | 2 | 0 | 0 | 0 | 0 | 0 | 1 | 0 |" in table({"masks": counted})
    assert fuzz_areas.AREAS["masks"].title == "masks"
    assert Result(Input("masks", 0), "silent", "").ending in fuzz.FAILURES
