"""ClickHouse: the connection, the migrations and what is asked of the history.

One way of talking to it: its HTTP interface, a server's in production and
`store`'s in `hooklog dev`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import NamedTuple
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.datatypes.base import ClickHouseType
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, StreamFailureError
from clickhouse_connect.driver.httputil import get_pool_manager

from engine.core.accounting import Account
from engine.runtime.rows import Columns
from engine.runtime.settings import Settings

Row = dict[str, object]

MIGRATIONS = Path(__file__).parent / "migrations"
REQUEST_SECONDS = 30
_TABLES_WITH_TTL = ("messages", "deliveries", "attempts")
_INSERT = {
    "async_insert": 0,
    # A batch of `hooklog rebuild` may hold more days than the default allows in one insert.
    "max_partitions_per_insert_block": 0,
}


class UnavailableError(Exception):
    """ClickHouse cannot be reached, or refuses for now; the same call may succeed later."""


class RefusedError(UnavailableError):
    """ClickHouse answered that it will not: a query it does not understand, a table that is not there yet."""


class MigrationError(Exception):
    """The migrations cannot be applied; the message says which and what to do."""


def connect(settings: Settings) -> Client:
    """Connect to ClickHouse; UnavailableError if that fails. The database need not exist yet."""
    url = urlsplit(settings.clickhouse)
    secure = url.scheme == "https"
    with _unavailable():
        client = clickhouse_connect.get_client(
            interface=url.scheme,
            host=url.hostname or "127.0.0.1",
            port=url.port or (8443 if secure else 8123),
            proxy_path=url.path,
            username=settings.clickhouse_user,
            password=settings.clickhouse_password.get_secret_value(),
            # Compressing costs more CPU than a few MB a second of network are worth.
            compress=False,
            send_receive_timeout=REQUEST_SECONDS,
            autogenerate_session_id=False,  # sessions would serialize the calls of a process
            tz_mode="aware",
            pool_mgr=get_pool_manager(),  # its own: proxies of the environment are not asked
        )
    client.database = settings.clickhouse_database
    return client


@contextmanager
def _unavailable() -> Iterator[None]:
    """What may pass becomes UnavailableError; a mistake of ours (a wrong type, say) stays what it is."""
    try:
        yield
    except (OperationalError, StreamFailureError) as error:
        raise UnavailableError(str(error).splitlines()[0]) from error
    except DatabaseError as error:
        if type(error) is DatabaseError:
            raise RefusedError(str(error).splitlines()[0]) from error
        raise


# Migrations


def migrate(client: Client, settings: Settings) -> list[str]:
    """Create the database, apply what has not been applied and set the retention; returns what was applied.

    Forward only. Every statement may run twice, so a migration that was cut short is simply run again.
    """
    database, days = settings.clickhouse_database, settings.retention_days
    if re.fullmatch(r"[A-Za-z_]\w*", database) is None:
        raise MigrationError(f"clickhouse_database={database!r}: use letters, digits and underscores only")
    with _unavailable():
        _create_ledger(client, database)
        applied = _applied(client, database)
        done = []
        for path in sorted(MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql")):
            if _is_pending(path, applied):
                _apply(client, path, database, days)
                done.append(path.stem)
        _set_retention(client, database, days)
    return done


def _create_ledger(client: Client, database: str) -> None:
    client.command(f"CREATE DATABASE IF NOT EXISTS {database}", use_database=False)
    client.command(
        f"CREATE TABLE IF NOT EXISTS {database}.migrations (name String COMMENT 'File without its ending',"
        " digest String COMMENT 'SHA-256 of the file', applied_at DateTime('UTC') COMMENT 'When')"
        " ENGINE = ReplacingMergeTree(applied_at) ORDER BY name COMMENT 'Migrations that were applied'",
        use_database=False,
    )


def _applied(client: Client, database: str) -> dict[str, str]:
    rows = client.query(f"SELECT name, digest FROM {database}.migrations FINAL").result_rows  # noqa: S608
    return {str(name): str(digest) for name, digest in rows}


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _is_pending(path: Path, applied: Mapping[str, str]) -> bool:
    known = applied.get(path.stem)
    if known is not None and known != _digest(path):
        raise MigrationError(f"migration {path.stem} was changed after it was applied; add a new one instead")
    return known is None


def statements(text: str) -> list[str]:
    """Split a migration into its statements: each ends with a semicolon at the end of a line."""
    lines = "".join(f"{line}\n" for line in text.splitlines() if not line.startswith("--"))
    return [statement.strip() for statement in lines.split(";\n") if statement.strip()]


def _apply(client: Client, path: Path, database: str, days: int) -> None:
    for statement in statements(path.read_text(encoding="utf-8")):
        sql = statement.replace("{database}", database).replace("{retention_days}", str(days))
        client.command(sql, use_database=False)
    client.command(
        f"INSERT INTO {database}.migrations VALUES ('{path.stem}', '{_digest(path)}', now())",  # noqa: S608
        settings={"async_insert": 0},
        use_database=False,
    )


def _set_retention(client: Client, database: str, days: int) -> None:
    """Changing a TTL rewrites parts, so only where it differs."""
    for table in _TABLES_WITH_TTL:
        if f"toIntervalDay({days})" not in str(client.command(f"SHOW CREATE TABLE {database}.{table}")):
            ttl = f"toDateTime(accepted_at) + INTERVAL {days} DAY"
            client.command(f"ALTER TABLE {database}.{table} MODIFY TTL {ttl}", use_database=False)


# The history


@dataclass(frozen=True, slots=True)
class Timeline:
    """What happened to a message: itself, each delivery, each attempt, in order of time."""

    message: Row
    deliveries: list[Row]
    attempts: list[Row]


@dataclass(frozen=True, slots=True)
class Table:
    """The answer to a query."""

    columns: tuple[str, ...]
    rows: list[Sequence[object]]


class DeliveryState(NamedTuple):
    """A delivery as ClickHouse has it; `updated_at` in microseconds, the message's partition and offset."""

    delivery_id: str
    status: str
    attempts: int
    updated_at: int
    partition: int
    offset: int


_OF_MESSAGE = "message_id = {message:String} AND ({tenant:String} = '' OR tenant = {tenant:String})"
_MESSAGE = f"SELECT * FROM accepted_messages WHERE {_OF_MESSAGE} ORDER BY accepted_at DESC LIMIT 1"  # noqa: S608
_DELIVERIES = f"SELECT * FROM delivery_status WHERE {_OF_MESSAGE} ORDER BY accepted_at, endpoint_id"  # noqa: S608
_ATTEMPTS = f"SELECT * FROM delivery_attempts WHERE {_OF_MESSAGE} ORDER BY attempted_at, attempt"  # noqa: S608

# A message counts with what its record says or what is there, whichever is more: its
# deliveries may be known before it is, and two overlapping owners may have matched more.
_ACCOUNTING = """
SELECT toUInt64(sum(greatest(said, found))) AS matched, toUInt64(sum(d)) AS delivered,
       toUInt64(sum(f)) AS failed, toUInt64(sum(p)) AS pending, toUInt64(sum(s)) AS skipped
FROM (
    SELECT topic_partition, topic_offset, sum(promised) AS said, sum(there) AS found,
           sumIf(there, status = 'delivered') AS d, sumIf(there, status = 'failed') AS f,
           sumIf(there, status = 'pending') AS p, sumIf(there, status = 'skipped') AS s
    FROM (
        SELECT topic_partition, topic_offset, matched + skipped AS promised, 0 AS there, '' AS status
        FROM accepted_messages WHERE {tenant:String} = '' OR tenant = {tenant:String}
        UNION ALL
        SELECT topic_partition, topic_offset, 0 AS promised, 1 AS there, status
        FROM delivery_status WHERE origin = '' AND ({tenant:String} = '' OR tenant = {tenant:String})
    )
    GROUP BY topic_partition, topic_offset
)
"""

_ENDPOINTS = """
SELECT tenant, endpoint_id, delivered, failed, skipped, pending, attempts,
       p50_ms, p99_ms, latency_p50_ms, latency_p99_ms
FROM (
    SELECT tenant, endpoint_id,
           countIf(status = 'delivered') AS delivered, countIf(status = 'failed') AS failed,
           countIf(status = 'skipped') AS skipped, countIf(status = 'pending') AS pending
    FROM delivery_status WHERE {tenant:String} = '' OR tenant = {tenant:String}
    GROUP BY tenant, endpoint_id
) AS states
LEFT JOIN (
    SELECT tenant, endpoint_id, count() AS attempts,
           round(quantile(0.5)(duration_ms), 3) AS p50_ms, round(quantile(0.99)(duration_ms), 3) AS p99_ms,
           quantileIf(0.5)(waited_ms, attempt = 1) AS latency_p50_ms,
           quantileIf(0.99)(waited_ms, attempt = 1) AS latency_p99_ms
    FROM (
        SELECT *, dateDiff('millisecond', accepted_at, attempted_at) AS waited_ms
        FROM delivery_attempts WHERE {tenant:String} = '' OR tenant = {tenant:String}
    )
    GROUP BY tenant, endpoint_id
) AS requests USING (tenant, endpoint_id)
ORDER BY tenant, endpoint_id
"""

_STATES = """
SELECT delivery_id, status, attempts, toUnixTimestamp64Milli(updated_at) * 1000 AS updated_at,
       topic_partition, topic_offset
FROM delivery_status
"""
_MADE = """
SELECT delivery_id, toUInt64(count()) AS made, toUnixTimestamp64Milli(max(attempted_at)) * 1000 AS last
FROM delivery_attempts GROUP BY delivery_id
"""


class History:
    """Delivery history in ClickHouse. Connects at first use; safe to use from several threads.

    Every method raises UnavailableError when ClickHouse is away.
    """

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._client: Client | None = None
        self._lock = Lock()
        self._types: dict[str, list[ClickHouseType]] = {}

    @property
    def client(self) -> Client:
        """The connection, made if there is none."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()

    def insert(self, table: str, columns: Columns, token: str) -> None:
        """Insert rows by columns; again with the same token within the window is a no-op."""
        names = list(columns)
        with _unavailable():
            self.client.insert(
                table,
                list(columns.values()),
                column_names=names,
                column_types=self._types_of(table, names),
                column_oriented=True,
                settings={**_INSERT, "insert_deduplication_token": token},
            )

    def _types_of(self, table: str, names: Sequence[str]) -> Sequence[ClickHouseType]:
        if table not in self._types:
            self._types[table] = list(self.client.create_insert_context(table, names).column_types)
        return self._types[table]

    def timeline(self, message_id: str, tenant: str = "") -> Timeline | None:
        """What happened to a message, of any tenant or of one; None if it is unknown here."""
        asked = {"message": message_id, "tenant": tenant}
        message = next(iter(self.rows(_MESSAGE, asked)), None)
        if message is None:
            return None
        return Timeline(message, self.rows(_DELIVERIES, asked), self.rows(_ATTEMPTS, asked))

    def accounting(self, tenant: str = "") -> Account:
        """Totals over first-time deliveries of all tenants or one; what is missing is unaccounted."""
        table = self.query(_ACCOUNTING, {"tenant": tenant})
        return Account(**{n: int(str(v)) for n, v in zip(table.columns, table.rows[0], strict=True)})

    def endpoints(self, tenant: str = "") -> list[Row]:
        """Per endpoint: deliveries by status, attempts, p50/p99 of a request and until the first one."""
        return self.rows(_ENDPOINTS, {"tenant": tenant})

    def states(self) -> Iterator[DeliveryState]:
        """Every delivery's state, streamed."""
        for delivery, status, *numbers in self._stream(_STATES):
            attempts, updated_at, partition, offset = (int(str(n)) for n in numbers)
            yield DeliveryState(str(delivery), str(status), attempts, updated_at, partition, offset)

    def made(self) -> Iterator[tuple[str, int, int]]:
        """(delivery id, rows in `attempts`, microseconds of the last) of each delivery with any, streamed."""
        for delivery, made, last in self._stream(_MADE):
            yield str(delivery), int(str(made)), int(str(last))

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> Table:
        """Any query; parameters are bound by the server, as in `{tenant:String}`."""
        with _unavailable():
            result = self.client.query(sql, parameters=dict(parameters or {}))
        return Table(tuple(result.column_names), list(result.result_rows))

    def rows(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[Row]:
        """Any query, a dict a row."""
        table = self.query(sql, parameters)
        return [dict(zip(table.columns, row, strict=True)) for row in table.rows]

    def _stream(self, sql: str) -> Iterator[Sequence[object]]:
        with _unavailable(), self.client.query_rows_stream(sql) as stream:
            yield from stream
