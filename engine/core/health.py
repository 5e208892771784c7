"""An endpoint's health: a fold of its attempts, and what follows from it.

A *streak* is the failures since the last success, all of one version of the endpoint:
a changed endpoint gets its whole time anew. Times are when attempts ended, so one that
comes late (its process froze) counts where it belongs, and whatever order attempts come
in, a streak never seems longer than it was. Every transition is in this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from engine.core.model import AttemptFinished, Result

GATHER_US = 60_000_000
"""A digest waits so long after the first exhausted delivery: trouble rarely ends just one."""
DIGEST_US = 3_600_000_000
"""At most one digest an endpoint in so long."""

Due = Literal["recovered", "disable", "warn", "digest"]


@dataclass(frozen=True, slots=True)
class Rule:
    """When a failing endpoint is warned about and disabled; microseconds, None: never."""

    disable_after_us: int | None
    warn_after_us: int | None
    apart_us: int
    """Two failures of the streak must be so far apart: an endpoint that got nothing has shown nothing."""


NEVER = Rule(None, None, 0)


@dataclass(frozen=True, slots=True)
class Seen:
    """What of an attempt matters here. `at` is when it ended; `version` 0 is unknown."""

    at: int
    outcome: Result
    version: int = 0
    error_class: str = ""
    status_code: int = 0
    request_bytes: int = 0
    is_exhausted: bool = False
    accepted_at: int = 0
    offset: int = 0
    """Of its record."""


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """Full snapshot of what is known of an endpoint's health; kept while `is_notable`."""

    endpoint_id: str
    tenant: str = ""
    version: int = 0
    """Of the endpoint, that the streak is about."""
    since: int = 0
    """First failure since the last success; 0: there is none."""
    failed_at: int = 0
    failures: int = 0
    """In the streak."""
    error_classes: Mapping[str, int] = field(default_factory=dict)
    """Of the streak's failures, and how many."""
    error_class: str = ""
    status_code: int = 0
    request_bytes: int = 0
    """Of the last failure, like the two before."""
    succeeded_at: int = 0
    """Last success that is remembered; 0: none."""
    warned_at: int = 0
    asked_version: int = 0
    """Version of the endpoint whose disabling was asked for; 0: none."""
    trouble_since: int = 0
    """People were told of trouble that began then, and not yet of its end; 0: nothing is open."""
    exhausted: int = 0
    """Deliveries that ended failed and that no digest has told of."""
    exhausted_since: int = 0
    exhausted_from: int = 0
    """When the oldest of their messages was accepted."""
    digest_at: int = 0
    offset: int = 0
    """Of the last attempt folded, on the endpoint's partition of `attempts`."""


def seen_of(attempt: AttemptFinished, offset: int) -> Seen:
    """Return what of an attempt's record, at its offset, matters here."""
    return Seen(
        attempt.attempted_at + attempt.duration_us,
        attempt.outcome,
        attempt.endpoint_version,
        attempt.error_class,
        attempt.status_code,
        attempt.request_bytes,
        attempt.decision == "failed",
        attempt.accepted_at,
        offset,
    )


def fold(health: EndpointHealth, seen: Seen, now: int) -> EndpointHealth:
    """Take in one attempt; `now` is when its record was appended. A delivery may end without a request."""
    if seen.outcome != "none":
        health = _of_version(health, seen.version)
        health = _succeeded(health, seen) if seen.outcome == "success" else _failed(health, seen)
    if seen.is_exhausted:
        health = _exhausted(health, seen, now)
    return health if health.offset == seen.offset else replace(health, offset=seen.offset)


def _of_version(health: EndpointHealth, version: int) -> EndpointHealth:
    """Begin anew with a changed endpoint.

    Disabling makes one version and enabling the next, so an attempt at the very next one says
    that the disabling that was asked for was refused: somebody had changed the endpoint.
    """
    if version <= health.version:
        return health
    refused = health.asked_version and version == health.asked_version + 1 and not health.warned_at
    return replace(
        _without_streak(health),
        version=version,
        asked_version=0,
        trouble_since=0 if refused else health.trouble_since,
    )


def _without_streak(health: EndpointHealth) -> EndpointHealth:
    return replace(health, since=0, failures=0, error_classes={}, warned_at=0)


def _succeeded(health: EndpointHealth, seen: Seen) -> EndpointHealth:
    at = max(health.succeeded_at, seen.at)
    if health.since and seen.at >= health.since:
        health = _after(health, seen.at)
    return replace(health, succeeded_at=at)


def _after(health: EndpointHealth, at: int) -> EndpointHealth:
    """The streak as it is after a success: over, or no longer than the one failure known to be later."""
    ended = _without_streak(health)
    if at >= health.failed_at:
        return ended
    last = {health.error_class: 1}
    return replace(ended, since=health.failed_at, failures=1, error_classes=last)


def _failed(health: EndpointHealth, seen: Seen) -> EndpointHealth:
    is_old = 0 < seen.version < health.version
    if is_old or seen.at <= health.succeeded_at:
        return health
    is_last = seen.at >= health.failed_at
    return replace(  # once: it is most of what a failed attempt costs here
        health,
        since=min(health.since or seen.at, seen.at),
        failures=health.failures + 1,
        error_classes=_counted(health.error_classes, seen.error_class),
        failed_at=seen.at if is_last else health.failed_at,
        error_class=seen.error_class if is_last else health.error_class,
        status_code=seen.status_code if is_last else health.status_code,
        request_bytes=seen.request_bytes if is_last else health.request_bytes,
        offset=seen.offset,
    )


def _counted(counts: Mapping[str, int], error_class: str) -> Mapping[str, int]:
    return {**counts, error_class: counts.get(error_class, 0) + 1}


def _exhausted(health: EndpointHealth, seen: Seen, now: int) -> EndpointHealth:
    oldest = min(health.exhausted_from or seen.accepted_at, seen.accepted_at)
    health = replace(
        health,
        exhausted=health.exhausted + 1,
        exhausted_since=health.exhausted_since or now,
        exhausted_from=oldest,
    )
    if seen.outcome != "none" or health.since:
        return health
    return replace(health, error_class=seen.error_class, status_code=0)


def gone(health: EndpointHealth, version: int, at: int) -> EndpointHealth | None:
    """After an answer that disables this version: disabling is to be asked for; None if it need not be."""
    if version <= health.asked_version or version < health.version:
        return None
    return replace(told(health, "disable", at), version=version, asked_version=version)


def due(health: EndpointHealth, rule: Rule, now: int) -> tuple[Due, ...]:
    """What is to be said or asked now."""
    found: list[Due] = []
    if health.trouble_since and not health.since and not health.asked_version:
        found.append("recovered")
    if _has_failed_for(health, rule.disable_after_us, rule, now):
        found.append("disable")
    elif not health.warned_at and _has_failed_for(health, rule.warn_after_us, rule, now):
        found.append("warn")
    if health.exhausted and now >= max(health.exhausted_since + GATHER_US, health.digest_at + DIGEST_US):
        found.append("digest")
    return tuple(found)


def _has_failed_for(health: EndpointHealth, span_us: int | None, rule: Rule, now: int) -> bool:
    if not health.since or health.asked_version or span_us is None:
        return False
    return now - health.since >= span_us and health.failed_at - health.since >= rule.apart_us


def told(health: EndpointHealth, what: Due, now: int) -> EndpointHealth:
    """The same once that is said or asked."""
    open_since = health.trouble_since or health.since or now
    match what:
        case "recovered":
            return replace(health, trouble_since=0)
        case "disable":
            return replace(health, asked_version=health.version, trouble_since=open_since)
        case "warn":
            return replace(health, warned_at=now, trouble_since=open_since)
        case "digest":
            return replace(health, exhausted=0, exhausted_since=0, exhausted_from=0, digest_at=now)


def standing(health: EndpointHealth) -> Literal["well", "failing", "warned", "disabled"]:
    """How it is doing, and what was done about it; `disabled`: that was asked for."""
    if health.asked_version:
        return "disabled"
    if not health.since:
        return "well"
    return "warned" if health.warned_at else "failing"


def is_notable(health: EndpointHealth, now: int) -> bool:
    """Whether it says more than that the endpoint is healthy."""
    is_open = health.since or health.trouble_since or health.asked_version or health.exhausted
    return bool(is_open) or now < health.digest_at + DIGEST_US
