"""Changes of an endpoint: what was asked (commands), what happened (facts), and what both carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

REMEMBERED_US = 24 * 3_600_000_000
"""How long a command's id is remembered, so that a repeat changes nothing; microseconds."""


@dataclass(frozen=True, slots=True)
class SealedHeaders:
    """The values of an endpoint's own headers, all together, under its tenant's data key."""

    data_key_id: str
    nonce: bytes
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """What a person chooses about an endpoint; None is the profile's default (event types: all)."""

    url: str
    event_types: tuple[str, ...] | None = None
    profile: str = "standard"
    headers: Mapping[str, str] = field(default_factory=dict)
    """By name; their values are empty when they are in `sealed_headers`."""
    description: str = ""
    retry_policy: tuple[int, ...] | None = None
    """Delays before each retry, milliseconds."""
    timeout_ms: int | None = None
    rate_limit: float | None = None
    sealed_headers: SealedHeaders | None = None
    """None: there are no headers, or an older hooklog wrote their values in the clear."""


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A signing secret under its tenant's data key; signs from `effective_at` to `expires_at` (0: no end)."""

    version: int
    data_key_id: str
    nonce: bytes
    ciphertext: bytes
    effective_at: int = 0
    expires_at: int = 0


@dataclass(frozen=True, slots=True)
class CommandBase:
    """What every command carries; `actor` is who asks."""

    command_id: str
    tenant: str
    actor: str
    requested_at: int


@dataclass(frozen=True, slots=True)
class _Command(CommandBase):
    endpoint_id: str


@dataclass(frozen=True, slots=True)
class CreateEndpoint(_Command):
    """Asks for a new endpoint."""

    settings: EndpointSettings
    enabled: bool
    secret: SealedSecret


@dataclass(frozen=True, slots=True)
class UpdateEndpoint(_Command):
    """Asks to change the settings named in `fields`, if it still has the version expected (when given)."""

    fields: tuple[str, ...]
    settings: EndpointSettings
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class EnableEndpoint(_Command):
    """Asks to enable an endpoint, if it still has the version expected (when given)."""

    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class DisableEndpoint(_Command):
    """Asks to disable an endpoint, if it still has the epoch and the version expected (when given)."""

    reason: str
    expected_epoch: int | None = None
    expected_version: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteEndpoint(_Command):
    """Asks to delete an endpoint."""


@dataclass(frozen=True, slots=True)
class RotateSecret(_Command):
    """Asks for a new signing secret; the old one signs on for `overlap_us` microseconds."""

    secret: SealedSecret
    overlap_us: int


Command = CreateEndpoint | UpdateEndpoint | EnableEndpoint | DisableEndpoint | DeleteEndpoint | RotateSecret


@dataclass(frozen=True, slots=True)
class FactBase:
    """What every fact of a change carries."""

    command_id: str
    tenant: str
    actor: str
    at: int


@dataclass(frozen=True, slots=True)
class _Fact(FactBase):
    endpoint_id: str
    version: int


@dataclass(frozen=True, slots=True)
class EndpointCreated(_Fact):
    """An endpoint was created."""

    settings: EndpointSettings
    enabled: bool
    secret: SealedSecret


@dataclass(frozen=True, slots=True)
class EndpointUpdated(_Fact):
    """Settings were changed; `settings` are all of them afterwards."""

    fields: tuple[str, ...]
    settings: EndpointSettings


@dataclass(frozen=True, slots=True)
class EndpointEnabled(_Fact):
    """An endpoint was enabled."""


@dataclass(frozen=True, slots=True)
class EndpointDisabled(_Fact):
    """An endpoint was disabled; its epoch went up."""

    reason: str


@dataclass(frozen=True, slots=True)
class EndpointDeleted(_Fact):
    """An endpoint was deleted with its secrets."""


@dataclass(frozen=True, slots=True)
class SecretRotated(_Fact):
    """A new secret signs from its `effective_at` on; the old ones end `overlap_us` microseconds later."""

    secret: SealedSecret
    overlap_us: int


RejectionCode = Literal[
    "not_found", "exists", "deleted", "conflict", "already", "invalid", "too_often", "too_many", "unopenable"
]
"""Why a command was refused, for programs; `conflict`: what it was based on has changed since."""


class Refusal(NamedTuple):
    """Why a command is refused: for programs, and in words."""

    code: RejectionCode
    reason: str


@dataclass(frozen=True, slots=True)
class CommandRejected(FactBase):
    """A command was refused; nothing changed."""

    endpoint_id: str
    command: str
    reason: str
    code: str = ""
    """A `RejectionCode`, or one of a newer hooklog; empty: an older one wrote it."""


EndpointFact = (
    EndpointCreated | EndpointUpdated | EndpointEnabled | EndpointDisabled | EndpointDeleted | SecretRotated
)
