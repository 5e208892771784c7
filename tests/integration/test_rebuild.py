"""Rebuild: the same tables from the log alone, at any time, and never fewer than there were."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from consumers.projector import Projector, project
from engine.core.change import EndpointDisabled
from engine.core.model import AttemptFinished, Decision
from engine.dev.process import wait_until
from engine.ports import Output, Record, TopicPartition
from engine.runtime.clock import SystemClock
from engine.runtime.history import projection
from engine.runtime.history.clickhouse import UnavailableError
from engine.runtime.history.migration import MigrationError, migrate
from engine.runtime.history.projection import ProjectionError
from engine.runtime.history.rebuild import Options, RebuildError, Report, rebuild
from engine.runtime.history.rollups import COLUMNS_OF, ROLLUPS
from engine.runtime.history.rows import COLUMNS
from engine.runtime.memory import MemoryLog, MemoryReader
from tests.integration.history_fixtures import CODEC, NOW, Hand, Store, attempt, batch, routing, unasked
from tests.integration.lying_store import (
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

__all__ = ["front", "process", "served"]
pytestmark = pytest.mark.integration

ENDS: Sequence[Decision] = ("delivered", "failed", "retry", "skipped")


class TrimmedLog(MemoryLog):
    """A log whose first records have been deleted by age."""

    def __init__(self) -> None:
        super().__init__(1, SystemClock())
        self.starts: dict[TopicPartition, int] = {}

    def reader(self) -> MemoryReader:
        """Make a reader that finds no record before the starts."""
        return TrimmedReader(self, self.starts)


class TrimmedReader(MemoryReader):
    """A reader of such a log."""

    def __init__(self, log: MemoryLog, starts: Mapping[TopicPartition, int]) -> None:
        super().__init__(log)
        self._starts = starts

    def starts(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Where it begins."""
        return {at: self._starts.get(at, 0) for at in partitions}

    def read(self, starts: Mapping[TopicPartition, int]) -> Iterator[Record]:
        """Everything from there on."""
        assert all(start >= self._starts.get(at, 0) for at, start in starts.items())
        return super().read(starts)


def fill(log: MemoryLog, first: int, count: int) -> None:
    """Append messages for two endpoints: a batch, then what became of every delivery, some with copies."""
    routings = [routing(n, "ep1", "ep2") for n in range(first, first + count)]
    put(log, "routings", batch(*routings))
    for n in range(first, first + count):
        put(log, "attempts", *fate(n, "ep1"), *fate(n, "ep2", extra=1))
        put(log, "changes", EndpointDisabled(f"cmd_{n}", "acme", "health", NOW + n, "ep1", n, "gone"))


def fate(offset: int, endpoint: str, extra: int = 0) -> Iterator[AttemptFinished]:
    """Between none and three attempts, the last of which ends it or not; every fifth has a copy."""
    for number in range(1, (offset + extra) % 4):
        yield attempt(offset, endpoint, number, "retry")
    end = attempt(offset, endpoint, max(1, (offset + extra) % 4), ENDS[offset % 4])
    yield unasked(end) if end.decision == "skipped" else end
    if offset % 5 == 0:
        yield replace(end, decision="failed", worker="another")


def put(log: MemoryLog, topic: str, *values: object) -> None:
    """Append values."""
    for value in values:
        log.append(Output(topic, 0, None, CODEC.encode(value)))


def projected(log: MemoryLog, store: Store) -> None:
    """Bring the tables up to date as the projector does."""
    projector = Projector(store.history, store.settings, Hand(), log=log)
    projector.consumer = log.consumer("projector", projection.TOPICS, projector)
    projector.step(0)
    projector.close()
    projector.consumer.close()


def definitions(store: Store) -> list[str]:
    """How the tables are made."""
    tables = (*COLUMNS, *COLUMNS_OF)
    return [str(store.client.command(f"SHOW CREATE TABLE {table}")) for table in tables]


def leftovers(store: Store) -> list[str]:
    """Databases of unfinished rebuilds."""
    named = store.history.rows("SELECT name FROM system.databases")
    return [str(row["name"]) for row in named if f"{store.settings.clickhouse_database}_" in str(row["name"])]


def run(log: MemoryLog, store: Store, options: Options | None = None) -> Report:
    """Rebuild now."""
    return rebuild(log, store.settings, options or Options(), SystemClock().now())


@pytest.fixture
def log(served: Store) -> TrimmedLog:
    """A log of 60 messages that has been projected."""
    log = TrimmedLog()
    fill(log, 0, 60)
    projected(log, served)
    return log


# -- the same tables --------------------------------------------------------------------


def test_the_same_tables_twice(log: TrimmedLog, served: Store) -> None:
    """Rows and definitions are those that the projector made, and a second time too; nothing is left over."""
    before, made = contents(served), definitions(served)
    for _ in range(2):
        report = run(log, served)
        assert contents(served) == before
        assert definitions(served) == made
        assert {table: count.after for table, count in report.tables.items()} == {
            table: len(before[table]) for table in COLUMNS
        }
    assert report.records == sum(len(log.records((topic, 0))) for topic in projection.TOPICS)
    assert leftovers(served) == []


DAMAGE = {
    "deleted": "DELETE FROM deliveries WHERE endpoint_id = 'ep1'",
    "emptied": "TRUNCATE TABLE messages",
    "altered": "ALTER TABLE attempts UPDATE outcome = 'success' WHERE 1 SETTINGS mutations_sync = 1",
    "outranked": "INSERT INTO deliveries SELECT * REPLACE ('delivered' AS status, version + 1 AS version)"
    " FROM deliveries",
    "invented": "INSERT INTO deliveries SELECT * REPLACE ('nobody' AS endpoint_id, 'x' AS delivery_id)"
    " FROM deliveries LIMIT 5",
    "doubled": "INSERT INTO attempts SELECT * REPLACE (accepted_at + 1 AS accepted_at) FROM attempts",
    "lost": "DROP TABLE deliveries SYNC",
    "narrowed": "ALTER TABLE attempts DROP COLUMN error",
    "rollups emptied": "TRUNCATE TABLE health_1m",
    "rollups lost": "DROP TABLE health_1h SYNC",
    "rollups invented": "INSERT INTO health_1m SELECT * REPLACE ('nobody' AS endpoint_id) FROM health_1m",
    "rollups outranked": "INSERT INTO health_1h SELECT * REPLACE (attempts + 1 AS attempts,"
    " computed_at + toUInt64(1e18) AS computed_at) FROM health_1h",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_mended(log: TrimmedLog, served: Store, damage: str) -> None:
    """Whatever was done to the tables, afterwards they say what the log says, and no more."""
    before, made = contents(served), definitions(served)
    served.client.command(damage)
    run(log, served)
    assert contents(served) == before
    assert definitions(served) == made


@pytest.mark.parametrize("rows", [1, 7, 1_000_000])
def test_any_batch_size(log: TrimmedLog, served: Store, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """However the log is cut into inserts, by rows or by bytes, the tables are the same."""
    before = contents(served)
    served.clear()
    monkeypatch.setattr(projection, "BATCH_ROWS", rows)
    monkeypatch.setattr(projection, "BATCH_BYTES", rows * 5_000)
    run(log, served)
    assert contents(served) == before


def test_undecodable_records_are_passed_over(log: TrimmedLog, served: Store) -> None:
    """The projector has put them into `invalid`; they are counted, and written there no second time."""
    before = contents(served)
    log.append(Output("attempts", 0, None, b"junk"))
    report = run(log, served)
    assert report.undecodable == 1
    assert contents(served) == before
    assert log.records(("invalid", 0)) == []


# -- what is older than the log ---------------------------------------------------------


@pytest.mark.parametrize("trimmed", [{"attempts": 50}, {"routings": 1}, {"attempts": 70, "routings": 2}])
def test_what_left_the_log_is_kept(log: TrimmedLog, served: Store, trimmed: dict[str, int]) -> None:
    """ClickHouse keeps history for longer: rows of records that are gone stay as they were."""
    fill(log, 60, 20)
    fill(log, 80, 20)
    projected(log, served)
    before = contents(served)
    log.starts = {(topic, 0): start for topic, start in trimmed.items()}
    report = run(log, served)
    assert contents(served) == before
    assert sum(count.carried for count in report.tables.values()) > 0


def test_rollups_outlive_their_attempts(served: Store) -> None:
    """Figures of attempts that are gone by age stay; what is still there is added up anew."""
    week_us, log = 7 * 86_400 * 1_000_000, TrimmedLog()
    old = [
        replace(
            each, accepted_at=each.accepted_at - 3 * week_us, attempted_at=each.attempted_at - 3 * week_us
        )
        for each in (attempt(n, "ep", 1, ENDS[n % 3]) for n in range(20))
    ]
    put(log, "attempts", *old)
    projected(log, served)
    fill(log, 100, 20)
    projected(log, served)
    shorter = replace(served, settings=served.settings.model_copy(update={"retention_days": 7}))
    migrate(served.client, shorter.settings)
    for table in ("attempts", "deliveries"):
        served.client.command(f"OPTIMIZE TABLE {table} FINAL")
    before = contents(served)
    assert not [row for row in before["attempts"] if "ep" in row]
    assert [row for row in before["health_1m"] if "ep" in row]
    log.starts = {("attempts", 0): len(old)}
    served.client.command(
        "ALTER TABLE health_1h DELETE WHERE endpoint_id = 'ep1' SETTINGS mutations_sync = 1"
    )
    run(log, shorter)
    assert contents(served) == before


def test_what_is_on_the_log_outranks_what_is_kept(served: Store) -> None:
    """A delivery whose first attempt has left the log and whose second has not shows the second."""
    log = TrimmedLog()
    put(log, "routings", batch(routing(0, "ep")))
    put(log, "attempts", attempt(0, "ep", 1, "retry"), attempt(0, "ep", 2, "delivered"))
    projected(log, served)
    log.starts = {("routings", 0): 1, ("attempts", 0): 1}
    run(log, served)
    (state,) = served.history.rows("SELECT status, attempts FROM delivery_status")
    assert state == {"status": "delivered", "attempts": 2}
    assert served.history.query("SELECT count() FROM delivery_attempts").rows == [(2,)]


def test_another_log_is_refused(log: TrimmedLog, served: Store) -> None:
    """A log that ends before what ClickHouse has is not the one it came from; only asked for is it taken."""
    before = contents(served)
    with pytest.raises(RebuildError, match=r"up to offset \d+, and this log ends at 0: are HOOKLOG_KAFKA"):
        run(TrimmedLog(), served)
    assert contents(served) == before
    run(TrimmedLog(), served, Options(discard=True))
    assert not any(contents(served).values())


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
        threading.Thread(target=project, args=(log, served.history, served.settings, stop)),
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
        assert wait_until(lambda: served.history.query(sql).rows == [(2 * done,)], 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
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
