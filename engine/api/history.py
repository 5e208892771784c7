"""Routes of the history: lists of deliveries and messages, and one delivery with its attempts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Response

from engine.api.auth import Caller, CanRead, Needed
from engine.api.history_models import DeliveryList, DeliveryQuery, MessageList, MessageQuery, OneDelivery
from engine.api.history_pages import Page, PageQuery, page_of, read_cursor
from engine.api.problems import Problem
from engine.api.services import Services
from engine.api.timeline import attempt_of, cause_of, chosen
from engine.runtime.history.clickhouse import Row
from engine.runtime.history.listings import DAY_MS, DELIVERIES, FAILED, MESSAGES, Asked, Listing

router = APIRouter(prefix="/v1", tags=["history"])

_DELIVERY = (
    *("tenant", "endpoint_id", "message_id", "event_type", "status", "reason", "error_class"),
    *("status_code", "accepted_at", "updated_at", "next_attempt_at", "origin"),
)
_MESSAGE = ("tenant", "event_type", "accepted_at", "bytes", "matched", "skipped")


@router.get("/deliveries", response_model=DeliveryList)
async def list_deliveries(
    services: Needed, caller: CanRead, query: Annotated[DeliveryQuery, Query()]
) -> Response:
    """List deliveries, newest message first; `since` and `until` are times of acceptance."""
    page = await find_deliveries(services, caller, query)
    return answered({"data": [_delivery(row) for row in page.rows], "next": page.next})


async def find_deliveries(services: Services, caller: Caller, query: DeliveryQuery) -> Page:
    """Find a page of deliveries, by the columns of DELIVERIES; Problem 403 or 422."""
    return await read_page(services, DELIVERIES, _asked(caller, query), query)


async def find_failed(services: Services, caller: Caller, query: DeliveryQuery) -> Page:
    """Find a page of deliveries that failed, the last to fail first; times are when they failed."""
    failed = query.model_copy(update={"status": "failed"})
    return await read_page(services, FAILED, _asked(caller, failed), query)


def _asked(caller: Caller, query: DeliveryQuery) -> Asked:
    return query.asked(
        caller.scope_of(query.tenant),
        endpoint_id=query.endpoint,
        message_id=query.message,
        status=query.status,
        event_type=query.event_type,
    )


@router.get("/deliveries/{delivery_id}", response_model=OneDelivery)
async def get_delivery(delivery_id: str, services: Needed, caller: CanRead) -> Response:
    """Show a delivery with each of its attempts."""
    found = await known_delivery(services, caller, delivery_id)
    attempts = await asyncio.to_thread(services.history.attempts_of, found)
    return answered({**_delivery(found), "attempts": [attempt_of(attempt) for attempt in attempts]})


@router.get("/messages", response_model=MessageList)
async def list_messages(
    services: Needed, caller: CanRead, query: Annotated[MessageQuery, Query()]
) -> Response:
    """List messages that were routed, newest first."""
    asked = query.asked(caller.scope_of(query.tenant), event_type=query.event_type)
    page = await read_page(services, MESSAGES, asked, query)
    data = [{"id": row["message_id"], **chosen(row, _MESSAGE)} for row in page.rows]
    return answered({"data": data, "next": page.next})


async def known_delivery(services: Services, caller: Caller, delivery_id: str) -> Row:
    """Return a delivery that the caller may know of; Problem 404."""
    found = await asyncio.to_thread(services.history.delivery, delivery_id, caller.tenant or "")
    if found is None:
        raise Problem(
            404, f"there is no delivery {delivery_id!r}; one that is new may take a few seconds to show"
        )
    return found


async def read_page(services: Services, listing: Listing, asked: Asked, query: PageQuery) -> Page:
    """Return the page that was asked for; Problem 422 for a wrong cursor."""
    after = read_cursor(listing, asked, query.cursor)
    # nothing is newer than tomorrow, whatever the clocks say: so the history looks at the newest days first
    tomorrow = services.context.clock.now() // 1000 + DAY_MS
    bounded = replace(asked, until=min(asked.until, tomorrow))
    rows = await asyncio.to_thread(services.history.page, listing, bounded, after, query.limit + 1)
    return page_of(listing, asked, rows, query.limit)


def answered(content: object) -> Response:
    """Build the response of what was found."""
    return Response(orjson.dumps(content), media_type="application/json")


def _delivery(row: Row) -> dict[str, object]:
    shown = {"id": row["delivery_id"], **chosen(row, _DELIVERY), "attempt_count": row["attempts"]}
    return {**shown, "cause": cause_of(row)}
