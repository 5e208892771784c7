"""Who is asking, and what a key may do: `Authorization: Bearer KEY`.

A key is `hl_<id>_<256 random bits>`; the view of `directory` has its SHA-256.
One that is bound to a tenant sees nothing of others: what is theirs is
answered as what does not exist.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, NamedTuple

from fastapi import Depends, Request
from fastapi.openapi.models import APIKey as ApiKeyModel
from fastapi.openapi.models import APIKeyIn
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from engine.api.problems import Problem
from engine.api.services import Services
from engine.core.directory import SCOPES, ApiKey, Scope

BAAS_HEADER = "x-meeting-baas-api-key"
_ACTOR = "key:"
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_KEY = re.compile(r"hl_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_NONE = ApiKey("", digest=bytes(32))
"""Compared with when there is no such key: it takes as long, and no text has this digest."""
_GRANTED_BY: dict[Scope, frozenset[str]] = {
    "admin": frozenset({"admin"}),
    "manage": frozenset({"admin", "manage"}),
    "publish": frozenset({"admin", "publish"}),
    "read": frozenset({"admin", "manage", "read"}),
}
"""Scope needed -> scopes of which one is enough."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever holds a key. `tenant` is the one it is bound to, if any."""

    actor: str
    tenant: str | None = None
    scopes: frozenset[str] = frozenset()

    def may(self, scope: Scope) -> bool:
        """Whether one of its scopes grants this one."""
        return not self.scopes.isdisjoint(_GRANTED_BY[scope])

    def sees(self, tenant: str) -> bool:
        """Whether things of this tenant exist for it."""
        return self.tenant in (None, tenant)

    def scope_of(self, tenant: str | None) -> str | None:
        """Return the tenant to filter by, None for all; Problem 403 if that is another than its own."""
        if tenant is not None and not self.sees(tenant):
            raise Problem(403, f"this API key is bound to the tenant {self.tenant!r}")
        return self.tenant or tenant


ADMIN = Caller("admin", None, frozenset(SCOPES))


async def services_of(request: Request) -> Services:
    """What `create_app` was given; a coroutine, since others are called on another thread."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Needed = Annotated[Services, Depends(services_of)]


def caller_of(services: Services, key: str) -> Caller:
    """Return who holds the key; Problem 401 if it is unknown, expired or revoked."""
    digest = sha256(key.encode("utf-8", "surrogateescape")).digest()
    if hmac.compare_digest(digest, services.admin_digest):
        return ADMIN
    form = _KEY.fullmatch(key)
    known = services.configuration.keys.get(form[1], _NONE) if form else _NONE
    if not hmac.compare_digest(digest, known.digest) or not _is_valid(services, known):
        raise Problem(401, "this API key is not known, or no longer valid", headers=_CHALLENGE)
    return _holder(known)


class KeyHolder(NamedTuple):
    """Who holds a key, and its SHA-256."""

    caller: Caller
    digest: bytes


def held_by(services: Services, actor: str) -> KeyHolder | None:
    """Return who holds the key that an actor's name says (`admin`, `key:<id>`); None if it is not valid."""
    if actor == ADMIN.actor:
        return KeyHolder(ADMIN, services.admin_digest)
    known = services.configuration.keys.get(actor.removeprefix(_ACTOR))
    if known is None or not _is_valid(services, known):
        return None
    return KeyHolder(_holder(known), known.digest)


def _holder(key: ApiKey) -> Caller:
    return Caller(f"{_ACTOR}{key.id}", key.tenant or None, frozenset(key.scopes))


def _is_valid(services: Services, key: ApiKey) -> bool:
    """A key ends with its tenant, whether or not control has revoked it yet."""
    if key.revoked_at or 0 < key.expires_at <= services.context.clock.now():
        return False
    tenant = services.configuration.tenants.get(key.tenant)
    return not key.tenant or (tenant is not None and not tenant.deleted)


def require(caller: Caller, scope: Scope) -> Caller:
    """Return the caller; Problem 403 naming the scope that it lacks."""
    if not caller.may(scope):
        raise Problem(403, f"this API key lacks the scope {scope}")
    return caller


class _Bearer(SecurityBase):
    """A dependency that returns who is asking: one step, since each costs every request its time."""

    def __init__(self, scope: Scope | None) -> None:
        self.model = HTTPBearerModel(description="An API key.")
        self.scheme_name = "key"
        self._scope = scope

    async def __call__(self, request: Request) -> Caller:
        """Problem 401 or 403."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Problem(401, "send an API key in the header Authorization: Bearer KEY", headers=_CHALLENGE)
        return _allowed(request, key.strip(), self._scope)


class _BaasKey(SecurityBase):
    """The same by Meeting BaaS's header, for keys of a tenant: an account there."""

    def __init__(self, scope: Scope | None) -> None:
        self.model = ApiKeyModel(
            **{"in": APIKeyIn.header}, name=BAAS_HEADER, description="An API key, as Meeting BaaS has it."
        )
        self.scheme_name = "bots_key"
        self._scope = scope

    async def __call__(self, request: Request) -> Caller:
        """Problem 401 or 403."""
        key = request.headers.get(BAAS_HEADER)
        if key is None:
            raise Problem(401, f"send an API key in the header {BAAS_HEADER}", headers=_CHALLENGE)
        caller = _allowed(request, key, self._scope)
        if caller.tenant is None:
            raise Problem(403, "this takes a key that is bound to a tenant: the account")
        return caller


def _allowed(request: Request, key: str, scope: Scope | None) -> Caller:
    caller = caller_of(request.app.state.services, key)
    return caller if scope is None else require(caller, scope)


Authenticated = Annotated[Caller, Depends(_Bearer(None))]
CanRead = Annotated[Caller, Depends(_Bearer("read"))]
CanManage = Annotated[Caller, Depends(_Bearer("manage"))]
CanPublish = Annotated[Caller, Depends(_Bearer("publish"))]
IsAdmin = Annotated[Caller, Depends(_Bearer("admin"))]
BaasCanRead = Annotated[Caller, Depends(_BaasKey("read"))]
BaasCanManage = Annotated[Caller, Depends(_BaasKey("manage"))]


async def _platform(caller: IsAdmin) -> Caller:
    if caller.tenant is not None:
        raise Problem(403, "this takes a key of the platform with the scope admin; this one is a tenant's")
    return caller


IsPlatformAdmin = Annotated[Caller, Depends(_platform)]
