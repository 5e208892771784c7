"""Routes of messages: accepting them, and telling what became of one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import orjson
from fastapi import APIRouter, Request, Response

from engine.api import bodies, timeline
from engine.api.auth import Caller, CanPublish, CanRead, Needed
from engine.api.ids import IdempotencyKey, origin
from engine.api.models import BATCH_MAX, Accepted, BatchAnswer, MessageAnswer, MessageBatch, MessageInput
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
from schemas import headers

_ITEMS_AT_ONCE = 100
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
    results = await _publish_all(services, messages)
    accepted = all(result["status"] == 202 for result in results)
    return _json({"data": results}, 202 if accepted else 207)


@router.get("/{message_id}", response_model=MessageAnswer)
async def get_message(
    message_id: str, services: Needed, caller: CanRead, tenant: str | None = None
) -> Response:
    """Show a message with its payload and timeline: each delivery, each attempt, each decision."""
    wanted = caller.scope_of(tenant) or ""
    told = await asyncio.to_thread(services.history.timeline, message_id, wanted)
    if told is None:
        return _json(timeline.not_yet(await _lately(services, message_id, wanted)), 200)
    at = ("messages", int(str(told.message["topic_partition"])))
    offset = int(str(told.message["topic_offset"]))
    published = await asyncio.to_thread(services.payloads.read, at, offset)
    return _json(timeline.answer(told, published), 200)


async def _lately(services: Services, message_id: str, tenant: str) -> Published:
    """Return a message that this process has accepted and the history doesn't have yet; Problem 404."""
    place = services.lately.get(message_id.encode())
    if place is not None and tenant in ("", place.tenant):
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


def _refused(error: RefusedError) -> Problem:
    return Problem(413 if error.too_large else 422, str(error), [FieldError(error.field, error.rule)])


def _json(content: object, status: int) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
