"""How an endpoint is doing, and what is probably wrong with it, in words."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from engine.api.auth import CanRead, Needed
from engine.api.endpoints import known
from engine.api.timeline import time_text
from engine.core.diagnosis import likely_cause
from engine.core.endpoint import Endpoint
from engine.core.lane import Lane
from engine.runtime.history.endpoint_health import Told, told_of

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])

_HOUR_MS = 3_600_000
_ROTATED_US = 86_400_000_000
"""A secret is new for so long: receivers may still hold the old one."""
Hours = Annotated[int, Query(ge=1, le=720, description="How far back to look.")]


class ErrorsAnswer(BaseModel):
    """Failed attempts of one error class; `status_code` is the last one's, 0 without an answer."""

    error_class: str
    count: int
    status_code: int
    last_at: str
    likely_cause: str


class DurationsAnswer(BaseModel):
    """Duration of attempts, milliseconds."""

    p50: float
    p95: float
    p99: float


class BacklogAnswer(BaseModel):
    """Deliveries that wait for their next attempt; `parked`: they wait on the log."""

    pending: int
    oldest_accepted_at: str | None
    parked: bool


class CircuitAnswer(BaseModel):
    """An open circuit lets nothing through until `probe_at`; a half-open one, a single probe."""

    state: Literal["closed", "open", "half_open"]
    probe_at: str | None


class HealthAnswer(BaseModel):
    """An endpoint's health; counts, durations and errors are of the time since `since`, test sends apart."""

    endpoint_id: str
    state: Literal["healthy", "failing", "disabled"]
    disabled_reason: str
    likely_cause: str = Field(description="In words; empty if all is well.")
    since: str
    attempts: int
    success_rate: float | None = Field(description="Share of attempts that succeeded; null without any.")
    duration_ms: DurationsAnswer | None
    last_success_at: str | None
    last_failure_at: str | None
    circuit: CircuitAnswer
    backlog: BacklogAnswer
    errors: list[ErrorsAnswer]


@router.get("/{endpoint_id}/health", response_model=HealthAnswer)
async def get_health(endpoint_id: str, services: Needed, caller: CanRead, hours: Hours = 24) -> HealthAnswer:
    """Show how an endpoint is doing; 503 while the history cannot be asked."""
    endpoint = known(services, caller, endpoint_id)
    now_us = services.context.clock.now()
    now_ms = now_us // 1000
    since_ms = now_ms - hours * _HOUR_MS
    told = await asyncio.to_thread(told_of, services.history, endpoint.tenant, endpoint.id, since_ms, now_ms)
    lane = await asyncio.to_thread(services.circuits.of, endpoint.id)
    return HealthAnswer(
        endpoint_id=endpoint.id,
        state=state_of(endpoint, told),
        disabled_reason=endpoint.disabled_reason,
        likely_cause=cause_of(endpoint, told, rotated=was_rotated(endpoint, now_us)),
        since=_text(datetime.fromtimestamp(since_ms // 1000, UTC)) or "",
        attempts=told.attempts,
        success_rate=round(told.successes / told.attempts, 6) if told.attempts else None,
        duration_ms=_durations(told),
        last_success_at=_text(told.last_success_at),
        last_failure_at=_text(told.last_failure_at),
        circuit=_circuit(lane),
        backlog=BacklogAnswer(
            pending=told.pending, oldest_accepted_at=_text(told.oldest), parked=lane.parked
        ),
        errors=_errors(told),
    )


def state_of(endpoint: Endpoint, told: Told) -> Literal["healthy", "failing", "disabled"]:
    """An endpoint is failing if it has failed since its last success."""
    if not endpoint.enabled:
        return "disabled"
    if told.last_failure_at is None:
        return "healthy"
    is_over = told.last_success_at is not None and told.last_success_at >= told.last_failure_at
    return "healthy" if is_over else "failing"


def cause_of(endpoint: Endpoint, told: Told, *, rotated: bool) -> str:
    """What is probably wrong; empty if nothing is."""
    state = state_of(endpoint, told)
    if state == "disabled":
        return likely_cause("gone") if endpoint.disabled_reason == "gone" else "it is disabled"
    if state == "failing":
        if not told.errors:
            return "every attempt failed, but none was made lately: look further back"
        last = max(told.errors, key=lambda row: str(row["last_at"]))
        status, size = int(str(last["status_code"])), int(str(last["request_bytes"]))
        return likely_cause(str(last["error_class"]), status, size, rotated=rotated)
    return "" if told.attempts or told.pending else _nothing_arrives(endpoint, told)


def _nothing_arrives(endpoint: Endpoint, told: Told) -> str:
    if not told.published:
        return "nothing arrives: no message was published for its tenant in this time"
    if told.matched:
        return "nothing arrives: what its subscription matched was skipped, see its deliveries"
    wanted = ", ".join(endpoint.settings.event_types or ())
    return (
        f"nothing arrives: its subscription ({wanted or 'all types'}) matched none of the "
        f"{told.published} messages that were published for its tenant in this time"
    )


def was_rotated(endpoint: Endpoint, now: int) -> bool:
    """Whether its secret was replaced lately."""
    newest = endpoint.secrets[-1] if endpoint.secrets else None
    return newest is not None and newest.version > 1 and newest.effective_at > now - _ROTATED_US


def _durations(told: Told) -> DurationsAnswer | None:
    p50, p95, p99 = told.durations_ms
    if not told.attempts:
        return None
    return DurationsAnswer(p50=round(p50, 3), p95=round(p95, 3), p99=round(p99, 3))


def _circuit(lane: Lane) -> CircuitAnswer:
    probe_at = datetime.fromtimestamp(lane.probe_at / 1e6, UTC) if lane.circuit == "open" else None
    return CircuitAnswer(state=lane.circuit, probe_at=_text(probe_at))


def _errors(told: Told) -> list[ErrorsAnswer]:
    return [
        ErrorsAnswer(
            error_class=str(row["error_class"]),
            count=int(str(row["count"])),
            status_code=int(str(row["status_code"])),
            last_at=str(time_text(row["last_at"])),
            likely_cause=likely_cause(
                str(row["error_class"]), int(str(row["status_code"])), int(str(row["request_bytes"]))
            ),
        )
        for row in told.errors
    ]


def _text(at: datetime | None) -> str | None:
    return None if at is None else str(time_text(at))
