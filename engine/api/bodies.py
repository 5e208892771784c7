"""Reading bodies: one strict parse, one wording of what is wrong, whatever the route.

A body is read before the key is checked; what is wrong with it is only told
to who may ask, so it waits in the request's state.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from engine.api import problems
from engine.core import rawjson
from engine.core.rawjson import Part

_DEPTH_MAX = 100
_JSON = "application/json"


class _StrictRequest(Request):
    async def json(self) -> object:
        """Return the body's values, or the body itself, which fits no model: `of_validation` says why."""
        body = await self.body()
        try:
            return rawjson.values(body, _DEPTH_MAX)
        except ValueError as error:
            setattr(self.state, problems.MALFORMED, str(error))
            return body


class StrictRoute(APIRoute):
    """A route whose body is read strictly: each router with bodies has it as its `route_class`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the request."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict


async def members(request: Request, wrapped: int) -> dict[str, Part]:
    """Members of a body that is kept as written; Problem 400 or 415. `wrapped`: how deep payloads lie."""
    said = request.headers.get("content-type", _JSON).partition(";")[0].strip().lower()
    if not (said.startswith("application/") and said.endswith(("/json", "+json"))):
        raise problems.not_json()
    body = await request.body()
    if not body:
        raise problems.unreadable(problems.EMPTY)
    try:
        return rawjson.parse(body, wrapped)
    except ValueError as error:
        raise problems.unreadable(str(error)) from None
