"""When the next attempt is due, and the ladder of delay topics it waits on.

Any schedule works on a fixed ladder: a retry due in D enters the largest tier
of at most D and hops down until D is over. What is due within the smallest
tier waits on `retry.0`, ordered by due time. The due time itself is absolute
and fixed once, so hopping never makes a try early.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from engine.core.model import Policy

RETRY_AFTER_MAX_US = 24 * 3_600_000_000
JITTER_MAX = 0.10


def next_attempt_at(policy: Policy, attempt: int, now: int, retry_after_us: int, jitter: float) -> int | None:
    """When attempt + 1 is due; None when the schedule is used up. `jitter` is in [0, 1)."""
    if attempt > len(policy.delays_us):
        return None
    delay = policy.delays_us[attempt - 1]
    spread = int(delay * JITTER_MAX * jitter)
    return now + max(delay + spread, min(retry_after_us, RETRY_AFTER_MAX_US))


def parse_retry_after(value: str, now: int) -> int:
    """Return the wait, microseconds, that Retry-After asks for (RFC 9110, 10.2.3); 0 if none."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return int(min(float(text) * 1_000_000, RETRY_AFTER_MAX_US))  # int() refuses 4,300 digits
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):  # the last of numbers that C's `int` does not hold
        return 0
    if until.tzinfo is None:  # the asctime form, which is in UTC too
        until = until.replace(tzinfo=UTC)
    return min(max(int(until.timestamp() * 1_000_000) - now, 0), RETRY_AFTER_MAX_US)


def tier_for(remaining_us: int, tiers_us: tuple[int, ...]) -> int:
    """Return the largest tier that is over in time, microseconds; 0 if even the smallest is too long."""
    return max((tier for tier in tiers_us if tier <= remaining_us), default=0)
