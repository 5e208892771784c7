"""Deliveries that failed, and making them again: one, those that were ticked, or all that match."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Response

from engine.api.dashboard import words
from engine.api.dashboard.deliveries import KNOWN, Named, names_of, next_url, query_of
from engine.api.dashboard.frame import NavItem
from engine.api.dashboard.overview import endpoints_of
from engine.api.dashboard.render import done, local, page
from engine.api.dashboard.session import PATH, one
from engine.api.dashboard.visit import Manages, Reads, Visit
from engine.api.history import find_failed
from engine.api.history_models import DeliveryQuery
from engine.api.ids import HEADER
from engine.api.problems import FieldError, Problem, wrong
from engine.api.resends import resend_delivery
from engine.api.timeline import cause_of
from engine.runtime.history.clickhouse import Row
from engine.runtime.history.made_since import made_since, what_of

router = APIRouter()
NAV = NavItem("failed", "Failed", "alert")
_KNOWN = KNOWN - {"live", "status"}
_CHOICES_MAX = 100
_TICKED_MAX = 500
_AT_ONCE = 8
_ID_MAX = 256
_KEY_MAX = 100
_SAID_MAX = 20


@dataclass(frozen=True, slots=True)
class FailedRow:
    """A delivery that failed, as the table shows it."""

    told: Row
    name: Named
    why: str
    cause: str
    since: str
    """What was made of it since: delivered, pending, or nothing."""


@dataclass(frozen=True, slots=True)
class Retried:
    """A delivery that was asked for again: the new one's id, or why there is none."""

    delivery_id: str
    new_id: str = ""
    refused: str = ""
    status: int = 202


@router.get("/failed")
async def show_failed(visit: Reads) -> Response:
    """Show a page of deliveries that failed, the last to fail first."""
    given = {name: value for name, value in visit.asked.items() if name in _KNOWN}
    query, errors = query_of(visit, given)
    if query is None:
        return _page(visit, 422, given=given, errors=errors)
    found = await find_failed(visit.services, visit.caller, query)
    since = await asyncio.to_thread(made_since, visit.services.history, found.rows)
    names = names_of(visit, (str(row["endpoint_id"]) for row in found.rows))
    rows = [_row(row, names, since.get(what_of(row), "")) for row in found.rows]
    more = None if found.next is None else next_url(visit, "failed", query, found.next)
    return _page(visit, 200, given=given, rows=rows, more=more, replay=_replay_of(query, given))


def _page(visit: Visit, status: int, given: Mapping[str, str], **shown: object) -> Response:
    endpoints = endpoints_of(visit)
    known: dict[str, object] = {"rows": [], "errors": {}, "more": None, "replay": {}, **shown}
    return page(
        visit,
        "failed.html",
        status,
        given={name: given.get(name, "") for name in _KNOWN},
        endpoints=endpoints if len(endpoints) <= _CHOICES_MAX else [],
        types=sorted(visit.services.configuration.event_types)[:_CHOICES_MAX],
        back=f"{PATH}/failed?{visit.request.url.query}",
        **known,
    )


def _row(row: Row, names: Mapping[str, Named], since: str) -> FailedRow:
    cause = cause_of(row) if _is_exhausted(row) else ""  # otherwise the reason has said it
    return FailedRow(row, names[str(row["endpoint_id"])], why(row), cause, since)


def why(delivery: Row) -> str:
    """Why it failed, in words: `all its tries are used up; the last time it answered 503`."""
    ended = words.reason(str(delivery["reason"]))
    return f"{ended}; the last time {words.because(delivery)}" if _is_exhausted(delivery) else ended


def _is_exhausted(delivery: Row) -> bool:
    return words.is_exhausted(str(delivery["reason"]))


def _replay_of(query: DeliveryQuery, given: Mapping[str, str]) -> dict[str, str]:
    """The fields of a replay of all that match: a replay goes by when they failed, as this list does."""
    fields = {"only": "failed", "endpoint": query.endpoint, "event_types": query.event_type}
    if "since" in given or "within" in given:
        fields["since"] = words.iso(query.since * 1_000)
    if "until" in given:
        fields["until"] = words.iso(query.until * 1_000)
    return {name: value for name, value in fields.items() if value}


@router.post("/failed/retry")
async def retry(visit: Manages) -> Response:
    """Make deliveries again: the one whose button it was, or all that are ticked."""
    ids, key = _chosen(visit), one(visit.form, "key")[:_KEY_MAX]
    if not key:
        raise wrong(FieldError(HEADER, "is missing from the form: reload the page and send it again"))
    back = local(one(visit.form, "back") or f"{PATH}/failed")
    if not ids:
        return done(visit, back, "Nothing was ticked, so nothing is made again.")
    at_once = asyncio.Semaphore(_AT_ONCE)
    made = await asyncio.gather(*(_retried(visit, at_once, id, key) for id in ids))
    if all(each.new_id for each in made):
        return done(visit, back, _said(made))
    refused = [each for each in made if each.refused]
    status = refused[0].status if len(refused) == len(made) else 200
    return page(visit, "retried.html", status, made=made, refused=refused[:_SAID_MAX], back=back)


def _chosen(visit: Visit) -> list[str]:
    """Ids of the deliveries, each once; Problem 422 for too many or what is none."""
    chosen = visit.form.get("only", ()) or visit.form.get("delivery", ())
    ids = list(dict.fromkeys(chosen))
    if len(ids) > _TICKED_MAX:
        raise wrong(FieldError("delivery", f"at most {_TICKED_MAX} at once: retry all that match instead"))
    if any(not 0 < len(id) <= _ID_MAX for id in ids):
        raise wrong(FieldError("delivery", f"must be a delivery's id, of 1 to {_ID_MAX} characters"))
    return ids


async def _retried(visit: Visit, at_once: asyncio.Semaphore, id: str, key: str) -> Retried:
    """Ask for one again, as POST /v1/deliveries/{id}/resend does."""
    async with at_once:
        try:
            made = await resend_delivery(id, visit.services, visit.caller, f"{key} {id}")
        except Problem as problem:
            return Retried(id, refused=str(problem.detail), status=problem.status_code)
    return Retried(id, new_id=made.id)


def _said(made: Sequence[Retried]) -> str:
    if len(made) == 1:
        return f"It is made again, as the delivery {made[0].new_id}. It shows within seconds."
    return f"{len(made)} deliveries are made again. They show within seconds."
