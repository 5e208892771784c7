"""Trying an endpoint: one signed request, waited for."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from engine.api.auth import Caller, CanManage, Needed
from engine.api.bodies import StrictRoute
from engine.api.endpoints import about, known
from engine.api.ids import IdempotencyKey, claim, origin, used_before
from engine.api.models import Input
from engine.api.problems import FieldError, Problem, wrong
from engine.api.services import Services
from engine.core.endpoint import Endpoint
from engine.core.model import AttemptFinished
from engine.core.replay import SendTest
from engine.core.routing import NAME_MAX, partition_of
from engine.ports import Follower, TopicPartition
from engine.runtime.context import Context
from engine.runtime.replaying.remade import tried_id
from schemas import headers

router = APIRouter(prefix="/v1/endpoints", tags=["endpoints"], route_class=StrictRoute)
PING = "ping"
LONGER_S = 5.0
"""What may come on top of the endpoint's timeout."""
_REPEATED_US = 600_000_000
"""So far back a repeated request looks for the attempt of the first one."""
_POLL_S = 0.1
_BATCH = 500
_AHEAD_KB = 1_024


class TrialInput(Input):
    """What to send: `ping`, or an event type of the catalogue with its example."""

    event_type: str = Field(PING, min_length=1, max_length=NAME_MAX)


class TrialAnswer(BaseModel):
    """What the endpoint answered."""

    status: Literal["success", "failure"]
    http_status: int | None = Field(description="Null without an answer.")
    duration_ms: float
    error_class: str | None = None
    delivery_id: str


@router.post("/{endpoint_id}/test", response_model=TrialAnswer)
async def try_endpoint(
    endpoint_id: str,
    services: Needed,
    caller: CanManage,
    given: TrialInput | None = None,
    idempotency_key: IdempotencyKey = None,
) -> TrialAnswer:
    """Send one signed request, even to a disabled endpoint, and wait for the answer; it is not retried."""
    event_type = (given or TrialInput(event_type=PING)).event_type
    _, attempt = await tried(services, caller, endpoint_id, event_type, idempotency_key)
    return TrialAnswer(
        status="success" if attempt.outcome == "success" else "failure",
        http_status=attempt.status_code or None,
        duration_ms=attempt.duration_us / 1000,
        error_class=attempt.error_class or None,
        delivery_id=attempt.delivery_id,
    )


async def tried(
    services: Services, caller: Caller, endpoint_id: str, event_type: str, key: str | None
) -> tuple[SendTest, AttemptFinished]:
    """Send it and wait: (what was asked for, the attempt); Problem 404, 409, 422 or 503."""
    endpoint = known(services, caller, endpoint_id)
    made = origin(caller, f"POST /v1/endpoints/{endpoint_id}/test", key)
    now = services.context.clock.now()
    made_by = about(services, caller, made, endpoint)
    command = SendTest(*made_by, event_type, _payload(services, endpoint, event_type))
    claim(services, made, [command.event_type.encode()])
    attempt = await _attempted(services, command, now - _REPEATED_US if made.is_repeatable else 0)
    if attempt.event_type != command.event_type:
        raise used_before(services, made)
    if attempt.outcome == "none":
        raise Problem(409, f"no request was made: {attempt.reason or attempt.error_class}")
    return command, attempt


def _payload(services: Services, endpoint: Endpoint, event_type: str) -> bytes:
    """Return the profile's ping, or the catalogue's example; Problem 409 or 422."""
    known_type = services.configuration.event_types.get(event_type)
    if event_type == PING:
        profile = services.context.profiles.get(endpoint.settings.profile)
        if profile is None:
            raise Problem(409, f"this API does not know the profile {endpoint.settings.profile!r}")
        return profile.ping_data
    if known_type is None or not known_type.example:
        raise wrong(FieldError("event_type", "must be ping, or a type of the catalogue that has an example"))
    return known_type.example.encode()


async def _attempted(services: Services, command: SendTest, since: int) -> AttemptFinished:
    """Ask for the test and return its attempt; Problem 503 if none is made in time."""
    context, control = services.context, services.control
    limit_s = _limit_s(services, command)
    deadline = context.clock.monotonic() + limit_s
    partition = partition_of(command.endpoint_id, context.log.partitions("attempts"))
    follower = await asyncio.to_thread(_follow, services, ("attempts", partition), since)
    try:
        await control.write(command)
        while context.clock.monotonic() < deadline:
            found = await asyncio.to_thread(
                _look, context, follower, tried_id(command.command_id, command.endpoint_id)
            )
            if found is not None:
                return found
            control.check_refused(command)
    finally:
        await asyncio.to_thread(follower.close)
    raise Problem(
        503,
        f"the test is on the log, and was not made within {limit_s:g} s: are the replayer and "
        "the dispatcher running? It may still be made",
    )


def _limit_s(services: Services, command: SendTest) -> float:
    endpoint = services.configuration.endpoints[command.endpoint_id]
    profile = services.context.profiles.get(endpoint.settings.profile)
    default_us = 0 if profile is None else profile.policy.timeout_us
    chosen_ms = endpoint.settings.timeout_ms
    return LONGER_S + (default_us / 1_000_000 if chosen_ms is None else chosen_ms / 1000)


def _follow(services: Services, at: TopicPartition, since: int) -> Follower:
    """Follow attempts from now on, or, for a repeat, from when the first request may have come."""
    return services.context.log.follower({at: services.originals.end(at, since)}, ahead_kb=_AHEAD_KB)


def _look(context: Context, follower: Follower, delivery_id: str) -> AttemptFinished | None:
    wanted = delivery_id.encode()
    for record in follower.poll(_POLL_S, _BATCH):
        if record.headers.get(headers.DELIVERY) == wanted:
            return context.codec.decode_as(AttemptFinished, record.value)
    return None
