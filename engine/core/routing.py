"""Which endpoints a message goes to, on which partition, under which id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from sys import intern

from engine.core.change import EndpointSettings
from engine.core.endpoint import Endpoint
from engine.core.model import MessagePublished

_MURMUR_SEED = 0x9747B28C
_MURMUR_MULTIPLIER = 0x5BD1E995
_MASK = 0xFFFFFFFF
_SHARED = 10_000
"""Subscriptions that endpoints share."""
TENANT_MAX = 128
NAME_MAX = 256
"""Characters of a message id, an event type."""


def murmur2(key: bytes) -> int:
    """32-bit MurmurHash2 as Kafka's Java client computes it (org.apache.kafka.common.utils.Utils)."""
    m, h = _MURMUR_MULTIPLIER, (_MURMUR_SEED ^ len(key)) & _MASK
    whole = len(key) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(key[i : i + 4], "little") * m & _MASK
        k = (k ^ (k >> 24)) * m & _MASK
        h = (h * m & _MASK) ^ k
    if whole < len(key):
        h = (h ^ int.from_bytes(key[whole:], "little")) * m & _MASK
    h = (h ^ (h >> 13)) * m & _MASK
    return h ^ (h >> 15)


@lru_cache(100_000)
def partition_of(key: str, partitions: int) -> int:
    """Return the partition that Java's default partitioner gives a key."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def message_key(message_id: str, tenant: str, ordering_key: str | None) -> str:
    """Key of a record on `messages`: the id, or tenant and ordering key."""
    return message_id if ordering_key is None else f"{tenant}:{ordering_key}"


def delivery_id(topic: str, partition: int, offset: int, endpoint_id: str) -> str:
    """Id of the delivery of the message at these coordinates (`topic` with its prefix) to an endpoint."""
    name = f"{topic}:{partition}:{offset}:{endpoint_id}"
    return "dlv_" + blake2b(name.encode(), digest_size=12).hexdigest()


def dedup_key(tenant: str, message_id: str) -> bytes:
    """16 bytes that stand for (tenant, id) in the window of duplicates."""
    return blake2b(f"{tenant}\0{message_id}".encode(), digest_size=16).digest()


def _is_token(text: str, *, extra: str = "") -> bool:
    return bool(text) and text.isascii() and text.isprintable() and not any(c in text for c in " " + extra)


def is_event_type(name: str) -> bool:
    """Whether an event type may be called that."""
    return _is_token(name) and len(name) <= NAME_MAX


def is_tenant(name: str) -> bool:
    """Whether a tenant may be called that."""
    return 0 < len(name) <= TENANT_MAX and name.isprintable() and name == name.strip()


def refusal(message: MessagePublished, payload_max: int) -> tuple[str, str] | None:
    """Why a message must go to `invalid`: (reason, detail); None if its envelope is sound."""
    if not message.tenant:
        return "tenant", "tenant is empty: name the customer whose endpoints are to be told"
    if not is_tenant(message.tenant):
        return "tenant", f"tenant must be at most {TENANT_MAX} printable characters, without spaces around"
    if not _is_token(message.id, extra="."):
        return "id", "id must be printable ASCII without spaces or '.'"
    if len(message.id) > NAME_MAX:
        return "id", f"id must be at most {NAME_MAX} characters"
    if not is_event_type(message.event_type):
        return "event_type", f"event_type must be 1 to {NAME_MAX} printable ASCII characters without spaces"
    if len(message.payload) > payload_max:
        return "too_large", f"payload has {len(message.payload)} bytes, more than the limit of {payload_max}"
    return None


@dataclass(frozen=True, slots=True)
class Subscription:
    """A set of event types, ready to be matched."""

    exact: frozenset[str]
    prefixes: tuple[str, ...]
    wants_all: bool


@dataclass(frozen=True, slots=True)
class Subscriber:
    """An endpoint as the router needs it: who it is and what it wants."""

    endpoint: Endpoint
    partition: int
    wants: Subscription


@lru_cache(maxsize=_SHARED)
def subscription(event_types: tuple[str, ...] | None) -> Subscription:
    """Compile a list, prefixes such as `room.*`, or all (None); endpoints with the same share it."""
    types = event_types or ()
    return Subscription(
        frozenset(t for t in types if not t.endswith("*")),
        tuple(t[:-1] for t in types if t.endswith("*")),
        event_types is None,
    )


def subscriber(endpoint: Endpoint, partitions: int) -> Subscriber:
    """Make an endpoint ready to be matched."""
    wants = subscription(endpoint.settings.event_types)
    return Subscriber(endpoint, partition_of(endpoint.id, partitions), wants)


def lean(endpoint: Endpoint) -> Endpoint:
    """Return what routing needs of an endpoint: no address, headers or secrets; half a kilobyte each."""
    settings = _settings(endpoint.settings.event_types, endpoint.settings.profile)
    tenant = intern(endpoint.tenant)
    return replace(endpoint, tenant=tenant, settings=settings, secrets=(), created_at=0, updated_at=0)


@lru_cache(maxsize=_SHARED)
def _settings(event_types: tuple[str, ...] | None, profile: str) -> EndpointSettings:
    return EndpointSettings("", event_types, profile)


def takes(wants: Subscription, event_type: str) -> bool:
    """Whether a subscription takes an event type."""
    return wants.wants_all or event_type in wants.exact or event_type.startswith(wants.prefixes)


def matches(subscriber: Subscriber, event_type: str) -> bool:
    """Whether an endpoint's subscription takes an event type."""
    return takes(subscriber.wants, event_type)


def split(subscribers: Iterable[Subscriber], event_type: str) -> tuple[list[Subscriber], list[Subscriber]]:
    """(those to deliver to, those that match and are disabled)."""
    matching = [s for s in subscribers if matches(s, event_type)]
    return [s for s in matching if s.endpoint.enabled], [s for s in matching if not s.endpoint.enabled]


class Roster:
    """Endpoints by tenant, ready to be matched: a fold of the `endpoints` topic."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._by_tenant: dict[str, dict[str, Subscriber]] = {}

    def put(self, endpoint: Endpoint) -> None:
        """Take in a snapshot; a deleted endpoint matches nothing."""
        of_tenant = self._by_tenant.setdefault(endpoint.tenant, {})
        if endpoint.deleted:
            of_tenant.pop(endpoint.id, None)
            if not of_tenant:
                del self._by_tenant[endpoint.tenant]
        else:
            of_tenant[endpoint.id] = subscriber(endpoint, self._partitions)

    def of(self, tenant: str) -> Mapping[str, Subscriber]:
        """Subscribers of a tenant by endpoint id; none of one nobody has heard of."""
        return self._by_tenant.get(tenant, {})
