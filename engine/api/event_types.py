"""Routes of the catalogue of event types, which is the platform's: every key may read it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import AfterValidator, BaseModel, Field, JsonValue

from engine.api.auth import Authenticated, Caller, IsPlatformAdmin, Needed
from engine.api.bodies import StrictRoute
from engine.api.ids import Base, base, origin
from engine.api.models import DOT_SEGMENTS, NO_DOTS, Input, readable
from engine.api.pages import Cursor, Limit, Place, page
from engine.api.problems import FieldError, Problem, wrong
from engine.api.services import Services
from engine.core.directory import DeleteEventType, EventType, PutEventType
from engine.core.profile import rfc3339
from engine.runtime.configuration.payload_schema import check_event_type

router = APIRouter(prefix="/v1/event-types", tags=["event types"], route_class=StrictRoute)
_JSON_MAX = 64 << 10
JsonSchema = dict[str, JsonValue] | None
Name = Annotated[str, Path(pattern="^[!-)+-~]{1,256}$", description="Such as room.ended.")]


class EventTypeInput(Input):
    """An event type as it shall be."""

    description: Annotated[str, Field(max_length=4_000), AfterValidator(readable)] = ""
    json_schema: JsonSchema = Field(None, alias="schema", description="JSON Schema of payloads; null: any.")
    example: JsonValue = Field(None, description="A payload, which fits the schema; left out: none.")


class EventTypeAnswer(BaseModel):
    """An event type of the catalogue."""

    name: str
    description: str
    json_schema: JsonSchema = Field(serialization_alias="schema")
    example: JsonValue = None
    """Left out if there is none."""
    updated_at: str


class EventTypeList(BaseModel):
    """A page of event types."""

    data: list[EventTypeAnswer]
    next: str | None


@router.get("", response_model=EventTypeList, response_model_exclude_unset=True)
async def list_event_types(
    services: Needed, caller: Authenticated, limit: Limit = 50, cursor: Cursor = None
) -> EventTypeList:
    """List the catalogue by name."""
    types = list(services.configuration.event_types.values())
    found, more = page(types, lambda each: Place(0, each.name), limit, cursor)
    return EventTypeList(data=[_answer(each) for each in found], next=more)


@router.put("/{name:path}", response_model=EventTypeAnswer, response_model_exclude_unset=True)
async def put_event_type(
    name: Name, given: EventTypeInput, services: Needed, caller: IsPlatformAdmin
) -> EventTypeAnswer:
    """Make or replace an event type; messages of it are held to its schema from now on."""
    if name in DOT_SEGMENTS:
        raise wrong(FieldError("name", NO_DOTS))
    wanted = EventType(
        name,
        given.description,
        "" if given.json_schema is None else _text("schema", given.json_schema),
        _text("example", given.example) if "example" in given.model_fields_set else "",
    )
    _check(wanted)
    said = (wanted.name, wanted.description, wanted.schema, wanted.example)
    fact = await services.control.ask_directory(PutEventType(*_base(services, caller), *said))
    return _answer(replace(wanted, updated_at=fact.at))


@router.delete("/{name:path}", status_code=204)
async def delete_event_type(name: str, services: Needed, caller: IsPlatformAdmin) -> None:
    """Take an event type out of the catalogue; its messages are not."""
    if name not in services.configuration.event_types:
        raise Problem(404, f"there is no event type {name!r}")
    await services.control.ask_directory(DeleteEventType(*_base(services, caller), name))


def _check(wanted: EventType) -> None:
    """Problem 422 if the schema is none, or the example does not follow it."""
    try:
        check_event_type(wanted)
    except ValueError as error:
        field, _, rule = str(error).partition(": ")
        raise wrong(FieldError(field, rule)) from None


def _base(services: Services, caller: Caller) -> Base:
    return base(services, caller, origin(caller, "", None), "")


def _text(field: str, value: JsonValue) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if len(text) > _JSON_MAX:
        raise wrong(FieldError(field, f"must be at most {_JSON_MAX} characters"))
    return text


def _answer(known: EventType) -> EventTypeAnswer:
    shown = {"example": json.loads(known.example)} if known.example else {}
    return EventTypeAnswer(
        name=known.name,
        description=known.description,
        json_schema=json.loads(known.schema) if known.schema else None,
        updated_at=rfc3339(known.updated_at),
        **shown,
    )
