"""The webhook log: every delivery, by filters that its address holds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from engine.api.dashboard import words
from engine.api.dashboard.frame import NavItem
from engine.api.dashboard.overview import endpoints_of
from engine.api.dashboard.render import page
from engine.api.dashboard.visit import Reads, Visit
from engine.api.history import find_deliveries
from engine.api.history_models import DeliveryQuery
from engine.api.history_pages import Page
from engine.core.endpoint import Endpoint
from engine.runtime.history.clickhouse import Row

router = APIRouter()
NAV = NavItem("deliveries", "Deliveries", "list")
WITHIN_S = {"15m": 900, "1h": 3_600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000}
_MINUTE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?")
_FILTERS = ("endpoint", "event_type", "status")
KNOWN = frozenset({*_FILTERS, "since", "until", "within", "id", "live", "cursor"})
"""What the address of the page may hold, besides the tenant; anything else is left out."""
_FOR_PROGRAMS = " (RFC 3339"
_CHOICES_MAX = 100
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Named:
    """An endpoint as lists show it; one that is not known any more goes by its id."""

    url: str
    is_known: bool


@router.get("/deliveries")
async def show_deliveries(visit: Reads) -> Response:
    """Show a page of deliveries, newest message first."""
    given = {name: value for name, value in visit.asked.items() if name in KNOWN}
    query, errors = query_of(visit, given)
    if query is None:
        return _page(visit, 422, given=given, errors=errors)
    found = await _found(visit, query, given)
    if not found.rows and (wanted := given.get("id")):
        delivery = await asyncio.to_thread(visit.services.history.delivery, wanted, visit.tenant or "")
        if delivery is not None:
            return RedirectResponse(story_url(visit, delivery), 303)
    more = None if found.next is None else next_url(visit, "deliveries", query, found.next)
    return _page(visit, 200, given=given, rows=found.rows, more=more)


async def _found(visit: Visit, query: DeliveryQuery, given: Mapping[str, str]) -> Page:
    """A page of deliveries; of a live tail the history is asked once in a while, however many look at it."""
    ask = partial(find_deliveries, visit.services, visit.caller, query)
    if not visit.is_fragment or "cursor" in given:
        return await ask()
    shown = (visit.caller.tenant, visit.tenant, sorted(given.items()))
    return await visit.frame.tails.get(repr(shown), ask)


def _page(visit: Visit, status: int, given: Mapping[str, str], **shown: object) -> Response:
    rows = shown.get("rows", [])
    assert isinstance(rows, list)
    known: dict[str, object] = {"rows": rows, "errors": {}, "more": None, **shown}
    endpoints = endpoints_of(visit)
    return page(
        visit,
        "deliveries.html",
        status,
        given={name: given.get(name, "") for name in KNOWN},
        names=names_of(visit, (str(row["endpoint_id"]) for row in rows)),
        endpoints=endpoints if len(endpoints) <= _CHOICES_MAX else [],
        types=sorted(visit.services.configuration.event_types)[:_CHOICES_MAX],
        is_live="live" in given and "cursor" not in given,
        **known,
    )


def query_of(visit: Visit, given: Mapping[str, str]) -> tuple[DeliveryQuery | None, dict[str, str]]:
    """(what to ask for, {}), or (None, what is wrong by field)."""
    chosen: dict[str, object] = {name: given[name] for name in (*_FILTERS, "cursor") if name in given}
    chosen |= {name: utc_of(given[name]) for name in ("since", "until") if name in given}
    if "id" in given:
        chosen["message"] = given["id"]
    within = WITHIN_S.get(given.get("within", ""))
    if within and "since" not in given:
        chosen["since"] = words.iso(visit.services.context.clock.now() - within * _US)
    try:
        return DeliveryQuery.model_validate({"tenant": visit.tenant, **chosen}), {}
    except ValidationError as error:
        return None, wrong_of(error)


def wrong_of(error: ValidationError) -> dict[str, str]:
    """What is wrong by field, in words for people: what only concerns URLs of the API is left out."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return {
        str(each["loc"][0]): each["msg"].removeprefix("Value error, ").partition(_FOR_PROGRAMS)[0]
        for each in found
    }


def utc_of(text: str) -> str:
    """What a date field says is UTC: `2026-05-01T12:00` -> `2026-05-01T12:00:00Z`."""
    found = _MINUTE.fullmatch(text)
    return text if found is None else f"{text}{'' if found[1] else ':00'}Z"


def next_url(visit: Visit, path: str, query: DeliveryQuery, cursor: str) -> str:
    """The page after of a list; it fixes where the time began, which the cursor belongs to."""
    kept = {
        name: value for name, value in visit.asked.items() if name in KNOWN - {"within", "live", "tenant"}
    }
    if "within" in visit.asked and "since" not in visit.asked:
        kept["since"] = words.iso(query.since * 1_000)
    return visit.url(path, **(kept | {"cursor": cursor}))


def story_url(visit: Visit, delivery: Row) -> str:
    """Address of a delivery: its place in its message's story."""
    named = {"id": delivery["message_id"], "delivery": delivery["delivery_id"]}
    return visit.url("message", **named | {"tenant": delivery["tenant"]})


def names_of(visit: Visit, ids: Iterable[str]) -> dict[str, Named]:
    """Say what endpoints are called, by their ids."""
    known = visit.services.configuration.endpoints
    return {id: _named(id, known.get(id)) for id in ids}


def _named(id: str, endpoint: Endpoint | None) -> Named:
    if endpoint is None or endpoint.deleted:
        return Named(id, is_known=False)
    return Named(endpoint.settings.url.partition("://")[2], is_known=True)
