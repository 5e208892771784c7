"""Routes about the system itself: accounting, metrics, probes."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from engine.api.auth import CanRead, Needed
from engine.api.metrics import of_programs
from engine.api.models import AccountingAnswer
from engine.api.problems import Problem
from engine.core.profile import rfc3339
from engine.runtime.exported import export
from engine.runtime.kafka.log import KafkaLog

router = APIRouter(tags=["system"])


@router.get("/v1/accounting", response_model=AccountingAnswer)
async def accounting(services: Needed, caller: CanRead, tenant: str | None = None) -> AccountingAnswer:
    """Count what became of every first-time delivery, of one tenant or of all."""
    now = services.context.clock.now()
    account = await asyncio.to_thread(services.history.accounting, caller.scope_of(tenant) or "")
    return AccountingAnswer(
        matched=account.matched,
        delivered=account.delivered,
        failed=account.failed,
        pending=account.pending,
        skipped=account.skipped,
        unaccounted=account.unaccounted,
        checked_at=rfc3339(now),
    )


@router.get("/metrics", include_in_schema=False)
async def metrics(services: Needed) -> Response:
    """Prometheus metrics of this process, and of those that it is to ask."""
    context = services.context
    if isinstance(context.log, KafkaLog):
        export(context.log.signs, await asyncio.to_thread(context.log.answers), "api")
    programs = context.settings.metrics_of
    text = await of_programs(programs) if programs else generate_latest()
    return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/healthz", include_in_schema=False)
async def healthz() -> dict[str, str]:
    """Answer while the process lives."""
    return {"status": "ok"}


@router.get("/readyz", include_in_schema=False)
async def readyz(services: Needed) -> dict[str, str]:
    """Answer 200 while the API follows the log."""
    if not services.is_ready:
        raise Problem(503, "the API no longer follows the log and is about to stop")
    log = services.context.log
    if isinstance(log, KafkaLog) and not await asyncio.to_thread(log.answers):
        raise Problem(503, "no Kafka broker answers")
    return {"status": "ready"}
