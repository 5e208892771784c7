"""The rules of `directory`: what a command about tenants, keys and event types leads to.

`decide` turns a command into a fact, the `…_after` functions fold a fact into a snapshot.
Every change of the directory happens here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from engine.core.change import CommandBase, CommandRejected, DeleteEndpoint, EndpointDeleted, Refusal
from engine.core.directory import (
    ApiKey,
    CreateKey,
    CreateTenant,
    DataKey,
    DataKeyRewrapped,
    DeleteEventType,
    DeleteTenant,
    DirectoryCommand,
    DirectoryFact,
    EventType,
    EventTypeDeleted,
    EventTypePut,
    KeyCreated,
    KeyRevoked,
    PutEventType,
    RevokeKey,
    RewrapDataKey,
    Tenant,
    TenantCreated,
    TenantDeleted,
)
from engine.core.endpoint import Endpoint
from engine.core.endpoint import decide as decide_endpoint


@dataclass(frozen=True, slots=True)
class Directory:
    """What stands on `directory` now."""

    tenants: Mapping[str, Tenant]
    keys: Mapping[str, ApiKey]
    event_types: Mapping[str, EventType]
    data_keys: Mapping[str, DataKey]


def decide(known: Directory, command: DirectoryCommand, now: int) -> DirectoryFact | CommandRejected:
    """Return the fact that a command leads to, or its refusal; `ending` has what ends with a tenant."""
    if refusal := _refusal(known, command):
        return reject(command, now, refusal)
    base = (command.command_id, command.tenant, command.actor, now)
    match command:
        case CreateTenant():
            return TenantCreated(*base, command.name)
        case DeleteTenant():
            return TenantDeleted(*base)
        case CreateKey():
            chosen = (command.scopes, command.digest, command.description, command.expires_at)
            return KeyCreated(*base, command.key_id, *chosen)
        case RevokeKey():
            return KeyRevoked(*base, command.key_id)
        case PutEventType() | DeleteEventType():
            return _catalogue(command, base)
        case RewrapDataKey():
            return DataKeyRewrapped(*base, command.data_key.id, command.data_key.master_key_id)
    assert_never(command)


def _catalogue(
    command: PutEventType | DeleteEventType, base: tuple[str, str, str, int]
) -> EventTypePut | EventTypeDeleted:
    if isinstance(command, DeleteEventType):
        return EventTypeDeleted(*base, command.name)
    return EventTypePut(*base, command.name, command.description, command.schema, command.example)


def reject(command: CommandBase, now: int, refusal: Refusal) -> CommandRejected:
    """Say why a command about no endpoint changes nothing."""
    base = (command.command_id, command.tenant, command.actor, now, "")
    return CommandRejected(*base, type(command).__name__, refusal.reason, refusal.code)


def deleted_tenant(tenants: Mapping[str, Tenant], id: str) -> Refusal | None:
    """Why nothing can be changed of a tenant that was deleted; None if it was not."""
    known = tenants.get(id)
    if known is None or not known.deleted:
        return None
    reason = f"tenant {id!r} was deleted: its messages and history are still on the log, so choose another id"
    return Refusal("deleted", reason)


def _refusal(known: Directory, command: DirectoryCommand) -> Refusal | None:
    """Why a command is refused; None if it is not."""
    if isinstance(command, CreateTenant):
        return deleted_tenant(known.tenants, command.tenant) or _taken(
            "tenant", command.tenant, known.tenants
        )
    if not _may_be(known.tenants, command):
        return _missing("tenant", command.tenant)
    match command:
        case CreateKey():
            return _taken("API key", command.key_id, known.keys)
        case RevokeKey():
            key = known.keys.get(command.key_id)
            is_valid = key is not None and key.tenant == command.tenant and not key.revoked_at
            return None if is_valid else _missing("API key", command.key_id)
        case DeleteEventType():
            return None if command.name in known.event_types else _missing("event type", command.name)
        case RewrapDataKey():
            return _not_rewrapped(known, command)
        case _:
            return None


def _may_be(tenants: Mapping[str, Tenant], command: CommandBase) -> bool:
    """Whether a command's tenant exists; the platform always does, and cannot be deleted."""
    if not command.tenant:
        return not isinstance(command, DeleteTenant)
    known = tenants.get(command.tenant)
    return known is not None and not known.deleted


def _missing(kind: str, id: str) -> Refusal:
    return Refusal("not_found", f"{kind} {id!r} does not exist")


def _taken(kind: str, id: str, known: Container[str]) -> Refusal | None:
    return Refusal("exists", f"{kind} {id!r} exists already") if id in known else None


def _not_rewrapped(known: Directory, command: RewrapDataKey) -> Refusal | None:
    key = known.data_keys.get(command.data_key.id)
    if key is None or key.tenant != command.tenant:
        return _missing("data key", command.data_key.id)
    if key.master_key_id != command.expected_master_key_id:
        return Refusal("conflict", f"data key {key.id!r} has changed since")
    return None


def ending(
    known: Directory, endpoints: Iterable[Endpoint], command: DeleteTenant, now: int
) -> list[EndpointDeleted | KeyRevoked]:
    """Return what ends with a tenant: its endpoints, then its keys."""
    base = (command.command_id, command.tenant, command.actor, now)
    gone = [decide_endpoint(each, DeleteEndpoint(*base, each.id), now) for each in endpoints]
    keys = [key for key in known.keys.values() if key.tenant == command.tenant and not key.revoked_at]
    deleted = [fact for fact in gone if isinstance(fact, EndpointDeleted)]
    return [*deleted, *(KeyRevoked(*base, key.id) for key in keys)]


def tenant_after(tenant: Tenant | None, fact: TenantCreated | TenantDeleted) -> Tenant:
    """Fold a fact into a tenant; one that was deleted stays so."""
    known = tenant or Tenant(fact.tenant, created_at=fact.at)
    if isinstance(fact, TenantCreated):
        return known if tenant else replace(known, name=fact.name)
    return replace(known, deleted=True)


def key_after(key: ApiKey | None, fact: KeyCreated | KeyRevoked) -> ApiKey:
    """Fold a fact into an API key; one that was revoked stays so, and keeps no digest."""
    if isinstance(fact, KeyCreated):
        chosen = (fact.scopes, fact.digest, fact.description, fact.expires_at)
        return key or ApiKey(fact.key_id, fact.tenant, *chosen, created_at=fact.at)
    if key is None:
        raise ValueError(f"KeyRevoked for {fact.key_id!r}, which was never created")
    return replace(key, digest=b"", revoked_at=key.revoked_at or fact.at)


def event_type_after(fact: EventTypePut) -> EventType:
    """Return the event type as a fact states it, in full."""
    return EventType(fact.name, fact.description, fact.schema, fact.example, fact.at)
