"""The rules of a delivery (design, section 4) in one table: what an answer leads to, from end to end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.delivery import Verdict, decide, judge
from engine.core.model import ERROR_CLASSES, Answer, Decision, ErrorClass, Policy, Reason

SECOND = 1_000_000
NOW = 784_111_777 * SECOND
"""Sun, 06 Nov 1994 08:49:37 GMT."""
LATER = "Sun, 06 Nov 1994 08:50:37 GMT"
"""A minute after NOW."""

PLAIN = Policy((5 * SECOND, 30 * SECOND), 10 * SECOND)
"""2xx, 410 disables; no answer header."""
ONLY_200 = replace(PLAIN, success_codes=frozenset({200}), gone_disables=False)
"""200 only, and 410 is an answer like others, as in the profile `baxcloud`."""
STANDARD = replace(PLAIN, answer_header="webhook-delivery")
"""As in the profile `standard`."""
STRICT = replace(ONLY_200, answer_header="x-answer")
"""As a platform's own profile may be."""


def answered(status: int, headers: Mapping[str, str]) -> Answer:
    """A complete answer that took a second and ended now."""
    return Answer(status, headers, started_at=NOW - SECOND, duration_us=SECOND)


def verdict(text: str) -> Verdict:
    """`retry 5`: in 5 s; `failed http_5xx`; `skipped aborted`; a last word `disables`."""
    words = text.split()
    disables = words[-1] == "disables"
    decision, said = words[0], "" if len(words) - disables < 2 else words[1]
    if decision == "retry":
        return Verdict("retry", "", NOW + int(said) * SECOND)
    return Verdict(cast(Decision, decision), cast(Reason, said), 0, disables)


@pytest.mark.parametrize(
    ("policy", "attempt", "status", "header", "expected"),
    [
        # success is 2xx; a profile may narrow it to 200; what an answer asks for needs no retry then
        (STANDARD, 1, 200, "", "delivered"),
        (STANDARD, 3, 204, "", "delivered"),
        (STANDARD, 1, 200, "retry-after: 60", "delivered"),
        (ONLY_200, 1, 200, "", "delivered"),
        (ONLY_200, 1, 204, "", "retry 5"),
        (ONLY_200, 3, 204, "", "failed http_2xx"),
        # 3xx is a failure and is not followed
        (STANDARD, 1, 301, "location: https://example.com/elsewhere", "retry 5"),
        (STANDARD, 3, 307, "location: https://example.com/elsewhere", "failed http_3xx"),
        # N delays are N + 1 attempts; then it has failed, by its last error class
        (STANDARD, 1, 500, "", "retry 5"),
        (STANDARD, 2, 500, "", "retry 30"),
        (STANDARD, 3, 500, "", "failed http_5xx"),
        (STANDARD, 9, 500, "", "failed http_5xx"),
        (STANDARD, 3, 404, "", "failed http_4xx"),
        (STANDARD, 3, 429, "", "failed throttled"),
        (STANDARD, 3, 999, "", "failed protocol"),
        (replace(STANDARD, delays_us=()), 1, 500, "", "failed http_5xx"),
        # 410 disables the endpoint where the profile says so, whatever else the answer says
        (STANDARD, 1, 410, "", "failed gone disables"),
        (PLAIN, 3, 410, "", "failed gone disables"),
        (STANDARD, 1, 410, "webhook-delivery: abort-message", "failed gone disables"),
        (ONLY_200, 1, 410, "", "retry 5"),
        (ONLY_200, 3, 410, "", "failed http_4xx"),
        # Retry-After of 429, 502, 503 and 504 only delays, by 24 h at most, and adds no try
        (STANDARD, 1, 429, "retry-after: 60", "retry 60"),
        (STANDARD, 1, 503, f"retry-after: {LATER}", "retry 60"),
        (STANDARD, 2, 502, "retry-after: 2", "retry 30"),
        (STANDARD, 2, 504, "retry-after: -60", "retry 30"),
        (STANDARD, 1, 503, "retry-after: 99999999999", "retry 86400"),
        (STANDARD, 3, 503, "retry-after: 60", "failed http_5xx"),
        (STANDARD, 1, 500, "retry-after: 60", "retry 5"),
        (STANDARD, 1, 301, "retry-after: 60", "retry 5"),
        # the answer header `disable`: as 410, and what was delivered is delivered
        (STANDARD, 1, 500, "webhook-delivery: disable", "failed gone disables"),
        (STANDARD, 1, 302, "webhook-delivery: disable", "failed gone disables"),
        (STANDARD, 1, 429, "webhook-delivery: disable", "failed gone disables"),
        (STANDARD, 1, 200, "webhook-delivery: disable", "delivered disables"),
        (STRICT, 1, 200, "x-answer: disable", "delivered disables"),
        (STRICT, 1, 204, "x-answer: disable", "failed gone disables"),
        (STRICT, 1, 410, "x-answer: disable", "failed gone disables"),
        # the answer header `abort-message`: no further try of this delivery
        (STANDARD, 1, 500, "webhook-delivery: abort-message", "skipped aborted"),
        (STANDARD, 3, 500, "webhook-delivery: abort-message", "skipped aborted"),
        (STANDARD, 1, 429, "webhook-delivery: abort-message", "skipped aborted"),
        (STANDARD, 1, 200, "webhook-delivery: abort-message", "delivered"),
        (STRICT, 1, 410, "x-answer: abort-message", "skipped aborted"),
        # any case, space around it; anything else, another header, a profile without: says nothing
        (STANDARD, 1, 500, "webhook-delivery:  DISABLE\t", "failed gone disables"),
        (STANDARD, 1, 500, "webhook-delivery: Abort-Message", "skipped aborted"),
        (STANDARD, 1, 500, "webhook-delivery: disabled", "retry 5"),
        (STANDARD, 1, 500, "webhook-delivery: disable, abort-message", "retry 5"),
        (STANDARD, 1, 500, "webhook-delivery:", "retry 5"),
        (STANDARD, 1, 500, "x-answer: disable", "retry 5"),
        (STRICT, 1, 500, "webhook-delivery: abort-message", "retry 5"),
        (PLAIN, 1, 500, "webhook-delivery: disable", "retry 5"),
        (PLAIN, 1, 200, "webhook-delivery: disable", "delivered"),
    ],
)
def test_the_rules_of_a_delivery(
    policy: Policy, attempt: int, status: int, header: str, expected: str
) -> None:
    """What follows an answer to attempt 1, 2 or 3 of a schedule of 5 s and 30 s."""
    name, _, value = header.partition(": ")
    outcome = judge(answered(status, {name: value} if name else {}), policy)
    assert decide(attempt, outcome, policy, NOW, 0.0) == verdict(expected)


@pytest.mark.parametrize("error_class", ["dns", "connect", "tls", "timeout", "reset", "protocol", "blocked"])
def test_the_rules_without_an_answer(error_class: ErrorClass) -> None:
    """Whatever came in its place: tried again until the schedule is used up, then failed by its name."""
    outcome = judge(Answer(error_class=error_class, started_at=NOW), STANDARD)
    decided = [decide(attempt, outcome, STANDARD, NOW, 0.0) for attempt in (1, 2, 3)]
    assert decided == [verdict(text) for text in ("retry 5", "retry 30", f"failed {error_class}")]


HUGE = ["Mon, 01 Jan 99999999999 00:00:00 GMT", "1 Jan 2030 99999999999:00", "1 Jan 2030 0:0 +99999999999"]
dates = st.lists(st.sampled_from(["Mon,", "01", "Jan", "2030", "9" * 11, "00:00:00", "GMT", "+", ":", "-"]))
said = (
    st.sampled_from(["", "disable", "abort-message", "Disable ", "120", LATER, *HUGE])
    | st.text(max_size=20)
    | st.text(st.characters(), max_size=20)  # lone surrogates: what was no UTF-8
    | st.builds(str.join, st.sampled_from(["", " "]), dates)
)


@given(
    st.integers(0, 2_000),
    st.sampled_from([PLAIN, ONLY_200, STANDARD, STRICT]),
    said,
    said,
    st.integers(1, 4),
)
def test_every_answer_leads_somewhere(
    status: int, policy: Policy, wait: str, word: str, attempt: int
) -> None:
    """Any status and headers are an outcome and a verdict in the glossary's words, and never an exception."""
    headers = {"retry-after": wait, "webhook-delivery": word, "x-answer": word}
    outcome = judge(answered(status, headers), policy)
    assert (outcome.error_class in ERROR_CLASSES) == (outcome.result == "failure")
    found = decide(attempt, outcome, policy, NOW, 0.5)
    assert (found.decision == "delivered") == (outcome.result == "success")
    assert (found.retry_at > NOW) == (found.decision == "retry")
    allowed = {"failed": ERROR_CLASSES, "skipped": ("aborted",)}.get(found.decision, ("",))
    assert found.reason in allowed
    assert not (found.disables and found.decision in ("retry", "skipped"))
