"""Event types: the catalogue, which the platform's admins write and every key reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from fastapi import APIRouter, Response
from pydantic import JsonValue, TypeAdapter, ValidationError

from engine.api.dashboard.confirm import Question, ask
from engine.api.dashboard.forms import NOT_SENT, WHOLE, FormRefusal, checked, refused
from engine.api.dashboard.frame import NavItem
from engine.api.dashboard.render import done, page
from engine.api.dashboard.session import one
from engine.api.dashboard.visit import OfPlatform, Reads, Visit
from engine.api.event_types import EventTypeInput, Name, delete_event_type, list_event_types, put_event_type
from engine.api.problems import FieldError, Problem, wrong
from engine.core import rawjson
from engine.core.directory import EventType
from engine.core.profile import rfc3339

router = APIRouter()
NAV = NavItem("event-types", "Event types", "tag", "Settings")
_PAGE = 100
_DEPTH_MAX = 100
WORD = "delete"
LABELS = {"name": "Name", "description": "Description", "example": "Example", "schema": "Schema"}
_NAME = TypeAdapter(Name)
_DELETED = "Somebody has deleted this event type meanwhile. What you wrote is here: save it to add it anew."
_MOVED = (
    "Somebody else has changed this event type since you opened the form, so nothing was saved. "
    "Below is what it is now; save again to replace it by what you wrote."
)


@router.get("/event-types")
async def show_event_types(visit: Reads, cursor: str | None = None) -> Response:
    """Show the catalogue by name."""
    found = await list_event_types(visit.services, visit.caller, _PAGE, cursor)
    rows = [_texts(visit.services.configuration.event_types[each.name]) for each in found.data]
    more = found.next and visit.url("event-types", cursor=found.next)
    return page(visit, "event_types.html", rows=rows, more=more, may_edit=_may_edit(visit))


def _may_edit(visit: Visit) -> bool:
    return visit.may("admin") and visit.chooses_tenant


def _texts(known: EventType) -> dict[str, str]:
    """An event type as its form has it."""
    return {
        "name": known.name,
        "description": known.description,
        "example": _pretty(known.example),
        "schema": _pretty(known.schema),
        "updated_at": rfc3339(known.updated_at),
    }


def _pretty(text: str) -> str:
    return json.dumps(json.loads(text), ensure_ascii=False, indent=2) if text else ""


@router.get("/event-types/new")
async def show_new_event_type(visit: OfPlatform, name: str = "") -> Response:
    """Show the form of a new event type."""
    return _form(visit, {**dict.fromkeys(LABELS, ""), "name": name}, NOT_SENT)


@router.post("/event-types/new")
async def add_event_type(visit: OfPlatform) -> Response:
    """Put it into the catalogue, unless there is one of that name."""
    given = _typed(visit)
    try:
        if given["name"] in visit.services.configuration.event_types:
            raise wrong(FieldError("name", "is in the catalogue already: change that one, or choose another"))
        await _put(visit, given)
    except Problem as problem:
        return _form(visit, given, refused(problem, tuple(LABELS)))
    return done(visit, visit.url("event-types"), f"Event type {given['name']} is in the catalogue.")


@router.get("/event-types/edit")
async def show_edit_event_type(visit: OfPlatform, name: str) -> Response:
    """Show the form of an event type as it is."""
    known = visit.services.configuration.event_types.get(name)
    if known is None:
        return _no_type(visit, name)
    return _form(visit, _texts(known), NOT_SENT, known)


@router.post("/event-types/edit")
async def edit_event_type(visit: OfPlatform, name: str) -> Response:
    """Replace it, if it is as the form was made from."""
    given = {**_typed(visit), "name": name}
    known = visit.services.configuration.event_types.get(name)
    if known is None:
        return _form(visit, given, FormRefusal(404, {WHOLE: _DELETED}))
    if one(visit.form, "updated_at") != rfc3339(known.updated_at):
        return _form(visit, given, FormRefusal(409, {WHOLE: _MOVED}), known)
    try:
        await _put(visit, given)
    except Problem as problem:
        return _form(visit, given, refused(problem, tuple(LABELS)), known)
    return done(visit, visit.url("event-types"), f"Event type {name} is saved.")


def _typed(visit: Visit) -> dict[str, str]:
    return {name: one(visit.form, name).strip() for name in LABELS}


async def _put(visit: Visit, given: Mapping[str, str]) -> None:
    """Send it to the API; Problem 422 names the fields that break a rule."""
    try:
        name = _NAME.validate_python(given["name"])
    except ValidationError:
        raise wrong(
            FieldError("name", "must be printable ASCII without spaces, * or (, such as room.ended")
        ) from None
    body: dict[str, object] = {"description": given["description"].replace("\r\n", "\n")}
    body |= {field: _json(field, given[field]) for field in ("schema", "example") if given[field]}
    await put_event_type(name, checked(EventTypeInput, body), visit.services, visit.caller)


def _json(field: str, text: str) -> JsonValue:
    """Read JSON as strictly as the API's bodies are read; Problem 422."""
    try:
        found = rawjson.values(f'{{"value":\n{text}\n}}'.encode(), _DEPTH_MAX)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno - 1}, column {error.colno}"  # of what was typed
        raise wrong(FieldError(field, f"cannot be read as JSON: {error.msg} ({place})")) from None
    except ValueError as error:
        raise wrong(FieldError(field, f"cannot be read as JSON: {error}")) from None
    if set(found) != {"value"}:
        raise wrong(FieldError(field, "cannot be read as JSON: there is more than one value"))
    return cast("JsonValue", found["value"])


def _form(
    visit: Visit, given: Mapping[str, str], why: FormRefusal, known: EventType | None = None
) -> Response:
    """Show the form; `known`: of the event type that is there."""
    return page(
        visit,
        "event_type_form.html",
        why.status,
        given=given,
        now=None if known is None else _texts(known),
        moved=why.status == 409,
        errors=why.errors,
        refused=why,
        labels=LABELS,
    )


@router.get("/event-types/delete")
async def ask_to_delete_event_type(visit: OfPlatform, name: str) -> Response:
    """Say what it would do, and ask for a word."""
    return _asked(visit, name)


@router.post("/event-types/delete")
async def remove_event_type(visit: OfPlatform, name: str) -> Response:
    """Take it out of the catalogue, once the word was typed."""
    if one(visit.form, "word").strip() != WORD:
        return _asked(visit, name, f"type the word {WORD} to go on; nothing was deleted")
    try:
        await delete_event_type(name, visit.services, visit.caller)
    except Problem as problem:
        if problem.status_code != 404:
            raise
        return _no_type(visit, name)
    return done(visit, visit.url("event-types"), f"Event type {name} is out of the catalogue.")


def _asked(visit: Visit, name: str, error: str = "") -> Response:
    if name not in visit.services.configuration.event_types:
        return _no_type(visit, name)
    said = (
        "It is no longer offered where endpoints are set up, and its schema is no longer checked.",
        "Messages of it are accepted and delivered as before, to endpoints that subscribe to it.",
    )
    back = visit.url("event-types")
    above = ("Event types", "event-types")
    return ask(visit, Question("Delete this event type?", name, said, "Delete it", back, WORD, above), error)


def _no_type(visit: Visit, name: str) -> Response:
    said = f"{name} is not in the catalogue. Perhaps somebody has deleted it, in another tab."
    above = ("Event types", "event-types")
    return page(visit, "missing.html", 404, title="There is no such event type", said=said, back=above)
