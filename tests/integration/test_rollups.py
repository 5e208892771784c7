"""Rollups: what a plain fold of the same attempts says, whatever is repeated, split or killed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.projector import ROLLUP_S
from engine.core.model import AttemptFinished
from engine.ports import Output, Position
from engine.runtime.history import projection
from engine.runtime.history.rollups import ROLLUPS
from engine.runtime.memory import MemoryConsumer
from tests.integration.history_fixtures import (
    CODEC,
    Store,
    record,
    unasked,
)
from tests.integration.rollup_fold import (
    DAY,
    HISTORY,
    HOUR,
    MINUTE,
    RETRIES,
    SOME,
    Made,
    check,
    committed,
    finished,
    folded,
    found,
    log_of,
    member,
    project,
    write,
)
from tests.integration.test_projector import Faulty

pytestmark = pytest.mark.integration


@st.composite
def histories(draw: st.DrawFn) -> list[AttemptFinished]:
    """Attempts over three hours, retries after up to a day, copies that say something else."""
    attempts: list[AttemptFinished] = []
    for offset in range(draw(st.integers(1, 6))):
        attempts += draw_delivery(draw, offset)
    return attempts


def draw_delivery(draw: st.DrawFn, offset: int) -> Iterator[AttemptFinished]:
    """Up to three attempts of a delivery; each may have no request, or a copy at another time."""
    accepted, endpoint = draw(st.integers(0, 3 * HOUR)), draw(st.sampled_from(["ep1", "ep2"]))
    at = accepted
    for number in range(1, draw(st.integers(1, 3)) + 1):
        for _ in range(draw(st.sampled_from([1, 1, 2]))):
            at += draw(st.sampled_from([0, 1, 59, 61, 3_599, DAY]))
            made = Made(offset, endpoint, number, accepted, at, draw(st.integers(0, 40_000_000)))
            record_of_it = finished(replace(made, success=draw(st.booleans())))
            yield unasked(record_of_it) if draw(st.integers(0, 9)) == 0 else record_of_it


@given(histories(), st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_boundaries_give_the_fold(
    store: Store, attempts: list[AttemptFinished], data: st.DataObject
) -> None:
    """Batches of any size, replays from anywhere, rollups made after some of them or of many at once."""
    store.clear()
    records = [record("attempts", n, each) for n, each in enumerate(attempts)]
    touched = set()
    for start in [*data.draw(st.lists(st.integers(0, len(records) - 1), max_size=2)), 0]:
        size = data.draw(st.integers(1, len(records)))
        for at in range(start, len(records), size):
            touched |= write(store, records[at : at + size]).touched()
            if data.draw(st.booleans()):
                store.history.roll_up(touched)
                touched = set()
    store.history.roll_up(touched)
    check(store, attempts)


def test_killed_between_rows_and_rollups(store: Store) -> None:
    """Rows are in, the rollups are not, nothing is committed: the successor does both, once."""
    log = log_of(HISTORY)
    dying, clock = member(log, store, Faulty(store, lambda table: table == "rollups"))
    dying.step(0)
    clock.now_s = 2
    dying.step(0)
    assert store.history.query("SELECT count() FROM delivery_attempts").rows == [(len(SOME) + len(RETRIES),)]
    assert found(store, "endpoint_minutes", "minute") == {}
    assert committed(dying) is None
    assert isinstance(dying.consumer, MemoryConsumer)
    dying.consumer.kill()
    project(log, store)
    check(store, HISTORY)


def test_killed_between_minutes_and_hours(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes without their hours: the next time makes both."""
    log = log_of(HISTORY)
    with monkeypatch.context() as cut:
        cut.setattr("engine.runtime.history.rollups.ROLLUPS", ROLLUPS[:1])
        store.history.roll_up(write(store, log.records(("attempts", 0))).touched())
    assert found(store, "endpoint_minutes", "minute") == folded(HISTORY, MINUTE)
    assert found(store, "endpoint_hours", "hour") == {}
    project(log, store)
    check(store, HISTORY)


@pytest.mark.parametrize("rows", [1, 7, 1_000])
def test_another_batch_size(store: Store, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """A log that is read again, cut otherwise, into the same tables changes nothing."""
    project(log_of(HISTORY), store)
    monkeypatch.setattr(projection, "BATCH_ROWS", rows)
    project(log_of(HISTORY), store)  # another group's log: from the beginning
    check(store, HISTORY)


def test_rollups_and_commit_follow_rows(store: Store) -> None:
    """Between two times rows come and neither rollups nor commits; then both, or when it leaves."""
    log = log_of(SOME[:10])
    projector, clock = member(log, store)
    for second in (0, 1):
        clock.now_s = second
        projector.step(0)
    assert committed(projector) == Position(10, "")
    log.append(Output("attempts", 0, None, CODEC.encode(SOME[10])))
    for second in (2, 3):
        clock.now_s = second
        projector.step(0)
    assert store.history.query("SELECT count() FROM delivery_attempts").rows == [(11,)]
    check(store, SOME[:10])
    assert committed(projector) == Position(10, "")
    clock.now_s = 1 + ROLLUP_S
    projector.step(0)
    check(store, SOME[:11])
    assert committed(projector) == Position(11, "")
    log.append(Output("attempts", 0, None, CODEC.encode(SOME[11])))
    projector.step(0)
    projector.close()
    check(store, SOME[:12])


def test_rollups_refused_are_made_later(store: Store) -> None:
    """The delay grows, nothing is committed or taken in; once back it goes on by itself."""
    log, away = log_of(SOME), [True]
    projector, clock = member(log, store, Faulty(store, lambda table: away[0] and table == "rollups"))
    for second in (0, 2, 60):
        clock.now_s = second
        projector.step(0)
    assert committed(projector) is None
    assert projector.delay() == 60
    away[0] = False
    clock.now_s = 120
    projector.step(0)
    assert (committed(projector), projector.delay()) == (Position(len(SOME), ""), 0)
    check(store, SOME)
    projector.close()
