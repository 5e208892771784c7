"""Values as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from engine.core.model import ERROR_CLASSES

HistoryRow = Mapping[str, object]
"""A delivery or an attempt by its columns, in the history's shape or the API's."""

_UNITS_MS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000))
_BECAUSE = {
    "dns": "the host's name is not known",
    "connect": "nobody answered at that address",
    "tls": "there was no secure connection",
    "timeout": "no answer came in time",
    "reset": "the connection was closed",
    "protocol": "the answer was not HTTP",
    "blocked": "requests may not go to that address",
    "circuit_open": "its circuit was open",
    "expired": "it had waited longer than its retries take",
}
_EXHAUSTED = "all its tries are used up"
_REASONS: Mapping[str, str] = {
    "gone": "the receiver says that it is gone (410)",
    "disabled": "the endpoint is disabled",
    "deleted": "the endpoint was deleted",
    "aborted": "the receiver asked for no more of this message",
    "undecodable": "its payload does not fit the profile",
    "too_large": "its body is too large",
    "circuit_open": "the endpoint failed for so long that nothing was sent",
    "expired": "it waited longer than all its retries would have taken",
}
_PICTURES = {n: chr(0x2400 + n) for n in range(0x20) if chr(n) not in "\t\n\r"} | {0x7F: "\u2421"}
_DIRECTIONS = dict.fromkeys((*range(8234, 8239), *range(8294, 8298)), "�")
"""Characters that turn the direction of text could make it read as what it is not."""


def number(value: object) -> str:
    """12345 -> `12,345`; up to 2 digits after the point for what is small."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{int(float(str(value))):,}"


def percent(share: float | None) -> str:
    """0.99954 -> `99.95 %`; never rounded up to 100; a dash for none."""
    if share is None:
        return "\u2013"
    shown = 100 * share
    return "100 %" if share == 1 else f"{min(shown, 99.99):.2f} %"


def milliseconds(value: object) -> str:
    """A duration of that many milliseconds: `850 ms`, `2.4 s`, `2 m 5 s`."""
    ms = float(str(value))
    if ms < 1_000:
        return f"{ms:.3g} ms" if ms < 10 else f"{ms:.0f} ms"
    if ms < 10_000:
        return f"{ms / 1_000:.1f} s".replace(".0 s", " s")
    parts: list[str] = []
    left = round(ms / 1_000) * 1_000
    for unit, each in _UNITS_MS:
        if left >= each and len(parts) < 2:
            parts.append(f"{left // each} {unit}")
        left %= each
    return " ".join(parts)


def size(value: object) -> str:
    """A number of bytes: `512 B`, `1.5 KiB`."""
    found = int(str(value))
    if found < 1_024:
        return f"{found} B"
    return f"{found / 1_024:.1f} KiB" if found < 1 << 20 else f"{found / (1 << 20):.1f} MiB"


def visible(text: str) -> str:
    """Text with what nobody would see made visible: control characters as their pictures."""
    return text.translate(_PICTURES | _DIRECTIONS)


def time_of(value: object) -> datetime | None:
    """A time of the history, of the API (RFC 3339) or microseconds since 1970 -> a datetime."""
    if value in (None, "", 0):
        return None
    if isinstance(value, datetime):
        return value
    if isinstance(value, int):
        return datetime.fromtimestamp(value / 1e6, UTC)
    return datetime.fromisoformat(str(value))


def iso(value: object) -> str:
    """A time for machines, UTC, to the millisecond."""
    at = time_of(value)
    return "" if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def moment(value: object) -> str:
    """A time for people, UTC, as it stands before a script puts it into their zone."""
    at = time_of(value)
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def sentence(text: str) -> str:
    """A clause as a sentence: its first letter large, and an end if it has none."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!", "…")) else ".")


def decided(attempt: HistoryRow) -> str:
    """What was decided after an attempt, and why: `retry in 2 m, because it answered 503`."""
    match str(attempt["decision"]):
        case "delivered":
            return f"delivered: {_answered(attempt)}"
        case "retry":
            return f"retry in {_until_next(attempt)}, because {because(attempt)}"
        case "failed":
            return f"given up, because {reason(str(attempt['reason']))}; the last time {because(attempt)}"
        case _:
            return f"skipped, because {reason(str(attempt['reason']))}"


def because(attempt: HistoryRow) -> str:
    """Why an attempt, or the last attempt of a delivery, failed, as a clause."""
    status = int(str(attempt["status_code"]))
    return _answered(attempt) if status else _BECAUSE.get(str(attempt["error_class"]), "there was no answer")


def is_exhausted(name: str) -> bool:
    """Whether a reason says that the tries are used up: then it is the last one's error class."""
    return name not in _REASONS and name in ERROR_CLASSES


def reason(name: str) -> str:
    """Why a delivery ended, as a clause; most error classes mean that its tries are used up."""
    if is_exhausted(name):
        return _EXHAUSTED
    return _REASONS.get(name, name or "no reason is recorded")


def standing(delivery: HistoryRow) -> str:
    """Where a delivery stands, in a few words; empty where its status says all."""
    match str(delivery["status"]):
        case "failed" | "skipped":
            return reason(str(delivery["reason"]))
        case "pending" if delivery["error_class"]:
            return because(delivery)
        case _:
            return ""


def _answered(attempt: HistoryRow) -> str:
    return f"it answered {attempt['status_code']}"


def _until_next(attempt: HistoryRow) -> str:
    due, began = time_of(attempt["next_attempt_at"]), time_of(attempt["attempted_at"])
    if due is None or began is None:
        return "a while"
    return milliseconds(max((due - began).total_seconds() * 1_000 - float(str(attempt["duration_ms"])), 0))
