"""Errors as problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from engine.runtime import telemetry
from engine.runtime.history.clickhouse import UnavailableError

MEDIA_TYPE = "application/problem+json"
MALFORMED = "malformed"
"""Where a request's state says why its body cannot be read."""
EMPTY = "it is empty"
_LOG = telemetry.logger("api")


class FieldError(NamedTuple):
    """What is wrong with one field; nested fields are joined by dots."""

    field: str
    message: str


class Problem(HTTPException):
    """An answer other than the one that was wanted; `detail` says what to do."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.errors = tuple(errors)


def wrong(*errors: FieldError) -> Problem:
    """422: fields break their rules."""
    named = "; ".join(f"{e.field}: {e.message}" for e in errors)
    return Problem(422, named, errors)


def content(problem: HTTPException) -> dict[str, object]:
    """The body of a problem."""
    errors = [e._asdict() for e in problem.errors] if isinstance(problem, Problem) else []
    return {
        "type": "about:blank",
        "title": HTTPStatus(problem.status_code).phrase,
        "status": problem.status_code,
        "detail": problem.detail,
        **({"errors": errors} if errors else {}),
    }


def answer(problem: HTTPException) -> Response:
    """Build the response of a problem."""
    body = orjson.dumps(content(problem))
    return Response(body, problem.status_code, dict(problem.headers or {}), MEDIA_TYPE)


def of_validation(request: Request, error: RequestValidationError) -> Problem:
    """What pydantic found, without the values that were given: one may be a secret."""
    malformed = getattr(request.state, MALFORMED, None)
    if malformed is not None:
        return unreadable(malformed)
    if isinstance(error.body, bytes):
        return not_json()
    found = error.errors()
    if any(e["type"] == "missing" and tuple(e["loc"]) == ("body",) for e in found):
        return unreadable(EMPTY)
    return wrong(*(FieldError(_field(e["loc"]), _message(e["msg"])) for e in found))


def unreadable(reason: str) -> Problem:
    """400: the body is not what can be read at all."""
    return Problem(400, f"the body is not a JSON object: {reason}")


def not_json() -> Problem:
    """415: the body is said to be something else."""
    return Problem(415, "send the body with Content-Type: application/json")


def _field(location: Sequence[object]) -> str:
    """("body", "headers", "X A") -> `headers.X A`."""
    return ".".join(str(part) for part in location[1:]) or str(location[0])


def _message(text: str) -> str:
    return text.removeprefix("Value error, ")


def install(app: FastAPI) -> None:
    """Make every error of the application a problem."""

    async def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return answer(error)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(of_validation(request, error))

    async def on_unavailable(_: Request, error: Exception) -> Response:
        _LOG.warning("history.unavailable", error=str(error))
        detail = "the delivery history (ClickHouse) cannot be asked now; the log is not affected"
        return answer(Problem(503, detail, headers={"Retry-After": "5"}))

    async def on_error(_: Request, error: Exception) -> Response:
        return answer(Problem(500, f"an error of ours ({type(error).__name__}); the log of the API has it"))

    app.add_exception_handler(HTTPException, on_problem)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(UnavailableError, on_unavailable)
    app.add_exception_handler(Exception, on_error)
