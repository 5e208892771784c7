"""A message's story: what was published, and what each endpoint made of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from engine.api.dashboard import payload_view, words
from engine.api.dashboard.deliveries import Named, names_of
from engine.api.dashboard.payload_view import Shown
from engine.api.dashboard.render import page
from engine.api.dashboard.visit import Reads, Visit
from engine.api.endpoints import known
from engine.api.messages import Story, story_of
from engine.api.problems import Problem
from engine.api.timeline import cause_of
from engine.core.endpoint import Endpoint
from engine.core.model import MessagePublished
from engine.runtime.history.clickhouse import Row

router = APIRouter()
DELIVERIES_MAX = 10
"""Shown in full; the others are a link away."""
ATTEMPTS_MAX = 3
FOCUSED_MAX = 25


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One request; `headers` are empty once they cannot be told any more."""

    told: Row
    decided: str
    cause: str
    answer: Shown
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """The message to one endpoint, its newest attempts first."""

    told: Row
    name: Named
    cause: str
    attempts: list[AttemptView]
    attempt_count: int


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of the message itself."""

    id: str
    tenant: str
    event_type: str
    accepted_at: object
    bytes: int
    partition: int | None
    offset: int | None
    matched: int | None
    """None until it has been routed, as far as the history knows."""


@router.get("/message")
async def show_message(visit: Reads, id: str, delivery: str = "", view: str = "pretty") -> Response:
    """Show a message with its payload, deliveries and attempts; `delivery`: just that one, whole."""
    found = await story_of(visit.services, id, visit.tenant or "")
    head = head_of(visit, found)
    told = [] if found.told is None else found.told.deliveries
    chosen = [each for each in told if each["delivery_id"] == delivery] or told[:DELIVERIES_MAX]
    focused = bool(delivery) and len(chosen) == 1
    payload = None if found.published is None else found.published.message.payload
    return page(
        visit,
        "message.html",
        head=head,
        topic=f"{visit.services.context.settings.prefix}messages",
        view="raw" if view == "raw" else "pretty",
        payload=None
        if payload is None
        else payload_view.shown(payload, "raw" if view == "raw" else "pretty"),
        deliveries=[_delivery(visit, found, each, focused=focused) for each in chosen],
        others=[each for each in told if each not in chosen],
        names=names_of(visit, (str(each["endpoint_id"]) for each in told)),
        focused=focused,
        is_live=found.told is None or any(each["status"] == "pending" for each in told),
    )


@router.get("/message/payload")
async def show_payload(visit: Reads, id: str) -> Response:
    """Show the payload as it was published, all of it, as text."""
    message = await _published(visit, id)
    return PlainTextResponse(message.payload)


@router.get("/message/curl")
async def show_curl(visit: Reads, id: str, endpoint: str) -> Response:
    """Show the command that makes an endpoint's request, unsigned, as text."""
    message = await _published(visit, id)
    found = known(visit.services, visit.caller, endpoint)
    if found.tenant != message.tenant:
        raise Problem(404, f"there is no endpoint {endpoint!r} of the message's tenant")
    profile = visit.services.context.profile(found.settings.profile)
    now = visit.services.context.clock.now()
    try:
        return PlainTextResponse(payload_view.curl(profile, found, message, now))
    except ValueError as error:
        raise Problem(422, f"the payload does not fit the profile {profile.name}: {error}") from None


async def _published(visit: Visit, id: str) -> MessagePublished:
    found = await story_of(visit.services, id, visit.tenant or "")
    if found.published is None:
        raise Problem(404, "the log has let go of this payload: it is kept for the replay window only")
    return found.published.message


def head_of(visit: Visit, found: Story) -> Head:
    """What is known of the message, from the history or, until it is there, from the log."""
    if found.told is not None:
        row = found.told.message
        names = ("message_id", "tenant", "event_type")
        numbers = ("bytes", "topic_partition", "topic_offset", "matched")
        id, tenant, event_type = (str(row[name]) for name in names)
        size, partition, offset, matched = (int(str(row[name])) for name in numbers)
        return Head(id, tenant, event_type, row["accepted_at"], size, partition, offset, matched)
    assert found.published is not None
    message, accepted_at = found.published
    place = visit.services.lately.get(message.id.encode(), message.tenant)
    return Head(
        id=message.id,
        tenant=message.tenant,
        event_type=message.event_type,
        accepted_at=accepted_at,
        bytes=len(message.payload),
        partition=None if place is None else place.partition,
        offset=None if place is None else place.offset,
        matched=None,
    )


def _delivery(visit: Visit, found: Story, told: Row, *, focused: bool) -> DeliveryView:
    assert found.told is not None
    id = str(told["endpoint_id"])
    attempts = [each for each in found.told.attempts if each["delivery_id"] == told["delivery_id"]]
    newest = attempts[::-1][: FOCUSED_MAX if focused else ATTEMPTS_MAX]
    endpoint = visit.services.configuration.endpoints.get(id)
    message = None if found.published is None else found.published.message
    return DeliveryView(
        told,
        names_of(visit, [id])[id],
        cause_of(told),
        [_attempt(visit, each, endpoint, message) for each in newest],
        len(attempts),
    )


def _attempt(
    visit: Visit, told: Row, endpoint: Endpoint | None, message: MessagePublished | None
) -> AttemptView:
    cause, answer = cause_of(told), payload_view.head_of(told)
    return AttemptView(told, words.decided(told), cause, answer, _headers(visit, told, endpoint, message))


def _headers(
    visit: Visit, told: Row, endpoint: Endpoint | None, message: MessagePublished | None
) -> Mapping[str, str]:
    at = words.time_of(told["attempted_at"])
    profiles = visit.services.context.profiles
    if endpoint is None or endpoint.deleted or message is None or at is None:
        return {}
    if endpoint.settings.profile not in profiles:
        return {}
    number, at_us = int(str(told["attempt"])), int(at.timestamp() * 1_000_000)
    return payload_view.headers_of(profiles[endpoint.settings.profile], endpoint, message, number, at_us)
