"""When the next attempt is due: never early, and on any ladder of tiers."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.core.model import Policy
from engine.core.retry import JITTER_MAX, RETRY_AFTER_MAX_US, next_attempt_at, parse_retry_after, tier_for

SECOND = 1_000_000
HOUR = 3_600 * SECOND
NOW = 784_111_777 * SECOND
"""Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110."""

delays = st.lists(st.integers(0, 48 * HOUR), max_size=12).map(tuple)
jitters = st.floats(0, 1, exclude_max=True)


def policy(*delays_us: int) -> Policy:
    """A policy with this schedule."""
    return Policy(delays_us, 10 * SECOND)


# -- Retry-After ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("0000000000000000005", 5),
        ("86400", 86_400),
        ("86401", 86_400),
        ("9" * 8_000, 86_400),
        ("Sun, 06 Nov 1994 08:49:47 GMT", 10),
        ("Sunday, 06-Nov-94 08:49:47 GMT", 10),
        ("Sun Nov  6 08:49:47 1994", 10),
        ("Sun, 06 Nov 1994 09:49:47 +0100", 10),
        ("Sun, 06 Nov 1994 08:49:27 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400),
        ("Fri, 31 Dec 99999 23:59:59 GMT", 0),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", 0),
        ("Mon, 01 Jan 2030 99999999999:00:00 GMT", 0),
        ("Mon, 01 Jan 2030 00:00:00 +99999999999999999999", 0),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("+5", 0),
        ("-0", 0),
        ("1.5", 0),
        ("1e3", 0),
        ("1_000", 0),
        ("0x10", 0),
        ("5s", 0),
        ("١٢٠", 0),
        ("²", 0),
        ("120, 240", 0),
        ("06 Nov", 0),
        ("Sun, 06 Nov 1994 25:49:47 GMT", 0),
        ("Sun, 31 Feb 1995 08:49:47 GMT", 0),
        ("1994-11-06T08:49:47Z", 0),
    ],
)
def test_retry_after(value: str, seconds: int) -> None:
    """Seconds or one of HTTP's three dates; at most 24 h; anything else asks for nothing."""
    assert parse_retry_after(value, NOW) == seconds * SECOND


NUMBERS = [
    "6",
    "06",
    "94",
    "1994",
    "99999",
    "99999999999",
    "9" * 30,
    "08:99999999999",
    "06-Nov-94",
    "08:49",
    "08:49:47",
    "25:61:61",
]
WORDS = ["Sun,", "Sunday,", "Nov", "GMT", "EST", "+0100", "-9999", "+2400", "+99999999999", "(", ")"]
dates = st.lists(st.sampled_from(NUMBERS + WORDS), max_size=8).map(" ".join)


@given(
    st.text() | st.text("0123456789", max_size=5_000) | dates,
    st.integers(0, 2**62),
)
@example("Sun, 06 Nov 1994 08:49:37 +9999", 0)
@example("(", 0)
@example("()()", 0)
def test_any_retry_after_is_a_wait(value: str, now: int) -> None:
    """Whatever a receiver sends: a number of microseconds within the cap, and never an exception."""
    assert 0 <= parse_retry_after(value, now) <= RETRY_AFTER_MAX_US


# -- the schedule -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "retry_after", "jitter", "expected"),
    [
        (1, 0, 0.0, 5 * SECOND),
        (1, 0, 0.5, 5_250_000),
        (2, 0, 0.0, 30 * SECOND),
        (2, 29 * SECOND, 0.0, 30 * SECOND),
        (2, 31 * SECOND, 0.0, 31 * SECOND),
        (2, 31 * SECOND, 0.9, 32_700_000),
        (1, 30 * 24 * HOUR, 0.0, 24 * HOUR),
        (3, 0, 0.0, None),
        (3, 60 * SECOND, 0.0, None),
    ],
)
def test_the_schedule(attempt: int, retry_after: int, jitter: float, expected: int | None) -> None:
    """Two delays are three attempts; Retry-After delays one of them, and adds none."""
    due = next_attempt_at(policy(5 * SECOND, 30 * SECOND), attempt, NOW, retry_after, jitter)
    assert due == (None if expected is None else NOW + expected)


def test_no_schedule_is_one_attempt() -> None:
    """An endpoint may have no retries at all."""
    assert next_attempt_at(policy(), 1, NOW, 0, 0.0) is None


@given(st.integers(0, RETRY_AFTER_MAX_US // SECOND), st.integers(0, 2**37))
def test_seconds_and_date_say_the_same(seconds: int, now_s: int) -> None:
    """A wait in seconds and the date that it leads to are the same wait."""
    until = formatdate(now_s + seconds, usegmt=True)
    found = [parse_retry_after(value, now_s * SECOND) for value in (str(seconds), until)]
    assert found == [seconds * SECOND] * 2


@given(delays, st.integers(1, 14), st.integers(0, 100 * HOUR), jitters)
def test_a_try_is_never_early(
    schedule: tuple[int, ...], attempt: int, retry_after: int, jitter: float
) -> None:
    """Not before the scheduled delay, nor what the receiver asked for (24 h at most); jitter adds 0-10 %."""
    due = next_attempt_at(policy(*schedule), attempt, NOW, retry_after, jitter)
    if attempt > len(schedule):
        assert due is None
        return
    assert due is not None
    delay, asked = schedule[attempt - 1], min(retry_after, 24 * HOUR)
    assert due >= NOW + max(delay, asked)
    assert due <= NOW + max(delay * (1 + JITTER_MAX), asked)


@given(delays.filter(bool), jitters, st.integers(0, 100 * HOUR), st.integers(0, 100 * HOUR))
def test_retry_after_only_delays(schedule: tuple[int, ...], jitter: float, one: int, other: int) -> None:
    """A longer Retry-After never makes a try earlier."""
    less, more = sorted((one, other))
    first = next_attempt_at(policy(*schedule), 1, NOW, less, jitter)
    second = next_attempt_at(policy(*schedule), 1, NOW, more, jitter)
    assert first is not None
    assert second is not None
    assert first <= second


# -- the ladder -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("remaining", "tier"),
    [(-5, 0), (0, 0), (4, 0), (5, 5), (29, 5), (30, 30), (119, 30), (120, 120), (10**9, 120)],
)
def test_the_tier_entered(remaining: int, tier: int) -> None:
    """The largest that is over in time, or retry.0."""
    assert tier_for(remaining, (5, 30, 120)) == tier


@given(
    st.integers(0, 72 * HOUR),
    st.lists(st.integers(SECOND, 12 * HOUR), unique=True, max_size=7).map(sorted).map(tuple),
    st.integers(0, HOUR),
)
def test_any_delay_works_on_any_ladder(delay: int, tiers: tuple[int, ...], entered: int) -> None:
    """Hopping down from tier to tier ends when it is due: never early, never late, in finitely many hops."""
    now, due, hops = NOW + entered, NOW + entered + delay, []
    while tier := tier_for(due - now, tiers):
        now += tier
        hops.append(tier)
        assert now <= due
    assert due - now < (tiers[0] if tiers else delay + 1)
    assert hops == sorted(hops, reverse=True)
    assert len(hops) <= delay // (tiers[0] if tiers else SECOND)
