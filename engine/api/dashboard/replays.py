"""Replays: counting first, starting, how far they are, and cancelling."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import APIRouter, Response
from pydantic import ValidationError

from engine.api.dashboard import words
from engine.api.dashboard.deliveries import Named, names_of, utc_of, wrong_of
from engine.api.dashboard.frame import NavItem
from engine.api.dashboard.overview import endpoints_of
from engine.api.dashboard.render import done, page
from engine.api.dashboard.session import one
from engine.api.dashboard.visit import Manages, Reads, Visit
from engine.api.ids import HEADER
from engine.api.pages import Place
from engine.api.pages import page as page_of
from engine.api.problems import FieldError, Problem, wrong
from engine.api.replays import (
    DryRunAnswer,
    ReplayAnswer,
    ReplayInput,
    answer_of,
    cancel_replay,
    get_replay,
    seen_by,
    start_replay,
)

router = APIRouter()
NAV = NavItem("replays", "Replay", "replay")
_FIELDS = ("only", "tenant", "endpoint", "event_types", "since", "until", "rate")
_OLDEST = "1970-01-01T00:00:00Z"
_ROWS = 25
_CHOICES_MAX = 100
_FAR_US = 1 << 60
_KEY_MAX = 255
_TENTH = 10
_BETWEEN = re.compile(r",?\s+")
"""Between event types, which may hold commas themselves."""
WHAT = {
    "failed": "Deliveries that failed",
    "missed": "Messages that its subscription matches now, and that it never got",
    "all": "Everything, whether it was delivered or not",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """A replay as pages show it."""

    told: ReplayAnswer
    name: Named | None
    """Of its one endpoint."""
    since: str
    """Empty: from the oldest that the log has."""

    @property
    def tenths(self) -> int:
        """How much is done, in tenths, rounded down: said aloud as it changes."""
        return self.told.deliveries * _TENTH // self.told.planned if self.told.planned else 0


@router.get("/replays")
async def show_replays(visit: Reads) -> Response:
    """List replays, newest first."""
    found = seen_by(visit.services, visit.caller, visit.tenant)
    asked = visit.asked.get("cursor")
    rows, following = page_of(found, lambda each: Place(_FAR_US - each.started_at, each.id), _ROWS, asked)
    more = None if following is None else visit.url("replays", cursor=following)
    return page(visit, "replays.html", rows=[_shown(visit, answer_of(each)) for each in rows], more=more)


@router.get("/replays/new")
async def show_form(visit: Manages) -> Response:
    """Show the form of a new one, filled in by the address."""
    return _form(visit, {name: visit.asked.get(name, "") for name in _FIELDS}, {})


@router.post("/replays/preview")
async def preview(visit: Manages) -> Response:
    """Count what a replay would do, and ask whether to start it; what is counted ends now."""
    given = _given(visit)
    try:
        asked = _input(given, dry_run=True)
        counted = await start_replay(asked, visit.services, visit.caller, Response())
    except Problem as problem:
        return _form(visit, given, _errors_of(problem), problem.status_code)
    assert isinstance(counted, DryRunAnswer)
    until = given["until"] or words.iso(visit.services.context.clock.now())
    return page(
        visit,
        "replay_preview.html",
        given=given,
        fields={**given, "until": until},
        counted=counted,
        types=sorted(counted.by_event_type.items(), key=lambda each: (-each[1], each[0])),
        to=_name(visit, given["endpoint"]),
        what=WHAT,
        until=until,
    )


@router.post("/replays")
async def start(visit: Manages) -> Response:
    """Start one; the form's key makes a second click find the first one's."""
    key, given = one(visit.form, "key")[:_KEY_MAX], _given(visit)
    if not key:
        raise wrong(FieldError(HEADER, "is missing from the form: count again, then start"))
    try:
        asked = _input(given, dry_run=False)
        started = await start_replay(asked, visit.services, visit.caller, Response(), key)
    except Problem as problem:
        if problem.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise  # it may have started: the form anew would have another key
        return _form(visit, given, _errors_of(problem), problem.status_code)
    assert isinstance(started, ReplayAnswer)
    return done(visit, visit.url(f"replays/{started.id}"), "The replay has started.")


@router.get("/replays/{replay_id}")
async def show_replay(visit: Reads, replay_id: str) -> Response:
    """Show how far one is."""
    told = await get_replay(replay_id, visit.services, visit.caller)
    return page(visit, "replay.html", shown=_shown(visit, told), what=WHAT)


@router.post("/replays/{replay_id}/cancel")
async def cancel(visit: Manages, replay_id: str) -> Response:
    """End one; the second of two clicks finds it ended."""
    told = await cancel_replay(replay_id, visit.services, visit.caller, one(visit.form, "key") or None)
    said = f"The replay is cancelled. {words.number(told.deliveries)} deliveries were made before."
    return done(visit, visit.url(f"replays/{replay_id}"), said)


def _form(visit: Visit, given: Mapping[str, str], errors: Mapping[str, str], status: int = 200) -> Response:
    endpoints = endpoints_of(visit)
    return page(
        visit,
        "replay_new.html",
        status,
        given=given,
        errors=errors,
        endpoints=endpoints if len(endpoints) <= _CHOICES_MAX else [],
        what=WHAT,
    )


def _given(visit: Visit) -> dict[str, str]:
    given = {name: one(visit.form, name).strip() for name in _FIELDS}
    return {**given, "tenant": given["tenant"] or visit.tenant or ""}


def _input(given: Mapping[str, str], *, dry_run: bool) -> ReplayInput:
    """What the form asks for; Problem 422 by field."""
    types = [each for each in _BETWEEN.split(given["event_types"]) if each]
    asked: dict[str, object] = {
        "tenant": given["tenant"] or None,
        "endpoint": given["endpoint"] or None,
        "since": utc_of(given["since"]) if given["since"] else _OLDEST,
        "until": utc_of(given["until"]) if given["until"] else None,
        "only": given["only"] or "failed",
        "event_types": types or None,
        "rate": _rate(given["rate"]),
        "dry_run": dry_run,
    }
    try:
        return ReplayInput.model_validate(asked)
    except ValidationError as error:
        raise wrong(*(FieldError(name, said) for name, said in wrong_of(error).items())) from None


def _rate(text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise wrong(FieldError("rate", "must be a number of deliveries a second, such as 50")) from None


def _errors_of(problem: Problem) -> dict[str, str]:
    """By field; what is about none of the form's is said above it."""
    found = {error.field: error.message for error in problem.errors}
    return found if found.keys() <= set(_FIELDS) and found else {"": str(problem.detail)}


def _shown(visit: Visit, told: ReplayAnswer) -> Shown:
    since = "" if told.since.startswith("1970-01-01T00:00:00") else told.since
    return Shown(told, _name(visit, told.endpoint), since)


def _name(visit: Visit, endpoint: str | None) -> Named | None:
    """What its endpoint is called; None for all of the tenant's."""
    return names_of(visit, [endpoint])[endpoint] if endpoint else None
