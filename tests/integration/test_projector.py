"""The projector: exact whatever is repeated, split, reordered or interrupted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.projector import Projector, project
from engine.core.accounting import UNKNOWN, Account, Fact, Matched, PassedOver, State, evolve, fact_of, total
from engine.core.model import AttemptFinished, Decision, InvalidRecord, RoutedBatch, Routing, Skipped
from engine.core.routing import delivery_id
from engine.dev.process import wait_until
from engine.ports import Clock, Output, Record
from engine.runtime.accounting.accounts import Accounts
from engine.runtime.clock import SystemClock
from engine.runtime.history.clickhouse import UnavailableError
from engine.runtime.history.projection import Batch, Projection, ProjectionError, RowTarget
from engine.runtime.history.rollups import Unit
from engine.runtime.history.rows import MAX_OFFSET, Columns, columns, version
from engine.runtime.memory import MemoryConsumer, MemoryLog
from tests.integration.history_fixtures import (
    CODEC,
    TOPIC,
    Hand,
    Store,
    attempt,
    batch,
    context_of,
    record,
    routing,
    unasked,
)

pytestmark = pytest.mark.integration

ENDPOINTS = ("ep1", "ep2")
FOREIGN = InvalidRecord("messages", 0, 0, "payload", "", b"", b"", 0)
PROJECTION = Projection("hooklog.")
LIMIT_S = 60.0


class Faulty:
    """A store that fails where a test wants it to, and is the real one otherwise."""

    def __init__(self, store: Store, fails: Callable[[str], bool]) -> None:
        self._store = store
        self._fails = fails

    def insert(self, table: str, columns: Columns, token: str) -> None:
        """Insert, unless this one is to fail."""
        if self._fails(table):
            raise UnavailableError("away")
        self._store.history.insert(table, columns, token)

    def roll_up(self, units: Collection[Unit]) -> None:
        """Make the rollups, unless they are to fail."""
        if self._fails("rollups"):
            raise UnavailableError("away")
        self._store.history.roll_up(units)


def log_of(*outputs: tuple[str, object]) -> MemoryLog:
    """A log of one partition that holds these values."""
    log = MemoryLog(1, SystemClock())
    for topic, value in outputs:
        log.append(Output(topic, 0, None, CODEC.encode(value)))
    return log


def member(log: MemoryLog, store: RowTarget, clock: Clock, of: Store) -> Projector:
    """A projector that has joined."""
    return Projector(context_of(of, log, clock), store)


def statuses(store: Store) -> list[tuple[str, str, int]]:
    """(endpoint, status, attempts) of every delivery, sorted."""
    rows = store.history.rows("SELECT endpoint_id, status, attempts FROM delivery_status ORDER BY 1, 2, 3")
    return [(str(r["endpoint_id"]), str(r["status"]), int(str(r["attempts"]))) for r in rows]


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Record], list[Record]]:
    """`routings` with overlapping batches that disagree, `attempts` with copies that disagree."""
    count = draw(st.integers(1, 5))
    batches = [batch(*(draw_routing(draw, n) for n in range(count)))]
    if draw(st.booleans()):
        start = draw(st.integers(0, count - 1))
        batches.append(batch(*(draw_routing(draw, n) for n in range(start, count))))
    attempts: list[AttemptFinished] = []
    for offset, endpoint in sorted({(r.offset, e) for b in batches for r in b.routings for e in r.matched}):
        attempts += draw_attempts(draw, offset, endpoint)
    return numbered("routings", batches), numbered("attempts", attempts)


def draw_routing(draw: st.DrawFn, offset: int) -> Routing:
    """A message that matches some endpoints and passes over others."""
    fates = draw(st.tuples(*(st.sampled_from(["matched", "skipped", "none"]) for _ in ENDPOINTS)))
    by_fate = list(zip(ENDPOINTS, fates, strict=True))
    return replace(
        routing(offset, *(e for e, fate in by_fate if fate == "matched")),
        skipped=tuple(Skipped(e, "disabled") for e, fate in by_fate if fate == "skipped"),
    )


def draw_attempts(draw: st.DrawFn, offset: int, endpoint: str) -> Iterator[AttemptFinished]:
    """Retries, perhaps an end, each perhaps followed by a copy that decided otherwise."""
    retries = draw(st.integers(0, 3))
    ends: list[list[Decision]] = [[], ["delivered"], ["failed"], ["skipped"]]
    again: list[Decision] = ["retry"] * retries
    decisions = again + draw(st.sampled_from(ends))
    for number, decision in enumerate(decisions, 1):
        finished = attempt(offset, endpoint, number, decision)
        yield unasked(finished) if decision == "skipped" else finished
        if draw(st.booleans()):
            yield attempt(offset, endpoint, number, draw(st.sampled_from(["delivered", "failed", "retry"])))


def numbered(topic: str, values: Sequence[object]) -> list[Record]:
    """Values as a partition holds them."""
    return [record(topic, offset, value) for offset, value in enumerate(values)]


def folded(routings: list[Record], attempts: list[Record]) -> dict[str, State]:
    """What core's fold makes of the same log."""
    states: dict[str, State] = {}
    facts: list[tuple[str, Fact]] = []
    for read in routings:
        for r in CODEC.decode_as(RoutedBatch, read.value).routings:
            facts += [(delivery_id(TOPIC, 0, r.offset, e), Matched()) for e in r.matched]
            facts += [
                (delivery_id(TOPIC, 0, r.offset, s.endpoint_id), PassedOver(s.reason)) for s in r.skipped
            ]
    facts += [
        (a.delivery_id, fact_of(a)) for a in (CODEC.decode_as(AttemptFinished, r.value) for r in attempts)
    ]
    for delivery, fact in facts:
        after = evolve(states.get(delivery, UNKNOWN), fact)
        assert isinstance(after, State)
        states[delivery] = after
    return states


def requests(attempts: list[Record]) -> Counter[str]:
    """Attempts that had a request, by delivery; a copy's counts where the first record had none."""
    decoded = (CODEC.decode_as(AttemptFinished, r.value) for r in attempts)
    return Counter(d for d, _ in {(a.delivery_id, a.attempt) for a in decoded if a.outcome != "none"})


def write(store: Store, records: list[Record]) -> None:
    """One batch."""
    gathered = Batch(0)
    for read in records:
        gathered.add(read, PROJECTION.rows(read))
    for table, rows in gathered.rows.items():
        if rows:
            store.history.insert(table, columns(table, rows), gathered.token("hooklog."))


@given(logs(), st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_boundaries_give_the_same_history(
    store: Store, drawn: tuple[list[Record], list[Record]], data: st.DataObject
) -> None:
    """Batches of any size, partitions in any order, replays from anywhere: what the fold says, exactly."""
    store.clear()
    routings, attempts = drawn
    order = data.draw(st.sampled_from([[*routings, *attempts], [*attempts, *routings]]))
    for start in [*data.draw(st.lists(st.integers(0, len(order) - 1), max_size=2)), 0]:
        size = data.draw(st.integers(1, len(order)))
        for at in range(start, len(order), size):
            write(store, order[at : at + size])
    expected = folded(routings, attempts)
    found = {row.delivery_id: (row.status, row.attempts) for row in Accounts(store.history).states()}
    assert found == {d: (s.status, s.attempts) for d, s in expected.items()}
    made = {delivery: count for delivery, count, _ in Accounts(store.history).made()}
    assert made == requests(attempts)
    assert store.history.accounting() == total(expected.values())


def test_killed_between_tables_then_restarted(store: Store) -> None:
    """A process that dies with one table written and nothing committed repeats, and no count changes."""
    log = log_of(
        ("routings", batch(routing(0, "ep1"), routing(1, "ep1"))),
        ("attempts", attempt(0, "ep1", 1, "delivered")),
    )
    clock = Hand()
    dying = member(log, Faulty(store, lambda table: table == "attempts"), clock, store)
    dying.step(0)
    clock.now_s = 2
    dying.step(0)
    assert isinstance(dying.consumer, MemoryConsumer)
    dying.consumer.kill()
    log.append(Output("attempts", 0, None, CODEC.encode(attempt(1, "ep1", 1, "retry"))))
    successor = member(log, store.history, clock, store)
    successor.step(0)
    successor.close()
    assert statuses(store) == [("ep1", "delivered", 1), ("ep1", "pending", 1)]
    assert store.history.accounting() == Account(matched=2, delivered=1, pending=1)
    committed = successor.consumer.committed([("routings", 0), ("attempts", 0)])
    assert [position.offset for position in committed.values() if position] == [1, 2]


def test_away_holds_polls_and_goes_on(store: Store) -> None:
    """While ClickHouse is away nothing is committed or taken in; once back, everything arrives."""
    log = log_of(("routings", batch(routing(0, "ep1"))))
    clock, away = Hand(), [True]
    projector = member(log, Faulty(store, lambda table: away[0]), clock, store)
    projector.step(0)
    for second in range(1, 6):
        clock.now_s = second
        projector.step(0)
        log.append(Output("attempts", 0, None, CODEC.encode(attempt(0, "ep1", second, "retry"))))
    assert projector.consumer.committed([("routings", 0)]) == {("routings", 0): None}
    assert statuses(store) == []
    away[0] = False
    clock.now_s = 60
    projector.step(0)
    assert statuses(store) == [("ep1", "pending", 0)]
    projector.step(0)
    projector.close()
    assert statuses(store) == [("ep1", "pending", 5)]


def test_partition_moves_while_away(store: Store) -> None:
    """What a member could not write is read again by the next owner, and the old one commits none of it."""
    log = log_of(("routings", batch(routing(0, "ep1"))), ("attempts", attempt(0, "ep1", 1, "delivered")))
    clock = Hand()
    stuck = member(log, Faulty(store, lambda table: True), clock, store)
    stuck.step(0)
    clock.now_s = 2
    stuck.step(0)
    heir = member(log, store.history, clock, store)
    stuck.step(0)  # gives up one of the two partitions
    heir.step(0)
    stuck.consumer.close()
    heir.step(0)
    heir.close()
    assert statuses(store) == [("ep1", "delivered", 1)]
    committed = heir.consumer.committed([("routings", 0), ("attempts", 0)])
    assert [position.offset for position in committed.values() if position] == [1, 1]
    heir.consumer.close()


def test_a_newer_record_stops_where_it_is(store: Store) -> None:
    """A schema nobody here knows is named, what came before is written and committed, the rest waits."""
    value = b"\xc3\x0112345678"
    log = log_of(("attempts", attempt(0, "ep1", 1, "delivered")))
    log.append(Output("attempts", 0, None, value))
    log.append(Output("attempts", 0, None, CODEC.encode(attempt(1, "ep1", 1, "delivered"))))
    with pytest.raises(ProjectionError, match=r"attempts-0 at offset 1: .*fingerprint"):
        project(context_of(store, log, SystemClock()), store.history, threading.Event())
    assert statuses(store) == [("ep1", "delivered", 1)]
    heir = member(log, store.history, SystemClock(), store)
    positions = heir.consumer.committed([("attempts", 0)])
    assert [position.offset for position in positions.values() if position] == [1]


@pytest.mark.parametrize("value", [b"\x00junk", None, b"\xc3\x01", CODEC.encode(FOREIGN)])
def test_what_is_none_of_ours_goes_to_invalid(store: Store, value: bytes | None) -> None:
    """It is named there, and the partition moves on."""
    log = log_of(("attempts", attempt(0, "ep1", 1, "delivered")))
    log.append(Output("attempts", 0, b"key", value))
    log.append(Output("attempts", 0, None, CODEC.encode(attempt(1, "ep1", 1, "delivered"))))
    projector = member(log, store.history, SystemClock(), store)
    projector.step(0)
    projector.close()
    assert statuses(store) == [("ep1", "delivered", 1)] * 2
    refused = [CODEC.decode_as(InvalidRecord, record.value) for record in log.records(("invalid", 0))]
    assert [(r.topic, r.partition, r.offset, r.reason) for r in refused] == [
        ("attempts", 0, 1, "undecodable")
    ]


def test_run_projects_and_stops(store: Store) -> None:
    """The loop writes by itself, and a stop leaves nothing uncommitted."""
    log = log_of(("routings", batch(routing(0, "ep1"))))
    stop = threading.Event()
    context = context_of(store, log, SystemClock())
    thread = threading.Thread(target=project, args=(context, store.history, stop))
    thread.start()
    try:
        assert wait_until(lambda: statuses(store) == [("ep1", "pending", 0)], LIMIT_S)
        log.append(Output("attempts", 0, None, CODEC.encode(attempt(0, "ep1", 1, "delivered"))))
        assert wait_until(lambda: statuses(store) == [("ep1", "delivered", 1)], LIMIT_S)
    finally:
        stop.set()
        thread.join(LIMIT_S)
    heir = member(log, store.history, SystemClock(), store)
    committed = heir.consumer.committed([("routings", 0), ("attempts", 0)])
    assert [position.offset for position in committed.values() if position] == [1, 1]
    heir.consumer.close()


def test_token_names_the_records() -> None:
    """Same records, same token; another range, topic prefix or topic made anew: another one."""
    first, second = (
        record("attempts", 0, attempt(0, "a", 1, "retry")),
        record("attempts", 1, attempt(1, "a", 1, "retry")),
    )

    def token(*records: Record, prefix: str = "p.") -> str:
        gathered = Batch(0)
        for read in records:
            gathered.add(read, {})
        return gathered.token(prefix)

    assert token(first, second) == token(first, second)
    others = [
        token(first),
        token(second),
        token(first, second, prefix="q."),
        token(first, second._replace(timestamp=5)),
    ]
    assert len({token(first, second), *others}) == 5


@pytest.mark.parametrize(
    ("higher", "lower"),
    [
        (version(1, MAX_OFFSET), version(0, 0)),
        (version(2, 500), version(1, 0)),
        (version(1, 3), version(1, 4)),
        (version(0, 9), version(0, 3, matched=False)),
        (version(0, 3, matched=False), version(0, 4, matched=False)),
    ],
)
def test_version_ranks(higher: int, lower: int) -> None:
    """The later attempt, of that a match, of that the first record; and it fits 64 bits."""
    assert lower < higher < 1 << 64


def test_offset_that_fits_no_version() -> None:
    """An offset past the bits kept for it is refused, never wrapped."""
    with pytest.raises(OverflowError):
        version(0, MAX_OFFSET + 1)
