"""projector: routings, attempts, changes -> ClickHouse.

A row is made from its record alone. Of several rows with the same key the one
with the highest version counts, so any batch may be written any number of times,
in any order. The rollups are made anew from those rows. Offsets are committed
after both: a crash repeats work and loses none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Event

from engine.ports import Clock, LogError, Position, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.context import Context, Ready
from engine.runtime.history.clickhouse import History, MismatchError, OutdatedError, UnavailableError, connect
from engine.runtime.history.projection import TOPICS, Batch, Projection, ProjectionError, RowTarget
from engine.runtime.history.rollups import Unit, kept
from engine.runtime.history.rows import Rows
from engine.runtime.invalid import invalid_output
from engine.runtime.member import start_of
from schemas.codec import UndecodableError

GROUP = "projector"
BATCH_S = 1.0
"""Rows are in ClickHouse after so long, or when a batch is full."""
ROLLUP_S = 5.0
"""The rollups, and the commit, follow after so long, or when ROLLUP_UNITS_MAX of them are out of date."""
ROLLUP_UNITS_MAX = 50_000
POLL_MAX = 2_000
POLL_S = 0.1
PATIENCE_MS = 250
FLUSH_S = 30.0
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)
_LOG = telemetry.logger(GROUP)


class Projector:
    """Gathers, inserts, commits. While ClickHouse is away it holds one batch and keeps polling."""

    def __init__(self, context: Context, store: RowTarget) -> None:
        self._context = context
        self._clock = context.clock
        self._store = store
        self._producer = context.log.producer()
        """For `invalid`."""
        self._projection = Projection(context.settings.prefix)
        self._batch = Batch(self._clock.monotonic())
        self._touched: set[Unit] = set()
        self._written: dict[TopicPartition, Position] = {}
        """Up to where rows are in ClickHouse, and the rollups perhaps not yet."""
        self._unsettled = 0
        """Append time of the oldest record of those, microseconds."""
        self._rolled_at = float("-inf")
        self._owned: set[TopicPartition] = set()
        self._failures = 0
        self._retry_at = 0.0
        self.consumer = context.log.consumer(GROUP, TOPICS, self, patience_ms=PATIENCE_MS)
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
        return start_of(self._context.log, self.consumer.committed(partitions), GROUP)

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
        for record in self.consumer.poll(timeout, 1 if self._failures else POLL_MAX):
            if self._batch.is_empty:
                self._batch.began = self._clock.monotonic()
            self._batch.add(record, self._rows(record))
            if self._batch.is_full and not self._failures:
                self._write(wait=False)
        if self._is_due():
            self._write(wait=False)

    def close(self) -> None:
        """Write what is held, leave; what ClickHouse does not take now is read again at the next start."""
        try:
            self._write(wait=True)
        finally:
            self.consumer.close()

    def _rows(self, record: Record) -> Rows:
        try:
            return self._projection.rows(record)
        except UndecodableError as error:
            codec, now = self._context.codec, self._clock.now()
            refused = invalid_output(codec, record, "undecodable", str(error), now)
            self._producer.send(refused, lambda _: None)
            return {}

    def _forget(self, partitions: Sequence[TopicPartition]) -> None:
        self._owned.difference_update(partitions)
        self._written = {at: position for at, position in self._written.items() if at in self._owned}

    def _is_due(self) -> bool:
        if self._failures:
            return self._clock.monotonic() >= self._retry_at
        waited = self._clock.monotonic() - self._batch.began
        is_waiting = not self._batch.is_empty and (self._batch.is_full or waited >= BATCH_S)
        return is_waiting or (bool(self._written) and self._is_rollup_due())

    def _is_rollup_due(self) -> bool:
        waited = self._clock.monotonic() - self._rolled_at
        return not self._touched or len(self._touched) >= ROLLUP_UNITS_MAX or waited >= ROLLUP_S

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
        if not self._producer.flush(FLUSH_S):
            raise LogError(f"what was refused was not acknowledged within {FLUSH_S:g} s")
        self._batch.insert_into(self._store, self._context.settings.prefix)
        telemetry.PROJECTOR_INSERTED.set_to_current_time()
        self._unsettled = min(self._unsettled, self._batch.oldest) if self._written else self._batch.oldest
        self._touched |= self._batch.touched()
        self._written |= {at: p for at, p in self._batch.positions().items() if at in self._owned}
        self._batch = Batch(self._clock.monotonic())

    def _settle(self, *, wait: bool) -> None:
        """Bring the rollups up to date, then commit."""
        days = self._context.settings.retention_days
        self._store.roll_up(kept(self._touched, self._clock.now(), days))
        self._rolled_at = self._clock.monotonic()
        self._touched.clear()
        self.consumer.commit(self._written, wait=wait)
        self._written = {}

    def _hold(self, error: UnavailableError) -> None:
        pause = _pause_before(self._failures)
        self._failures += 1
        self._retry_at = self._clock.monotonic() + pause
        self._pause()
        _report(error, retry_s=pause, rows=len(self._batch))

    def _pause(self) -> None:
        for at in self._owned:
            self.consumer.pause(at)

    def _go_on(self) -> None:
        if self._failures:
            _LOG.info("clickhouse.back", failures=self._failures)
            self._failures = 0
            for at in self._owned:
                self.consumer.resume(at)


def _pause_before(failures: int) -> float:
    return BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]


def _report(error: UnavailableError, **fields: object) -> None:
    telemetry.PROJECTOR_ERRORS.inc()
    if isinstance(error, OutdatedError):
        todo = "run `hooklog migrate`: the projector goes on; `hooklog rebuild` fills a table that was lost"
        _LOG.error("clickhouse.outdated", error=str(error), todo=todo, **fields)
    else:
        _LOG.warning("clickhouse.away", error=str(error), **fields)


def run(context: Context, stop: Event, ready: Ready) -> None:
    """Run until `stop` is set; ready once ClickHouse was there, with its tables."""
    store = History(partial(connect, context.settings))
    try:
        if await_tables(store.check, stop, context.clock):
            ready()
            project(context, store, stop)
    finally:
        store.close()


def await_tables(check: Callable[[], None], stop: Event, clock: Clock) -> bool:
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


def project(context: Context, store: RowTarget, stop: Event) -> None:
    """Project until `stop` is set; ProjectionError on what a person must mend first."""
    projector = Projector(context, store)
    try:
        while not stop.is_set():
            projector.step(POLL_S)
    finally:
        projector.close()
