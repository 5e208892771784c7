"""Settings → Webhooks: the list of endpoints, and turning them on, off or away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, Response

from engine.api.dashboard.confirm import Question, ask
from engine.api.dashboard.endpoint import gone
from engine.api.dashboard.frame import NavItem
from engine.api.dashboard.render import done, page
from engine.api.dashboard.session import one
from engine.api.dashboard.visit import Manages, Reads, Visit
from engine.api.endpoints import delete_endpoint, disable_endpoint, enable_endpoint, known, list_endpoints
from engine.api.models import EndpointAnswer
from engine.api.problems import Problem
from engine.core.lane import Lane
from engine.runtime.history.clickhouse import Row, UnavailableError
from engine.runtime.history.endpoint_attempts import last_outcomes

router = APIRouter()
NAV = NavItem("webhooks", "Webhooks", "hook", "Settings")
_PAGE = 50
_LATELY_S = 86_400
_US = 1_000_000
WORD = "delete"
State = Literal["healthy", "failing", "disabled", "quiet", ""]
"""Quiet: enabled, and nothing was sent in the last day. Empty: the history cannot be asked."""


@dataclass(frozen=True, slots=True)
class Listed:
    """An endpoint as the list shows it."""

    told: EndpointAnswer
    state: State
    lane: Lane


@router.get("/webhooks")
async def show_webhooks(visit: Reads, cursor: str | None = None) -> Response:
    """Show the endpoints, oldest first, a page at a time."""
    found = await list_endpoints(visit.services, visit.caller, visit.tenant, _PAGE, cursor)
    rows, is_away = await _listed(visit, found.data)
    more = found.next and visit.url("webhooks", cursor=found.next)
    return page(visit, "webhooks.html", rows=rows, is_away=is_away, more=more, is_first=cursor is None)


async def _listed(visit: Visit, found: Sequence[EndpointAnswer]) -> tuple[list[Listed], bool]:
    """(the rows, whether the history is away)."""
    services = visit.services
    since = services.context.clock.now() // _US - _LATELY_S
    lanes = await asyncio.to_thread(services.circuits.among, [each.id for each in found])
    try:
        told = await asyncio.to_thread(
            last_outcomes, services.history, [(e.tenant, e.id) for e in found], since
        )
    except UnavailableError:
        return [Listed(each, "" if each.enabled else "disabled", lanes[each.id]) for each in found], True
    return [Listed(each, _state(each, told.get(each.id)), lanes[each.id]) for each in found], False


def _state(endpoint: EndpointAnswer, told: Row | None) -> State:
    """Failing is who has failed since the last success, to the minute."""
    if not endpoint.enabled:
        return "disabled"
    if told is None:
        return "quiet"
    return "failing" if str(told["failed"]) > str(told["succeeded"]) else "healthy"


@router.post("/webhooks/{endpoint_id}/enable")
async def enable(visit: Manages, endpoint_id: str) -> Response:
    """Deliver to it from now on."""
    try:
        await enable_endpoint(endpoint_id, visit.services, visit.caller)
    except Problem as problem:
        return away(visit, endpoint_id, problem)
    return done(visit, visit.url(f"endpoints/{endpoint_id}"), "The endpoint is enabled.")


def away(visit: Visit, endpoint_id: str, problem: Problem) -> Response:
    """Say that the endpoint is not there, maybe since another tab deleted it; other problems go on."""
    if problem.status_code != 404:
        raise problem
    return gone(visit, endpoint_id)


@router.get("/webhooks/{endpoint_id}/disable")
async def ask_to_disable(visit: Manages, endpoint_id: str) -> Response:
    """Say what it would do."""
    return _asked(visit, endpoint_id, "disable")


@router.post("/webhooks/{endpoint_id}/disable")
async def disable(visit: Manages, endpoint_id: str) -> Response:
    """Deliver nothing more to it."""
    try:
        await disable_endpoint(endpoint_id, visit.services, visit.caller)
    except Problem as problem:
        return away(visit, endpoint_id, problem)
    return done(visit, visit.url(f"endpoints/{endpoint_id}"), "The endpoint is disabled.")


@router.get("/webhooks/{endpoint_id}/delete")
async def ask_to_delete(visit: Manages, endpoint_id: str) -> Response:
    """Say what it would do, and ask for a word."""
    return _asked(visit, endpoint_id, "delete")


@router.post("/webhooks/{endpoint_id}/delete")
async def delete(visit: Manages, endpoint_id: str) -> Response:
    """Delete it, once the word was typed."""
    if one(visit.form, "word").strip() != WORD:
        return _asked(visit, endpoint_id, "delete", f"type the word {WORD} to go on; nothing was deleted")
    try:
        await delete_endpoint(endpoint_id, visit.services, visit.caller)
    except Problem as problem:
        return away(visit, endpoint_id, problem)
    return done(visit, visit.url("webhooks"), f"Endpoint {endpoint_id} is deleted.")


def _asked(visit: Visit, endpoint_id: str, what: Literal["disable", "delete"], error: str = "") -> Response:
    try:
        endpoint = known(visit.services, visit.caller, endpoint_id)
    except Problem as problem:
        return away(visit, endpoint_id, problem)
    title, label, said, word = _QUESTIONS[what]
    back = visit.url(f"endpoints/{endpoint_id}")
    question = Question(title, endpoint.settings.url, said, label, back, word, ("Webhooks", "webhooks"))
    return ask(visit, question, error)


_QUESTIONS = {
    "disable": (
        "Disable this endpoint?",
        "Disable it",
        (
            "Nothing more is delivered to it until it is enabled again.",
            "What waits for it now, retries too, is skipped and stays skipped. A replay can send it later.",
            "Tests can still be sent to it.",
        ),
        "",
    ),
    "delete": (
        "Delete this endpoint?",
        "Delete it",
        (
            "It is gone for good, with its secret and settings.",
            "What waits for it now, retries too, is skipped.",
            "What was delivered to it stays in the log of deliveries.",
        ),
        WORD,
    ),
}
"""Title, button, what it does, and the word to type."""
