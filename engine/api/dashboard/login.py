"""Logging in by an API key, and out."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from engine.api.auth import Caller, caller_of, held_by, require
from engine.api.dashboard.render import bare, local
from engine.api.dashboard.session import COOKIE, PATH, EndedError, Session, checked_form, keep, one
from engine.api.dashboard.visit import anybody, frame_of
from engine.api.problems import Problem
from engine.runtime import telemetry

router = APIRouter()
_LOG = telemetry.logger("dashboard")
LOGIN = f"{PATH}/login"


@router.get("/login")
async def show_login(request: Request, next: str = "", why: str = "") -> Response:
    """Ask for an API key; `why`: the name of the reason that brought them here."""
    return _form(request, anybody(request), 200, next=next, said=_WHY.get(why, ""))


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Begin a session, and go where they wanted to."""
    frame, session = frame_of(request), anybody(request)
    form = await checked_form(request, frame.seal, session)
    address = request.client.host if request.client else ""
    if wait_s := frame.throttle.wait_s(address):
        return _refused(request, session, 429, f"Too many failed tries: wait {round(wait_s)} s.")
    try:
        caller = require(caller_of(frame.services, one(form, "key").strip()), "read")
    except Problem as problem:
        frame.throttle.failed(address)
        _LOG.warning("dashboard.login_refused", address=address, status=problem.status_code)
        return _refused(request, session, problem.status_code, _sentence(problem.detail))
    response = RedirectResponse(local(one(form, "next")), 303)
    keep(request, response, frame.seal, _begun(request, caller))
    _LOG.info("dashboard.logged_in", actor=caller.actor, address=address)
    return response


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """End the session."""
    await checked_form(request, frame_of(request).seal, anybody(request))
    response = RedirectResponse(f"{LOGIN}?why=out", 303)
    response.delete_cookie(COOKIE, path=PATH)
    return response


_WHY = {"out": "You are logged out.", "ended": "Your session has ended. Nothing is lost: log in again."}


def to_login(request: Request, error: EndedError) -> Response:
    """Lead to the login, and from there back; who sent a form is told that nothing was done."""
    if request.method not in ("GET", "HEAD"):
        said = f"{error.reason or 'You are not logged in.'} What you sent was not done: log in, do it again."
        return _form(request, anybody(request), 401, next="", said=said)
    wanted = PATH + request.url.path.removeprefix(PATH)
    wanted += f"?{request.url.query}" if request.url.query else ""
    url = f"{LOGIN}?next={quote(wanted, safe='')}" + ("&why=ended" if error.reason else "")
    if request.headers.get("hx-request") == "true":
        return Response(status_code=401, headers={"HX-Redirect": url})
    return RedirectResponse(url, 303)


def _begun(request: Request, caller: Caller) -> Session:
    frame = frame_of(request)
    held = held_by(frame.services, caller.actor)
    if held is None:  # revoked in this very moment
        raise EndedError("The API key is no longer valid.")
    return frame.seal.new(caller.actor, held.digest, frame.services.context.clock.now())


def _refused(request: Request, session: Session, status: int, said: str) -> Response:
    return _form(request, session, status, next=request.query_params.get("next", ""), said=said)


def _form(request: Request, session: Session, status: int, *, next: str, said: str) -> Response:
    frame = frame_of(request)
    token = frame.seal.token(session)
    response = bare(request, frame, "login.html", status, next=next, said=said, csrf=token, bad=status >= 400)
    keep(request, response, frame.seal, session)
    return response


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
