"""Rebuild while everything runs, and when it cannot: nothing half-made is ever shown."""

from __future__ import annotations

import threading

import pytest

from consumers.projector import project
from engine.dev.process import wait_until
from engine.ports import Output
from engine.runtime.clock import SystemClock
from engine.runtime.history.clickhouse import UnavailableError
from engine.runtime.history.migration import MigrationError
from engine.runtime.history.projection import ProjectionError
from engine.runtime.history.rebuild import Options, RebuildError, Report
from engine.runtime.history.rollups import ROLLUPS
from engine.runtime.history.rows import COLUMNS
from tests.integration.history_fixtures import Store, context_of
from tests.integration.lying_store import (
    LIMIT_S,
    Exchange,
    Front,
    Manner,
    contents,
    front,
    hang_up,
    hang_up_after,
    pass_on,
    process,
    refuse_late,
    served,
)
from tests.integration.rebuild_scene import (
    DAMAGE,
    TrimmedLog,
    fill,
    leftovers,
    log,
    projected,
    run,
)

__all__ = ["front", "log", "process", "served"]
pytestmark = pytest.mark.integration

# -- while everything runs --------------------------------------------------------------


def test_what_is_projected_during_the_exchange(log: TrimmedLog, served: Store, front: Front) -> None:
    """Rows that reach an old table just before it is exchanged are in the new one."""
    begun = iter(range(100, 200, 10))

    def late(exchange: Exchange) -> None:
        front.be_honest()
        fill(log, next(begun), 10)
        projected(log, served)
        front.lie(late, "EXCHANGE")
        pass_on(exchange)

    front.lie(late, "EXCHANGE")
    run(log, served)
    front.be_honest()
    fresh = contents(served)
    assert {row[1] for row in fresh["messages"]} == {
        f"m{n}" for n in (*range(60), *range(100, 100 + 10 * (len(COLUMNS) + len(ROLLUPS))))
    }
    run(log, served)
    assert contents(served) == fresh


def test_with_the_projector_running(log: TrimmedLog, served: Store) -> None:
    """Analysts never see fewer rows than there were, and in the end every one is there."""
    stop, done = threading.Event(), 60
    seen: list[list[int]] = []
    count = "SELECT " + ", ".join(f"(SELECT count() FROM {table} FINAL)" for table in COLUMNS)

    def counted() -> list[int]:
        return [int(str(rows)) for rows in served.history.query(count).rows[0]]

    def watch() -> None:
        while not stop.is_set():
            seen.append(counted())

    threads = [
        threading.Thread(target=watch),
        threading.Thread(target=project, args=(context_of(served, log, SystemClock()), served.history, stop)),
    ]
    base = counted()
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            fill(log, done, 25)
            done += 25
            run(log, served)
        sql = "SELECT count() FROM delivery_status"
        assert wait_until(lambda: served.history.query(sql).rows == [(2 * done,)], LIMIT_S)
    finally:
        stop.set()
        for thread in threads:
            thread.join(LIMIT_S)
    assert len(seen) > 4
    assert all(now >= first for counts in seen for now, first in zip(counts, base, strict=True))
    live = contents(served)
    run(log, served)
    assert contents(served) == live


# -- when it cannot ---------------------------------------------------------------------


def test_stopped_before_the_end(log: TrimmedLog, served: Store) -> None:
    """The tables are as they were, and what was built is gone."""
    before, stop = contents(served), threading.Event()
    served.client.command(DAMAGE["invented"])
    damaged = contents(served)
    with pytest.raises(RebuildError, match="stopped: the tables are as they were"):
        run(log, served, Options(stop, lambda phase, done, total: stop.set()))
    assert contents(served) == damaged != before
    assert leftovers(served) == []


def test_what_a_killed_rebuild_left_is_dropped(log: TrimmedLog, served: Store) -> None:
    """A rebuild that was killed is begun anew; a database of somebody else's is left alone."""
    mine = f"{served.settings.clickhouse_database}_rebuild_"
    for name in (f"{mine}1234567890123456", f"{mine}notes"):
        served.client.command(f"CREATE DATABASE {name}")
    run(log, served)
    assert leftovers(served) == [f"{mine}notes"]
    served.client.command(f"DROP DATABASE {mine}notes")


def test_a_record_of_a_newer_hooklog(log: TrimmedLog, served: Store) -> None:
    """It is named, and the tables are as they were."""
    before = contents(served)
    log.append(Output("attempts", 0, None, b"\xc3\x0112345678"))
    with pytest.raises(ProjectionError, match=r"attempts-0 at offset \d+: .*upgrade"):
        run(log, served)
    assert contents(served) == before
    assert leftovers(served) == []


def test_tables_of_a_newer_hooklog(log: TrimmedLog, served: Store) -> None:
    """What this version does not know it would lose."""
    served.client.command("INSERT INTO migrations VALUES ('9999_future', 'x', now())")
    with pytest.raises(MigrationError, match="9999_future: upgrade"):
        run(log, served)


@pytest.mark.parametrize("manner", [hang_up, refuse_late])
def test_away_for_good(log: TrimmedLog, served: Store, front: Front, *, manner: Manner) -> None:
    """After its patience is over it says so, and the tables are as they were."""
    before = contents(served)

    def lie(phase: str, done: int, total: int) -> None:
        front.lie(manner, "INSERT")

    with pytest.raises(UnavailableError):
        run(log, served, Options(tell=lie, away_s=0.3))
    front.be_honest()
    assert contents(served) == before
    assert run(log, served).tables["messages"].after == 60
    assert leftovers(served) == []


@pytest.mark.parametrize("statement", ["INSERT", "EXCHANGE", "SELECT count"])
@pytest.mark.parametrize("manner", [hang_up, hang_up_after, refuse_late], ids=lambda m: m.__name__)
def test_away_for_a_moment(
    log: TrimmedLog, served: Store, front: Front, statement: str, manner: Manner
) -> None:
    """Asked again whether it did not hear, did not answer or answered nonsense, it makes the same tables."""
    before, left = contents(served), [3]
    log.starts = {("attempts", 0): 50}
    served.client.command("ALTER TABLE messages UPDATE bytes = 1 WHERE 1 SETTINGS mutations_sync = 1")

    def sometimes(exchange: Exchange) -> None:
        left[0] -= 1
        (manner if left[0] >= 0 else pass_on)(exchange)

    run(log, served, Options(tell=lambda phase, done, total: front.lie(sometimes, statement)))
    front.be_honest()
    assert left[0] <= 0
    assert contents(served) == before
    assert leftovers(served) == []


def test_two_at_a_time(log: TrimmedLog, served: Store) -> None:
    """A second one takes over: the first halts when it writes, and nothing half-made is shown."""
    before = contents(served)
    nested: list[Report] = []

    def interrupt(phase: str, done: int, total: int) -> None:
        if not nested:
            nested.append(run(log, served))

    with pytest.raises(RebuildError, match="has another rebuild begun"):
        run(log, served, Options(tell=interrupt))
    assert len(nested) == 1
    assert contents(served) == before
