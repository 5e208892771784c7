"""Who is asking: `Authorization: Bearer KEY`."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from engine.api.problems import Problem
from engine.api.services import Services

_BEARER = HTTPBearer(auto_error=False, description="An API key.")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever holds a key. `tenant` is the one it is bound to, if any."""

    actor: str
    tenant: str | None = None


ADMIN = Caller("admin")


async def services_of(request: Request) -> Services:
    """What `create_app` was given; a coroutine, since others are called on another thread."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Needed = Annotated[Services, Depends(services_of)]


async def authenticate(
    services: Needed, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Caller:
    """Return who is asking; Problem 401."""
    if credentials is None:
        raise Problem(401, "send an API key in the header Authorization: Bearer KEY", headers=_CHALLENGE)
    given = sha256(credentials.credentials.encode("utf-8", "surrogateescape")).digest()
    if not hmac.compare_digest(given, services.admin_digest):
        raise Problem(401, "this API key is not known, or no longer valid", headers=_CHALLENGE)
    return ADMIN


Authenticated = Annotated[Caller, Depends(authenticate)]
