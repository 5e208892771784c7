"""A history of eleven messages that can be added up by hand, in tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

import clickhouse_connect
import pytest

from engine.core.change import CommandRejected, EndpointDisabled
from engine.core.directory import TenantCreated
from engine.core.model import AttemptFinished, Decision, ErrorClass, RoutedBatch, Routing, Skipped
from engine.core.replay import Resent, ResentBatch
from engine.core.routing import delivery_id
from engine.ports import Record
from engine.runtime.history.clickhouse import History
from engine.runtime.history.migration import migrate
from engine.runtime.history.projection import Batch, Projection
from engine.runtime.settings import load_settings
from tests.integration.history_fixtures import SECOND, TOPIC, Store, attempt, record


@dataclass(frozen=True, slots=True)
class Message:
    """A message as the history below tells it."""

    offset: int
    tenant: str
    event_type: str
    accepted: str
    bytes: int
    matched: Sequence[str] = ()
    skipped: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt: seconds after acceptance, milliseconds, HTTP status (0: timeout), what followed."""

    offset: int
    endpoint: str
    number: int
    after_s: float
    ms: int
    status: int
    decision: Decision


MESSAGES = [
    Message(1, "acme", "room.ended", "2026-11-09 10:00:00", 600, ["ep_a1"]),
    Message(2, "acme", "room.ended", "2026-11-09 10:10:00", 600, ["ep_a1"]),
    Message(3, "acme", "room.ended", "2026-11-09 10:20:00", 600, ["ep_a1"]),
    Message(4, "acme", "room.ended", "2026-11-09 10:30:00", 600, ["ep_a1"]),
    Message(5, "acme", "room.ended", "2026-11-16 10:00:00", 600, ["ep_a1", "ep_a2"]),
    Message(6, "acme", "room.ended", "2026-11-16 10:00:10", 600, ["ep_a1", "ep_a2"]),
    Message(7, "acme", "recording.ready", "2026-11-16 10:30:00", 1000, ["ep_a1"]),
    Message(8, "acme", "room.ended", "2026-11-16 11:00:00", 600, ["ep_a1"], ["ep_a2"]),
    Message(9, "beta", "call.finished", "2026-11-16 10:00:20", 2000, ["ep_b1"]),
    Message(10, "beta", "call.finished", "2026-11-16 10:05:00", 2000),
    Message(11, "beta", "call.finished", "2026-11-16 11:10:00", 2000, ["ep_b1"]),
]
TRIED = [
    Tried(1, "ep_a1", 1, 1, 100, 200, "delivered"),
    Tried(2, "ep_a1", 1, 1, 100, 200, "delivered"),
    Tried(3, "ep_a1", 1, 1, 100, 200, "delivered"),
    Tried(4, "ep_a1", 1, 1, 100, 503, "failed"),
    Tried(5, "ep_a1", 1, 1, 200, 200, "delivered"),
    Tried(5, "ep_a2", 1, 1, 5000, 0, "retry"),
    Tried(5, "ep_a2", 2, 31, 300, 200, "delivered"),
    Tried(6, "ep_a1", 1, 2, 50, 503, "retry"),
    Tried(6, "ep_a1", 2, 7, 50, 503, "failed"),
    Tried(6, "ep_a2", 1, 1, 400, 200, "delivered"),
    Tried(7, "ep_a1", 1, 1, 60, 404, "retry"),
    Tried(9, "ep_b1", 1, 0.5, 80, 200, "delivered"),
    Tried(11, "ep_b1", 1, 3, 120, 200, "delivered"),
]
ANSWERS: dict[int, tuple[Literal["", ErrorClass], str, bytes]] = {
    200: ("", "", b"ok"),
    404: ("http_4xx", "HTTP 404", b"no such page"),
    503: ("http_5xx", "HTTP 503", b"busy"),
    0: ("timeout", "no answer within 5 s", b""),
}
BY_OFFSET = {message.offset: message for message in MESSAGES}


def micros(text: str) -> int:
    """A time of the history, microseconds."""
    return int(datetime.fromisoformat(f"{text}+00:00").timestamp()) * SECOND


def routed(message: Message) -> RoutedBatch:
    """What the router wrote of it."""
    routing = Routing(
        message.offset,
        message.tenant,
        f"m{message.offset}",
        message.event_type,
        micros(message.accepted),
        digest=bytes(16),
        matched=tuple(message.matched),
        skipped=tuple(Skipped(endpoint, "disabled") for endpoint in message.skipped),
        bytes=message.bytes,
    )
    return RoutedBatch(0, message.offset, message.offset, (), (routing,))


def finished(tried: Tried) -> AttemptFinished:
    """What the dispatcher wrote of it; m7's next attempt is due five minutes after its acceptance."""
    message = BY_OFFSET[tried.offset]
    accepted = micros(message.accepted)
    error_class, error, body = ANSWERS[tried.status]
    return replace(
        attempt(tried.offset, tried.endpoint, tried.number, tried.decision),
        tenant=message.tenant,
        event_type=message.event_type,
        accepted_at=accepted,
        attempted_at=accepted + int(tried.after_s * SECOND),
        duration_us=tried.ms * 1_000,
        status_code=tried.status,
        error_class=error_class,
        error=error,
        response_body=body,
        retry_at=accepted + 300 * SECOND if tried.decision == "retry" else 0,
        request_bytes=message.bytes,
    )


def resent() -> tuple[ResentBatch, AttemptFinished]:
    """m6 to ep_a1 again, by hand, which worked."""
    accepted, origin = micros("2026-11-16 11:20:00"), delivery_id(TOPIC, 0, 6, "ep_a1")
    made = Resent("dlv_again", "ep_a1", "m6", "room.ended", "resend", origin, accepted, 0, 6)
    delivered = replace(
        finished(Tried(6, "ep_a1", 1, 0, 90, 200, "delivered")),
        delivery_id="dlv_again",
        origin=origin,
        trigger="resend",
        accepted_at=accepted,
        attempted_at=accepted + SECOND,
    )
    return ResentBatch("c1", "acme", "admin", accepted, (made,)), delivered


@pytest.fixture(scope="module")
def told(chdb: str) -> Iterator[Store]:
    """The history above, in tables."""
    settings = load_settings(clickhouse_database="told", retention_days=10_000, rollup_days=10_000)
    client = clickhouse_connect.get_client(dsn=chdb, tz_mode="aware")
    migrate(client, settings)
    client.database = "told"
    history = History(lambda: client)
    projection, gathered = Projection("hooklog."), Batch(0)
    for read in records():
        gathered.add(read, projection.rows(read))
    gathered.insert_into(history, "hooklog.")
    history.roll_up(gathered.touched())
    yield Store(history, client, settings)
    client.command("DROP DATABASE told")
    client.close()


def records() -> Iterator[Record]:
    """The log of it."""
    batch_again, delivered_again = resent()
    changes = [
        TenantCreated("c0", "acme", "admin", micros("2026-11-09 09:00:00"), "Acme"),
        EndpointDisabled("c2", "acme", "health", micros("2026-11-16 10:45:00"), "ep_a2", 2, "failing"),
        CommandRejected(
            "c3", "acme", "key:k1", micros("2026-11-16 11:30:00"), "ep_a9", "DeleteEndpoint", "unknown"
        ),
    ]
    routings: list[RoutedBatch | ResentBatch] = [*map(routed, MESSAGES), batch_again]
    attempts = [*map(finished, TRIED), delivered_again]
    yield from (
        record("routings", n, each, at=micros("2026-11-09 09:00:00")) for n, each in enumerate(routings)
    )
    yield from (
        record("attempts", n, each, at=each.attempted_at + each.duration_us)
        for n, each in enumerate(attempts)
    )
    yield from (record("changes", n, each, at=each.at) for n, each in enumerate(changes))
