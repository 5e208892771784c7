"""Meeting BaaS's retry: failed deliveries once more, all of an account's, one, or those of one bot."""

from __future__ import annotations

import asyncio

import orjson
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field, model_validator

from engine.api.auth import BaasCanManage, Caller, Needed
from engine.api.bodies import StrictRoute
from engine.api.bots import account, of_account
from engine.api.ids import IdempotencyKey, claim, nobodys, origin, text_of
from engine.api.models import Input
from engine.api.problems import Problem
from engine.api.replays import ROUTE, ReplayAnswer, ReplayInput, start
from engine.api.resends import ResentAnswer, resend
from engine.api.services import Services
from engine.runtime.history.clickhouse import Row
from engine.runtime.history.listings import DAY_MS, FAILED, Asked
from engine.runtime.history.made_since import made_since, place_of, what_of

router = APIRouter(prefix="/bots/webhooks/bot", tags=["meeting baas"], route_class=StrictRoute)
LOOKED_AT = 500
"""Failed deliveries, newest first, whose payloads are looked at for a bot."""
_ID_MAX = 256
_BEGINNING = "1970-01-01T00:00:00Z"


class RetryInput(Input):
    """What to retry: nothing named is everything that failed."""

    delivery_id: str | None = Field(None, min_length=1, max_length=_ID_MAX)
    bot_id: str | None = Field(None, min_length=1, max_length=_ID_MAX)

    @model_validator(mode="after")
    def _not_both(self) -> RetryInput:
        if self.delivery_id is not None and self.bot_id is not None:
            raise ValueError("name a delivery_id or a bot_id, not both")
        return self


class RetryAnswer(BaseModel):
    """What is retried: the deliveries, or the replay of all."""

    deliveries: list[ResentAnswer]
    replay_id: str | None = None
    is_complete: bool = Field(
        description=f"False: only the newest {LOOKED_AT} failed deliveries were looked at."
    )


@router.post("/retry", status_code=202, response_model=RetryAnswer)
async def retry_webhooks(
    services: Needed,
    caller: BaasCanManage,
    given: RetryInput | None = None,
    idempotency_key: IdempotencyKey = None,
) -> RetryAnswer:
    """Retry failed deliveries: all, one, or those of a bot among the newest that failed."""
    wanted, tenant = given or RetryInput(), account(caller)
    asked = origin(caller, f"POST {router.prefix}/retry", idempotency_key)
    if wanted.delivery_id is not None:
        failed, is_complete = [await _one(services, tenant, wanted.delivery_id)], True
    elif wanted.bot_id is not None:
        failed, is_complete = await _of_bot(services, tenant, wanted.bot_id)
    else:
        # every failure whose dead letter the log still has
        everything = ReplayInput.model_validate({"tenant": tenant, "since": _BEGINNING, "only": "failed"})
        by = caller, nobodys(origin(caller, ROUTE, idempotency_key))
        claim(services, asked, [text_of(wanted)])
        replay = await start(services, by, everything, Response())
        assert isinstance(replay, ReplayAnswer)
        return RetryAnswer(deliveries=[], replay_id=replay.id, is_complete=True)
    claim(services, asked, [text_of(wanted)])
    made = await asyncio.gather(*(_resent(services, caller, row, idempotency_key) for row in failed))
    return RetryAnswer(deliveries=made, is_complete=is_complete)


async def _resent(services: Services, caller: Caller, row: Row, idempotency_key: str | None) -> ResentAnswer:
    was = str(row["delivery_id"])
    made = origin(caller, f"POST {router.prefix}/retry {was}", idempotency_key)
    return ResentAnswer(id=await resend(services, (caller, made), row), origin=was)


async def _one(services: Services, tenant: str, delivery_id: str) -> Row:
    """Return a failed delivery; Problem 404 or 409."""
    row = await asyncio.to_thread(services.history.delivery, delivery_id, tenant)
    if row is None or row["endpoint_id"] not in {each.id for each in of_account(services, tenant)}:
        raise Problem(404, f"there is no delivery {delivery_id!r}")
    if row["status"] != "failed":
        raise Problem(409, f"delivery {delivery_id!r} has not failed: it is {row['status']}")
    return row


async def _of_bot(services: Services, tenant: str, bot_id: str) -> tuple[list[Row], bool]:
    """(the account's failed deliveries of a bot, whether all that failed were looked at)."""
    tomorrow = services.context.clock.now() // 1000 + DAY_MS
    asked = Asked({"tenant": tenant, "status": "failed"}, until=tomorrow)
    rows = await asyncio.to_thread(services.history.page, FAILED, asked, None, LOOKED_AT + 1)
    enabled = {each.id for each in of_account(services, tenant) if each.enabled}
    looked_at = [row for row in rows[:LOOKED_AT] if row["endpoint_id"] in enabled]
    found = await asyncio.to_thread(_about, services, looked_at, bot_id)
    newest_of_each = {what_of(row): row for row in reversed(found)}
    since = await asyncio.to_thread(made_since, services.history, list(newest_of_each.values()))
    return [row for what, row in newest_of_each.items() if what not in since], len(rows) <= LOOKED_AT


def _about(services: Services, rows: list[Row], bot_id: str) -> list[Row]:
    """Those whose message says it is about the bot; each message is read once."""
    is_about: dict[tuple[int, int], bool] = {}
    for row in rows:
        place = place_of(row)
        if place not in is_about:
            is_about[place] = _bot_of(services, row) == bot_id
    return [row for row in rows if is_about[place_of(row)]]


def _bot_of(services: Services, row: Row) -> object:
    """The payload's `bot_id`; None without one, or once the log has let go of the message."""
    partition, offset = place_of(row)
    owner = str(row["tenant"]), str(row["message_id"])
    found = services.originals.message(("messages", partition), offset, owner)
    if found is None or found.message is None:
        return None
    try:
        payload = orjson.loads(found.message.payload or b"{}")
    except ValueError:  # JSON that is beyond orjson, such as numbers without end
        return None
    return payload.get("bot_id") if isinstance(payload, dict) else None
