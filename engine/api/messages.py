"""Routes of messages: accepting them, and telling what became of one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import orjson
from fastapi import APIRouter, Request, Response

from engine.api import timeline
from engine.api.auth import Authenticated, Caller, Needed
from engine.api.endpoints import IdempotencyKey
from engine.api.ids import origin
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
from schemas import headers

router = APIRouter(prefix="/v1/messages", tags=["messages"])


def _body_of(model: str) -> dict[str, object]:
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.post("", status_code=202, response_model=Accepted, openapi_extra=_body_of(MessageInput.__name__))
async def publish_message(
    request: Request, services: Needed, caller: Authenticated, idempotency_key: IdempotencyKey = None
) -> Response:
    """Accept a message: 202 once the broker has acknowledged it. The same id again is delivered once."""
    found = _parse(await request.body(), 1)
    made = origin(caller, "POST /v1/messages", idempotency_key)
    message = _message(services, caller, found, made.message_id())
    await _publish(services, message)
    return _json({"id": message.id}, 202)


@router.post(
    "/batch", status_code=202, response_model=BatchAnswer, openapi_extra=_body_of(MessageBatch.__name__)
)
async def publish_batch(
    request: Request, services: Needed, caller: Authenticated, idempotency_key: IdempotencyKey = None
) -> Response:
    """Accept up to 1,000 messages, a result per item: 202 if all were, 207 if some were refused."""
    items = _batch_items(_parse(await request.body(), 3))
    made = origin(caller, "POST /v1/messages/batch", idempotency_key)
    results = await asyncio.gather(
        *(_publish_item(services, caller, item, made.message_id(n)) for n, item in enumerate(items))
    )
    accepted = all(result["status"] == 202 for result in results)
    return _json({"data": results}, 202 if accepted else 207)


@router.get("/{message_id}", response_model=MessageAnswer)
async def get_message(
    message_id: str, services: Needed, caller: Authenticated, tenant: str | None = None
) -> Response:
    """Show a message with its payload and timeline: each delivery, each attempt, each decision."""
    wanted = caller.tenant or tenant or ""
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


def _parse(body: bytes, wrapped: int) -> dict[str, Part]:
    try:
        return rawjson.parse(body, wrapped)
    except ValueError as error:
        raise Problem(400, f"the body is not a JSON object: {error}") from None


def _batch_items(found: Mapping[str, Part]) -> list[Part]:
    try:
        check_fields(found, ("messages",))
    except RefusedError as error:
        raise _refused(error) from None
    messages = found.get("messages")
    if messages is None or not isinstance(messages.value, list):
        raise wrong(FieldError("messages", "must be a list of messages"))
    if not 1 <= len(messages.value) <= BATCH_MAX:
        raise wrong(FieldError("messages", f"must hold 1 to {BATCH_MAX} messages"))
    return rawjson.items(messages.text)


async def _publish_item(services: Services, caller: Caller, item: Part, new_id: str) -> dict[str, object]:
    try:
        message = _message(services, caller, _members(item), new_id)
        await _publish(services, message)
    except Problem as problem:
        errors = [error._asdict() for error in problem.errors]
        return {"status": problem.status_code, "detail": problem.detail, "errors": errors}
    return {"status": 202, "id": message.id}


def _members(item: Part) -> dict[str, Part]:
    if not isinstance(item.value, dict):
        raise Problem(422, "a message must be an object")
    try:
        return rawjson.members(item.text)
    except ValueError as error:
        raise Problem(422, str(error)) from None


async def _publish(services: Services, message: MessagePublished) -> None:
    context = services.context
    key = message_key(message.id, message.tenant, message.ordering_key)
    partition = partition_of(key, context.log.partitions("messages"))
    found = {headers.VIEW: services.control.seen(message.tenant)}
    offset = await services.publisher.publish(
        Output("messages", partition, key.encode(), context.codec.encode(message), found)
    )
    place = Place(message.tenant, partition, offset)
    services.lately.put(message.id.encode(), place, context.clock.now())


def _message(services: Services, caller: Caller, found: Mapping[str, Part], new_id: str) -> MessagePublished:
    """Problem 422, 413 or 403."""
    context = services.context
    blank = MessagePublished(caller.tenant or "", new_id, "", b"", context.clock.now())
    try:
        message = read_message(found, blank, context.settings.payload_max)
    except RefusedError as error:
        raise _refused(error) from None
    if caller.tenant not in (None, message.tenant):
        raise Problem(403, f"this API key is bound to the tenant {caller.tenant!r}")
    return message


def _refused(error: RefusedError) -> Problem:
    return Problem(413 if error.too_large else 422, str(error), [FieldError(error.field, error.rule)])


def _json(content: object, status: int) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json")
