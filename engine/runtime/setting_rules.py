"""What the text of settings must be like; the ValueErrors say the rule, whoever shows them the value."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from engine.core.duration import format_duration, parse_duration
from engine.core.routing import is_tenant

NEVER = "none"
TIERS_MAX = 50
TIER_MIN_US, TIER_MAX_US = 1_000_000, 30 * 86_400_000_000
"""The longest delay of a retry policy."""
_SPAN_MAX_US = 3_650 * 86_400_000_000
_PORT_MAX = 65_535
_SERVER = re.compile(r"([A-Z_]+://)?(\[[0-9A-Fa-f:.]+\]|[^\s:/,\[\]]+)(:(?P<port>[0-9]{1,5}))?")
_ADDRESS = re.compile("[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]+@[A-Za-z0-9.-]+")
_PROGRAM = re.compile(r"(?P<name>[a-z0-9._-]+)=https?://\S+")
_KAFKA_NAME = re.compile("[A-Za-z0-9._-]*")
_KAFKA_NAME_MAX = 200
"""A topic's, a member's or a transaction's may have 249 characters; the rest is for what we add."""


def _servers(text: str) -> str:
    found = [_SERVER.fullmatch(part.strip()) for part in text.split(",")]
    if not all(each and 0 < int(each["port"] or 9092) <= _PORT_MAX for each in found):
        raise ValueError("must be host:port, comma-separated")
    return text


def _host(text: str) -> str:
    if re.fullmatch(r"[^\s/]+", text) is None:
        raise ValueError("must be a host name or an address")
    return text


def _host_or_none(text: str) -> str:
    return _host(text) if text else text


def _url(text: str) -> str:
    try:
        parsed = urlsplit(text)
        is_sound = parsed.scheme in ("http", "https") and bool(parsed.hostname) and parsed.port != 0
    except ValueError:
        is_sound = False
    if not is_sound:
        raise ValueError("must be a URL such as http://127.0.0.1:8123")
    return text


def _kafka_name(text: str) -> str:
    if _KAFKA_NAME.fullmatch(text) is None or len(text) > _KAFKA_NAME_MAX:
        raise ValueError(f"must be at most {_KAFKA_NAME_MAX} of the characters A-Z a-z 0-9 . _ -")
    return text


def _instance(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    return _kafka_name(text)


def _database(text: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", text) is None:
        raise ValueError("must be at most 100 letters, digits and underscores, not beginning with a digit")
    return text


def _tenant_or_none(text: str) -> str:
    if text and not is_tenant(text):
        raise ValueError("must be a tenant's id")
    return text


def _address(text: str) -> str:
    if _ADDRESS.fullmatch(text) is None:
        raise ValueError("must be an address such as ops@example.com")
    return text


def _tenants_addresses(parts: tuple[str, ...]) -> tuple[str, ...]:
    pairs = [part.partition("=") for part in parts]
    if not all(tenant and _ADDRESS.fullmatch(address) for tenant, _, address in pairs):
        raise ValueError("must be tenant=address, such as acme=ops@acme.example")
    if len({tenant for tenant, _, _ in pairs}) < len(pairs):
        raise ValueError("must name each tenant once")
    return parts


def _programs(parts: tuple[str, ...]) -> tuple[str, ...]:
    found = [_PROGRAM.fullmatch(part) for part in parts]
    names = {"api", *(each["name"] for each in found if each)}  # `api` is what the API calls itself
    if len(names) <= len(parts):
        raise ValueError("must be name=URL, each name once, and none of them api")
    return parts


def _span(text: str) -> str:
    if not 0 <= parse_duration(text) <= _SPAN_MAX_US:
        raise ValueError("must be at most 3650d")
    return text


def _span_or_never(text: str) -> str:
    if text != NEVER and parse_duration(_span(text)) < TIER_MIN_US:
        raise ValueError(f"must be at least 1s, or {NEVER}")
    return text


def _ladder(tiers: tuple[str, ...]) -> tuple[str, ...]:
    delays = [parse_duration(tier) for tier in tiers]
    is_ascending = 0 < len(delays) <= TIERS_MAX and delays == sorted(set(delays))
    if not is_ascending or delays[0] < TIER_MIN_US or delays[-1] > TIER_MAX_US:
        raise ValueError(f"must be 1 to {TIERS_MAX} durations of 1s to 30d, each longer than the last")
    return tuple(format_duration(delay) for delay in delays)


def _ladder_or_none(tiers: tuple[str, ...]) -> tuple[str, ...]:
    return _ladder(tiers) if tiers else tiers


Servers = Annotated[str, AfterValidator(_servers)]
Host = Annotated[str, AfterValidator(_host)]
HostOrNone = Annotated[str, AfterValidator(_host_or_none)]
Url = Annotated[str, AfterValidator(_url)]
Prefix = Annotated[str, AfterValidator(_kafka_name)]
Instance = Annotated[str, AfterValidator(_instance)]
Database = Annotated[str, AfterValidator(_database)]
TenantOrNone = Annotated[str, AfterValidator(_tenant_or_none)]
Address = Annotated[str, AfterValidator(_address)]
TenantsAddresses = Annotated[tuple[str, ...], AfterValidator(_tenants_addresses)]
Programs = Annotated[tuple[str, ...], AfterValidator(_programs)]
Span = Annotated[str, AfterValidator(_span)]
SpanOrNever = Annotated[str, AfterValidator(_span_or_never)]
Ladder = Annotated[tuple[str, ...], AfterValidator(_ladder)]
LadderOrNone = Annotated[tuple[str, ...], AfterValidator(_ladder_or_none)]
Port = Annotated[int, Field(ge=1, le=_PORT_MAX)]
PortOrAny = Annotated[int, Field(ge=0, le=_PORT_MAX)]
