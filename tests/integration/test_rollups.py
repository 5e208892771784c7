"""Rollups: what a plain fold of the same attempts says, whatever is repeated, split, killed or rebuilt."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.projector import ROLLUP_SECONDS, Projector
from engine.core.model import AttemptFinished
from engine.core.routing import delivery_id
from engine.ports import Output, Position, Record
from engine.runtime.history import projection
from engine.runtime.history.migration import migrate
from engine.runtime.history.projection import TOPICS, Batch, Projection
from engine.runtime.history.rollups import ROLLUPS, kept
from engine.runtime.memory import MemoryConsumer, MemoryLog
from engine.runtime.settings import Settings
from tests.integration.history_fixtures import (
    CODEC,
    NOW,
    SECOND,
    TOPIC,
    Hand,
    Store,
    attempt,
    record,
    unasked,
)
from tests.integration.test_projector import Faulty

pytestmark = pytest.mark.integration

MINUTE, HOUR, DAY = 60, 3_600, 86_400
BASE = (NOW // SECOND // DAY - 2) * DAY
"""A midnight of the days before yesterday, so that all is in the past."""
PROJECTION = Projection("hooklog.")
LEVELS = (0.5, 0.95, 0.99)
Key = tuple[str, int, str, str]
"""Endpoint, minute or hour, outcome, error class."""
Figures = tuple[int, int, int, list[float]]
"""Attempts, bytes, microseconds, p50/p95/p99."""


@dataclass(frozen=True, slots=True)
class Made:
    """An attempt as a test tells it: seconds since BASE."""

    offset: int
    endpoint: str
    number: int
    accepted_s: int
    attempted_s: int
    duration_us: int = 1_234
    success: bool = True


def finished(made: Made) -> AttemptFinished:
    """Its record."""
    plain = attempt(made.offset, made.endpoint, made.number, "delivered" if made.success else "retry")
    return replace(
        plain,
        accepted_at=(BASE + made.accepted_s) * SECOND,
        attempted_at=(BASE + made.attempted_s) * SECOND,
        duration_us=made.duration_us,
    )


def microseconds(duration_us: int) -> int:
    """What a duration in milliseconds, a float of 32 bits, makes of it."""
    (milliseconds,) = struct.unpack(">f", struct.pack(">f", duration_us / 1_000))
    return round(float(milliseconds) * 1_000)


def bfloat16(duration_us: int) -> float:
    """What quantiles are of: that float's first 16 bits."""
    (bits,) = struct.unpack(">I", struct.pack(">f", duration_us / 1_000))
    (kept_of_it,) = struct.unpack(">f", struct.pack(">I", bits & 0xFFFF0000))
    return float(kept_of_it)


def quantile(values: Sequence[float], level: float) -> float:
    """The least value that so large a share is not above."""
    ordered = sorted(values)
    return next(v for n, v in enumerate(ordered, 1) if n >= level * len(ordered))


def folded(attempts: Sequence[AttemptFinished], span_s: int) -> dict[Key, Figures]:
    """Attempts by endpoint, span, outcome and class: the first record of each counts."""
    firsts: dict[tuple[str, int], AttemptFinished] = {}
    for each in attempts:
        if each.outcome != "none":
            firsts.setdefault((each.delivery_id, each.attempt), each)
    groups: dict[Key, list[AttemptFinished]] = defaultdict(list)
    for each in firsts.values():
        span = each.attempted_at // SECOND // span_s * span_s
        groups[each.endpoint_id, span, each.outcome, each.error_class].append(each)
    return {key: figures(of_key) for key, of_key in groups.items()}


def figures(attempts: Sequence[AttemptFinished]) -> Figures:
    """What a rollup says of some attempts."""
    durations = [bfloat16(a.duration_us) for a in attempts]
    return (
        len(attempts),
        sum(a.request_bytes for a in attempts),
        sum(microseconds(a.duration_us) for a in attempts),
        [quantile(durations, level) for level in LEVELS],
    )


def found(store: Store, view: str, time: str) -> dict[Key, Figures]:
    """What a view says, spans that have several rows added up."""
    rows = store.history.query(
        f"SELECT endpoint_id, toUnixTimestamp({time}), outcome, error_class, sum(attempts), sum(bytes),"
        f" sum(duration_us), quantilesBFloat16Merge(0.5, 0.95, 0.99)(durations) FROM {view}"
        " GROUP BY 1, 2, 3, 4"
    ).rows
    by_key = {}
    for endpoint, span, outcome, error_class, *sums, quantiles in rows:
        assert isinstance(quantiles, list)
        count, size, duration = (int(str(n)) for n in sums)
        by_key[str(endpoint), int(str(span)), str(outcome), str(error_class)] = (
            count,
            size,
            duration,
            quantiles,
        )
    return by_key


def check(store: Store, attempts: Sequence[AttemptFinished]) -> None:
    """Both rollups say what the fold says."""
    assert found(store, "endpoint_minutes", "minute") == folded(attempts, MINUTE)
    assert found(store, "endpoint_hours", "hour") == folded(attempts, HOUR)


def log_of(attempts: Sequence[AttemptFinished]) -> MemoryLog:
    """A log of one partition that holds these."""
    log = MemoryLog(1, Hand())
    for each in attempts:
        log.append(Output("attempts", 0, None, CODEC.encode(each)))
    return log


def member(log: MemoryLog, store: Store, target: projection.Store | None = None) -> tuple[Projector, Hand]:
    """A projector that has joined, and its clock."""
    clock = Hand()
    projector = Projector(target or store.history, store.settings, clock, log=log)
    projector.consumer = log.consumer("projector", TOPICS, projector)
    return projector, clock


def project(log: MemoryLog, store: Store) -> None:
    """Read all there is from where the group stands, write and commit."""
    projector, _ = member(log, store)
    projector.step(0)
    leave(projector)


def leave(projector: Projector) -> None:
    """Write what is held, commit, leave."""
    projector.close()
    assert projector.consumer is not None
    projector.consumer.close()


def committed(projector: Projector) -> Position | None:
    """How far the group is on `attempts`."""
    assert projector.consumer is not None
    return projector.consumer.committed([("attempts", 0)])["attempts", 0]


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


def write(store: Store, records: Sequence[Record]) -> Batch:
    """One batch of rows; the rollups do not know of it yet."""
    gathered = Batch(0)
    for read in records:
        gathered.add(read, PROJECTION.rows(read))
    gathered.insert_into(store.history, "hooklog.")
    return gathered


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


SOME = [
    finished(Made(n, f"ep{n % 3}", 1, n * 40, n * 40 + n % 5, 1_000 + n * 777, success=n % 4 != 0))
    for n in range(60)
]
RETRIES = [
    finished(Made(n, f"ep{n % 3}", 2, n * 40, n * 40 + delay, 5_000_000, success=n % 8 != 0))
    for n, delay in zip(range(0, 60, 4), [5, 35, 7_000, DAY] * 4, strict=False)
]
COPIES = [replace(each, attempted_at=each.attempted_at + 200 * SECOND, duration_us=7) for each in SOME[::7]]
HISTORY = [*SOME, *RETRIES, *COPIES]


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
    clock.now_s = 1 + ROLLUP_SECONDS
    projector.step(0)
    check(store, SOME[:11])
    assert committed(projector) == Position(11, "")
    log.append(Output("attempts", 0, None, CODEC.encode(SOME[11])))
    projector.step(0)
    leave(projector)
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
    leave(projector)


def test_a_minute_that_loses_its_rows_vanishes(store: Store) -> None:
    """A copy that came first had its minute and hour; when the first record comes they are no more."""
    first, copy = (finished(Made(0, "ep1", 1, 0, at)) for at in (30, 4_000))
    for offset, each in ((1, copy), (0, first)):
        store.history.roll_up(write(store, [record("attempts", offset, each)]).touched())
        check(store, [each])
    assert store.history.query("SELECT sum(attempts), max(gone) FROM health_1m").rows == [(2, 1)]


def test_an_older_result_never_hides_a_newer_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two projectors the one whose clock was read later has seen more: its rows stay."""
    records = [record("attempts", n, each) for n, each in enumerate(SOME)]
    early = store.history.clock()
    store.history.roll_up(write(store, records).touched())
    store.client.command("CREATE TABLE spare AS attempts")
    store.client.command("EXCHANGE TABLES attempts AND spare")  # what the slower one saw: less
    with monkeypatch.context() as slow:
        slow.setattr(type(store.history), "clock", lambda _: early)
        store.history.roll_up(write(store, records[:5]).touched())
    check(store, SOME)


def test_units_of_attempts_that_are_gone_by_age_stay() -> None:
    """What was accepted before the retention is not made anew from the few rows that are left of it."""
    now = 100 * DAY * SECOND
    units = [("t", "e", 10 * DAY - 60), ("t", "e", 10 * DAY), ("t", "e", 99 * DAY)]
    assert kept(units, now, 90) == units[1:]


def test_rollups_are_kept_for_longer(bare: tuple[Client, Settings]) -> None:
    """By their own setting, at first and after a change."""
    client, settings_ = bare
    for days in (400, 30):
        migrate(client, settings_.model_copy(update={"rollup_days": days}))
        for rollup in ROLLUPS:
            ddl = str(client.command(f"SHOW CREATE TABLE {settings_.clickhouse_database}.{rollup.table}"))
            assert f"TTL {rollup.time} + toIntervalDay({days})" in ddl


def test_days_drop_by_age(store: Store) -> None:
    """After a shorter retention is migrated to, what is older is gone and the rest is not."""
    old = [finished(Made(n, "ep1", 1, -20 * DAY + n, -20 * DAY + n)) for n in range(3)]
    project(log_of([*SOME, *old]), store)
    migrate(store.client, store.settings.model_copy(update={"retention_days": 7, "rollup_days": 10}))
    for table in ("attempts", "health_1m", "health_1h"):
        store.client.command(f"OPTIMIZE TABLE {table} FINAL")
    check(store, SOME)
    migrate(store.client, store.settings)


def test_delivery_ids_are_those_of_the_fixtures() -> None:
    """The fold tells deliveries apart as the product does."""
    assert SOME[0].delivery_id == delivery_id(TOPIC, 0, 0, "ep0")
