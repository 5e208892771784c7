"""Making one delivery again, by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel

from engine.api.auth import Caller, CanManage, Needed
from engine.api.endpoints import known
from engine.api.history import known_delivery
from engine.api.ids import IdempotencyKey, Origin, base, claim, origin
from engine.api.problems import Problem
from engine.api.services import Services
from engine.core.replay import Resend, resent_id
from engine.runtime.history.clickhouse import Row
from engine.runtime.replaying.originals import GONE

router = APIRouter(prefix="/v1/deliveries", tags=["history"])
_TEST = "cmd_"
What = tuple[str, tuple[int, int]]
"""An endpoint, and where the message is that it was to get."""
MADE_SINCE = """
SELECT endpoint_id, topic_partition, topic_offset, min(last) AS best FROM (
    SELECT endpoint_id, topic_partition, topic_offset, argMax(status, version) AS last FROM deliveries
    WHERE tenant IN {tenants:Array(String)} AND endpoint_id IN {endpoints:Array(String)}
        AND message_id IN {messages:Array(String)}
    GROUP BY tenant, endpoint_id, accepted_at, delivery_id, topic_partition, topic_offset
)
WHERE last IN ('delivered', 'pending') GROUP BY endpoint_id, topic_partition, topic_offset
"""  # the best: delivered is before pending; without FINAL, which the index by message does not help


class ResentAnswer(BaseModel):
    """The new delivery, and the one that it was made of."""

    id: str
    origin: str


@router.post("/{delivery_id}/resend", status_code=202, response_model=ResentAnswer)
async def resend_delivery(
    delivery_id: str, services: Needed, caller: CanManage, idempotency_key: IdempotencyKey = None
) -> ResentAnswer:
    """Make a delivery again, by the endpoint's whole retry policy; 410 if its body is past retention."""
    found = await known_delivery(services, caller, delivery_id)
    made = origin(caller, f"POST /v1/deliveries/{delivery_id}/resend", idempotency_key)
    claim(services, made)
    return ResentAnswer(id=await resend(services, (caller, made), found), origin=delivery_id)


async def resend(services: Services, by: tuple[Caller, Origin], delivery: Row) -> str:
    """Ask for a delivery again and return the new one's id; Problem 404, 409 or 410."""
    caller, made = by
    endpoint = known(services, caller, str(delivery["endpoint_id"]))
    if not endpoint.enabled:
        raise Problem(409, f"endpoint {endpoint.id!r} is disabled: enable it first")
    if str(delivery["origin"]).startswith(_TEST):
        raise Problem(409, "a test send is not made again: send another test")
    command = _command(services, by, delivery)
    if await asyncio.to_thread(services.originals.find, command) is None:
        raise Problem(410, GONE)
    await services.control.write(command)
    topic = services.context.settings.prefix + "messages"
    source = command.source_partition, command.source_offset
    return resent_id(made.command_id(), topic, source, endpoint.id)


def _command(services: Services, by: tuple[Caller, Origin], delivery: Row) -> Resend:
    updated_at = delivery["updated_at"]
    assert isinstance(updated_at, datetime)
    return Resend(
        *base(services, *by, str(delivery["tenant"])),
        str(delivery["endpoint_id"]),
        str(delivery["delivery_id"]),
        str(delivery["message_id"]),
        int(str(delivery["topic_partition"])),
        int(str(delivery["topic_offset"])),
        int(updated_at.timestamp() * 1_000_000) if delivery["status"] == "failed" else 0,
    )


def made_since(services: Services, rows: Sequence[Row]) -> dict[What, str]:
    """What has been delivered since these failed, or is on its way, and which of the two; blocks."""
    asked = {
        "tenants": sorted({str(row["tenant"]) for row in rows}),
        "endpoints": sorted({str(row["endpoint_id"]) for row in rows}),
        "messages": sorted({str(row["message_id"]) for row in rows}),
    }
    found = services.history.rows(MADE_SINCE, asked) if rows else []
    return {what_of(row): str(row["best"]) for row in found}


def what_of(row: Row) -> What:
    """What a delivery is of."""
    return str(row["endpoint_id"]), place_of(row)


def place_of(row: Row) -> tuple[int, int]:
    """Where a delivery's message is: partition and offset."""
    return int(str(row["topic_partition"])), int(str(row["topic_offset"]))
