"""GET /v1/endpoints/{id}/health, and the likely causes in what is told of deliveries: on the real engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import clickhouse_connect
import pytest

from engine.core.endpoint import Endpoint
from engine.core.lane import Lane
from engine.core.model import ErrorClass
from engine.core.routing import delivery_id, partition_of
from engine.ports import Output
from engine.runtime.history.clickhouse import History
from engine.runtime.history.rows import columns, finished_rows, routed_rows
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import PARTITIONS, Api, make_context, running
from tests.integration.history_fixtures import CODEC, NOW, SECOND, TOPIC, attempt, batch, record, routing
from tests.integration.history_fixtures import Store as HistoryStore

pytestmark = pytest.mark.integration

HOUR = 3_600 * SECOND


@dataclass(slots=True)
class Asked:
    """An API whose history is the real engine, and an endpoint of the tenant acme."""

    api: Api
    history: History
    endpoint: str
    rows: int = 0
    accepted: dict[int, int] = field(default_factory=dict)
    """Of messages, by offset."""

    def message(self, offset: int, *, matched: bool = True) -> None:
        """A message that was accepted four hours ago."""
        of = (self.endpoint,) if matched else ()
        self.accepted[offset] = NOW - 4 * HOUR
        routed = batch(replace(routing(offset, *of), accepted_at=NOW - 4 * HOUR))
        self._insert(routed_rows(record("routings", offset, routed), routed, TOPIC))

    def attempt(
        self,
        offset: int,
        before: int,
        error_class: Literal["", ErrorClass] = "",
        status: int = 0,
        **more: Any,
    ) -> None:
        """An attempt at it, so long ago; without an error class it was a success."""
        decided = attempt(offset, self.endpoint, 1, "retry" if error_class else "delivered")
        accepted_at = self.accepted.get(offset, NOW - before)
        finished = replace(decided, accepted_at=accepted_at, attempted_at=NOW - before, **more)
        if error_class:
            finished = replace(finished, error_class=error_class, status_code=status)
        self._insert(finished_rows(record("attempts", offset, finished), finished))

    def _insert(self, tables: dict[str, list[tuple[object, ...]]]) -> None:
        for table, rows in tables.items():
            self.rows += 1
            if rows:
                self.history.insert(table, columns(table, rows), f"t-{self.rows}")

    def health(self, query: str = "") -> dict[str, Any]:
        """The answer."""
        answer = self.api.ask("GET", f"/v1/endpoints/{self.endpoint}/health{query}")
        assert answer.status_code == 200, answer.text
        shown = answer.json()
        assert isinstance(shown, dict)
        return shown


@pytest.fixture
def asked(store: HistoryStore, chdb: str) -> Iterator[Asked]:
    """One without any history."""
    client = clickhouse_connect.get_client(dsn=chdb, tz_mode="aware", autogenerate_session_id=False)
    client.database = store.client.database
    history = History(lambda: client)
    with running(make_context(), history=history) as api:
        body = {"tenant": "acme", "url": "https://hooks.example.com/in", "event_types": ["room.started"]}
        yield Asked(api, history, api.ask("POST", "/v1/endpoints", body).json()["id"])


def test_an_endpoint_that_works(asked: Asked) -> None:
    """Rates and durations of the last day; failures that a success followed are history."""
    for n in range(8):
        asked.message(n)
        asked.attempt(n, HOUR + n * SECOND, "http_5xx" if n >= 6 else "", 503, duration_us=(n + 1) * 1_000)
    asked.attempt(8, 50 * HOUR, "timeout")
    shown = asked.health()
    assert (shown["state"], shown["likely_cause"], shown["attempts"]) == ("healthy", "", 8)
    assert shown["success_rate"] == 0.75
    durations = shown["duration_ms"]
    assert 1 <= durations["p50"] <= durations["p95"] <= durations["p99"] <= 8
    assert shown["last_failure_at"] < shown["last_success_at"]
    assert [(e["error_class"], e["count"], e["status_code"]) for e in shown["errors"]] == [
        ("http_5xx", 2, 503)
    ]
    assert shown["circuit"] == {"state": "closed", "probe_at": None}
    assert asked.health("?hours=72")["attempts"] == 9


def test_an_endpoint_that_fails(asked: Asked) -> None:
    """By class, with the likely cause of the last failure, and what waits."""
    for n in range(3):
        asked.message(n)
    asked.attempt(0, 3 * HOUR)
    asked.attempt(1, 2 * HOUR, "timeout")
    asked.attempt(2, HOUR, "http_4xx", 404)
    shown = asked.health()
    assert (shown["state"], shown["disabled_reason"]) == ("failing", "")
    assert "nothing is served at this path" in shown["likely_cause"]
    assert {e["error_class"]: "slower" in e["likely_cause"] for e in shown["errors"]} == {
        "http_4xx": False,
        "timeout": True,
    }
    assert shown["backlog"]["pending"] == 2
    assert shown["backlog"]["oldest_accepted_at"] is not None


def test_test_sends_do_not_count(asked: Asked) -> None:
    """People try things out."""
    asked.attempt(1, HOUR, "http_5xx", 500, trigger="test", decision="failed")
    shown = asked.health()
    assert (shown["state"], shown["attempts"], shown["success_rate"], shown["duration_ms"]) == (
        "healthy",
        0,
        None,
        None,
    )


def test_the_circuit_and_the_backlog_on_the_log(asked: Asked) -> None:
    """As the dispatcher's snapshots say; when they go, all is open again."""
    log = asked.api.context.log
    assert isinstance(log, MemoryLog)
    at, key = partition_of(asked.endpoint, PARTITIONS), asked.endpoint.encode()
    lane = Lane(asked.endpoint, "acme", True, 7, circuit="open", probe_at=NOW)
    log.append(Output("lanes", at, key, CODEC.encode(lane)))
    shown = asked.health()
    assert (shown["circuit"]["state"], shown["backlog"]["parked"]) == ("open", True)
    assert shown["circuit"]["probe_at"].endswith("Z")
    log.append(Output("lanes", at, key, None))
    shown = asked.health()
    assert (shown["circuit"]["state"], shown["backlog"]["parked"]) == ("closed", False)


def test_nothing_arrives(asked: Asked) -> None:
    """Nothing was published, or its subscription matches nothing of it."""
    assert "no message was published" in asked.health()["likely_cause"]
    asked.message(1, matched=False)
    said = asked.health()["likely_cause"]
    assert "its subscription (room.started) matched none of the 1 messages" in said


def test_a_disabled_endpoint(asked: Asked) -> None:
    """Whatever its attempts said."""
    asked.attempt(1, HOUR)
    asked.api.ask("POST", f"/v1/endpoints/{asked.endpoint}/disable")
    shown = asked.health()
    assert (shown["state"], shown["disabled_reason"]) == ("disabled", "disabled by hand")


def test_a_secret_that_was_replaced_lately_is_suspected(asked: Asked) -> None:
    """401 right after a rotation: the receiver still holds the old one."""
    asked.attempt(1, HOUR, "http_4xx", 401)
    assert "the secret differs" in asked.health()["likely_cause"]
    asked.api.ask("POST", f"/v1/endpoints/{asked.endpoint}/rotate-secret", {})
    endpoint = asked.api.services.configuration.endpoints[asked.endpoint]
    assert isinstance(endpoint, Endpoint)
    assert "still holds the old secret" in asked.health()["likely_cause"]


def test_what_is_asked_wrongly(asked: Asked) -> None:
    """404 and 422."""
    assert asked.api.ask("GET", "/v1/endpoints/none/health").status_code == 404
    path = f"/v1/endpoints/{asked.endpoint}/health"
    assert {asked.api.ask("GET", f"{path}?hours={n}").status_code for n in (0, 721, "x")} == {422}


def test_likely_causes_are_told_of_deliveries_and_attempts(asked: Asked) -> None:
    """In lists, in one delivery, and in a message's timeline."""
    asked.message(1)
    asked.attempt(1, HOUR, "tls")
    id = delivery_id(TOPIC, 0, 1, asked.endpoint)
    listed = asked.api.ask("GET", "/v1/deliveries").json()["data"]
    one = asked.api.ask("GET", f"/v1/deliveries/{id}").json()
    message = asked.api.ask("GET", "/v1/messages/m1").json()["deliveries"][0]
    for told in (listed[0], one, message, one["attempts"][0], message["attempts"][0]):
        assert "is the certificate valid for this name" in told["cause"]


def test_the_history_is_away() -> None:
    """503, and what that means."""
    with running(make_context()) as api:
        body = {"tenant": "acme", "url": "https://hooks.example.com/in"}
        id = api.ask("POST", "/v1/endpoints", body).json()["id"]
        answer = api.ask("GET", f"/v1/endpoints/{id}/health")
        assert answer.status_code == 503
        assert "ClickHouse" in answer.json()["detail"]
