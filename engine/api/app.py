"""The application: routes, errors, limits."""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson
from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.api import (
    bots,
    bots_retry,
    changes,
    endpoints,
    event_types,
    health,
    history,
    keys,
    messages,
    problems,
    replays,
    resends,
    rotation,
    system,
    tenants,
    test_sends,
)
from engine.api.dashboard.app import install as install_dashboard
from engine.api.metrics import Counted
from engine.api.models import MessageBatch, MessageInput, ProblemAnswer
from engine.api.problems import Problem
from engine.api.services import Services
from engine.core.profile import VERSION

_ROUTES = (
    messages,  # first: they are looked through in this order, and publishing is what is asked most
    tenants,
    keys,
    event_types,
    endpoints,
    health,
    rotation,
    test_sends,
    resends,
    replays,
    history,
    changes,
    bots,
    bots_retry,
    system,
)
_ENVELOPE = 16 << 10
_BATCH_PAYLOADS = 64
_REFERENCE = "#/components/schemas/{model}"
_ERRORS = (400, 401, 403, 404, 409, 410, 412, 413, 415, 422, 503)


class LimitBody:
    """Refuses a body over the limit, before reading it where its length is declared."""

    def __init__(self, app: ASGIApp, payload_max: int) -> None:
        self._app = app
        self._message = payload_max + _ENVELOPE
        self._batch = _BATCH_PAYLOADS * payload_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._batch if scope["path"].endswith("/batch") else self._message
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared[:20]) > limit:
            await problems.answer(_too_large(limit))(scope, receive, send)
            return
        await self._app(scope, _counted(receive, limit), send)


def _counted(receive: Receive, limit: int) -> Receive:
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise _too_large(limit)
        return message

    return counted


def _too_large(limit: int) -> Problem:
    return Problem(413, f"the body is larger than {limit} bytes", headers={"Connection": "close"})


def create_app(services: Services) -> FastAPI:
    """Build the application around what `started` made."""
    app = _described()
    app.state.services = services
    app.add_middleware(LimitBody, payload_max=services.context.settings.payload_max)
    app.add_middleware(Counted)
    problems.install(app)
    written = document()

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_document() -> Response:
        return Response(written, media_type="application/json")

    install_dashboard(app, services)
    return app


def _described() -> FastAPI:
    """What the OpenAPI document tells of."""
    app = FastAPI(
        title="hooklog",
        version=VERSION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        responses={status: _problem_response() for status in _ERRORS},
    )
    for module in _ROUTES:
        app.include_router(module.router)
    return app


@cache  # all applications of a process have the same routes, and it takes longer than all else that one needs
def document() -> bytes:
    """The OpenAPI document."""
    return orjson.dumps(openapi(_described()))


def _problem_response() -> dict[str, Any]:
    schema = {"$ref": _REFERENCE.format(model=ProblemAnswer.__name__)}
    return {"description": "Problem details", "content": {problems.MEDIA_TYPE: {"schema": schema}}}


def openapi(app: FastAPI) -> dict[str, Any]:
    """Describe the API, with the bodies that are read byte for byte."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    _, extra = models_json_schema(
        [(model, "validation") for model in (MessageInput, MessageBatch, ProblemAnswer)],
        ref_template=_REFERENCE,
    )
    document["components"]["schemas"] |= extra["$defs"]
    return document
