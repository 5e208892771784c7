"""ClickHouse away, lying, killed or mended wrongly: nothing is lost, and it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import pytest
from prometheus_client import REGISTRY

from consumers import projector as projector_module
from consumers.projector import Projector, await_tables, project
from engine.dev.process import wait_until
from engine.ports import Clock, Log, Output, Position
from engine.runtime.clock import SystemClock
from engine.runtime.history import projection
from engine.runtime.history.clickhouse import MismatchError
from engine.runtime.history.migration import migrate
from engine.runtime.history.projection import ProjectionError
from engine.runtime.memory import MemoryConsumer, MemoryLog
from tests.integration.history_fixtures import CODEC, Hand, Store, attempt, batch, context_of, routing
from tests.integration.lying_store import (
    Exchange,
    Front,
    Manner,
    StoreProcess,
    babble,
    contents,
    cut_short,
    front,
    hang_up,
    hang_up_after,
    impatient,
    pass_on,
    process,
    refuse,
    refuse_as_a_proxy,
    refuse_late,
    say_nothing,
    served,
)

__all__ = ["front", "process", "served"]
pytestmark = pytest.mark.integration

MANNERS = [refuse, refuse_as_a_proxy, refuse_late, babble, hang_up, hang_up_after, cut_short, say_nothing]
LIMIT_S = 60.0
INPUTS = (("routings", 0), ("attempts", 0))


def delay() -> float:
    """What the metric says, seconds."""
    return float(REGISTRY.get_sample_value("hooklog_projection_delay_seconds") or 0)


def errors() -> float:
    """What the metric says."""
    return float(REGISTRY.get_sample_value("hooklog_projector_errors_total") or 0)


def a_log(count: int = 4) -> MemoryLog:
    """A log on which so many messages have been delivered to one endpoint and wait for another."""
    log = MemoryLog(1, Hand())
    append(log, "routings", batch(*(routing(n, "ep1", "ep2") for n in range(count))))
    append(log, "attempts", *(attempt(n, "ep1", 1, "delivered") for n in range(count)))
    return log


def append(log: MemoryLog, topic: str, *values: object) -> None:
    """What others write while ClickHouse is in trouble: the log takes it."""
    for value in values:
        log.append(Output(topic, 0, None, CODEC.encode(value)))


def member(log: Log, store: Store, clock: Clock) -> Projector:
    """A projector that has joined and read what there is."""
    projector = Projector(context_of(store, log, clock), store.history)
    projector.step(0)
    return projector


def committed(projector: Projector) -> list[Position | None]:
    """How far the group is, by topic."""
    return list(projector.consumer.committed(INPUTS).values())


def straight(log: MemoryLog, store: Store) -> object:
    """What the tables say of this log when nothing goes wrong."""
    clone = MemoryLog(1, Hand())
    for at in INPUTS:
        for record in log.records(at):
            clone.append(Output(record.topic, 0, None, record.value))
    store.clear()
    member(clone, store, Hand()).close()
    return contents(store)


def sizes(found: Mapping[str, Sequence[object]]) -> list[int]:
    """Rows of messages, deliveries, attempts."""
    return [len(found[table]) for table in ("messages", "deliveries", "attempts")]


@pytest.mark.parametrize("about", ["INSERT INTO", "INSERT INTO `deliveries`"])
@pytest.mark.parametrize("manner", MANNERS, ids=lambda m: m.__name__)
def test_wrong_answers(served: Store, front: Front, manner: Manner, about: str) -> None:
    """Whatever it answers instead of the truth: nothing is committed, the delay grows, then all is exact."""
    with impatient(served) if manner is say_nothing else nullcontext(served) as store:
        check_wrong_answers(store, front, manner, about)


def check_wrong_answers(served: Store, front: Front, manner: Manner, about: str) -> None:
    """Lie once, to a projector whose clock stands in the test's hand."""
    log, clock, before = a_log(), Hand(), errors()
    projector = member(log, served, clock)
    front.lie(manner, about)
    clock.now_s = 2
    projector.step(0)
    assert errors() == before + 1
    assert committed(projector) == [None, None]
    for minute in range(1, 4):
        append(log, "attempts", attempt(minute, "ep2", 1, "retry"))
        clock.now_s = 60 * minute
        assert delay() == 60 * minute
    front.be_honest()
    projector.step(0)
    assert projector.delay() == 0
    projector.step(0)
    projector.close()
    assert errors() == before + 1
    assert [position.offset for position in committed(projector) if position] == [1, 7]
    found = contents(served)
    assert sizes(found) == [4, 8, 7]
    assert found == straight(log, served)


@pytest.mark.parametrize("about", ["`messages`", "`deliveries`", "`attempts`"])
@pytest.mark.parametrize("manner", [hang_up, hang_up_after], ids=["before", "after"])
def test_killed_at_an_insert(served: Store, front: Front, manner: Manner, about: str) -> None:
    """Killed before or after any table's insert, and so before the commit: the next one repeats it."""
    log, clock = a_log(), Hand()
    dying = member(log, served, clock)
    front.lie(manner, f"INSERT INTO {about}")
    clock.now_s = 2
    dying.step(0)
    assert isinstance(dying.consumer, MemoryConsumer)
    assert committed(dying) == [None, None]
    dying.consumer.kill()
    front.be_honest()
    append(log, "attempts", attempt(0, "ep2", 1, "failed"))
    member(log, served, clock).close()
    found = contents(served)
    assert sizes(found) == [4, 8, 5]
    assert found == straight(log, served)


def test_the_store_is_killed_and_comes_back(served: Store, process: StoreProcess, front: Front) -> None:
    """A real outage under a running projector: the metrics tell, and afterwards every count is exact."""
    log, before = MemoryLog(1, SystemClock()), errors()
    append(log, "routings", batch(*(routing(n, "ep") for n in range(50))))
    with projecting(log, served):
        assert wait_until(
            lambda: served.history.query("SELECT count() FROM messages").rows == [(50,)], LIMIT_S
        )
        process.kill()
        append(log, "attempts", *(attempt(n, "ep", 1, "delivered") for n in range(30)))
        assert wait_until(lambda: errors() > before, LIMIT_S)
        at_first = delay()
        append(log, "attempts", *(attempt(n, "ep", 1, "delivered") for n in range(30, 50)))
        assert wait_until(lambda: delay() > at_first + 0.3, LIMIT_S)
        process.start()
        delivered = "SELECT count() FROM delivery_status WHERE status = 'delivered'"
        assert wait_until(lambda: served.history.query(delivered).rows == [(50,)], LIMIT_S)
        assert wait_until(lambda: delay() == 0, LIMIT_S)
    assert sizes(contents(served)) == [50, 50, 50]


@contextmanager
def projecting(log: MemoryLog, store: Store) -> Iterator[None]:
    """A projector on a thread of its own, until the end of the block."""
    stop = threading.Event()
    thread = threading.Thread(
        target=project, args=(context_of(store, log, SystemClock()), store.history, stop)
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LIMIT_S)


# -- what waiting does not mend ---------------------------------------------------------


def test_a_lost_table_waits_for_a_migration(served: Store) -> None:
    """It is told and held, since `hooklog migrate` mends it; then the projector goes on by itself."""
    log, clock, before = a_log(), Hand(), errors()
    projector = member(log, served, clock)
    served.client.command("DROP TABLE attempts SYNC")
    clock.now_s = 2
    projector.step(0)
    assert errors() == before + 1
    assert committed(projector) == [None, None]
    migrate(served.client, served.settings)
    clock.now_s = 60
    projector.step(0)
    projector.close()
    assert contents(served) == straight(log, served)


def test_a_column_of_the_wrong_type_halts(served: Store) -> None:
    """No migration and no patience mends that: it says which table, commits nothing, and ends."""
    log = a_log()
    for change in ("DROP COLUMN reason", "ADD COLUMN reason UInt32"):
        served.client.command(f"ALTER TABLE attempts {change}")
    with pytest.raises(ProjectionError, match="columns of attempts"):
        project(context_of(served, log, SystemClock()), served.history, threading.Event())
    watching = Projector(context_of(served, log, Hand()), served.history)
    assert committed(watching) == [None, None]
    watching.close()


def test_ready_when_the_tables_are_there(served: Store, front: Front) -> None:
    """Until ClickHouse answers and has its tables the projector is not ready, and the delay grows."""
    stop, before = threading.Event(), errors()
    served.client.command("DROP TABLE attempts SYNC")
    front.lie(hang_up)
    results: list[bool] = []
    thread = threading.Thread(
        target=lambda: results.append(await_tables(served.history.check, stop, SystemClock()))
    )
    thread.start()
    assert wait_until(lambda: errors() > before, LIMIT_S)
    front.be_honest()
    away = errors()
    assert wait_until(lambda: errors() > away, LIMIT_S)  # it answers, and lacks a table
    assert wait_until(lambda: delay() > 0.3, LIMIT_S)
    assert results == []
    migrate(served.client, served.settings)
    thread.join(LIMIT_S)
    assert results == [True]


def test_stopped_while_it_waits() -> None:
    """Waiting for ClickHouse ends with the process."""
    stop = threading.Event()
    stop.set()
    assert await_tables(lambda: pytest.fail("asked"), stop, SystemClock()) is False


def test_no_access_halts() -> None:
    """A wrong password is not waited out."""

    def check() -> None:
        raise MismatchError("Code: 516. Authentication failed")

    with pytest.raises(ProjectionError, match="516"):
        await_tables(check, threading.Event(), SystemClock())


# -- batches ----------------------------------------------------------------------------


@pytest.mark.parametrize(("polled", "rows"), [(1, 1), (3, 2), (5, 1_000)])
def test_another_batch_size_gives_the_same_tables(
    served: Store, monkeypatch: pytest.MonkeyPatch, polled: int, rows: int
) -> None:
    """However few records a poll brings and however small the batches are."""
    log, clock = a_log(8), Hand()
    append(log, "attempts", *(attempt(n, "ep2", number, "retry") for n in range(8) for number in (1, 2)))
    monkeypatch.setattr(projector_module, "POLL_MAX", polled)
    monkeypatch.setattr(projection, "BATCH_ROWS", rows)
    projector = member(log, served, clock)
    for second in range(30):
        clock.now_s = second
        projector.step(0)
    projector.close()
    monkeypatch.undo()
    found = contents(served)
    assert sizes(found) == [8, 16, 24]
    assert found == straight(log, served)


def test_a_batch_is_bounded_in_bytes(served: Store, monkeypatch: pytest.MonkeyPatch, front: Front) -> None:
    """Long answers of receivers fill a batch before its rows do."""
    log, inserts = a_log(20), [0]

    def count(exchange: Exchange) -> None:
        inserts[0] += 1
        pass_on(exchange)

    front.lie(count, "INSERT INTO `attempts`")
    monkeypatch.setattr(projection, "BATCH_BYTES", 1_000)
    projector = member(log, served, Hand())
    assert inserts[0] > 2
    projector.close()
    assert len(contents(served)["attempts"]) == 20
