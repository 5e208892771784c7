"""Logging in by an API key, and out."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from engine.api.auth import Caller, caller_of, held_by, require
from engine.api.dashboard.render import bare, local
from engine.api.dashboard.session import (
    COOKIE,
    CSRF_FIELD,
    PATH,
    EndedError,
    Form,
    Session,
    checked_form,
    keep,
    one,
    read_form,
)
from engine.api.dashboard.visit import anybody, frame_of
from engine.api.problems import Problem
from engine.runtime import telemetry

router = APIRouter()
_LOG = telemetry.logger("dashboard")
LOGIN = f"{PATH}/login"
_KEPT_MAX = 65_536
"""Characters of a form that waits for a login."""


@dataclass(frozen=True, slots=True)
class AfterLogin:
    """What one wants after login: a page, and a form that was sent too late, to send it again."""

    next: str = ""
    to: str = ""
    """Address of the form; empty without one."""
    sent: str = ""
    """Its fields, as forms encode them, without the token."""


@router.get("/login")
async def show_login(request: Request, next: str = "", why: str = "") -> Response:
    """Ask for an API key; `why`: the name of the reason that brought them here."""
    return _form(request, anybody(request), 200, AfterLogin(next), _WHY.get(why, ""))


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Begin a session, and go where they wanted to."""
    frame, session = frame_of(request), anybody(request)
    form = await checked_form(request, frame.seal, session)
    waiting = AfterLogin(one(form, "next"), one(form, "to"), one(form, "sent"))
    address = request.client.host if request.client else ""
    if wait_s := frame.throttle.wait_s(address):
        said = f"Too many failed tries: wait {round(wait_s)} s."
        return _form(request, session, 429, waiting, said)
    try:
        caller = require(caller_of(frame.services, one(form, "key").strip()), "read")
    except Problem as problem:
        frame.throttle.failed(address)
        _LOG.warning("dashboard.login_refused", address=address, status=problem.status_code)
        return _form(request, session, problem.status_code, waiting, _sentence(problem.detail))
    begun = _begun(request, caller)
    response = _resumed(request, begun, waiting) if waiting.sent else _gone_on(waiting)
    keep(request, response, frame.seal, begun)
    _LOG.info("dashboard.logged_in", actor=caller.actor, address=address)
    return response


def _gone_on(waiting: AfterLogin) -> Response:
    return RedirectResponse(local(waiting.next), 303)


def _resumed(request: Request, session: Session, waiting: AfterLogin) -> Response:
    """Show that what was sent too late can be sent now."""
    frame = frame_of(request)
    return bare(
        request,
        frame,
        "resume.html",
        to=local(waiting.to),
        fields=parse_qsl(waiting.sent, keep_blank_values=True),
        back=local(waiting.next),
        csrf=frame.seal.token(session),
    )


@router.post("/logout")
async def log_out(request: Request) -> Response:
    """End the session."""
    await checked_form(request, frame_of(request).seal, anybody(request))
    response = RedirectResponse(f"{LOGIN}?why=out", 303)
    response.delete_cookie(COOKIE, path=PATH)
    return response


_WHY = {"out": "You are logged out.", "ended": "Your session has ended. Nothing is lost: log in again."}


async def to_login(request: Request, error: EndedError) -> Response:
    """Lead to the login, and from there back; what a form held can be sent again then."""
    wanted = _address(request)
    if request.method not in ("GET", "HEAD"):
        waiting = await _kept(request, wanted)
        again = "log in to send it" if waiting.sent else "log in, do it again"
        said = f"{error.reason or 'You are not logged in.'} What you sent was not done: {again}."
        return _form(request, anybody(request), 401, waiting, said)
    url = f"{LOGIN}?next={quote(wanted, safe='')}" + ("&why=ended" if error.reason else "")
    if request.headers.get("hx-request") == "true":
        return Response(status_code=401, headers={"HX-Redirect": url})
    return RedirectResponse(url, 303)


async def _kept(request: Request, wanted: str) -> AfterLogin:
    """What was sent, if it came from a page of ours: nobody else may lay forms before who logs in."""
    host = request.headers.get("host", "")
    if _host_of(request.headers.get("origin", "")) != host or wanted.partition("?")[0] == LOGIN:
        return AfterLogin()
    referer = request.headers.get("referer", "")
    back = referer.partition(host)[2] if _host_of(referer) == host else ""
    try:
        text = _encoded(await read_form(request))
    except Problem:  # no form: there is nothing to send again
        return AfterLogin(back)
    return AfterLogin(back, wanted, text) if len(text) <= _KEPT_MAX else AfterLogin(back)


@dataclass(frozen=True, slots=True)
class FormAgain:
    """A form that was sent and not done, to be sent once more: its address, its fields with the token."""

    to: str
    fields: list[tuple[str, str]]


async def form_again(request: Request) -> FormAgain:
    """Keep what was sent; its key makes sending it twice the same as once."""
    form = await read_form(request)
    fields = [(name, value) for name in form for value in form[name]]
    return FormAgain(local(_address(request)), fields)


def _address(request: Request) -> str:
    """The page that was asked for, with its query."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _encoded(form: Form) -> str:
    return urlencode({name: form[name] for name in form if name != CSRF_FIELD}, doseq=True)


def _host_of(url: str) -> str | None:
    """`http://a:8080/b` -> `a:8080`; None for what is no address."""
    try:
        return urlsplit(url).netloc or None
    except ValueError:
        return None


def _begun(request: Request, caller: Caller) -> Session:
    frame = frame_of(request)
    held = held_by(frame.services, caller.actor)
    if held is None:  # revoked in this very moment
        raise EndedError("The API key is no longer valid.")
    return frame.seal.new(caller.actor, held.digest, frame.services.context.clock.now())


def _form(request: Request, session: Session, status: int, waiting: AfterLogin, said: str) -> Response:
    frame = frame_of(request)
    shown = {"waiting": waiting, "said": said, "csrf": frame.seal.token(session), "bad": status >= 400}
    response = bare(request, frame, "login.html", status, **shown)
    keep(request, response, frame.seal, session)
    return response


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
