"""Two processes of a run, as threads: results of both, errors of one, and who waits for whom."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.two_ranks import in_threads
from pics_cli.core.runtime.ranks import (
    Ranks,
    SharedError,
    launched,
    leave_together,
    local_process_count,
    mark_local_error,
    report_lost_peer,
)
from pics_cli.errors import FAILED, PicsError


def test_alone() -> None:
    ranks = Ranks()
    assert ranks.run_on_all(lambda: 7) == [7]
    assert ranks.run_local(lambda: 7) == 7


def test_results_of_all_in_rank_order() -> None:
    assert in_threads(lambda ranks: ranks.run_on_all(lambda: ranks.rank)) == [[0, 1], [0, 1]]
    assert in_threads(lambda ranks: ranks.run_local(lambda: ranks.rank)) == [0, 1]


def test_the_first_works_before_the_others_do() -> None:
    calls: list[int] = []

    def work(ranks: Ranks) -> int:
        def find() -> int:
            calls.append(ranks.rank)
            return 10 * ranks.rank

        return ranks.run_first_alone(find)

    assert in_threads(work) == [0, 10]
    assert calls[0] == 0
    assert sorted(calls[1:]) == [0, 1]
    assert Ranks().run_first_alone(lambda: 7) == 7


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_of_one_is_raised_by_all(failing: int) -> None:
    def work(ranks: Ranks) -> tuple[str, str | None, int]:
        def fail() -> None:
            if ranks.rank == failing:
                raise PicsError("no such file", "look", FAILED)

        with pytest.raises(SharedError) as raised, mark_local_error(ranks), leave_together(ranks):
            ranks.run_local(fail)
        assert not raised.value.local
        return raised.value.message, raised.value.hint, raised.value.exit_code

    assert in_threads(work) == [("no such file", "look", FAILED)] * 2


def test_an_error_of_its_own_ends_a_process_without_the_others() -> None:
    gathered: list[Any] = []

    def gather(item: Any) -> list[Any]:
        gathered.append(item)
        return []

    ranks = Ranks(1, 2, gather)
    with pytest.raises(PicsError) as raised, leave_together(ranks), mark_local_error(ranks):
        raise PicsError("disk full")
    assert raised.value.local
    assert not gathered


def test_an_error_of_the_only_process_is_not_local() -> None:
    with pytest.raises(PicsError) as raised, mark_local_error(Ranks()):
        raise PicsError("disk full")
    assert not raised.value.local


def test_a_peer_that_has_ended_hides_neither_error_nor_result() -> None:
    def gather(_item: Any) -> list[Any]:
        raise RuntimeError("Connection closed by peer")

    ranks = Ranks(1, 2, gather)
    with leave_together(ranks):
        pass
    with pytest.raises(PicsError, match="no such file"), leave_together(ranks):
        raise PicsError("no such file")


def test_a_lost_peer_is_told() -> None:
    two = Ranks(0, 2)
    with pytest.raises(PicsError) as raised, report_lost_peer(two):
        raise RuntimeError("[gloo/pair.cc:561] Connection closed by peer [127.0.0.1]:1\nmore")
    assert raised.value.message == (
        "another process of this run is gone ([gloo/pair.cc:561] Connection closed by peer [127.0.0.1]:1)"
    )
    assert raised.value.local
    assert raised.value.exit_code == FAILED
    with pytest.raises(RuntimeError, match="shapes"), report_lost_peer(two):
        raise RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match="Broken pipe"), report_lost_peer(Ranks()):
        raise RuntimeError("Broken pipe")


def test_what_the_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert not launched()
    assert local_process_count() == 1
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert launched()
    assert local_process_count() == 4
