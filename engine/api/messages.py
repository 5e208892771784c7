"""Routes of messages: accepting them, and telling what became of one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import orjson
from fastapi import APIRouter, Request, Response

from engine.api import bodies, timeline
from engine.api.auth import Caller, CanPublish, CanRead, Needed
from engine.api.ids import IdempotencyKey, claim, origin, text_of
from engine.api.models import (
    BATCH_MAX,
    Accepted,
    BatchAnswer,
    MessageAnswer,
    MessageBatch,
    MessageInput,
)
from engine.api.payloads import Place, Published
from engine.api.problems import FieldError, Problem, wrong
from engine.api.services import Services
from engine.core import rawjson
from engine.core.model import MessagePublished
from engine.core.rawjson import Part
from engine.core.routing import message_key, partition_of
from engine.core.submission import RefusedError, check_fields, read_message
from engine.ports import Output
from engine.runtime.configuration.payload_schema import broken
from engine.runtime.history.clickhouse import Timeline
from schemas import headers

_ITEMS_AT_ONCE = 100
_TENANTS_SHOWN = 5
router = APIRouter(prefix="/v1/messages", tags=["messages"])


def _body_of(model: str) -> dict[str, object]:
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.post("", status_code=202, response_model=Accepted, openapi_extra=_body_of(MessageInput.__name__))
async def publish_message(
    request: Request, services: Needed, caller: CanPublish, idempotency_key: IdempotencyKey = None
) -> Response:
    """Accept a message: 202 once the broker has acknowledged it. The same id again is delivered once."""
    found = await bodies.members(request, 1)
    made = origin(caller, "POST /v1/messages", idempotency_key)
    message = _message(services, caller, found, made.message_id())
    claim(services, made, _said(message))
    output = _output(services, message)
    _remember(services, message, output, await services.publisher.publish(output))
    return _json({"id": message.id}, 202)


@router.post(
    "/batch",
    status_code=202,
    response_model=BatchAnswer,
    responses={207: {"model": BatchAnswer, "description": "Some were refused"}},
    openapi_extra=_body_of(MessageBatch.__name__),
)
async def publish_batch(
    request: Request, services: Needed, caller: CanPublish, idempotency_key: IdempotencyKey = None
) -> Response:
    """Accept up to 1,000 messages, a result per item: 202 if all were, 207 if some were refused."""
    items = _batch_items(await bodies.members(request, 3))
    made = origin(caller, "POST /v1/messages/batch", idempotency_key)
    messages: list[MessagePublished | Problem] = []
    for n, item in enumerate(items):
        messages.append(_item(services, caller, item, made.message_id(n)))
        if n % _ITEMS_AT_ONCE == 0:
            await asyncio.sleep(0)  # a large batch must not hold up single messages
    sound = [each for each in messages if isinstance(each, MessagePublished)]
    if len(sound) == len(messages):  # else it may come again under its key, with what was refused mended
        claim(services, made, (part for message in sound for part in _said(message)))
    results = await _publish_all(services, messages)
    accepted = all(result["status"] == 202 for result in results)
    return _json({"data": results}, 202 if accepted else 207)


@router.get("/{message_id}", response_model=MessageAnswer)
async def get_message(
    message_id: str, services: Needed, caller: CanRead, tenant: str | None = None
) -> Response:
    """Show a message with its payload and timeline: each delivery, each attempt, each decision."""
    found = await story_of(services, message_id, caller.scope_of(tenant) or "")
    if found.told is None:
        assert found.published is not None
        return _json(timeline.not_yet(found.published), 200)
    return _json(timeline.answer(found.told, found.published), 200)


class Story(NamedTuple):
    """What is known of a message; at least one of the two is there.

    `told` is None until the history has it, `published` once the log has let go of it.
    """

    told: Timeline | None
    published: Published | None


async def story_of(services: Services, message_id: str, tenant: str) -> Story:
    """Find a message and all that has happened to it; Problem 404.

    Without a tenant it is looked for among all of them: Problem 422 if several have one of this id.
    """
    if not tenant:
        await _check_only_one(services, message_id)
    told = await asyncio.to_thread(services.history.timeline, message_id, tenant)
    if told is None:
        return Story(None, await _lately(services, message_id, tenant))
    at = ("messages", int(str(told.message["topic_partition"])))
    offset = int(str(told.message["topic_offset"]))
    published = await asyncio.to_thread(services.payloads.read, at, offset)
    return Story(told, timeline.same(told.message, published))


async def _check_only_one(services: Services, message_id: str) -> None:
    """Problem 422 if several tenants have a message of this id, and so none was asked for."""
    found = set(await asyncio.to_thread(services.history.tenants_of, message_id))
    found |= services.lately.tenants(message_id.encode())
    if len(found) > 1:
        named = ", ".join(repr(each) for each in sorted(found)[:_TENANTS_SHOWN])
        raise wrong(
            FieldError("tenant", f"several tenants have a message {message_id!r}: name one ({named}, …)")
        )


async def _lately(services: Services, message_id: str, tenant: str) -> Published:
    """Return a message that this process has accepted and the history doesn't have yet; Problem 404."""
    place = services.lately.get(message_id.encode(), tenant)
    if place is not None:
        at = ("messages", place.partition)
        published = await asyncio.to_thread(services.payloads.read, at, place.offset)
        if published is not None:
            return published
    raise Problem(
        404,
        f"there is no message {message_id!r}; one that was published a moment ago "
        "may take a few seconds to show",
    )


def _batch_items(found: Mapping[str, Part]) -> list[dict[str, Part] | str]:
    try:
        check_fields(found, ("messages",))
    except RefusedError as error:
        raise _refused(error) from None
    messages = found.get("messages")
    if messages is None or not isinstance(messages.value, list):
        raise wrong(FieldError("messages", "must be a list of messages"))
    if not 1 <= len(messages.value) <= BATCH_MAX:
        raise wrong(FieldError("messages", f"must hold 1 to {BATCH_MAX} messages"))
    return rawjson.objects(messages.text)


def _item(
    services: Services, caller: Caller, item: dict[str, Part] | str, new_id: str
) -> MessagePublished | Problem:
    if isinstance(item, str):
        return Problem(422, f"a message must be a JSON object: {item}")
    try:
        return _message(services, caller, item, new_id)
    except Problem as problem:
        return problem


async def _publish_all(
    services: Services, messages: Sequence[MessagePublished | Problem]
) -> list[dict[str, object]]:
    """Publish what is sound; a result for each."""
    outputs = [each if isinstance(each, Problem) else _output(services, each) for each in messages]
    offsets = await services.publisher.publish_all(outputs)
    results: list[dict[str, object]] = []
    for message, output, offset in zip(messages, outputs, offsets, strict=True):
        if isinstance(offset, Problem):
            results.append(_refusal(offset))
        elif isinstance(message, MessagePublished) and isinstance(output, Output):
            _remember(services, message, output, offset)
            results.append({"status": 202, "id": message.id})
    return results


def _refusal(problem: Problem) -> dict[str, object]:
    errors = [error._asdict() for error in problem.errors]
    return {"status": problem.status_code, "detail": problem.detail, "errors": errors}


def _output(services: Services, message: MessagePublished) -> Output:
    context = services.context
    key = message_key(message.id, message.tenant, message.ordering_key)
    partition = partition_of(key, context.log.partitions("messages"))
    found = {headers.VIEW: services.control.seen(message.tenant)}
    return Output("messages", partition, key.encode(), context.codec.encode(message), found)


def _remember(services: Services, message: MessagePublished, output: Output, offset: int) -> None:
    place = Place(message.tenant, output.partition, offset)
    services.lately.put(message.id.encode(), place, services.context.clock.now())


def _message(services: Services, caller: Caller, found: Mapping[str, Part], new_id: str) -> MessagePublished:
    """Problem 422, 413 or 403."""
    context = services.context
    blank = MessagePublished(caller.tenant or "", new_id, "", b"", context.clock.now())
    try:
        message = read_message(found, blank, context.settings.payload_max)
    except RefusedError as error:
        raise _refused(error) from None
    caller.scope_of(message.tenant)
    unknown = context.settings.unknown_event_types
    if (against := broken(services.configuration.event_types, unknown, message)) is not None:
        raise _refused(RefusedError(against.path, against.rule))
    return message


def _said(message: MessagePublished) -> tuple[bytes, bytes]:
    """What two messages under one Idempotency-Key must share."""
    return text_of((message.tenant, message.id, message.event_type, message.ordering_key)), message.payload


def _refused(error: RefusedError) -> Problem:
    return Problem(413 if error.too_large else 422, str(error), [FieldError(error.field, error.rule)])


def _json(content: object, status: int) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
