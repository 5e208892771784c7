"""Durations as people write them, such as `30s`, in microseconds."""

from __future__ import annotations

import re

_DURATION = re.compile("([0-9]{1,9})(ms|s|m|h|d)")
_UNITS_US = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}


def parse_duration(text: str) -> int:
    """`"5s"`, `"2m"`, `"250ms"` -> microseconds; ValueError otherwise."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration; write a whole number and ms, s, m, h or d, such as 30s")
    return int(match[1]) * _UNITS_US[match[2]]


def format_duration(us: int) -> str:
    """Microseconds, whole milliseconds, in the largest unit that divides them: 120_000_000 -> `"2m"`."""
    for unit, size in _UNITS_US.items():
        if us % size == 0 and us:
            return f"{us // size}{unit}"
    return f"{us // 1000}ms"
