"""A notice: a fact that people are told, by mail and by operational webhooks; and its words.

Its id is derived from what it tells, so that whoever meets it twice knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

from engine.core.diagnosis import likely_cause
from engine.core.health import EndpointHealth
from engine.core.template import rfc3339

NoticeKind = Literal["exhausted", "warned", "disabled", "recovered"]
EVENT_TYPES: Mapping[NoticeKind, str] = {
    "exhausted": "hooklog.delivery.exhausted",
    "warned": "hooklog.endpoint.warned",
    "disabled": "hooklog.endpoint.disabled",
    "recovered": "hooklog.endpoint.recovered",
}
"""Event types of the operational webhooks."""
_LINE_MAX = 300


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that people are told about an endpoint. Times are 0 where they do not apply."""

    id: str
    kind: NoticeKind
    tenant: str
    endpoint_id: str
    at: int
    url: str = ""
    since: int = 0
    """When the trouble began; of `exhausted`, when the oldest of the messages was accepted."""
    failures: int = 0
    """Since then."""
    exhausted: int = 0
    """Deliveries that ended failed, of `exhausted`."""
    error_classes: Mapping[str, int] = field(default_factory=dict)
    error_class: str = ""
    status_code: int = 0
    request_bytes: int = 0
    succeeded_at: int = 0
    disable_at: int = 0
    """Of `warned`: when it will be disabled; 0: never."""
    reason: str = ""
    """Of `disabled`."""


def notice_id(kind: NoticeKind, endpoint_id: str, *marks: int) -> str:
    """Id of the notice that tells this about an endpoint; `marks` tell one such notice from the next."""
    name = ":".join((kind, endpoint_id, *map(str, marks)))
    return "ntc_" + blake2b(name.encode(), digest_size=12).hexdigest()


def notice_of(kind: NoticeKind, health: EndpointHealth, now: int) -> Notice:
    """Return the notice that an endpoint's health calls for."""
    began = health.exhausted_from if kind == "exhausted" else health.since or health.trouble_since
    marks = (began, health.exhausted_since if kind == "exhausted" else health.version)
    return Notice(
        notice_id(kind, health.endpoint_id, *marks),
        kind,
        health.tenant,
        health.endpoint_id,
        now,
        since=began,
        failures=health.failures,
        exhausted=health.exhausted,
        error_classes=health.error_classes,
        error_class=health.error_class,
        status_code=health.status_code,
        request_bytes=health.request_bytes,
        succeeded_at=health.succeeded_at,
    )


def cause_of(notice: Notice) -> str:
    """The likely cause in words; empty if none is known."""
    return likely_cause(notice.error_class, notice.status_code, notice.request_bytes)


def last_failure(error_class: str, status_code: int) -> str:
    """`http_5xx (HTTP 503)`, `timeout`."""
    return f"{error_class} (HTTP {status_code})" if status_code else error_class


# -- the mail --------------------------------------------------------------------------


def subject(notice: Notice) -> str:
    """The mail's subject, one line."""
    said = {
        "exhausted": f"{_deliveries(notice.exhausted)} given up",
        "warned": "keeps failing",
        "disabled": "is disabled",
        "recovered": "works again",
    }[notice.kind]
    return _line(f"[hooklog] {notice.tenant}: endpoint {notice.endpoint_id}: {said}")


def text(notice: Notice) -> str:
    """The mail's text."""
    told = (_head(notice), _WHAT[notice.kind](notice), _why(notice), _todo(notice))
    return "\n\n".join(part for part in told if part) + f"\n\n-- \nnotice {notice.id}\n"


def _head(notice: Notice) -> str:
    at = f"\nURL:      {_line(notice.url)}" if notice.url else ""
    return f"Endpoint: {_line(notice.endpoint_id)}\nTenant:   {_line(notice.tenant)}{at}"


def _exhausted(notice: Notice) -> str:
    return (
        f"{_deliveries(notice.exhausted)} to this endpoint failed for good: all tries are used up, or they "
        f"waited for too long. The oldest of the messages was accepted at {_time(notice.since)}."
    )


def _warned(notice: Notice) -> str:
    planned = f" It will be disabled at {_time(notice.disable_at)} unless a request succeeds before."
    return (
        f"Every request to this endpoint has failed since {_time(notice.since)}: {notice.failures} in all."
        f"{_last_success(notice)}{planned if notice.disable_at else ''}"
    )


def _disabled(notice: Notice) -> str:
    reason = (
        "its receiver answered that it wants no more requests" if notice.reason == "gone" else notice.reason
    )
    return (
        f"hooklog has disabled this endpoint: {_line(reason)}. "
        "Nothing is sent to it until somebody enables it again."
    )


def _recovered(notice: Notice) -> str:
    return (
        f"A request to this endpoint has succeeded at {_time(notice.succeeded_at)}, "
        f"after trouble since {_time(notice.since)}."
    )


_WHAT = {"exhausted": _exhausted, "warned": _warned, "disabled": _disabled, "recovered": _recovered}


def _last_success(notice: Notice) -> str:
    return f" The last success was at {_time(notice.succeeded_at)}." if notice.succeeded_at else ""


def _why(notice: Notice) -> str:
    """Likely cause and counts; nothing where the trouble is over or its reason is said already."""
    if notice.kind in ("recovered", "disabled") or not notice.error_class:
        return ""
    ordered = sorted(notice.error_classes.items(), key=lambda each: (-each[1], each[0]))
    counted = ", ".join(f"{name} {count}" for name, count in ordered)
    by_error = f"\nFailures: {counted}, since the last success" if counted else ""
    last = last_failure(notice.error_class, notice.status_code)
    return f"Likely cause: {cause_of(notice) or 'not known'}.\nThe last failure: {last}{by_error}"


def _todo(notice: Notice) -> str:
    endpoint, since = _line(notice.endpoint_id), _time(notice.since)
    only = "missed" if notice.kind == "disabled" else "failed"
    replay = f'{{"endpoint": "{endpoint}", "since": "{since}", "only": "{only}"}}'
    look = _step(
        "See how it is doing", f"endpoints health {endpoint}", f"GET /v1/endpoints/{endpoint}/health"
    )
    enable = _step("Enable it again", f"endpoints enable {endpoint}", f"POST /v1/endpoints/{endpoint}/enable")
    again = _step(
        "Deliver again what it did not get",
        f"replays start --endpoint {endpoint} --since {since} --only {only}",
        f"POST /v1/replays {replay}",
    )
    steps = {
        "exhausted": ("When the receiver works again:", look, again),
        "warned": ("What to do:", look),
        "disabled": ("When the receiver works again:", enable, again),
        "recovered": ("If deliveries were given up meanwhile:", again),
    }[notice.kind]
    return "\n".join(steps)


def _step(what: str, command: str, request: str) -> str:
    """What to do, by the command line or by the API."""
    return f"  {what}:\n    hooklog {command}\n    {request}"


def _time(us: int) -> str:
    """To the second, never later."""
    return rfc3339(us // 1_000_000 * 1_000_000)


def _deliveries(count: int) -> str:
    return "1 delivery" if count == 1 else f"{count} deliveries"


def _line(words: str) -> str:
    """On one line, whatever is in it."""
    return " ".join("".join(c if c.isprintable() else " " for c in words[:_LINE_MAX]).split())
