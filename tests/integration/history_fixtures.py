"""The real ClickHouse engine in this process, a database a test, and records to project."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from engine.core.model import AttemptFinished, Decision, RoutedBatch, Routing
from engine.core.routing import delivery_id
from engine.ports import Clock, Log, Record
from engine.runtime.configuration.vault import AesVault
from engine.runtime.context import Context
from engine.runtime.history.clickhouse import History
from engine.runtime.history.migration import migrate
from engine.runtime.history.rollups import COLUMNS_OF
from engine.runtime.history.rows import COLUMNS
from engine.runtime.settings import Settings, load_settings
from schemas.codec import Codec

NOW = time.time_ns() // 1000
"""Rows older than the retention would vanish, so records are of today."""
SECOND = 1_000_000
CODEC = Codec()
TOPIC = "hooklog.messages"


@dataclass(frozen=True, slots=True)
class Store:
    """A migrated database and how to reach it."""

    history: History
    client: Client
    settings: Settings

    def clear(self) -> None:
        """Empty the tables."""
        for table in (*COLUMNS, *COLUMNS_OF):
            self.client.command(f"TRUNCATE TABLE {table}")


@dataclass(slots=True)
class Hand:
    """A clock that moves when told; seconds since the test began."""

    now_s: float = 0.0

    def now(self) -> int:
        """Wall clock, microseconds."""
        return NOW + int(self.now_s * SECOND)

    def monotonic(self) -> float:
        """Return the time it shows."""
        return self.now_s


def context_of(store: Store, log: Log, clock: Clock) -> Context:
    """What a group is given that works with this store."""
    return Context(store.settings, log, clock, CODEC, {}, AesVault(bytes(32)), "test")


@contextmanager
def connected(chdb: str) -> Iterator[tuple[Client, Settings]]:
    """A connection, and settings that name a database which is not there yet; it is dropped at the end."""
    settings = load_settings(clickhouse_database=f"t{secrets.token_hex(4)}")
    client = clickhouse_connect.get_client(dsn=chdb, tz_mode="aware")
    yield client, settings
    client.command(f"DROP DATABASE IF EXISTS {settings.clickhouse_database}")
    client.close()


@pytest.fixture(scope="module")
def template(chdb: str) -> Iterator[Sequence[str]]:
    """What a migrated database is made of: to say that again takes a third of the time of the migrations."""
    with connected(chdb) as (client, settings):
        migrate(client, settings)
        database = settings.clickhouse_database
        made = client.query(
            "SELECT create_table_query FROM system.tables WHERE database = {database:String}"
            " ORDER BY engine = 'View'",
            {"database": database},
        ).result_rows
        yield [
            *(str(statement).replace(f"{database}.", "{database}.") for (statement,) in made),
            f"INSERT INTO {{database}}.migrations SELECT * FROM {database}.migrations",
        ]


def filled(bare: tuple[Client, Settings], template: Sequence[str]) -> Store:
    """A database as the migrations make it."""
    client, settings = bare
    database = settings.clickhouse_database
    for statement in (f"CREATE DATABASE {database}", *template):
        client.command(statement.replace("{database}", database), use_database=False)
    client.database = database
    return Store(History(lambda: client), client, settings)


@pytest.fixture
def bare(chdb: str) -> Iterator[tuple[Client, Settings]]:
    """A connection, and a database's name, of this test's own."""
    with connected(chdb) as own:
        yield own


@pytest.fixture
def store(bare: tuple[Client, Settings], template: Sequence[str]) -> Store:
    """A migrated database of this test's own."""
    return filled(bare, template)


def record(topic: str, offset: int, value: object, *, partition: int = 0, at: int = NOW) -> Record:
    """A value as it is read from the log."""
    return Record(topic, partition, offset, at, None, CODEC.encode(value), {})


def routing(offset: int, *matched: str) -> Routing:
    """What the router decided for the message at an offset."""
    return Routing(
        offset=offset,
        tenant="acme",
        message_id=f"m{offset}",
        event_type="room.ended",
        accepted_at=NOW + offset * 1_000,
        bytes=600,
        digest=bytes(16),
        matched=matched,
    )


def batch(*routings: Routing) -> RoutedBatch:
    """A RoutedBatch of partition 0 that covers just these offsets."""
    return RoutedBatch(0, routings[0].offset, routings[-1].offset, (), routings)


def attempt(offset: int, endpoint: str, number: int, decision: Decision) -> AttemptFinished:
    """An attempt at delivering the message at `offset`."""
    success = decision == "delivered"
    return AttemptFinished(
        delivery_id=delivery_id(TOPIC, 0, offset, endpoint),
        tenant="acme",
        endpoint_id=endpoint,
        message_id=f"m{offset}",
        event_type="room.ended",
        attempt=number,
        trigger="scheduled",
        origin="",
        accepted_at=NOW + offset * 1_000,
        source_partition=0,
        source_offset=offset,
        attempted_at=NOW + offset * 1_000 + number * SECOND,
        duration_us=1_234,
        outcome="success" if success else "failure",
        status_code=200 if success else 503,
        error_class="" if success else "http_5xx",
        error="" if success else "HTTP 503",
        decision=decision,
        reason="http_5xx" if decision == "failed" else "",
        retry_at=NOW + (number + 1) * SECOND if decision == "retry" else 0,
        request_bytes=620,
        response_body=b"ok \xff" if success else b"busy",
        worker="dispatcher-0",
        delivery=b"",
    )


def unasked(finished: AttemptFinished) -> AttemptFinished:
    """The same end of a delivery, without a request."""
    return replace(finished, outcome="none", status_code=0, error_class="", duration_us=0)
