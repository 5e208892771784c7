"""The dashboard as an application of its own, below /dashboard: its pages, errors and headers."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.api import problems
from engine.api.dashboard import (
    api_keys,
    audit,
    catalogue,
    deliveries,
    endpoint,
    failed,
    login,
    overview,
    replays,
    story,
    webhook_edit,
    webhook_trials,
    webhooks,
)
from engine.api.dashboard.frame import NavItem, make_frame
from engine.api.dashboard.render import bare
from engine.api.dashboard.session import PATH, EndedError
from engine.api.dashboard.visit import frame_of
from engine.api.services import Services
from engine.runtime import telemetry
from engine.runtime.history.clickhouse import UnavailableError

_PAGES = (
    overview,
    deliveries,
    story,
    endpoint,
    failed,
    replays,
    webhooks,
    webhook_edit,
    webhook_trials,
    catalogue,
    api_keys,
    audit,
)
"""Modules with a `router`; those with a `NAV` are in the navigation, in this order."""
CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NOT_KEPT = "no-store"
_KEPT = "public, max-age=31536000, immutable"
_LOG = telemetry.logger("dashboard")
_files = APIRouter()


class Guarded:
    """Adds what browsers are to enforce to every answer, errors too. ASGI."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", _NOT_KEPT)
            await send(message)

        await self._app(scope, receive, guarded)


def install(app: FastAPI, services: Services) -> None:
    """Put the dashboard below /dashboard, and lead there from `/`."""
    for path in ("/", PATH, f"{PATH}/"):
        app.add_api_route(path, _to_overview, include_in_schema=False)
    app.mount(PATH, Guarded(create_dashboard(services)))


def create_dashboard(services: Services) -> FastAPI:
    """Build it around what `started` made."""
    app = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.services = services
    app.state.frame = make_frame(services, _nav())
    for router in routers():
        app.include_router(router)
    _install_errors(app)
    return app


def routers() -> list[APIRouter]:
    """All routes of the dashboard, as paths below it."""
    return [_files, login.router, *(module.router for module in _PAGES)]


def _nav() -> list[NavItem]:
    found = [getattr(module, "NAV", None) for module in _PAGES]
    return [item for item in found if isinstance(item, NavItem)]


async def _to_overview() -> Response:
    return RedirectResponse(f"{PATH}/overview", 303)


@_files.get("/static/{name}")
async def static_file(name: str, request: Request) -> Response:
    """Serve a file that pages load; its address changes with its content, so it may be kept."""
    file = frame_of(request).files.get(name)
    if file is None:
        raise HTTPException(404, f"there is no file {name!r}")
    return Response(file.content, headers={"Content-Type": file.media_type, "Cache-Control": _KEPT})


def _install_errors(app: FastAPI) -> None:
    """Make every error a page that says what to do."""

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error(request, error)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _error(request, problems.of_validation(request, error))

    async def on_ended(request: Request, error: Exception) -> Response:
        assert isinstance(error, EndedError)
        return await login.to_login(request, error)

    async def on_unavailable(request: Request, error: Exception) -> Response:
        _LOG.warning("history.unavailable", error=str(error))
        again = None if request.method in ("GET", "HEAD") else await login.form_again(request)
        return _page(request, 503, "away.html", detail=str(error)[:300], again=again)

    async def on_error(request: Request, error: Exception) -> Response:
        detail = f"An error of ours ({type(error).__name__}); the log of the API has it."
        return _error(request, HTTPException(500, detail))

    app.add_exception_handler(HTTPException, on_problem)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(EndedError, on_ended)
    app.add_exception_handler(UnavailableError, on_unavailable)
    app.add_exception_handler(Exception, on_error)


def _error(request: Request, error: HTTPException) -> Response:
    title = HTTPStatus(error.status_code).phrase
    response = _page(request, error.status_code, "error.html", title=title, detail=str(error.detail))
    response.headers.update(error.headers or {})
    return response


def _page(request: Request, status: int, template: str, **shown: object) -> Response:
    return bare(request, frame_of(request), template, status, **shown)
