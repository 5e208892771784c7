"""The rules of an endpoint's health: streaks, what is due, and any order of attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.health import (
    DIGEST_US,
    GATHER_US,
    NEVER,
    Due,
    EndpointHealth,
    Rule,
    Seen,
    due,
    fold,
    gone,
    is_notable,
    told,
)

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 1_760_000_000_000_000
RULE = Rule(5 * DAY, 3 * DAY, 12 * HOUR)
NEW = EndpointHealth("ep_1", "acme")


def failure(at: int, version: int = 1, error_class: str = "http_5xx") -> Seen:
    """A failed request that ended so long after the start."""
    return Seen(START + at, "failure", version, error_class, 503 if error_class == "http_5xx" else 0)


def success(at: int, version: int = 1) -> Seen:
    """One that was answered well."""
    return Seen(START + at, "success", version)


def exhausted(at: int) -> Seen:
    """The last failed request of a delivery whose message is an hour old."""
    return replace(failure(at), is_exhausted=True, accepted_at=START + at - HOUR)


def folded(*seen: Seen, since: EndpointHealth = NEW) -> EndpointHealth:
    """The health after these attempts."""
    return reduce(lambda health, each: fold(health, each, each.at), seen, since)


# -- streaks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "since", "failures"),
    [
        ((), 0, 0),
        ((success(1),), 0, 0),
        ((failure(1), failure(2)), START + 1, 2),
        ((failure(1), success(2)), 0, 0),
        ((failure(1), success(2), failure(3)), START + 3, 1),
        ((failure(1), success(2), failure(3), failure(9)), START + 3, 2),
    ],
)
def test_a_streak_is_the_failures_since_the_last_success(
    seen: Sequence[Seen], since: int, failures: int
) -> None:
    """Its beginning and its number."""
    health = folded(*seen)
    assert (health.since, health.failures) == (since, failures)


def test_what_failed_last_is_told_and_counted_by_class() -> None:
    """The last failure's class and status; a success leaves no class behind."""
    health = folded(failure(1), failure(2), failure(3, error_class="timeout"))
    assert (health.error_class, health.status_code) == ("timeout", 0)
    assert health.error_classes == {"http_5xx": 2, "timeout": 1}
    assert folded(success(4), since=health).error_classes == {}


def test_an_attempt_counts_where_it_ended_however_late_its_record() -> None:
    """A failure before the last success is none of the streak; a success between two ends half of it."""
    assert folded(success(5), failure(3)).since == 0
    health = folded(failure(1), failure(9), success(5))
    assert (health.since, health.failures, health.error_classes) == (START + 9, 1, {"http_5xx": 1})
    assert folded(failure(5), success(1)).since == START + 5


def test_a_changed_endpoint_begins_anew() -> None:
    """Its URL may be right now; what the old one still answers is no matter."""
    health = folded(failure(1), failure(2), failure(3, version=2))
    assert (health.since, health.failures, health.version) == (START + 3, 1, 2)
    assert folded(failure(4, version=1), since=health) == health


def test_the_end_of_a_delivery_without_a_request_is_no_failure_of_the_endpoint() -> None:
    """It waited for too long: that is exhausted, and says nothing new about the receiver."""
    ended = Seen(START, "none", 0, "expired", 0, 0, True, START - HOUR)
    health = folded(ended)
    assert (health.since, health.exhausted, health.error_class) == (0, 1, "expired")


# -- what is due ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failed", "now", "expected"),
    [
        ((0,), 6 * DAY, ()),
        ((0, 11 * HOUR), 6 * DAY, ()),
        ((0, 12 * HOUR), 3 * DAY - 1, ()),
        ((0, 12 * HOUR), 3 * DAY, ("warn",)),
        ((0, 12 * HOUR), 5 * DAY - 1, ("warn",)),
        ((0, 12 * HOUR), 5 * DAY, ("disable",)),
        ((0, 2 * DAY, 5 * DAY), 5 * DAY, ("disable",)),
        ((0, 5 * DAY), 5 * DAY, ("disable",)),
    ],
)
def test_the_rule(failed: Sequence[int], now: int, expected: tuple[Due, ...]) -> None:
    """Only failures for five days, two of them twelve hours apart; a warning after three."""
    assert due(folded(*map(failure, failed)), RULE, START + now) == expected


def test_nothing_is_done_by_a_rule_that_says_never() -> None:
    """Neither warned nor disabled, however long."""
    assert due(folded(failure(0), failure(DAY)), NEVER, START + 99 * DAY) == ()
    only_warns = Rule(None, DAY, HOUR)
    assert due(folded(failure(0), failure(DAY)), only_warns, START + 99 * DAY) == ("warn",)


def test_what_was_said_is_not_said_again() -> None:
    """One warning and one command a streak; the next version of the endpoint has its own."""
    health = folded(failure(0), failure(DAY))
    warned = told(health, "warn", START + 3 * DAY)
    assert due(warned, RULE, START + 4 * DAY) == ()
    asked = told(warned, "disable", START + 5 * DAY)
    assert due(asked, RULE, START + 99 * DAY) == ()
    assert due(folded(failure(6 * DAY), since=asked), RULE, START + 99 * DAY) == ()
    changed = folded(failure(20 * DAY, 3), failure(21 * DAY, 3), since=asked)
    assert due(changed, RULE, START + 23 * DAY) == ("warn",)


def test_recovery_is_noted_once_and_only_after_trouble_that_was_told() -> None:
    """A streak that nobody heard of ends in silence."""
    quiet = folded(failure(0), success(DAY))
    assert due(quiet, RULE, START + DAY) == ()
    warned = told(folded(failure(0), failure(DAY)), "warn", START + 3 * DAY)
    recovered = folded(success(4 * DAY), since=warned)
    assert due(recovered, RULE, START + 4 * DAY) == ("recovered",)
    assert recovered.trouble_since == START
    after = told(recovered, "recovered", START + 4 * DAY)
    assert due(after, RULE, START + 4 * DAY) == ()
    assert not is_notable(after, START + 4 * DAY)


def test_an_endpoint_that_was_disabled_recovers_when_it_is_enabled_and_takes_a_message() -> None:
    """Not by what was in flight when it was disabled."""
    stopped = gone(folded(failure(0, 4)), 4, START)
    assert stopped is not None
    in_flight = folded(success(1, 4), since=stopped)
    assert due(in_flight, RULE, START + 1) == ()
    enabled = folded(success(2, 6), since=in_flight)
    assert due(enabled, RULE, START + 2) == ("recovered",)


def test_a_disabling_that_was_refused_is_no_trouble_that_was_told() -> None:
    """The endpoint had been changed, which shows in the version that the next request uses."""
    stopped = gone(folded(failure(0, 4)), 4, START)
    assert stopped is not None
    assert due(folded(success(1, 5), since=stopped), RULE, START + 1) == ()


@pytest.mark.parametrize(("version", "is_asked"), [(3, False), (4, True), (5, True)])
def test_an_answer_disables_the_version_that_it_is_about(version: int, *, is_asked: bool) -> None:
    """Once; an older one's is too late."""
    stopped = gone(folded(failure(0, 4)), version, START)
    assert (stopped is not None) == is_asked
    if stopped is not None:
        assert stopped.asked_version == version
        assert gone(stopped, version, START) is None


# -- the digest -------------------------------------------------------------------------


def test_a_digest_waits_for_company_and_comes_at_most_once_an_hour() -> None:
    """The first a minute after the first exhausted delivery, the next when the hour is over."""
    health = folded(exhausted(0), exhausted(1))
    assert due(health, NEVER, START + GATHER_US - 1) == ()
    assert due(health, NEVER, START + GATHER_US) == ("digest",)
    assert (health.exhausted, health.exhausted_from) == (2, START - HOUR)
    sent = told(health, "digest", START + GATHER_US)
    more = folded(exhausted(2 * GATHER_US), since=sent)
    assert due(more, NEVER, START + GATHER_US + DIGEST_US - 1) == ()
    assert due(more, NEVER, START + GATHER_US + DIGEST_US) == ("digest",)
    assert more.exhausted == 1


def test_what_was_told_an_hour_ago_is_remembered_so_long() -> None:
    """Even of an endpoint that works again: else the next digest would come too soon."""
    sent = folded(success(1), since=told(folded(exhausted(0)), "digest", START))
    assert is_notable(sent, START + DIGEST_US - 1)
    assert not is_notable(sent, START + DIGEST_US)


# -- any order --------------------------------------------------------------------------

TIMES = st.integers(1, 30)
HISTORIES = st.lists(st.one_of(st.builds(failure, TIMES), st.builds(success, TIMES)), max_size=20)


def true_since(seen: Sequence[Seen]) -> int:
    """By the definition: the first failure that ended after the last success."""
    last = max((each.at for each in seen if each.outcome == "success"), default=0)
    return min((each.at for each in seen if each.outcome == "failure" and each.at > last), default=0)


@given(HISTORIES)
def test_any_order_agrees_on_who_is_failing_and_never_exaggerates(seen: list[Seen]) -> None:
    """Late records never make a streak longer than it was, so nothing is disabled too early."""
    health, since = folded(*seen), true_since(seen)
    assert bool(health.since) == bool(since)
    assert health.since >= since
    assert health.since == 0 or health.succeeded_at < health.since <= health.failed_at
    assert bool(health.failures) == bool(health.since)
    assert sum(health.error_classes.values()) == health.failures


@given(HISTORIES)
def test_in_order_it_is_exactly_the_definition(seen: list[Seen]) -> None:
    """Beginning and number."""
    ordered = sorted(seen, key=lambda each: (each.at, each.outcome == "success"))
    health, since = folded(*ordered), true_since(seen)
    assert health.since == since
    failed = [each for each in seen if each.outcome == "failure" and since and each.at >= since]
    assert health.failures == len(failed)


@given(HISTORIES, st.data())
def test_a_copy_moves_no_time(seen: list[Seen], data: st.DataObject) -> None:
    """Copies that were not recognised change a count, and nothing that decides."""
    health = folded(*seen)
    again = folded(*(data.draw(st.sampled_from(seen)) for _ in range(2) if seen), since=health)
    assert bool(again.since) == bool(health.since)
    assert again.since >= true_since(seen)
    assert (again.failed_at, again.succeeded_at) == (health.failed_at, health.succeeded_at)
