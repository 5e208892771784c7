"""The endpoint aggregate: its snapshot, and the rules between commands and facts.

`decide` turns a command into facts, `evolve` folds a fact into the snapshot.
Every change of an endpoint happens here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    Refusal,
    RotateSecret,
    SealedSecret,
    SecretRotated,
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
    rotating: bool = False
    """Whether a new secret is being decided: until that is known nothing is signed."""


ROTATES_AFTER_US = 200_000
"""How long after the decision a new secret takes over (docs/adr/0011)."""
KEPT_US = 60_000_000
"""How long an expired secret stays in the snapshot."""
DELETED_US = 30 * 86_400_000_000
"""How long the snapshot of a deleted endpoint stays, microseconds; then a tombstone follows."""
SECRETS_MAX = 20
"""Secrets in a snapshot, at most."""
_SETTINGS = {each.name for each in fields(EndpointSettings)} - {"sealed_headers"}
TOO_OFTEN = f"it has {SECRETS_MAX} secrets that still sign, or did a minute ago: wait for some to expire"
ALREADY = "it is so already"
"""Reason of a rejection that asks for nothing new."""
CHANGED = "the endpoint has changed since"


Change = UpdateEndpoint | EnableEndpoint | DisableEndpoint | RotateSecret | DeleteEndpoint
"""Commands about an endpoint that is there."""


def too_many(command: CreateEndpoint, count: int, most: int) -> Refusal | None:
    """Why a tenant that has `count` endpoints gets no more; None if it may."""
    if count < most:
        return None
    reason = (
        f"tenant {command.tenant!r} has {count} endpoints, and {most} is the most: delete what is not used,"
        " or have HOOKLOG_TENANT_ENDPOINTS_MAX raised"
    )
    return Refusal("too_many", reason)


def decide(endpoint: Endpoint | None, command: Command, now: int) -> EndpointFact | CommandRejected:
    """Return the one fact a command leads to."""
    if isinstance(command, CreateEndpoint):
        return _create(endpoint, command, now)
    if endpoint is None or endpoint.deleted or endpoint.tenant != command.tenant:
        missing = Refusal("not_found", f"endpoint {command.endpoint_id!r} does not exist")
        return reject(command, now, missing)
    refusal = _refusal(endpoint, command, now)
    return reject(command, now, refusal) if refusal else _fact(endpoint, command, now)


def _fact(endpoint: Endpoint, command: Change, now: int) -> EndpointFact:
    base = (command.command_id, command.tenant, command.actor, now, endpoint.id, endpoint.version + 1)
    match command:
        case UpdateEndpoint():
            return EndpointUpdated(*base, command.fields, _merged(endpoint.settings, command))
        case EnableEndpoint():
            return EndpointEnabled(*base)
        case DisableEndpoint():
            return EndpointDisabled(*base, command.reason)
        case RotateSecret():
            return SecretRotated(*base, _next(endpoint, command.secret, now), command.overlap_us)
        case DeleteEndpoint():
            return EndpointDeleted(*base)
    assert_never(command)


def _refusal(endpoint: Endpoint, command: Change, now: int) -> Refusal | None:
    """Why an endpoint stays as it is; None if it does not."""
    match command:
        case UpdateEndpoint():
            return _not_updated(endpoint, command)
        case EnableEndpoint():
            return _not_set(endpoint, command, is_so=endpoint.enabled)
        case DisableEndpoint():
            same_epoch = command.expected_epoch in (None, endpoint.epoch)
            refusal = _not_set(endpoint, command, is_so=not endpoint.enabled)
            return refusal if refusal or same_epoch else Refusal("conflict", CHANGED)
        case RotateSecret():
            is_full = len(_kept(endpoint.secrets, now)) >= SECRETS_MAX
            return Refusal("too_often", TOO_OFTEN) if is_full else None
        case DeleteEndpoint():
            return None
    assert_never(command)


def _not_updated(endpoint: Endpoint, command: UpdateEndpoint) -> Refusal | None:
    if unknown := set(command.fields) - _SETTINGS:
        return Refusal("invalid", f"there is no setting {', '.join(sorted(unknown))}")
    return _outdated(endpoint, command.expected_version)


def _not_set(endpoint: Endpoint, command: EnableEndpoint | DisableEndpoint, *, is_so: bool) -> Refusal | None:
    return Refusal("already", ALREADY) if is_so else _outdated(endpoint, command.expected_version)


def _outdated(endpoint: Endpoint, expected_version: int | None) -> Refusal | None:
    return None if expected_version in (None, endpoint.version) else Refusal("conflict", CHANGED)


def _create(
    endpoint: Endpoint | None, command: CreateEndpoint, now: int
) -> EndpointCreated | CommandRejected:
    if endpoint is not None:
        return reject(command, now, Refusal("exists", f"endpoint {command.endpoint_id!r} exists already"))
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


def reject(command: Command, now: int, refusal: Refusal) -> CommandRejected:
    """Say why a command changes nothing."""
    base = (command.command_id, command.tenant, command.actor, now, command.endpoint_id)
    return CommandRejected(*base, type(command).__name__, refusal.reason, refusal.code)


def next_version(endpoint: Endpoint) -> int:
    """Version that the endpoint's next secret gets; a version is never used twice."""
    return max((secret.version for secret in endpoint.secrets), default=0) + 1


def _next(endpoint: Endpoint, secret: SealedSecret, now: int) -> SealedSecret:
    """Say when a new secret, sealed as the next version, takes over; never before an earlier one did."""
    last = max((each.effective_at for each in endpoint.secrets), default=0)
    version, effective_at = next_version(endpoint), max(now + ROTATES_AFTER_US, last)
    return replace(secret, version=version, effective_at=effective_at, expires_at=0)


def _rotated(secrets: tuple[SealedSecret, ...], fact: SecretRotated) -> tuple[SealedSecret, ...]:
    """The old ones end when the overlap is over, if not before; what expired long ago goes."""
    ends_at = fact.secret.effective_at + fact.overlap_us
    ended = (replace(each, expires_at=min(each.expires_at or ends_at, ends_at)) for each in secrets)
    return (*_kept(ended, fact.at), fact.secret)


def _kept(secrets: Iterable[SealedSecret], now: int) -> tuple[SealedSecret, ...]:
    return tuple(each for each in secrets if not 0 < each.expires_at <= now - KEPT_US)


def _merged(settings: EndpointSettings, command: UpdateEndpoint) -> EndpointSettings:
    names = [*command.fields, *(["sealed_headers"] if "headers" in command.fields else [])]
    return replace(settings, **{name: getattr(command.settings, name) for name in names})


def evolve(endpoint: Endpoint | None, fact: EndpointFact) -> Endpoint:
    """Fold a fact into the snapshot; one that is already in it (by version) changes nothing."""
    if isinstance(fact, EndpointCreated):
        return endpoint or _created(fact)
    if endpoint is None:
        raise ValueError(f"{type(fact).__name__} for {fact.endpoint_id!r}, which was never created")
    if fact.version <= endpoint.version:
        return endpoint
    return _changed(replace(endpoint, version=fact.version, updated_at=fact.at), fact)


def _changed(
    endpoint: Endpoint,
    fact: EndpointUpdated | EndpointEnabled | EndpointDisabled | SecretRotated | EndpointDeleted,
) -> Endpoint:
    match fact:
        case EndpointUpdated():
            return replace(endpoint, settings=fact.settings)
        case EndpointEnabled():
            return replace(endpoint, enabled=True, disabled_reason="")
        case EndpointDisabled():
            return replace(endpoint, enabled=False, disabled_reason=fact.reason, epoch=endpoint.epoch + 1)
        case SecretRotated():
            return replace(endpoint, secrets=_rotated(endpoint.secrets, fact))
        case EndpointDeleted():
            left = replace(endpoint, secrets=(), settings=_without_headers(endpoint.settings))
            return replace(left, deleted=True, enabled=False, epoch=endpoint.epoch + 1)
    assert_never(fact)


def _without_headers(settings: EndpointSettings) -> EndpointSettings:
    """What a deleted endpoint keeps: its headers may have been credentials."""
    return replace(settings, headers={}, sealed_headers=None)


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


def is_forgotten(endpoint: Endpoint, now: int) -> bool:
    """Whether it was deleted so long ago that nobody needs to know it any more."""
    return endpoint.deleted and endpoint.updated_at <= now - DELETED_US
