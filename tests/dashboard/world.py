"""Two tenants with endpoints, messages on the log, and the history of what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from engine.core.model import AttemptFinished, Decision, MessagePublished, Skipped, SkipReason
from engine.core.routing import delivery_id
from engine.ports import Output
from engine.runtime.clock import SystemClock
from engine.runtime.history.clickhouse import History
from engine.runtime.history.rows import columns, finished_rows, routed_rows
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import Api
from tests.integration.history_fixtures import CODEC, SECOND, TOPIC, attempt, batch, record, routing

AT = ("messages", 0)


@dataclass(slots=True)
class World:
    """What a test has made. Message n of `publish` has the id `m<offset>`, on partition 0."""

    api: Api
    history: History
    endpoints: dict[str, str] = field(default_factory=dict)
    """By tenant."""
    rows: int = 0
    now: int = field(default_factory=SystemClock().now)
    """When all of it happens. Pages tell of the last minutes, and the suite may have run for longer."""

    def add_endpoint(self, tenant: str, url: str = "https://hooks.example.com/in", **given: object) -> str:
        """Create an endpoint through the API; return its id."""
        answer = self.api.ask("POST", "/v1/endpoints", {"tenant": tenant, "url": url, **given})
        assert answer.status_code == 201, answer.text
        id = str(answer.json()["id"])
        self.endpoints[tenant] = id
        return id

    def publish(
        self,
        tenant: str,
        payload: bytes = b'{"a": 1}',
        *,
        skipped: Literal["", SkipReason] = "",
        to: str = "",
    ) -> int:
        """Put a message on the log and what was decided into the history; return its offset."""
        log = self.api.context.log
        assert isinstance(log, MemoryLog)
        offset = len(log.records(AT))
        message = MessagePublished(tenant, f"m{offset}", "room.ended", payload, self.now)
        log.append(Output("messages", 0, message.id.encode(), CODEC.encode(message)))
        matched = () if skipped else (to or self.endpoints[tenant],)
        passed = (Skipped(self.endpoints[tenant], skipped),) if skipped else ()
        routed = replace(
            routing(offset, *matched), tenant=tenant, skipped=passed, bytes=len(payload), accepted_at=self.now
        )
        self._insert(routed_rows(record("routings", offset, batch(routed)), batch(routed), TOPIC))
        return offset

    def attempt(
        self, tenant: str, offset: int, number: int = 1, at: int | None = None, **changed: Any
    ) -> AttemptFinished:
        """Record an attempt at a message: a success, or a 503 if there is an `error_class`; and what else.

        What is tried again waits for an hour, so that it is not late however slow the machine is.
        """
        decision: Decision = "retry" if changed.get("error_class") else "delivered"
        made = attempt(offset, self.endpoints[tenant], number, decision)
        times = {"accepted_at": self.now, "attempted_at": self.now, "retry_at": self.now + 3_600 * SECOND}
        finished = replace(made, **{"tenant": tenant, **times, **changed})
        self._insert(finished_rows(record("attempts", self.rows, finished, at=at or self.now), finished))
        minute = finished.accepted_at // (60 * SECOND) * 60
        self.history.roll_up([(tenant, finished.endpoint_id, minute)])
        return finished

    def delivery(self, tenant: str, offset: int) -> str:
        """Id of a message's delivery."""
        return delivery_id(TOPIC, 0, offset, self.endpoints[tenant])

    def _insert(self, tables: Mapping[str, list[tuple[object, ...]]]) -> None:
        for table, rows in tables.items():
            self.rows += 1
            if rows:
                self.history.insert(table, columns(table, rows), f"t-{self.rows}")


@pytest.fixture
def world(api: Api, history: History) -> World:
    """The tenants acme and other, with an endpoint each, and nothing sent yet."""
    made = World(api, history)
    made.add_endpoint("other", "https://other.example.com/in")
    made.add_endpoint("acme")
    return made
