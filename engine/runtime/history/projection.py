"""Records of the log -> batches of ClickHouse's rows: what the projector and `hooklog rebuild` share."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import blake2b
from typing import Protocol

from engine.core.change import FactBase
from engine.core.model import AttemptFinished, RoutedBatch
from engine.core.replay import ResentBatch
from engine.ports import LogError, Position, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.history.rollups import Unit, touched
from engine.runtime.history.rows import (
    COLUMNS,
    Columns,
    Row,
    Rows,
    columns,
    finished_rows,
    resent_rows,
    routed_rows,
)
from engine.runtime.history.trail import change_rows
from schemas.codec import Codec, UndecodableError, UnknownSchemaError

TOPICS = ("routings", "attempts", "changes")
BATCH_ROWS = 20_000
BATCH_BYTES = 32 << 20
"""Of the records that a batch comes from: failed attempts carry up to 16 KiB of the answer each."""


class ProjectionError(LogError):
    """A record cannot be read, or its rows fit no table: the message says what must be done first."""


class RowTarget(Protocol):
    """Where rows go: `engine.runtime.history.clickhouse.History`."""

    def insert(self, table: str, columns: Columns, token: str) -> None:
        """Insert rows by columns; UnavailableError if that may succeed later."""

    def roll_up(self, units: Collection[Unit]) -> None:
        """Make anew what the rollups say of these units; UnavailableError as above."""


class Projection:
    """Record -> rows, decoding included."""

    def __init__(self, prefix: str) -> None:
        self.codec = Codec()
        self._topic = prefix + "messages"

    def rows(self, record: Record) -> Rows:
        """Rows that a record of `routings`, `attempts` or `changes` leads to.

        UndecodableError if it is none of ours, ProjectionError if a newer hooklog wrote it.
        """
        try:
            decoded = self.codec.decode(record.value)
        except UnknownSchemaError as error:
            raise ProjectionError(f"{_at(record)}: {error}; upgrade this hooklog, then start it") from error
        if isinstance(decoded, AttemptFinished):
            return finished_rows(record, decoded)
        if isinstance(decoded, RoutedBatch):
            return routed_rows(record, decoded, self._topic)
        if isinstance(decoded, ResentBatch):
            return resent_rows(record, decoded)
        if isinstance(decoded, FactBase):
            return change_rows(record, decoded)
        raise UndecodableError(f"a {type(decoded).__name__} does not belong there")


def _at(record: Record) -> str:
    return f"{record.topic}-{record.partition} at offset {record.offset}"


class Batch:
    """Rows gathered since the last insert, and which records they come from."""

    def __init__(self, began: float = 0) -> None:
        self.began = began
        self.rows: dict[str, list[Row]] = {table: [] for table in COLUMNS}
        self.oldest = 0
        """Append time of the record that has waited longest, microseconds."""
        self._bytes = 0
        self._first: dict[TopicPartition, tuple[int, int]] = {}
        self._last: dict[TopicPartition, tuple[int, int]] = {}

    def __len__(self) -> int:
        return max(map(len, self.rows.values()))

    def add(self, record: Record, rows: Rows) -> None:
        """Take in a record's rows."""
        self.oldest = record.timestamp if self.is_empty else min(self.oldest, record.timestamp)
        self._bytes += len(record.value or b"")
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
    def fill(self) -> float:
        """Share of its places that are taken; of records without rows none is."""
        return max(len(self) / BATCH_ROWS, self._bytes / BATCH_BYTES)

    @property
    def is_full(self) -> bool:
        """Whether it must be written before more is taken in."""
        return self.fill >= 1

    def positions(self) -> dict[TopicPartition, Position]:
        """Where to go on after this batch."""
        return {at: Position(offset + 1, "") for at, (offset, _) in self._last.items()}

    def touched(self) -> set[Unit]:
        """Of what the rollups must be made anew once it is written."""
        return touched(self.rows["attempts"])

    def token(self, prefix: str) -> str:
        """Name these very records; append times tell a topic from its namesake made anew."""
        spans = (f"{prefix}{at}{self._first[at]}{self._last[at]}" for at in sorted(self._last))
        return blake2b(",".join(spans).encode(), digest_size=16).hexdigest()

    def insert_into(self, target: RowTarget, prefix: str) -> None:
        """Write all rows; the order of the tables does not matter, since each is exact by itself."""
        token = self.token(prefix)
        for table, rows in self.rows.items():
            if rows:
                target.insert(table, columns(table, rows), token)
        for table, rows in self.rows.items():
            telemetry.PROJECTOR_ROWS.labels(table=table).inc(len(rows))
