"""Making deliveries again by range: dry run, start, progress, cancel."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from engine.api.auth import Caller, CanManage, CanRead, Needed
from engine.api.bodies import StrictRoute
from engine.api.endpoints import known
from engine.api.history_pages import Moment, out_of_order
from engine.api.ids import IdempotencyKey, Origin, base, claim, origin, text_of, used_before
from engine.api.models import EventTypes, Input, RateLimit, Tenant
from engine.api.pages import Cursor, Limit, Place, page
from engine.api.problems import FieldError, Problem, wrong
from engine.api.services import Services
from engine.core.endpoint import Endpoint
from engine.core.profile import rfc3339
from engine.core.replay import CancelReplay, Only, Replay, StartReplay, source_topic
from engine.core.routing import subscriber
from engine.core.survey import Survey, Wanted
from engine.runtime.context import Context
from engine.runtime.replaying.surveying import Surveying, frozen_ends

_COUNTING = asyncio.Semaphore(2)
"""Dry runs at once: each holds a thread for up to `DRY_RUN_S`, and the history needs the others."""
router = APIRouter(prefix="/v1/replays", tags=["replays"], route_class=StrictRoute)
ROUTE = "POST /v1/replays"
DRY_RUN_S = 60.0
_MS = 1_000
_POLL_S = 0.1


class ReplayInput(Input):
    """What to deliver again."""

    tenant: Tenant | None = Field(None, description="May be left out where the endpoint or the key says it.")
    endpoint: str | None = Field(None, description="Null: every enabled endpoint of the tenant.")
    since: Moment = Field(description="Accepted from then on; of `failed`: failed from then on.")
    until: Moment | None = Field(None, description="And before then; null: now.")
    only: Only = Field(description="`missed`: matched by the subscription as it is now, and never delivered.")
    event_types: EventTypes | None = Field(None, description="Types, prefixes such as room.*; null: all.")
    rate: RateLimit | None = Field(
        None, description="Deliveries a second; null: as fast as the endpoints take them."
    )
    dry_run: bool = Field(False, description="Only count.")


class ReplayAnswer(BaseModel):
    """A replay and how far it is."""

    id: str
    tenant: str
    endpoint: str | None
    since: str
    until: str
    only: Only
    event_types: list[str] | None
    rate: float | None
    status: Literal["running", "finished", "cancelled"]
    reason: str = Field(description="Why it ended before it was through.")
    planned: int = Field(description="Deliveries it will make in all; 0 until it has looked.")
    deliveries: int = Field(description="Deliveries made so far.")
    missing: int = Field(description="Deliveries whose bodies are past retention.")
    skipped: int = Field(description="Deliveries not made: endpoint disabled meanwhile, or body too large.")
    actor: str
    started_at: str
    updated_at: str
    ended_at: str | None


class DryRunAnswer(BaseModel):
    """What a replay would do."""

    deliveries: int
    by_event_type: dict[str, int]
    missing: int = Field(description="Of these, deliveries whose bodies are past retention.")
    estimated_seconds: float | None = Field(description="At the rate that was given; null without one.")


class ReplayList(BaseModel):
    """A page of replays, oldest first."""

    data: list[ReplayAnswer]
    next: str | None


@router.post("", status_code=202, response_model=ReplayAnswer | DryRunAnswer)
async def start_replay(
    given: ReplayInput,
    services: Needed,
    caller: CanManage,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> ReplayAnswer | DryRunAnswer:
    """Deliver again what was accepted in a range; with `dry_run` count it, which answers 200."""
    made = origin(caller, ROUTE, idempotency_key)
    return await start(services, (caller, made), given, response)


async def start(
    services: Services, by: tuple[Caller, Origin], given: ReplayInput, response: Response
) -> ReplayAnswer | DryRunAnswer:
    """Start a replay, or count what it would do; Problem 403, 404, 409, 422 or 503."""
    endpoints, command = _command(services, by, given)
    if not any(endpoint.enabled for endpoint in endpoints):
        raise Problem(409, "there is nobody to deliver to: no such endpoint is enabled")
    if given.dry_run:
        response.status_code = 200
        async with _COUNTING:
            return await asyncio.to_thread(_dry_run, services.context, endpoints, command)
    claim(services, by[1], [text_of(given)])
    replays = services.configuration.replays
    replay = replays.get(command.replay_id)
    if replay is None:
        replay = await services.control.ask_replayer(command, lambda: replays.get(command.replay_id))
    if not _is_same(replay, command):
        raise used_before(services, by[1])
    response.headers["Location"] = f"{router.prefix}/{replay.id}"
    return answer_of(replay)


@router.get("", response_model=ReplayList)
async def list_replays(
    services: Needed,
    caller: CanRead,
    tenant: str | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> ReplayList:
    """List replays, oldest first; one that ended is shown for 30 days at least."""
    found = seen_by(services, caller, tenant)
    rows, following = page(found, lambda replay: Place(replay.started_at, replay.id), limit, cursor)
    return ReplayList(data=[answer_of(replay) for replay in rows], next=following)


def seen_by(services: Services, caller: Caller, tenant: str | None) -> list[Replay]:
    """Find the replays of a tenant, or of all that the caller sees; Problem 403."""
    wanted = caller.scope_of(tenant)
    return [r for r in list(services.configuration.replays.values()) if wanted in (None, r.tenant)]


@router.get("/{replay_id}", response_model=ReplayAnswer)
async def get_replay(replay_id: str, services: Needed, caller: CanRead) -> ReplayAnswer:
    """Show a replay and how far it is."""
    return answer_of(_known(services, caller, replay_id))


@router.post("/{replay_id}/cancel", response_model=ReplayAnswer)
async def cancel_replay(
    replay_id: str, services: Needed, caller: CanManage, idempotency_key: IdempotencyKey = None
) -> ReplayAnswer:
    """End a replay; what it has written is still delivered."""
    replay = _known(services, caller, replay_id)
    if replay.status == "finished":
        raise Problem(409, f"replay {replay_id!r} has ended already")
    if replay.status == "running":
        made = origin(caller, f"POST /v1/replays/{replay_id}/cancel", idempotency_key)
        claim(services, made)
        command = CancelReplay(*base(services, caller, made, replay.tenant), replay_id)
        replay = await services.control.ask_replayer(command, lambda: _ended(services, replay_id))
    return answer_of(replay)


def _ended(services: Services, replay_id: str) -> Replay | None:
    replay = services.configuration.replays.get(replay_id)
    return None if replay is None or replay.status == "running" else replay


def _known(services: Services, caller: Caller, replay_id: str) -> Replay:
    replay = services.configuration.replays.get(replay_id)
    if replay is None or not caller.sees(replay.tenant):
        raise Problem(404, f"there is no replay {replay_id!r}")
    return replay


def _command(
    services: Services, by: tuple[Caller, Origin], given: ReplayInput
) -> tuple[list[Endpoint], StartReplay]:
    """(the endpoints it is for, the command); Problem 403, 404 or 422."""
    caller, made = by
    tenant = caller.scope_of(given.tenant)
    if given.endpoint is not None:
        endpoint = known(services, caller, given.endpoint)
        if tenant not in (None, endpoint.tenant):
            raise Problem(404, f"there is no endpoint {given.endpoint!r}")
        tenant, endpoints = endpoint.tenant, [endpoint]
    elif tenant is None:
        raise wrong(FieldError("tenant", "name a tenant or an endpoint"))
    else:
        endpoints = list(services.configuration.of_tenant(tenant).values())
    until = _checked_until(services, given)
    return endpoints, StartReplay(
        *base(services, caller, made, tenant),
        "rpl_" + made.command_id().removeprefix("cmd_"),
        given.endpoint or "",
        given.since * _MS,
        until,
        given.only,
        tuple(given.event_types or ()),
        given.rate or 0.0,
    )


def _checked_until(services: Services, given: ReplayInput) -> int:
    """Return the end in microseconds, 0 for now; Problem 422 if nothing can be between."""
    if given.until is not None and given.until <= given.since:
        raise out_of_order()
    if given.since * _MS > services.context.clock.now():
        raise wrong(FieldError("since", "must not be in the future"))
    return 0 if given.until is None else given.until * _MS


def _is_same(replay: Replay, command: StartReplay) -> bool:
    """Whether a replay is what was asked for: else the Idempotency-Key was used for another."""
    asked = (command.tenant, command.endpoint_id, command.since, command.only)
    found = (replay.tenant, replay.endpoint_id, replay.since, replay.only)
    same_end = not command.until or command.until == replay.until
    more = (command.event_types, command.rate) == (replay.event_types, replay.rate)
    return asked == found and same_end and more


def _dry_run(context: Context, endpoints: list[Endpoint], command: StartReplay) -> DryRunAnswer:
    """Count on a thread, reading the log only; Problem 503 if that takes too long."""
    partitions, clock = context.log.partitions("deliveries"), context.clock
    reader = context.log.reader()
    try:
        ends = frozen_ends(context.log, reader, command.only, command.until, clock.now())
        at = [(source_topic(command.only), n) for n in range(len(ends))]
        lowest = reader.starts(at)
    finally:
        reader.close()
    wanted = Wanted(command.tenant, command.since, command.only, command.event_types, ends)
    subscribers = {e.id: subscriber(e, partitions) for e in endpoints if e.enabled}
    survey = _surveyed(context, Survey(wanted, subscribers))
    counts = survey.by_event_type()
    deliveries = counts.total()
    return DryRunAnswer(
        deliveries=deliveries,
        by_event_type=dict(counts),
        missing=sum(survey.count(each[1], 0, start) for each, start in lowest.items()),
        estimated_seconds=deliveries / command.rate if command.rate else None,
    )


def _surveyed(context: Context, survey: Survey) -> Survey:
    surveying = Surveying(context.log, context.codec, context.clock, survey)
    deadline = context.clock.monotonic() + DRY_RUN_S
    try:
        while not surveying.done:
            if context.clock.monotonic() > deadline:
                raise Problem(503, f"counting took longer than {DRY_RUN_S:g} s: ask for a shorter range")
            surveying.step(_POLL_S)
    finally:
        surveying.close()
    return survey


def answer_of(replay: Replay) -> ReplayAnswer:
    """Show a replay and how far it is."""
    return ReplayAnswer(
        id=replay.id,
        tenant=replay.tenant,
        endpoint=replay.endpoint_id or None,
        since=rfc3339(replay.since),
        until=rfc3339(replay.until),
        only=replay.only,
        event_types=list(replay.event_types) or None,
        rate=replay.rate or None,
        status=replay.status,
        reason=replay.reason,
        planned=replay.planned,
        deliveries=replay.deliveries,
        missing=replay.missing,
        skipped=replay.skipped,
        actor=replay.actor,
        started_at=rfc3339(replay.started_at),
        updated_at=rfc3339(replay.updated_at),
        ended_at=rfc3339(replay.ended_at) if replay.ended_at else None,
    )
