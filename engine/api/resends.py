"""Making one delivery again, by hand."""

from __future__ import annotations

import asyncio
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
