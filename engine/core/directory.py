"""What `directory` holds: tenants, data keys, API keys, the catalogue of event types; and how it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from engine.core.change import CommandBase, FactBase

Scope = Literal["admin", "manage", "publish", "read"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
EntryKind = Literal["tenant", "data_key", "api_key", "event_type", "replay"]
"""What a snapshot on `directory` is of; replays are the replayer's, all else is control's."""
_KINDS: Mapping[str, EntryKind] = {kind: kind for kind in get_args(EntryKind)}


def directory_key(kind: EntryKind, id: str) -> str:
    """Key of a snapshot on `directory`, as text."""
    return f"{kind}:{id}"


def parse_directory_key(key: str) -> tuple[EntryKind, str] | None:
    """Undo `directory_key`; None if the kind is unknown."""
    name, _, id = key.partition(":")
    kind = _KINDS.get(name)
    return None if kind is None else (kind, id)


@dataclass(frozen=True, slots=True)
class Tenant:
    """Full snapshot of one tenant."""

    id: str
    name: str = ""
    created_at: int = 0
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class DataKey:
    """A tenant's data key, wrapped by the master key."""

    id: str
    tenant: str
    master_key_id: str
    nonce: bytes
    wrapped: bytes
    created_at: int = 0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Full snapshot of one API key; of the key itself only its SHA-256."""

    id: str
    tenant: str = ""
    """Tenant it is bound to; empty: the platform's."""
    scopes: tuple[str, ...] = ()
    digest: bytes = b""
    description: str = ""
    expires_at: int = 0
    """Microseconds since 1970 UTC; 0: never."""
    created_at: int = 0
    revoked_at: int = 0


@dataclass(frozen=True, slots=True)
class EventType:
    """Full snapshot of one event type of the catalogue; schema and example are JSON, or empty."""

    name: str
    description: str = ""
    schema: str = ""
    example: str = ""
    updated_at: int = 0


@dataclass(frozen=True, slots=True)
class CreateTenant(CommandBase):
    """Asks for a new tenant."""

    name: str


@dataclass(frozen=True, slots=True)
class DeleteTenant(CommandBase):
    """Asks to delete a tenant with its endpoints, keys and secrets."""


@dataclass(frozen=True, slots=True)
class CreateKey(CommandBase):
    """Asks for a new API key, bound to the command's tenant unless that is empty."""

    key_id: str
    scopes: tuple[str, ...]
    digest: bytes
    description: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class RevokeKey(CommandBase):
    """Asks to revoke an API key."""

    key_id: str


@dataclass(frozen=True, slots=True)
class PutEventType(CommandBase):
    """Asks to make or replace an event type of the catalogue."""

    name: str
    description: str
    schema: str
    example: str


@dataclass(frozen=True, slots=True)
class DeleteEventType(CommandBase):
    """Asks to take an event type out of the catalogue."""

    name: str


@dataclass(frozen=True, slots=True)
class RewrapDataKey(CommandBase):
    """Asks to replace a data key's wrapping, if it is still under the master key expected."""

    expected_master_key_id: str
    data_key: DataKey


@dataclass(frozen=True, slots=True)
class TenantCreated(FactBase):
    """A tenant was created, by its route or by its first endpoint."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class TenantDeleted(FactBase):
    """A tenant was deleted; its data key is shredded."""


@dataclass(frozen=True, slots=True)
class KeyCreated(FactBase):
    """An API key was made."""

    key_id: str
    scopes: tuple[str, ...]
    digest: bytes
    description: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class KeyRevoked(FactBase):
    """An API key was revoked."""

    key_id: str


@dataclass(frozen=True, slots=True)
class EventTypePut(FactBase):
    """An event type of the catalogue was made or replaced."""

    name: str
    description: str
    schema: str
    example: str


@dataclass(frozen=True, slots=True)
class EventTypeDeleted(FactBase):
    """An event type was taken out of the catalogue."""

    name: str


@dataclass(frozen=True, slots=True)
class DataKeyRewrapped(FactBase):
    """A data key is wrapped by another master key."""

    data_key_id: str
    master_key_id: str


DirectoryCommand = (
    CreateTenant | DeleteTenant | CreateKey | RevokeKey | PutEventType | DeleteEventType | RewrapDataKey
)
DirectoryFact = (
    TenantCreated
    | TenantDeleted
    | KeyCreated
    | KeyRevoked
    | EventTypePut
    | EventTypeDeleted
    | DataKeyRewrapped
)
