"""A log that may have lost its beginning, projected into a real store, and rebuilds of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from consumers.projector import Projector
from engine.core.change import EndpointDisabled
from engine.core.model import AttemptFinished, Decision
from engine.ports import Output, Record, TopicPartition
from engine.runtime.clock import SystemClock
from engine.runtime.history.rebuild import Options, Report, rebuild
from engine.runtime.history.rollups import COLUMNS_OF
from engine.runtime.history.rows import COLUMNS
from engine.runtime.memory import MemoryLog, MemoryReader
from tests.integration.history_fixtures import (
    CODEC,
    NOW,
    Hand,
    Store,
    attempt,
    batch,
    context_of,
    routing,
    unasked,
)

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
    projector = Projector(context_of(store, log, Hand()), store.history)
    projector.step(0)
    projector.close()


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
