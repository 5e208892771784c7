"""Projector: the facts on the log -> rows in ClickHouse.

Rows are made of nothing but records, and of rows with one key the version
decides, so any batch may be written any number of times in any order. The
rollups are made anew from those rows. Commits follow both: a crash repeats
work and loses none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from engine.ports import Clock, Consumer, Log, LogError, Position, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.atleastonce import start_of
from engine.runtime.clock import SystemClock
from engine.runtime.context import Context, Ready
from engine.runtime.history.clickhouse import History, MismatchError, OutdatedError, UnavailableError, connect
from engine.runtime.history.projection import TOPICS, Batch, Projection, ProjectionError, RowTarget
from engine.runtime.history.rollups import Unit, kept
from engine.runtime.history.rows import Rows
from engine.runtime.invalid import invalid_output
from engine.runtime.settings import Settings
from schemas.codec import UndecodableError

GROUP = "projector"
BATCH_SECONDS = 1.0
ROLLUP_SECONDS = 5.0
"""Rows are there after BATCH_SECONDS; figures by minute, and the commit, follow by then at the latest."""
ROLLUP_UNITS = 50_000
POLL_RECORDS = 2_000
POLL_SECONDS = 0.1
PATIENCE_MS = 250
_FLUSH_S = 30
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
_LOG = telemetry.logger(GROUP)


class Stop(Protocol):
    """A threading.Event, or what looks like one."""

    def is_set(self) -> bool:
        """Whether to stop."""

    def wait(self, timeout: float) -> bool:
        """Wait that long, or until it is set; whether it is."""


class Projector:
    """Gathers, inserts, commits. While ClickHouse is away it holds one batch and keeps polling."""

    def __init__(self, store: RowTarget, settings: Settings, clock: Clock, *, log: Log) -> None:
        self._store = store
        self._log = log
        self._producer = log.producer()
        """For `invalid`."""
        self._prefix = settings.prefix
        self._projection = Projection(settings.prefix)
        self._clock = clock
        self._batch = Batch(clock.monotonic())
        self._retention_days = settings.retention_days
        self._touched: set[Unit] = set()
        self._written: dict[TopicPartition, Position] = {}
        """Up to where rows are in ClickHouse, and the rollups perhaps not yet."""
        self._unsettled = 0
        """Append time of the oldest record of those, microseconds."""
        self._rolled_at = float("-inf")
        self._owned: set[TopicPartition] = set()
        self._failures = 0
        self._retry_at = 0.0
        self.consumer: Consumer | None = None
        # asked at each scrape, so that it grows while an insert hangs too
        telemetry.PROJECTION_DELAY.set_function(self.delay)
        telemetry.WINDOW_FILL.labels(GROUP).set_function(self.fill)

    def delay(self) -> float:
        """Age of the oldest record that was read and is not in ClickHouse, seconds; 0 if there is none.

        The rollups follow the rows, so they count only while ClickHouse refuses them.
        """
        waiting = [] if self._batch.is_empty else [self._batch.oldest]
        waiting += [self._unsettled] if self._failures and self._written else []
        return max(0.0, (self._clock.now() - min(waiting)) / 1e6) if waiting else 0.0

    def fill(self) -> float:
        """Share of the batch's places that are taken; it stays as it is while ClickHouse is away."""
        return min(1.0, self._batch.fill)

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Go on where the group's commits say, or at 0 of a log that still begins there."""
        self._owned.update(partitions)
        return start_of(self._log, self._member.committed(partitions), GROUP)

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Write what is held if that is possible now; if not, the next owner reads it again."""
        self._write(wait=True)
        self._forget(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Commit nothing more of these; rows already gathered do no harm."""
        self._forget(partitions)

    def step(self, timeout: float) -> None:
        """Poll once; insert and commit when the batch is due."""
        if self._failures:
            self._pause()  # what was assigned since, too
        for record in self._member.poll(timeout, 1 if self._failures else POLL_RECORDS):
            if self._batch.is_empty:
                self._batch.began = self._clock.monotonic()
            self._batch.add(record, self._rows(record))
            if self._batch.is_full and not self._failures:
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
            reason, now = str(error), self._clock.now()
            refused = invalid_output(self._projection.codec, record, "undecodable", reason, now)
            self._producer.send(refused, lambda _: None)
            return {}

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        self._owned.difference_update(partitions)
        self._written = {at: position for at, position in self._written.items() if at in self._owned}

    def _is_due(self) -> bool:
        if self._failures:
            return self._clock.monotonic() >= self._retry_at
        waited = self._clock.monotonic() - self._batch.began
        is_waiting = not self._batch.is_empty and (self._batch.is_full or waited >= BATCH_SECONDS)
        return is_waiting or (bool(self._written) and self._is_rollup_due())

    def _is_rollup_due(self) -> bool:
        waited = self._clock.monotonic() - self._rolled_at
        return not self._touched or len(self._touched) >= ROLLUP_UNITS or waited >= ROLLUP_SECONDS

    def _write(self, *, wait: bool) -> None:
        """Insert; roll up and commit if that is due, or now if it is to be waited for.

        ProjectionError if the rows do not fit the tables.
        """
        try:
            self._insert()
            if self._written and (wait or self._is_rollup_due()):
                self._settle(wait=wait)
        except MismatchError as error:
            # not tried again when the consumer closes; it is read again after a restart
            self._batch, self._written = Batch(), {}
            raise ProjectionError(
                f"ClickHouse takes no rows: {error}; mend its tables, then start it"
            ) from error
        except UnavailableError as error:
            self._hold(error)
        else:
            self._go_on()

    def _insert(self) -> None:
        if self._batch.is_empty:
            return
        if not self._producer.flush(_FLUSH_S):
            raise LogError(f"what was refused was not acknowledged within {_FLUSH_S} s")
        self._batch.insert_into(self._store, self._prefix)
        telemetry.PROJECTOR_INSERTED.set_to_current_time()
        self._unsettled = min(self._unsettled, self._batch.oldest) if self._written else self._batch.oldest
        self._touched |= self._batch.touched()
        self._written |= {at: p for at, p in self._batch.positions().items() if at in self._owned}
        self._batch = Batch(self._clock.monotonic())

    def _settle(self, *, wait: bool) -> None:
        """Bring the rollups up to date, then commit."""
        self._store.roll_up(kept(self._touched, self._clock.now(), self._retention_days))
        self._rolled_at = self._clock.monotonic()
        self._touched.clear()
        self._member.commit(self._written, wait=wait)
        self._written = {}

    def _hold(self, error: UnavailableError) -> None:
        pause = _pause_before(self._failures)
        self._failures += 1
        self._retry_at = self._clock.monotonic() + pause
        self._pause()
        _report(error, retry_s=pause, rows=len(self._batch))

    def _pause(self) -> None:
        for at in self._owned:
            self._member.pause(at)

    def _go_on(self) -> None:
        if self._failures:
            _LOG.info("clickhouse.back", failures=self._failures)
            self._failures = 0
            for at in self._owned:
                self._member.resume(at)


def _pause_before(failures: int) -> float:
    return BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]


def _report(error: UnavailableError, **fields: object) -> None:
    telemetry.PROJECTOR_ERRORS.inc()
    if isinstance(error, OutdatedError):
        todo = "run `hooklog migrate`: the projector goes on; `hooklog rebuild` fills a table that was lost"
        _LOG.error("clickhouse.outdated", error=str(error), todo=todo, **fields)
    else:
        _LOG.warning("clickhouse.away", error=str(error), **fields)


def run(context: Context, stop: Stop, ready: Ready) -> None:
    """Run until `stop` is set; ready once ClickHouse was there, with its tables."""
    store = History(partial(connect, context.settings))
    try:
        if await_tables(store.check, stop, context.clock):
            ready()
            project(context.log, store, context.settings, stop)
    finally:
        store.close()


def await_tables(check: Callable[[], None], stop: Stop, clock: Clock) -> bool:
    """Wait until ClickHouse is there with its tables; False if stopped before, ProjectionError if in vain."""
    failures, began = 0, clock.monotonic()
    telemetry.PROJECTION_DELAY.set_function(lambda: clock.monotonic() - began)
    while not stop.is_set():
        try:
            check()
        except MismatchError as error:
            raise ProjectionError(f"ClickHouse cannot be used: {error}") from error
        except UnavailableError as error:
            pause = _pause_before(failures)
            failures += 1
            _report(error, retry_s=pause)
            stop.wait(pause)
        else:
            return True
    return False


def project(log: Log, store: RowTarget, settings: Settings, stop: Stop) -> None:
    """Project until `stop` is set; ProjectionError on what a person must mend first."""
    projector = Projector(store, settings, SystemClock(), log=log)
    consumer = log.consumer(GROUP, TOPICS, projector, patience_ms=PATIENCE_MS)
    projector.consumer = consumer
    try:
        while not stop.is_set():
            projector.step(POLL_SECONDS)
        projector.close()
    finally:
        consumer.close()
