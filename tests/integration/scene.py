"""A log in memory that a test writes by hand, the history projected from it, and the checks of both."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consumers.accounting import Accounting, Pace
from consumers.projector import Projector
from engine.core.lane import Lane
from engine.core.model import AttemptFinished, DeliveryScheduled, MessagePublished
from engine.core.routing import delivery_id
from engine.ports import Output
from engine.runtime.accounting.accounts import Accounts
from engine.runtime.accounting.reconcile import GRACE_US, Report, Scope, Sources, reconcile
from engine.runtime.clock import SystemClock
from engine.runtime.memory import MemoryLog
from schemas import headers
from tests.integration.history_fixtures import CODEC, TOPIC, Store, context_of

LATER = 2 * GRACE_US
PACE = Pace(every_s=15, grace_us=GRACE_US)


class Hour:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.us = SystemClock().now()

    def now(self) -> int:
        """Wall clock, microseconds."""
        return self.us

    def monotonic(self) -> float:
        """Seconds."""
        return self.us / 1e6


class Scene:
    """A log of one partition with its clock, and the history projected from it."""

    def __init__(self, store: Store) -> None:
        self.clock = Hour()
        self.log = MemoryLog(1, self.clock)
        self.store = store

    def add(self, topic: str, *values: object) -> None:
        """Append values now, with the headers that the groups write."""
        for value in values:
            self.log.append(Output(topic, 0, _key(value), CODEC.encode(value), _headers(value)))

    def park(self, endpoint: str, cursor: int) -> None:
        """Say that a lane is parked."""
        self.add("lanes", Lane(endpoint, "acme", parked=True, cursor=cursor))

    def unpark(self, endpoint: str) -> None:
        """Say that it is not."""
        self.log.append(Output("lanes", 0, endpoint.encode(), None))

    def publish(self, count: int) -> None:
        """Append messages."""
        self.add(
            "messages", *(MessagePublished("acme", f"m{n}", "room.ended", b"{}", 0) for n in range(count))
        )

    def project(self) -> None:
        """Bring ClickHouse up to date."""
        projector = Projector(context_of(self.store, self.log, self.clock), self.store.history)
        projector.step(0)
        projector.close()

    def reconcile(self, after: int = 0, scope: Scope | None = None) -> Report:
        """Reconcile some microseconds from now."""
        sources = Sources(self.log.reader(), self.log, Accounts(self.store.history))
        scope = replace(scope or Scope(0), now=self.clock.us + after)
        return reconcile(sources, self.store.settings, scope)

    def accounting(self) -> Accounting:
        """The continuous check."""
        context = context_of(self.store, self.log, self.clock)
        return Accounting(context, Accounts(self.store.history), PACE)


@pytest.fixture
def scene(store: Store) -> Scene:
    """An empty log and an empty history."""
    return Scene(store)


def _key(value: object) -> bytes | None:
    if isinstance(value, Lane | AttemptFinished | DeliveryScheduled):
        return value.endpoint_id.encode()
    return None


def _headers(value: object) -> dict[str, bytes]:
    match value:
        case DeliveryScheduled():
            number = str(value.attempt).encode()
            return {headers.DELIVERY: value.delivery_id.encode(), headers.ATTEMPT: number}
        case AttemptFinished():
            return headers.of_attempt(value, b"deliveries:0:0")
    return {}


def waiting(offset: int, endpoint: str, number: int) -> DeliveryScheduled:
    """A delivery that waits for its attempt `number`."""
    return DeliveryScheduled(
        delivery_id=delivery_id(TOPIC, 0, offset, endpoint),
        tenant="acme",
        endpoint_id=endpoint,
        message_id=f"m{offset}",
        event_type="room.ended",
        attempt=number,
        trigger="scheduled",
        origin="",
        accepted_at=0,
        published_at=0,
        profile="standard",
        endpoint_epoch=0,
        view_offset=0,
        source_partition=0,
        source_offset=offset,
        body=b"{}",
    )
