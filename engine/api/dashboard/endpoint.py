"""One endpoint: how it is doing, what is probably wrong and what to do, and who changed it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import APIRouter, Response

from engine.api.changes import find_changes
from engine.api.dashboard import charts
from engine.api.dashboard.change_words import said_of
from engine.api.dashboard.overview import labels_of
from engine.api.dashboard.render import page
from engine.api.dashboard.visit import Reads, Visit
from engine.api.endpoint_rules import answer
from engine.api.endpoints import known
from engine.api.health import HealthAnswer, get_health
from engine.api.history_models import ChangeQuery
from engine.api.problems import Problem
from engine.core.endpoint import Endpoint
from engine.runtime.history.clickhouse import Row, UnavailableError
from engine.runtime.history.endpoint_attempts import HOUR_S, recent_attempts, steps

router = APIRouter()
_ATTEMPTS_MAX = 20
_CHANGES_MAX = 10
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Range:
    """How far back to look, and in which steps the chart does."""

    label: str
    hours: int
    step_s: int

    @property
    def count(self) -> int:
        """How many steps."""
        return self.hours * HOUR_S // self.step_s


RANGES: Mapping[str, Range] = {
    "1h": Range("Last hour", 1, 60),
    "24h": Range("Last 24 hours", 24, 1_800),
    "7d": Range("Last 7 days", 168, 7_200),
    "30d": Range("Last 30 days", 720, 28_800),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """What the history knows of it."""

    health: HealthAnswer
    advice: str
    chart: object
    attempts: list[Row]
    changes: list[Row]


@router.get("/endpoints/{endpoint_id}")
async def show_endpoint(visit: Reads, endpoint_id: str, range: str = "24h") -> Response:
    """Show an endpoint; without the history, its settings."""
    try:
        endpoint = known(visit.services, visit.caller, endpoint_id)
    except Problem:
        return gone(visit, endpoint_id)
    chosen = range if range in RANGES else "24h"
    try:
        figures = await _figures(visit, endpoint, RANGES[chosen])
    except UnavailableError:
        figures = None
    return page(
        visit,
        "endpoint.html",
        endpoint=answer(endpoint),
        figures=figures,
        ranges=RANGES,
        chosen=chosen,
        secrets=len(endpoint.secrets),
    )


def gone(visit: Visit, endpoint_id: str) -> Response:
    """Say that it is not there, and whether it was: it may have been deleted in another tab."""
    endpoint = visit.services.configuration.endpoints.get(endpoint_id)
    was_there = endpoint is not None and visit.caller.sees(endpoint.tenant)
    return page(visit, "gone.html", HTTPStatus.NOT_FOUND, endpoint_id=endpoint_id, was_there=was_there)


async def _figures(visit: Visit, endpoint: Endpoint, wanted: Range) -> Figures:
    services, now = visit.services, visit.services.context.clock.now()
    first = now // _US // wanted.step_s * wanted.step_s - (wanted.count - 1) * wanted.step_s
    over = (first, wanted.step_s, wanted.count)
    about = ChangeQuery(tenant=endpoint.tenant, subject_id=endpoint.id, limit=_CHANGES_MAX)
    health, made, attempts, changes = await asyncio.gather(
        get_health(endpoint.id, services, visit.caller, wanted.hours),
        asyncio.to_thread(steps, services.history, endpoint, *over),
        asyncio.to_thread(recent_attempts, services.history, endpoint, now, _ATTEMPTS_MAX),
        find_changes(services, visit.caller, about),
    )
    series = [
        charts.Series("ok", [step.successes for step in made]),
        charts.Series("bad", [step.failures for step in made]),
    ]
    said = f"Attempts over time, {wanted.label.lower()}: {health.attempts}"
    shown = [{**row, "said": said_of(row)} for row in changes.rows]
    return Figures(health, advice_of(health), charts.stacked(series, labels_of(made), said), attempts, shown)


ADVICE: Mapping[str, str] = {
    "dns": "Check the host in the URL, and that its DNS record still exists.",
    "connect": "Start the receiver, or open its port to this system.",
    "tls": "Renew the certificate, and serve the whole chain.",
    "timeout": "Answer 2xx at once and do the work afterwards, or raise the endpoint's timeout.",
    "reset": "Look for crashes and restarts in the receiver's log, and at its proxy's limits.",
    "protocol": "Point the URL at a web server's port.",
    "blocked": "Use a public address; private networks are refused on purpose.",
    "http_2xx": "Answer exactly 200.",
    "http_3xx": "Put the final URL into the endpoint's settings.",
    "http_4xx": "Compare the secret, path and accepted methods with the receiver's code.",
    "http_5xx": "Look at the receiver's own log for the time of these attempts.",
    "gone": "If the receiver is back, enable the endpoint again.",
    "throttled": "Set a rate limit that the receiver bears.",
}
"""By error class, what whoever runs the receiver can do."""


def advice_of(health: HealthAnswer) -> str:
    """What to do about the newest class of errors; empty if all is well."""
    if health.state == "healthy" or not health.errors:
        return ""
    newest = max(health.errors, key=lambda each: each.last_at)
    return ADVICE.get(newest.error_class, "")
