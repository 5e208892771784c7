"""The overview: is it working?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from fastapi import APIRouter, Response

from engine.api.dashboard import charts, words
from engine.api.dashboard.frame import NavItem
from engine.api.dashboard.render import page
from engine.api.dashboard.visit import Reads, Visit
from engine.core.diagnosis import likely_cause
from engine.core.endpoint import Endpoint
from engine.runtime.history import overview as history
from engine.runtime.history.clickhouse import UnavailableError
from engine.runtime.history.endpoint_attempts import Minute
from engine.runtime.history.overview import Failing, Overview

router = APIRouter()
NAV = NavItem("overview", "Overview", "pulse")
_FAILING_MAX = 10
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether it works, in one line."""

    status: Literal["ok", "warn", "bad", "idle"]
    title: str
    said: str


@dataclass(frozen=True, slots=True)
class FailingRow:
    """A failing endpoint as the table shows it."""

    told: Failing
    url: str
    cause: str


@router.get("/overview")
async def show_overview(visit: Reads) -> Response:
    """Show how deliveries are doing now; without the history, what is known without it."""
    services, tenant = visit.services, visit.tenant or ""
    asked = (services.history, tenant, services.context.clock.now())
    endpoints = endpoints_of(visit)
    try:
        waiting = partial(visit.frame.pending.get, tenant, partial(history.pending, *asked))
        found = await visit.frame.overviews.get(tenant, partial(history.overview, *asked, waiting))
    except UnavailableError:
        return page(visit, "overview.html", found=None, endpoints=endpoints, verdict=AWAY)
    failing = _still_there(found.failing, services.configuration.endpoints)
    return page(
        visit,
        "overview.html",
        found=found,
        endpoints=endpoints,
        failing=[_row(visit, each) for each in failing[:_FAILING_MAX]],
        failing_count=len(failing),
        disabled=sum(not endpoint.enabled for endpoint in endpoints),
        verdict=verdict_of(found, len(failing), len(endpoints)),
        chart=_chart(found),
    )


AWAY = Verdict(
    "warn",
    "The history cannot be asked",
    "ClickHouse does not answer, so there are no figures. Deliveries go on: nothing on the log is affected.",
)


def endpoints_of(visit: Visit) -> list[Endpoint]:
    """Return the endpoints of what is looked at: of one tenant or of all."""
    known = list(visit.services.configuration.endpoints.values())
    return [each for each in known if not each.deleted and visit.tenant in (None, each.tenant)]


def verdict_of(found: Overview, failing: int, endpoints: int) -> Verdict:
    """The worst that is known."""
    if found.pending.overdue:
        said = (
            f"{words.number(found.pending.overdue)} retries are over a minute late: is the scheduler running?"
        )
        return Verdict("bad", "Retries are late", said)
    if failing:
        said = f"{failing} of {endpoints} endpoints have failed since their last success. The others go on."
        return Verdict("warn", "Some endpoints are failing", said)
    if not endpoints:
        return Verdict("idle", "No endpoints yet", "Add one, and messages are delivered to it.")
    if not found.attempts:
        return Verdict("idle", "Quiet", "Nothing was sent in the last hour.")
    return Verdict("ok", "Everything is working", "No endpoint is failing, and no retry is late.")


def _still_there(failing: Sequence[Failing], endpoints: Mapping[str, Endpoint]) -> list[Failing]:
    """Those that are enabled and not deleted."""
    known = ((each, endpoints.get(each.endpoint_id)) for each in failing)
    return [each for each, endpoint in known if endpoint and endpoint.enabled and not endpoint.deleted]


def _row(visit: Visit, failing: Failing) -> FailingRow:
    endpoint = visit.services.configuration.endpoints[failing.endpoint_id]
    return FailingRow(failing, endpoint.settings.url, likely_cause(failing.error_class))


def _chart(found: Overview) -> object:
    series = [
        charts.Series("ok", [minute.successes for minute in found.minutes]),
        charts.Series("bad", [minute.failures for minute in found.minutes]),
    ]
    failures = sum(minute.failures for minute in found.minutes)
    said = f"Attempts by minute in the last hour: {found.attempts}, of which {failures} failed"
    return charts.stacked(series, labels_of(found.minutes), said)


def labels_of(minutes: Sequence[Minute]) -> list[str]:
    """What a column of the chart stands for."""
    return [
        f"{words.moment(minute.at * _US)}: {minute.successes} succeeded, {minute.failures} failed"
        for minute in minutes
    ]
