"""Routes of API keys. A key is shown once; the log has its SHA-256."""

from __future__ import annotations

import secrets
from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from engine.api.auth import Caller, IsAdmin, Needed, require
from engine.api.bodies import StrictRoute
from engine.api.history_pages import Moment
from engine.api.ids import IdempotencyKey, base, claim, origin, text_of, used_before
from engine.api.models import Description, Input, Tenant
from engine.api.pages import Cursor, Limit, Place, page
from engine.api.problems import FieldError, Problem, wrong
from engine.api.services import Services
from engine.core.directory import SCOPES, ApiKey, CreateKey, KeyCreated, RevokeKey, Scope
from engine.core.directory_rules import key_after
from engine.core.profile import rfc3339

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=StrictRoute)
_SECRET_BYTES = 32
_US = 1_000
"""In a millisecond."""


class KeyInput(Input):
    """A new API key."""

    tenant: Tenant | None = Field(None, description="Tenant it is bound to; left out: the caller's, or none.")
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4)]
    description: Description = ""
    expires_at: Moment | None = Field(None, description="RFC 3339, in the future; null: never.")


class KeyAnswer(BaseModel):
    """An API key, without what is secret of it; tenant null: the platform's."""

    id: str
    tenant: str | None
    scopes: list[str]
    description: str
    expires_at: str | None
    created_at: str


class NewKeyAnswer(KeyAnswer):
    """A new API key, which is shown this once."""

    key: str | None = Field(None, description="Left out when an Idempotency-Key was repeated.")


class KeyList(BaseModel):
    """A page of API keys."""

    data: list[KeyAnswer]
    next: str | None


@router.post("", status_code=201, response_model=NewKeyAnswer, response_model_exclude_unset=True)
async def create_key(
    given: KeyInput, services: Needed, caller: IsAdmin, idempotency_key: IdempotencyKey = None
) -> NewKeyAnswer:
    """Create an API key; it is in this answer and never again."""
    for scope in given.scopes:
        require(caller, scope)
    tenant = _tenant(services, caller, given.tenant)
    made = origin(caller, "POST /v1/keys", idempotency_key)
    key = f"hl_{made.key_id()}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    made_by = base(services, caller, made, tenant)
    command = CreateKey(*made_by, made.key_id(), *_chosen(services, given, sha256(key.encode()).digest()))
    claim(services, made, [text_of(_wanted(command))])
    fact = await services.control.ask_directory(command)
    if not isinstance(fact, KeyCreated) or _wanted(fact) != _wanted(command):
        raise used_before(services, made)
    shown: dict[str, Any] = {"key": key} if fact.digest == command.digest else {}
    return NewKeyAnswer(**_answer(key_after(None, fact)).model_dump(), **shown)


@router.get("", response_model=KeyList)
async def list_keys(
    services: Needed,
    caller: IsAdmin,
    tenant: str | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> KeyList:
    """List keys that are not revoked, oldest first, of one tenant or of all."""
    wanted = caller.scope_of(tenant)
    keys = (
        key
        for key in list(services.configuration.keys.values())
        if not key.revoked_at and wanted in (None, key.tenant)
    )
    found, more = page(keys, lambda key: Place(key.created_at, key.id), limit, cursor)
    return KeyList(data=[_answer(key) for key in found], next=more)


@router.delete("/{key_id}", status_code=204)
async def revoke_key(key_id: str, services: Needed, caller: IsAdmin) -> None:
    """Revoke an API key: it is refused from now on."""
    key = services.configuration.keys.get(key_id)
    if key is None or key.revoked_at or not caller.sees(key.tenant):
        raise Problem(404, f"there is no API key {key_id!r}")
    made_by = base(services, caller, origin(caller, "", None), key.tenant)
    await services.control.ask_directory(RevokeKey(*made_by, key.id))


def _tenant(services: Services, caller: Caller, given: str | None) -> str:
    """Return the tenant that a new key is bound to, empty for none; Problem 403 or 422."""
    tenant = caller.scope_of(given)
    if tenant is None:
        return ""
    known = services.configuration.tenants.get(tenant)
    if known is None or known.deleted:
        raise wrong(FieldError("tenant", f"there is no tenant {tenant!r}: create it first"))
    return tenant


def _chosen(services: Services, given: KeyInput, digest: bytes) -> tuple[tuple[str, ...], bytes, str, int]:
    """What a person chooses, in the log's units; Problem 422."""
    scopes = tuple(scope for scope in SCOPES if scope in given.scopes)
    expires_at = 0 if given.expires_at is None else given.expires_at * _US
    if given.expires_at is not None and expires_at <= services.context.clock.now():
        raise wrong(FieldError("expires_at", "must be in the future"))
    return scopes, digest, given.description, expires_at


def _wanted(key: CreateKey | KeyCreated) -> tuple[object, ...]:
    """What two requests under one Idempotency-Key must share."""
    return key.tenant, key.scopes, key.description, key.expires_at


def _answer(key: ApiKey) -> KeyAnswer:
    return KeyAnswer(
        id=key.id,
        tenant=key.tenant or None,
        scopes=list(key.scopes),
        description=key.description,
        expires_at=rfc3339(key.expires_at) if key.expires_at else None,
        created_at=rfc3339(key.created_at),
    )
