"""Pages out of templates, and where to go after a change."""

from __future__ import annotations

from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from itsdangerous import BadData

from engine.api.dashboard.frame import Frame
from engine.api.dashboard.session import PATH
from engine.api.dashboard.visit import Visit

FLASH = "hooklog_flash"
_FLASH_MAX = 500
_FLASH_S = 60
_TENANTS_MAX = 200
"""Tenants that a list to choose from shows; of more, one types."""


def page(visit: Visit, template: str, status: int = 200, **shown: object) -> Response:
    """Render a page; `templates/_name.html` alone where htmx asks for the part that lives."""
    if visit.is_fragment:
        return _rendered(visit.frame, f"_{template}", status, visit=visit, **shown)
    notice = _notice(visit)
    known = {"visit": visit, "tenants": tenants_of(visit), "notice": notice}
    response = _rendered(visit.frame, template, status, **known, **shown)
    if notice:
        response.delete_cookie(FLASH, path=PATH)
    return response


def _notice(visit: Visit) -> str:
    """What the page before has left to say."""
    try:
        return str(visit.frame.notices.loads(visit.request.cookies.get(FLASH, "")))
    except BadData:
        return ""


def bare(request: Request, frame: Frame, template: str, status: int = 200, **shown: object) -> Response:
    """Render a page of somebody whose rights are not known: login, errors."""
    return _rendered(frame, template, status, visit=None, request=request, **shown)


def _rendered(frame: Frame, name: str, status: int, **shown: object) -> Response:
    return HTMLResponse(
        frame.templates.get_template(name).render(nav=frame.nav, status=status, **shown), status
    )


def tenants_of(visit: Visit) -> list[str]:
    """Return the tenants that a key of the platform may choose from; too many for a list: none."""
    if not visit.chooses_tenant:
        return []
    known = list(visit.services.configuration.tenants.values())
    found = sorted(tenant.id for tenant in known if not tenant.deleted)
    return found if len(found) <= _TENANTS_MAX else []


def done(visit: Visit, url: str, said: str) -> Response:
    """Answer a change: go to a page that says what was done; no secrets, for a cookie carries it."""
    response = RedirectResponse(url, 303)
    sealed = visit.frame.notices.dumps(said[:_FLASH_MAX])
    is_secure = visit.request.url.scheme == "https"
    response.set_cookie(
        FLASH, str(sealed), max_age=_FLASH_S, path=PATH, secure=is_secure, httponly=True, samesite="lax"
    )
    return response


def local(url: str) -> str:
    """Return where to go after login: a page of ours, or the overview for whatever is none."""
    return url if _is_ours(url) else f"{PATH}/overview"


def _is_ours(url: str) -> bool:
    """Whether browsers take it for a page below /dashboard of this very host."""
    try:
        parts = urlsplit(url.replace("\\", "/"))
    except ValueError:  # such as `//[`
        return False
    is_below = not parts.scheme and not parts.netloc and parts.path.startswith(f"{PATH}/")
    return is_below and url.isprintable() and not url.startswith("//")
