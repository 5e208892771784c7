"""What the demo and the benchmark ask of a running stack, over the interfaces that people use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import httpx

_TIMEOUT_S = 30
_TALLIES = """
SELECT endpoint_id, countIf(status = 'delivered') AS delivered, countIf(status = 'failed') AS failed,
       countIf(status = 'skipped') AS skipped, countIf(status = 'pending') AS pending
FROM delivery_status GROUP BY endpoint_id"""
_ATTEMPTS = """
SELECT endpoint_id, count() AS attempts, quantileExact(0.5)(duration_ms) AS p50_ms,
       quantileExact(0.99)(duration_ms) AS p99_ms
FROM delivery_attempts GROUP BY endpoint_id"""


class Stack(Protocol):
    """Where a running stack listens: URLs, Kafka's host:port, an admin key."""

    @property
    def api(self) -> str: ...  # noqa: D102
    @property
    def kafka(self) -> str: ...  # noqa: D102
    @property
    def clickhouse(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> str: ...  # noqa: D102


class Row(NamedTuple):
    """What ClickHouse knows of one endpoint; times of its requests in milliseconds."""

    delivered: int = 0
    failed: int = 0
    skipped: int = 0
    pending: int = 0
    attempts: int = 0
    p50_ms: float = 0
    p99_ms: float = 0


@dataclass(frozen=True, slots=True)
class Access:
    """A stack, and one HTTP client for all that is asked of it: making one costs tens of milliseconds."""

    stack: Stack
    http: httpx.Client


@contextmanager
def access(stack: Stack) -> Iterator[Access]:
    """Open a client for a stack, and close it."""
    with httpx.Client(timeout=_TIMEOUT_S, trust_env=False) as http:
        yield Access(stack, http)


def create_endpoint(to: Access, settings: Mapping[str, object]) -> tuple[str, str]:
    """POST /v1/endpoints; returns the endpoint's id and its secret."""
    headers = {"Authorization": f"Bearer {to.stack.key}"}
    answer = to.http.post(f"{to.stack.api}/v1/endpoints", json=settings, headers=headers)
    if answer.status_code != 201:
        raise RuntimeError(f"POST /v1/endpoints: {answer.status_code} {answer.text}")
    made = answer.json()
    return str(made["id"]), str(made.get("secret") or settings.get("secret") or "")


def query(to: Access, sql: str) -> list[dict[str, Any]]:
    """Ask ClickHouse over its HTTP interface; RuntimeError with its words when it refuses."""
    parameters = {"database": "hooklog", "default_format": "JSONEachRow"}
    answer = to.http.post(to.stack.clickhouse, params=parameters, content=sql)
    if answer.status_code != 200:
        raise RuntimeError(f"ClickHouse: {answer.text}")
    return [json.loads(line) for line in answer.text.splitlines()]


def read_rows(to: Access) -> dict[str, Row]:
    """Deliveries by state, attempts and their times, by endpoint id."""
    known = {row.pop("endpoint_id"): row for row in query(to, _TALLIES)}
    for row in query(to, _ATTEMPTS):
        known.setdefault(row.pop("endpoint_id"), {}).update(row)
    return {name: _row(values) for name, values in known.items()}


def _row(values: Mapping[str, Any]) -> Row:
    """64-bit counts may come as strings."""
    counts = {name: int(values.get(name, 0)) for name in Row._fields[:5]}
    return Row(**counts, p50_ms=float(values.get("p50_ms", 0)), p99_ms=float(values.get("p99_ms", 0)))


def count_finished(to: Access) -> int:
    """Deliveries that have ended, whichever way."""
    ended = query(to, "SELECT count() AS n FROM delivery_status WHERE status != 'pending'")
    return int(ended[0]["n"])
