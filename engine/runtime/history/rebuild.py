"""Rebuild: ClickHouse's tables from the log alone, made beside the live ones, then exchanged (docs/adr/0009).

The projector may run meanwhile. Up to the exchange nothing that analysts see is touched; after it, what the
projector wrote into the old tables in the last moment is read once more from the log.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Literal, TypeVar

from clickhouse_connect.driver.client import Client

from engine.ports import Log, LogError, Reader, TopicPartition
from engine.runtime.history.adding import add_up
from engine.runtime.history.clickhouse import (
    History,
    MismatchError,
    OutdatedError,
    UnavailableError,
    connect,
    execute,
    unavailable,
)
from engine.runtime.history.migration import check_version, migrate
from engine.runtime.history.projection import TOPICS, Batch, Projection
from engine.runtime.history.rollups import ROLLUPS, SETTINGS, Unit, kept
from engine.runtime.history.rows import COLUMNS, OFFSET_BITS, TIMES
from engine.runtime.settings import Settings
from engine.runtime.topics import partitions_of
from schemas.codec import UndecodableError

T = TypeVar("T")
Phase = Literal["reading the log", "keeping what is older", "catching up", "adding up"]
_STATEMENT_S = 600.0
_PAUSE_S = 0.5
_NEAR = 1_000
"""Records behind the end of the log at which the tables are exchanged."""
_TOPIC_OF: Mapping[str, str] = {
    "messages": "'routings'",
    "deliveries": f"if(bitShiftRight(version, {OFFSET_BITS + 1}) = 0, 'routings', 'attempts')",
    "attempts": "'attempts'",
    "changes": "'changes'",
}
"""SQL: the topic that a row's `log_partition` and `log_offset` are about."""


class RebuildError(Exception):
    """The tables cannot be rebuilt; the message says why, and what became of them."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a rebuild is watched and stopped, and how long it waits for a ClickHouse that is away (seconds)."""

    stop: Event = field(default_factory=Event)
    tell: Callable[[Phase, int, int], None] = lambda phase, done, total: None
    """Told the phase, what is done and how much there is: records, or days of a table."""
    away_s: float = 60.0
    discard: bool = False
    """Go on though ClickHouse has rows of another log, which are then gone."""


@dataclass(frozen=True, slots=True)
class Count:
    """Rows of a table, each once. `carried`: older than the log, kept as they were."""

    before: int
    after: int
    carried: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was done. `undecodable` records have gone to `invalid` long ago."""

    records: int
    undecodable: int
    tables: dict[str, Count]


@dataclass(slots=True)
class _Rebuild:
    """One rebuild: where from, where to, how far."""

    reader: Reader
    client: Client
    settings: Settings
    beside: Settings
    options: Options
    positions: dict[TopicPartition, int]
    projection: Projection
    stop: Event
    records: int = 0
    undecodable: int = 0
    touched: set[Unit] = field(default_factory=set)
    """Of what the rollups are to be made anew after the exchange."""
    exchanging: bool = False
    """From here on the live tables are touched."""

    @property
    def live(self) -> str:
        return self.settings.clickhouse_database

    def persistently(self, call: Callable[[], T]) -> T:
        """Call until ClickHouse is there; UnavailableError after `away_s` seconds."""
        deadline = time.monotonic() + self.options.away_s
        while True:
            _heed(self.stop)
            try:
                return call()
            except (OutdatedError, MismatchError):
                raise
            except UnavailableError:
                if time.monotonic() >= deadline:
                    raise
                self.stop.wait(_PAUSE_S)


def rebuild(log: Log, settings: Settings, options: Options, now: int) -> Report:
    """Make the tables anew; `now` (microseconds) names what is beside.

    RebuildError, MigrationError, LogError or UnavailableError: then the live tables are as they were, unless
    the message says otherwise.
    """
    client = connect(settings, _STATEMENT_S)
    reader = log.reader()
    try:
        check_version(client, settings)
        migrate(client, settings)
        partitions = partitions_of(log, *TOPICS)
        if not options.discard:
            _check_log(client, settings.clickhouse_database, reader, partitions)
        with _begun(client, reader, settings, options, now) as work:
            return _run(work, reader.starts(partitions))
    finally:
        reader.close()
        client.close()


@contextmanager
def _begun(
    client: Client, reader: Reader, settings: Settings, options: Options, now: int
) -> Iterator[_Rebuild]:
    """Empty tables in a database of their own; what an earlier rebuild left behind is dropped."""
    prefix = f"{settings.clickhouse_database}_rebuild_"
    with unavailable():
        databases = client.query("SELECT name FROM system.databases").result_rows
        for (name,) in databases:
            if re.fullmatch(rf"{prefix}\d{{16}}", str(name)):
                client.command(f"DROP DATABASE IF EXISTS {name} SYNC", use_database=False)
    beside = settings.model_copy(update={"clickhouse_database": f"{prefix}{now:016}"})
    migrate(client, beside)
    work = _Rebuild(reader, client, settings, beside, options, {}, Projection(settings.prefix), options.stop)
    try:
        yield work
    finally:
        if not work.exchanging:
            with suppress(UnavailableError), unavailable():  # if not now, the next rebuild drops it
                client.command(f"DROP DATABASE {beside.clickhouse_database} SYNC", use_database=False)


def _run(work: _Rebuild, starts: Mapping[TopicPartition, int]) -> Report:
    work.positions = dict(starts)
    carried = _build(work, starts)
    before = _counts(work)
    _heed(work.stop)
    _exchange(work)
    after = _counts(work)
    tables = {table: Count(before[table], after[table], carried[table]) for table in COLUMNS}
    return Report(work.records, work.undecodable, tables)


def _build(work: _Rebuild, starts: Mapping[TopicPartition, int]) -> dict[str, int]:
    """Fill the tables beside until they are nearly up to date; rows carried over, by table."""
    target = History(lambda: connect(work.beside))
    try:
        _read(work, target, "reading the log")
        carried = _carry_over(work, starts)
        _read(work, target, "catching up")
        while _behind(work) > _NEAR:
            _read(work, target, "catching up")
        _add_up(work)
    except OutdatedError as error:
        raise RebuildError(f"what was built is gone: has another rebuild begun? ({error})") from error
    finally:
        target.close()
    return carried


def _add_up(work: _Rebuild) -> None:
    target = History(lambda: connect(work.beside, _STATEMENT_S))
    try:
        tell = partial(work.options.tell, "adding up")
        add_up(target, work.live, work.settings.retention_days, work.persistently, tell)
    finally:
        target.close()


def _heed(stop: Event) -> None:
    if stop.is_set():
        raise RebuildError("stopped: the tables are as they were")


# The log


def _check_log(client: Client, database: str, reader: Reader, partitions: list[TopicPartition]) -> None:
    """RebuildError if ClickHouse has rows of a log that is not this one: they would be gone."""
    known: dict[TopicPartition, int] = {}
    with unavailable():
        for table, topic in _TOPIC_OF.items():
            sql = f"SELECT {topic} AS t, log_partition, max(log_offset) FROM {database}.{table} GROUP BY 1, 2"  # noqa: S608
            for name, partition, offset in client.query(sql).result_rows:
                at = (str(name), int(partition))
                known[at] = max(known.get(at, 0), int(offset))
    ends = reader.ends(partitions)  # after that: whatever was projected is below
    for at, offset in sorted(known.items()):
        if offset >= ends.get(at, 0):
            raise RebuildError(
                f"ClickHouse has rows of {at[0]}-{at[1]} up to offset {offset}, and this log ends at"
                f" {ends.get(at, 0)}: are HOOKLOG_KAFKA and HOOKLOG_PREFIX right? The tables are as they were"
            )


def _behind(work: _Rebuild) -> int:
    ends = work.reader.ends(list(work.positions))
    return sum(end - work.positions[at] for at, end in ends.items())


def _read(work: _Rebuild, target: History, phase: Phase) -> None:
    """Write the rows of everything from the positions to the end, in bounded batches."""
    ends = work.reader.ends(list(work.positions))
    done, total = 0, sum(end - work.positions[at] for at, end in ends.items())
    batch, positions = Batch(), dict(work.positions)
    work.options.tell(phase, 0, total)
    for record in work.reader.read(positions):
        try:
            batch.add(record, work.projection.rows(record))
        except UndecodableError:
            work.undecodable += 1
        done += 1
        work.positions[record.topic, record.partition] = record.offset + 1
        if batch.is_full:
            _write(work, target, batch)
            batch = Batch()
            work.options.tell(phase, done, total)
    _write(work, target, batch)
    work.positions = {at: max(end, work.positions[at]) for at, end in ends.items()}
    work.records += done
    work.options.tell(phase, done, total)


def _write(work: _Rebuild, target: History, batch: Batch) -> None:
    name = work.beside.clickhouse_database
    if not batch.is_empty:
        work.persistently(lambda: batch.insert_into(target, name))
        work.touched |= batch.touched() if work.exchanging else set()


# What is older than the log


def _carry_over(work: _Rebuild, starts: Mapping[TopicPartition, int]) -> dict[str, int]:
    """Copy rows whose record has left the log, day by day; what is newer on the log outranks them."""
    carried = {}
    for table, topic in _TOPIC_OF.items():
        limits = [[starts[at] for at in sorted(starts) if at[0] == t] for t in TOPICS]
        older = f"log_offset < {limits}[indexOf({list(TOPICS)}, {topic})][log_partition + 1]"
        listed = f"SELECT DISTINCT toString(toDate({TIMES[table]})) FROM {{0}} WHERE {older}"  # noqa: S608
        days = _query(work, listed, table)
        for done, day in enumerate(sorted(str(day) for day in days)):
            work.options.tell("keeping what is older", done, len(days))
            _carry_day(work, table, f"{older} AND toDate({TIMES[table]}) = '{day}'")
        counted = f"SELECT count() FROM {{0}} FINAL WHERE {older}"  # noqa: S608
        carried[table] = int(str(_query(work, counted, table)[0]))
    return carried


def _carry_day(work: _Rebuild, table: str, condition: str) -> None:
    names, beside = ", ".join(COLUMNS[table]), work.beside.clickhouse_database
    sql = f"INSERT INTO {beside}.{table} ({names}) SELECT {names} FROM {work.live}.{table} WHERE {condition}"  # noqa: S608
    _command(work, sql)


def _query(work: _Rebuild, sql: str, table: str) -> list[object]:
    """First column of a query of a live table."""

    def ask() -> list[object]:
        with unavailable():
            rows = work.client.query(sql.format(f"{work.live}.{table}")).result_rows
        return [row[0] for row in rows]

    return work.persistently(ask)


def _counts(work: _Rebuild) -> dict[str, int]:
    return {table: int(str(_query(work, "SELECT count() FROM {0} FINAL", table)[0])) for table in COLUMNS}


def _command(work: _Rebuild, sql: str) -> None:
    work.persistently(lambda: execute(work.client, sql, settings=SETTINGS))


# The exchange


def _exchange(work: _Rebuild) -> None:
    """Put the new tables in the place of the old ones, read what came meanwhile, drop the old ones.

    An insert of the projector that found the old table is of records that are on the log by then.
    """
    work.exchanging, work.stop = True, Event()  # from here on it is quicker to finish than to undo
    target = History(lambda: connect(work.settings))
    try:
        for table in (*COLUMNS, *(rollup.table for rollup in ROLLUPS)):
            _exchange_one(work, table, _uuid(work, work.beside, table))
        _read(work, target, "catching up")
        units = kept(work.touched, work.persistently(target.clock) // 1000, work.settings.retention_days)
        work.persistently(lambda: target.roll_up(units))
        _command(work, f"DROP DATABASE {work.beside.clickhouse_database} SYNC")
    except (UnavailableError, LogError) as error:
        raise RebuildError(
            f"the new tables may lack what was projected in the last moments: run this again ({error})"
        ) from error
    finally:
        target.close()


def _uuid(work: _Rebuild, of: Settings, table: str) -> str:
    where = f"database = '{of.clickhouse_database}' AND name = '{table}'"
    return str(_query(work, f"SELECT toString(uuid) FROM system.tables WHERE {where}", table)[0])  # noqa: S608


def _exchange_one(work: _Rebuild, table: str, new: str) -> None:
    """Exchange a table once, however often the answer is lost."""

    sql = f"EXCHANGE TABLES {work.live}.{table} AND {work.beside.clickhouse_database}.{table}"

    def ask() -> None:
        if _uuid(work, work.settings, table) != new:
            execute(work.client, sql)

    work.persistently(ask)
