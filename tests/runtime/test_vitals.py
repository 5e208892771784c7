"""What clients noted, and what /readyz and /healthz make of it."""

from __future__ import annotations

import pytest

from engine.runtime.vitals import Kind, Limits, Sign, State, judge

LIMITS = Limits(wait=3, silence=6, stuck=300)
NOW = 1_000.0


def member(polled: float = NOW, waits_since: float | None = None, *, joined: bool = True) -> Sign:
    """A member of the router."""
    sign = Sign("member", "router")
    sign.joined, sign.polled, sign.waits_since = joined, polled, waits_since
    return sign


def waiting(kind: Kind, since: float) -> Sign:
    """A client without a group that was not answered since."""
    sign = Sign(kind)
    sign.asked(since)
    return sign


@pytest.mark.parametrize(
    ("sign", "trouble", "stuck"),
    [
        (member(), "", ""),
        (member(joined=False), "router: has not joined its group yet", ""),
        (member(waits_since=NOW - 3), "", ""),
        (member(waits_since=NOW - 4), "router: no commit acknowledged for 4 s", ""),
        (member(NOW - 6), "", ""),
        (member(NOW - 7), "router: has not polled for 7 s: it drains, reads back or is stuck", ""),
        (
            member(NOW - 301),
            "router: has not polled for 301 s: it drains, reads back or is stuck",
            "router has not polled for 301 s",
        ),
        (Sign("producer"), "", ""),
        (waiting("producer", NOW - 5), "no output acknowledged for 5 s", ""),
        (waiting("transactions", NOW - 5), "no transaction acknowledged for 5 s", ""),
    ],
)
def test_each_trouble_is_told(sign: Sign, trouble: str, stuck: str) -> None:
    """Within its limit nothing is; beyond it, what waits and for how long."""
    assert judge([sign], NOW, LIMITS) == State(trouble, stuck)


def test_all_troubles_are_told() -> None:
    """One client's good news hide no other's trouble."""
    signs = [member(), member(joined=False), waiting("producer", NOW - 5)]
    expected = "router: has not joined its group yet; no output acknowledged for 5 s"
    assert judge(signs, NOW, LIMITS).trouble == expected


def test_the_oldest_question_counts() -> None:
    """What is asked later does not make the wait shorter."""
    sign = waiting("producer", NOW - 5)
    sign.asked(NOW)
    assert sign.wait_s(NOW) == 5
