"""A request for a page: who makes it, with which rights, and about which tenant.

Each page's route takes one of the types at the end. They check the session,
the scope and, where something is changed, the token of the form.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Request

from engine.api.auth import Caller, require
from engine.api.dashboard.frame import Frame
from engine.api.dashboard.session import PATH, EndedError, Form, Session, caller_of, checked_form, current
from engine.api.problems import Problem
from engine.api.services import Services
from engine.core.directory import Scope

_SAFE = frozenset({"GET", "HEAD"})
_OF_TENANTS = frozenset({"overview", "deliveries", "failed", "replays", "webhooks", "keys", "audit"})


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody's request for a page."""

    request: Request
    services: Services
    frame: Frame
    session: Session
    caller: Caller
    tenant: str | None
    """The tenant that is looked at: the key's, or the one chosen by `?tenant=`; None: all."""
    form: Form = field(default_factory=dict)
    """Of a request that changes something; its token has been checked."""

    @property
    def csrf(self) -> str:
        """The token for this page's forms."""
        return self.frame.seal.token(self.session)

    @property
    def form_key(self) -> str:
        """A new Idempotency-Key for a form: sent twice, it does nothing the second time."""
        return secrets.token_urlsafe(16)

    @property
    def chooses_tenant(self) -> bool:
        """Whether it may look at any tenant."""
        return self.caller.tenant is None

    @property
    def is_of_tenants(self) -> bool:
        """Whether the page is as good for another tenant: then one may be chosen on it."""
        return self.request.url.path.removeprefix(f"{PATH}/") in _OF_TENANTS

    @property
    def is_fragment(self) -> bool:
        """Whether htmx asks, for a part of the page."""
        return self.request.headers.get("hx-request") == "true"

    @property
    def asked(self) -> dict[str, str]:
        """What the query string says, without what is blank; of a name given twice the last."""
        return {name: value.strip() for name, value in self.request.query_params.items() if value.strip()}

    def may(self, scope: Scope) -> bool:
        """Whether its key has a scope."""
        return self.caller.may(scope)

    def url(self, path: str, **query: object) -> str:
        """Return a page's address, with the tenant that is looked at; None leaves a part out."""
        named: dict[str, object] = {"tenant": self.tenant if self.chooses_tenant else None, **query}
        return address(path, named)


def address(path: str, query: Mapping[str, object]) -> str:
    """`deliveries`, {"status": "failed"} -> `/dashboard/deliveries?status=failed`."""
    text = urlencode({name: value for name, value in query.items() if value not in (None, "")})
    return f"{PATH}/{path}" + (f"?{text}" if text else "")


def frame_of(request: Request) -> Frame:
    """What `create_dashboard` made."""
    frame = request.app.state.frame
    assert isinstance(frame, Frame)
    return frame


class Visiting:
    """A dependency that returns the visit of who may; EndedError, Problem 403, 415 or 422."""

    def __init__(self, scope: Scope, *, of_platform: bool = False) -> None:
        self._scope = scope
        self._of_platform = of_platform

    async def __call__(self, request: Request) -> Visit:
        """Check all that a page relies on."""
        frame = frame_of(request)
        session = current(request, frame.seal, frame.services)
        caller = caller_of(session, frame.seal, frame.services)
        form = {} if request.method in _SAFE else await checked_form(request, frame.seal, session)
        require(caller, self._scope)
        if self._of_platform and caller.tenant is not None:
            raise Problem(403, "this takes a key of the platform with the scope admin; yours is a tenant's")
        tenant = caller.scope_of(request.query_params.get("tenant") or None)
        return Visit(request, frame.services, frame, session, caller, tenant, form)


def anybody(request: Request) -> Session:
    """Return the session there is, before or after login, or a new one without a key."""
    frame = frame_of(request)
    try:
        return current(request, frame.seal, frame.services)
    except EndedError:
        return frame.seal.new("", b"", frame.services.context.clock.now())


Reads = Annotated[Visit, Depends(Visiting("read"))]
Manages = Annotated[Visit, Depends(Visiting("manage"))]
Administers = Annotated[Visit, Depends(Visiting("admin"))]
OfPlatform = Annotated[Visit, Depends(Visiting("admin", of_platform=True))]
