"""ClickHouse: the connection, what goes wrong with it, and what is asked of the history.

One way of talking to it: its HTTP interface, a server's in production and
`store`'s in `hooklog dev`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.datatypes.base import ClickHouseType
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import (
    DatabaseError,
    DataError,
    OperationalError,
    ProgrammingError,
    StreamFailureError,
)
from clickhouse_connect.driver.httputil import get_pool_manager
from clickhouse_connect.driver.summary import QuerySummary

from engine.core.accounting import Account
from engine.runtime.history import rollups
from engine.runtime.history.listings import DELIVERIES, Asked, Key, Listing, among, newest, page_query, wider
from engine.runtime.history.rows import COLUMNS, Columns
from engine.runtime.settings import Settings

Row = dict[str, object]

REQUEST_SECONDS = 30
_INSERT = {
    "async_insert": 0,
    # A batch of `hooklog rebuild` may hold more days than the default allows in one insert.
    "max_partitions_per_insert_block": 0,
}


class UnavailableError(Exception):
    """ClickHouse cannot be reached, or refuses for now; the same call may succeed later."""


class RefusedError(UnavailableError):
    """ClickHouse answered that it will not; the same call may succeed later, or not."""


class OutdatedError(RefusedError):
    """A table or a column is not there: `hooklog migrate` makes it."""


class MismatchError(RefusedError):
    """What is asked for does not fit what is there, or is not allowed: asking again is in vain."""


_OUTDATED = frozenset({16, 47, 60, 81})
"""ClickHouse's codes: no such column, unknown identifier, unknown table, unknown database."""
_MISMATCH = frozenset({6, 20, 27, 32, 36, 43, 44, 48, 50, 53, 62, 69, 70, 115, 164, 192, 193, 349, 497, 516})
"""Cannot parse or convert, wrong number or type of columns, syntax, unknown setting, read-only, no access."""


def connect(settings: Settings, patience_s: float = REQUEST_SECONDS) -> Client:
    """Connect to ClickHouse; UnavailableError if that fails. The database need not exist yet."""
    url = urlsplit(settings.clickhouse)
    secure = url.scheme == "https"
    with unavailable():
        client = clickhouse_connect.get_client(
            interface=url.scheme,
            host=url.hostname or "127.0.0.1",
            port=url.port or (8443 if secure else 8123),
            proxy_path=url.path,
            username=settings.clickhouse_user,
            password=settings.clickhouse_password.get_secret_value(),
            # Compressing costs more CPU than a few MB a second of network are worth.
            compress=False,
            send_receive_timeout=patience_s,
            autogenerate_session_id=False,  # sessions would serialize the calls of a process
            tz_mode="aware",
            pool_mgr=get_pool_manager(),  # its own: proxies of the environment are not asked
        )
    client.database = settings.clickhouse_database
    return client


@contextmanager
def unavailable() -> Iterator[None]:
    """What may pass becomes UnavailableError; a mistake of ours (a wrong type, say) stays what it is."""
    try:
        yield
    except (OperationalError, StreamFailureError) as error:
        raise UnavailableError(str(error).splitlines()[0]) from error
    except DatabaseError as error:
        if type(error) is DatabaseError:
            raise _refusal(error)(str(error).splitlines()[0]) from error
        raise


def _refusal(error: DatabaseError) -> type[RefusedError]:
    if error.code in _OUTDATED:
        return OutdatedError
    return MismatchError if error.code in _MISMATCH else RefusedError


@contextmanager
def _fitting(table: str) -> Iterator[None]:
    """What the client itself finds: a column that is not there, a value that its type does not hold."""
    try:
        yield
    except ProgrammingError as error:
        raise OutdatedError(f"{error}: run `hooklog migrate`") from error
    except (ValueError, TypeError, OverflowError, AttributeError, struct.error, DataError) as error:
        raise MismatchError(f"rows do not fit the columns of {table}: {error}") from error


def execute(
    client: Client,
    sql: str,
    parameters: Mapping[str, object] | None = None,
    settings: Mapping[str, object] | None = None,
) -> None:
    """Have a statement executed; what fails late, and what is no ClickHouse, answers 200 with a text."""
    with unavailable():
        done = client.command(sql, dict(parameters or {}), settings=dict(settings or {}))
    if not isinstance(done, QuerySummary) or set(done.summary) <= {"query_id"}:
        raise UnavailableError(f"ClickHouse did not confirm {sql[:40]}…")


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


_OF_MESSAGE = "message_id = {message:String} AND ({tenant:String} = '' OR tenant = {tenant:String})"
_MESSAGES = among("messages", ("tenant", "accepted_at", "topic_partition", "topic_offset"), _OF_MESSAGE)
_MESSAGE = f"SELECT * FROM accepted_messages WHERE {_MESSAGES} ORDER BY accepted_at DESC LIMIT 100"  # noqa: S608
_TENANTS = "SELECT DISTINCT tenant FROM accepted_messages WHERE message_id = {message:String} LIMIT 6"
# Of when the messages of that id were accepted: so a day or two are read, and not the index of every part.
_OF_TIMES = """tenant = {tenant:String} AND message_id = {message:String}
AND accepted_at IN (SELECT fromUnixTimestamp64Milli(arrayJoin({times:Array(Int64)}), 'UTC'))"""
_DELIVERIES = f"SELECT * FROM delivery_status WHERE {_OF_TIMES} ORDER BY accepted_at, endpoint_id"  # noqa: S608
_ATTEMPTS = f"SELECT * FROM delivery_attempts WHERE {_OF_TIMES} ORDER BY attempted_at, attempt"  # noqa: S608
_DELIVERY = f"""SELECT {", ".join(DELIVERIES.columns)} FROM deliveries FINAL
WHERE delivery_id = {{delivery:String}} AND ({{tenant:String}} = '' OR tenant = {{tenant:String}}) LIMIT 1"""  # noqa: S608
_ATTEMPTS_OF = """SELECT * FROM delivery_attempts WHERE tenant = {tenant:String}
AND endpoint_id = {endpoint_id:String} AND delivery_id = {delivery_id:String} ORDER BY attempt"""

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


def milliseconds(at: object) -> int:
    """A time out of a row, in milliseconds since 1970 UTC."""
    assert isinstance(at, datetime)
    return round(at.timestamp() * 1000)


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

    def check(self) -> None:
        """OutdatedError if a table or a column is missing."""
        for table, names in {**COLUMNS, **rollups.COLUMNS_OF}.items():
            self._types_of(table, names)

    def insert(self, table: str, columns: Columns, token: str) -> None:
        """Insert rows by columns; again with the same token within the window is a no-op.

        OutdatedError if `hooklog migrate` is needed, MismatchError if repeating it is in vain.
        """
        names, values = list(columns), list(columns.values())
        client, types = self.client, self._types_of(table, names)
        with unavailable(), _fitting(table):
            done = client.insert(
                table,
                values,
                column_names=names,
                column_types=types,
                column_oriented=True,
                settings={**_INSERT, "insert_deduplication_token": token},
            )
        # An insert that fails late, and whatever is between us, answers 200: only ClickHouse counts rows.
        if done.written_rows < len(values[0]):
            raise UnavailableError(f"ClickHouse did not confirm {len(values[0])} rows written to {table}")

    def roll_up(self, units: Collection[rollups.Unit]) -> None:
        """Make anew what the rollups say of these units; the attempts must have been written before."""
        if not units:
            return
        run = self.clock()
        self.insert(rollups.TOUCHED, rollups.touched_columns(run, units), str(run))
        for rollup in rollups.ROLLUPS:
            asked = {"run": run, "at": self.clock()}
            for statement in rollups.make_touched(rollup):
                execute(self.client, statement, asked, rollups.SETTINGS)

    def clock(self) -> int:
        """ClickHouse's clock, nanoseconds since 1970 UTC."""
        return int(str(self.query(rollups.CLOCK).rows[0][0]))

    def _types_of(self, table: str, names: Sequence[str]) -> Sequence[ClickHouseType]:
        if table not in self._types:
            client = self.client
            with unavailable(), _fitting(table):
                self._types[table] = list(client.create_insert_context(table, names).column_types)
        return self._types[table]

    def timeline(self, message_id: str, tenant: str = "") -> Timeline | None:
        """What happened to a message, of any tenant or of one; None if it is unknown here."""
        found = self.rows(_MESSAGE, {"message": message_id, "tenant": tenant})
        if not found:
            return None
        of = found[0]["tenant"]  # another tenant may have a message of that id
        times = {milliseconds(message["accepted_at"]) for message in found if message["tenant"] == of}
        asked = {"message": message_id, "tenant": of, "times": sorted(times)}
        return Timeline(found[0], self.rows(_DELIVERIES, asked), self.rows(_ATTEMPTS, asked))

    def tenants_of(self, message_id: str) -> list[str]:
        """Tenants, six at most, that have a message of this id."""
        return [str(row["tenant"]) for row in self.rows(_TENANTS, {"message": message_id})]

    def page(self, listing: Listing, asked: Asked, after: Key | None, limit: int) -> list[Row]:
        """Up to `limit` rows, newest first, after the one with this key."""
        span = newest(listing, asked, after)
        rows = self.rows(*page_query(listing, span, after, limit))
        while len(rows) < limit and span != asked:
            span = wider(asked, span, after, len(rows) / limit)
            rows = self.rows(*page_query(listing, span, after, limit))
        return rows

    def delivery(self, delivery_id: str, tenant: str = "") -> Row | None:
        """The state of a delivery, of any tenant or of one, by the columns of DELIVERIES; None if unknown."""
        found = self.rows(_DELIVERY, {"delivery": delivery_id, "tenant": tenant})
        return next(iter(found), None)

    def attempts_of(self, delivery: Row) -> list[Row]:
        """Every attempt of a delivery, in order."""
        return self.rows(_ATTEMPTS_OF, {n: delivery[n] for n in ("tenant", "endpoint_id", "delivery_id")})

    def accounting(self, tenant: str = "") -> Account:
        """Totals over first-time deliveries of all tenants or one; what is missing is unaccounted."""
        table = self.query(_ACCOUNTING, {"tenant": tenant})
        return Account(**{n: int(str(v)) for n, v in zip(table.columns, table.rows[0], strict=True)})

    def endpoints(self, tenant: str = "") -> list[Row]:
        """Per endpoint: deliveries by status, attempts, p50/p99 of a request and until the first one."""
        return self.rows(_ENDPOINTS, {"tenant": tenant})

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> Table:
        """Any query; parameters are bound by the server, as in `{tenant:String}`."""
        with unavailable():
            result = self.client.query(sql, parameters=dict(parameters or {}))
        return Table(tuple(result.column_names), list(result.result_rows))

    def rows(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[Row]:
        """Any query, a dict a row."""
        table = self.query(sql, parameters)
        return [dict(zip(table.columns, row, strict=True)) for row in table.rows]

    def stream(self, sql: str, parameters: Mapping[str, object] | None = None) -> Iterator[Sequence[object]]:
        """Any query, row by row."""
        with unavailable(), self.client.query_rows_stream(sql, parameters=dict(parameters or {})) as stream:
            yield from stream
