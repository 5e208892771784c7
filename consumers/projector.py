"""Projector: the facts on the log -> rows in ClickHouse.

Rows are made of nothing but records, and of rows with one key the version
decides, so any batch may be written any number of times in any order.
Commits follow inserts: a crash repeats rows and loses none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Protocol

from engine.core.model import AttemptFinished, RoutedBatch
from engine.ports import Consumer, Log, LogError, Position, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.atleastonce import start_of
from engine.runtime.clickhouse import History, UnavailableError, connect
from engine.runtime.context import Context, Ready
from engine.runtime.invalid import invalid_output
from engine.runtime.rows import COLUMNS, Columns, Row, Rows, columns, finished_rows, routed_rows
from engine.runtime.settings import Settings
from schemas.codec import Codec, UndecodableError, UnknownSchemaError

GROUP = "projector"
TOPICS = ("routings", "attempts")
BATCH_ROWS = 20_000
BATCH_SECONDS = 1.0
POLL_RECORDS = 2_000
POLL_SECONDS = 0.1
PATIENCE_MS = 250
_FLUSH_S = 30
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_LOG = telemetry.logger(GROUP)


class ProjectionError(RuntimeError):
    """A record on our own topic cannot be read: stop, and go on after the upgrade."""


class Store(Protocol):
    """Where rows go: `engine.runtime.clickhouse.History`."""

    def insert(self, table: str, columns: Columns, token: str) -> None:
        """Insert rows by columns; UnavailableError if that may succeed later."""


class Stop(Protocol):
    """A threading.Event, or what looks like one."""

    def is_set(self) -> bool:
        """Whether to stop."""


class Projection:
    """Record -> rows, decoding included."""

    def __init__(self, prefix: str) -> None:
        self.codec = Codec()
        self._topic = prefix + "messages"

    def rows(self, record: Record) -> Rows:
        """Rows that a record of `routings` or `attempts` leads to.

        UndecodableError if it is none of ours, ProjectionError if a newer hooklog wrote it.
        """
        try:
            decoded = self.codec.decode(record.value)
        except UnknownSchemaError as error:
            raise ProjectionError(f"{_at(record)}: {error}; upgrade this projector, then start it") from error
        if isinstance(decoded, AttemptFinished):
            return finished_rows(record, decoded)
        if isinstance(decoded, RoutedBatch):
            return routed_rows(record, decoded, self._topic)
        raise UndecodableError(f"a {type(decoded).__name__} does not belong there")


def _at(record: Record) -> str:
    return f"{record.topic}-{record.partition} at offset {record.offset}"


class Batch:
    """Rows gathered since the last insert, and which records they come from."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.rows: dict[str, list[Row]] = {table: [] for table in COLUMNS}
        self._first: dict[TopicPartition, tuple[int, int]] = {}
        self._last: dict[TopicPartition, tuple[int, int]] = {}

    def __len__(self) -> int:
        return max(map(len, self.rows.values()))

    def add(self, record: Record, rows: Rows) -> None:
        """Take in a record's rows."""
        for table, of_table in rows.items():
            self.rows[table] += of_table
        at, stamp = (record.topic, record.partition), (record.offset, record.timestamp)
        self._first.setdefault(at, stamp)
        self._last[at] = stamp

    @property
    def is_empty(self) -> bool:
        """No record yet; a record without rows counts too."""
        return not self._last

    @property
    def newest(self) -> int:
        """Append time of the newest record, microseconds."""
        return max(timestamp for _, timestamp in self._last.values())

    def positions(self) -> dict[TopicPartition, Position]:
        """Where to go on after this batch."""
        return {at: Position(offset + 1, "") for at, (offset, _) in self._last.items()}

    def token(self, prefix: str) -> str:
        """Name these very records; append times tell a topic from its namesake made anew."""
        spans = (f"{prefix}{at}{self._first[at]}{self._last[at]}" for at in sorted(self._last))
        return blake2b(",".join(spans).encode(), digest_size=16).hexdigest()


class Projector:
    """Gathers, inserts, commits. While ClickHouse is away it holds one batch and keeps polling."""

    def __init__(
        self, store: Store, settings: Settings, clock: Callable[[], float] = time.monotonic, *, log: Log
    ) -> None:
        self._store = store
        self._log = log
        self._producer = log.producer()
        """For `invalid`."""
        self._prefix = settings.prefix
        self._projection = Projection(settings.prefix)
        self._clock = clock
        self._batch = Batch(clock())
        self._owned: set[TopicPartition] = set()
        self._failures = 0
        self._retry_at = 0.0
        self.consumer: Consumer | None = None

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Go on where the group's commits say, or at 0 of a log that still begins there."""
        self._owned.update(partitions)
        return start_of(self._log, self._member.committed(partitions), GROUP)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Write what is held if that is possible now; if not, the next owner reads it again."""
        self._write(wait=True)
        self._owned.difference_update(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Commit nothing more of these; rows already gathered do no harm."""
        self._owned.difference_update(partitions)

    def step(self, timeout: float) -> None:
        """Poll once; insert and commit when the batch is due."""
        if self._failures:
            self._pause()  # what was assigned since, too
        for record in self._member.poll(timeout, 1 if self._failures else POLL_RECORDS):
            if self._batch.is_empty:
                self._batch.began = self._clock()
            self._batch.add(record, self._rows(record))
            if len(self._batch) >= BATCH_ROWS and not self._failures:
                self._write(wait=False)
        if self._is_due():
            self._write(wait=False)

    def close(self) -> None:
        """Write what is held; what ClickHouse does not take now is read again at the next start."""
        self._write(wait=True)

    @property
    def _member(self) -> Consumer:
        assert self.consumer is not None
        return self.consumer

    def _rows(self, record: Record) -> Rows:
        try:
            return self._projection.rows(record)
        except UndecodableError as error:
            now = time.time_ns() // 1000
            refused = invalid_output(self._projection.codec, record, "undecodable", str(error), now)
            self._producer.send(refused, lambda _: None)
            return {}

    def _is_due(self) -> bool:
        if self._failures:
            return self._clock() >= self._retry_at
        full = len(self._batch) >= BATCH_ROWS
        return not self._batch.is_empty and (full or self._clock() - self._batch.began >= BATCH_SECONDS)

    def _write(self, *, wait: bool) -> None:
        """Insert, then commit. The order of the tables does not matter: each is exact by itself."""
        if self._batch.is_empty:
            return
        if not self._producer.flush(_FLUSH_S):
            raise LogError(f"what was refused was not acknowledged within {_FLUSH_S} s")
        try:
            self._insert()
        except UnavailableError as error:
            self._hold(error)
            return
        positions = {at: p for at, p in self._batch.positions().items() if at in self._owned}
        self._member.commit(positions, wait=wait)
        self._go_on()

    def _insert(self) -> None:
        token = self._batch.token(self._prefix)
        for table, rows in self._batch.rows.items():
            if rows:
                self._store.insert(table, columns(table, rows), token)
        for table, rows in self._batch.rows.items():
            telemetry.PROJECTOR_ROWS.labels(table=table).inc(len(rows))

    def _hold(self, error: UnavailableError) -> None:
        pause = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        self._failures += 1
        self._retry_at = self._clock() + pause
        self._pause()
        telemetry.PROJECTOR_ERRORS.inc()
        telemetry.PROJECTION_DELAY.set(time.time() - self._batch.newest / 1e6)
        _LOG.warning("clickhouse.away", error=str(error), retry_s=pause, rows=len(self._batch))

    def _pause(self) -> None:
        for at in self._owned:
            self._member.pause(at)

    def _go_on(self) -> None:
        telemetry.PROJECTION_DELAY.set(time.time() - self._batch.newest / 1e6)
        self._batch = Batch(self._clock())
        if self._failures:
            _LOG.info("clickhouse.back", failures=self._failures)
            self._failures = 0
            for at in self._owned:
                self._member.resume(at)


def run(context: Context, stop: Stop, ready: Ready) -> None:
    """Run until `stop` is set."""
    store = History(partial(connect, context.settings))
    ready()
    project(context.log, store, context.settings, stop)
    store.close()


def project(log: Log, store: Store, settings: Settings, stop: Stop) -> None:
    """Project until `stop` is set; ProjectionError on a record that cannot be read."""
    projector = Projector(store, settings, log=log)
    consumer = log.consumer(GROUP, TOPICS, projector, patience_ms=PATIENCE_MS)
    projector.consumer = consumer
    try:
        while not stop.is_set():
            projector.step(POLL_SECONDS)
        projector.close()
    finally:
        consumer.close()
