"""The endpoint aggregate: its snapshot, and the rules between commands and facts.

`decide` turns a command into facts, `evolve` folds a fact into the snapshot.
Every change of an endpoint happens here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import assert_never

from engine.core.change import (
    Command,
    CommandRejected,
    CreateEndpoint,
    DeleteEndpoint,
    DisableEndpoint,
    EnableEndpoint,
    EndpointCreated,
    EndpointDeleted,
    EndpointDisabled,
    EndpointEnabled,
    EndpointFact,
    EndpointSettings,
    EndpointUpdated,
    SealedSecret,
    UpdateEndpoint,
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Full snapshot of one endpoint."""

    id: str
    tenant: str
    settings: EndpointSettings
    enabled: bool = True
    disabled_reason: str = ""
    deleted: bool = False
    epoch: int = 0
    version: int = 0
    secrets: tuple[SealedSecret, ...] = ()
    created_at: int = 0
    updated_at: int = 0


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


_SETTINGS = {each.name for each in fields(EndpointSettings)}
ALREADY = "it is so already"
"""Reason of a rejection that asks for nothing new."""


def decide(endpoint: Endpoint | None, command: Command, now: int) -> EndpointFact | CommandRejected:
    """Return the one fact a command leads to."""
    if isinstance(command, CreateEndpoint):
        return _create(endpoint, command, now)
    if endpoint is None or endpoint.deleted or endpoint.tenant != command.tenant:
        return reject(command, now, f"endpoint {command.endpoint_id!r} does not exist")
    base = (command.command_id, command.tenant, command.actor, now, endpoint.id, endpoint.version + 1)
    match command:
        case UpdateEndpoint():
            if unknown := set(command.fields) - _SETTINGS:
                return reject(command, now, f"there is no setting {', '.join(sorted(unknown))}")
            return EndpointUpdated(*base, command.fields, _merged(endpoint.settings, command))
        case EnableEndpoint():
            return reject(command, now, ALREADY) if endpoint.enabled else EndpointEnabled(*base)
        case DisableEndpoint():
            refused = _not_disabled(endpoint, command)
            return reject(command, now, refused) if refused else EndpointDisabled(*base, command.reason)
        case DeleteEndpoint():
            return EndpointDeleted(*base)
    assert_never(command)


def _create(
    endpoint: Endpoint | None, command: CreateEndpoint, now: int
) -> EndpointCreated | CommandRejected:
    if endpoint is not None:
        return reject(command, now, f"endpoint {command.endpoint_id!r} exists already")
    return EndpointCreated(
        command.command_id,
        command.tenant,
        command.actor,
        now,
        command.endpoint_id,
        1,
        command.settings,
        command.enabled,
        command.secret,
    )


def reject(command: Command, now: int, reason: str) -> CommandRejected:
    """Say why a command changes nothing."""
    name = type(command).__name__
    return CommandRejected(
        command.command_id, command.tenant, command.actor, now, command.endpoint_id, name, reason
    )


def _merged(settings: EndpointSettings, command: UpdateEndpoint) -> EndpointSettings:
    return replace(settings, **{name: getattr(command.settings, name) for name in command.fields})


def _not_disabled(endpoint: Endpoint, command: DisableEndpoint) -> str:
    if not endpoint.enabled:
        return ALREADY
    same_epoch = command.expected_epoch in (None, endpoint.epoch)
    same_version = command.expected_version in (None, endpoint.version)
    return "" if same_epoch and same_version else "the endpoint has changed since"


def evolve(endpoint: Endpoint | None, fact: EndpointFact) -> Endpoint:
    """Fold a fact into the snapshot; one that is already in it (by version) changes nothing."""
    if isinstance(fact, EndpointCreated):
        return endpoint or _created(fact)
    if endpoint is None:
        raise ValueError(f"{type(fact).__name__} for {fact.endpoint_id!r}, which was never created")
    if fact.version <= endpoint.version:
        return endpoint
    changed = replace(endpoint, version=fact.version, updated_at=fact.at)
    match fact:
        case EndpointUpdated():
            return replace(changed, settings=fact.settings)
        case EndpointEnabled():
            return replace(changed, enabled=True, disabled_reason="")
        case EndpointDisabled():
            return replace(changed, enabled=False, disabled_reason=fact.reason, epoch=endpoint.epoch + 1)
        case EndpointDeleted():
            return replace(changed, deleted=True, enabled=False, secrets=(), epoch=endpoint.epoch + 1)
    assert_never(fact)


def _created(fact: EndpointCreated) -> Endpoint:
    return Endpoint(
        fact.endpoint_id,
        fact.tenant,
        fact.settings,
        enabled=fact.enabled,
        version=fact.version,
        secrets=(fact.secret,),
        created_at=fact.at,
        updated_at=fact.at,
    )


def active_secrets(endpoint: Endpoint, now: int) -> list[SealedSecret]:
    """Secrets that sign at `now`, newest first."""
    secrets = [s for s in endpoint.secrets if s.effective_at <= now and not 0 < s.expires_at <= now]
    return secrets[::-1]
