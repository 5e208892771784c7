"""The rules of a delivery: how an answer is judged, and what follows."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.change import EndpointSettings
from engine.core.delivery import (
    ERROR_TEXT_MAX,
    RESPONSE_KEPT,
    RESPONSE_KEPT_SUCCESS,
    Verdict,
    decide,
    finished,
    following,
    judge,
    policy_of,
    skip_reason,
    unjudged,
)
from engine.core.endpoint import Endpoint
from engine.core.model import SKIP_REASONS, Answer, DeliveryScheduled, ErrorClass, Outcome, Policy

SECOND = 1_000_000
NOW = 784_111_777 * SECOND
"""Sun, 06 Nov 1994 08:49:37 GMT."""

ANY_2XX = Policy((5 * SECOND, 30 * SECOND), 10 * SECOND)
ONLY_200 = replace(ANY_2XX, success_codes=frozenset({200}), gone_disables=False)
STANDARD = replace(ANY_2XX, answer_header="webhook-delivery")
DELIVERY = DeliveryScheduled(
    *("dlv_1", "acme", "ep_1", "msg_1", "room.ended", 1, "scheduled", ""),
    *(NOW - 9, NOW - 10, "standard", 2, 7, 3, 11, b"{}"),
)
ENDPOINT = Endpoint("ep_1", "acme", EndpointSettings("https://example.com"), epoch=2, version=7)


def answer(status: int, **changes: Any) -> Answer:
    """A complete answer that took a second and ended now."""
    return replace(Answer(status, started_at=NOW - SECOND, duration_us=SECOND), **changes)


# -- judging ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error_class", "error_class_200"),
    [
        (200, "", ""),
        (201, "", "http_2xx"),
        (204, "", "http_2xx"),
        (299, "", "http_2xx"),
        (300, "http_3xx", "http_3xx"),
        (301, "http_3xx", "http_3xx"),
        (304, "http_3xx", "http_3xx"),
        (308, "http_3xx", "http_3xx"),
        (400, "http_4xx", "http_4xx"),
        (401, "http_4xx", "http_4xx"),
        (404, "http_4xx", "http_4xx"),
        (410, "gone", "http_4xx"),
        (413, "http_4xx", "http_4xx"),
        (429, "throttled", "throttled"),
        (499, "http_4xx", "http_4xx"),
        (500, "http_5xx", "http_5xx"),
        (503, "http_5xx", "http_5xx"),
        (599, "http_5xx", "http_5xx"),
        (100, "protocol", "protocol"),
        (101, "protocol", "protocol"),
        (199, "protocol", "protocol"),
        (600, "protocol", "protocol"),
        (999, "protocol", "protocol"),
        (1, "protocol", "protocol"),
    ],
)
def test_status_codes(status: int, error_class: str, error_class_200: str) -> None:
    """Success is 2xx, or what the profile narrows it to; 410 means gone only where the profile says so."""
    for policy, expected in ((ANY_2XX, error_class), (ONLY_200, error_class_200)):
        outcome = judge(answer(status), policy)
        assert outcome.error_class == expected
        assert outcome.result == ("failure" if expected else "success")
        assert outcome.status_code == status
        assert bool(outcome.error) == bool(expected)


@pytest.mark.parametrize("error_class", ["dns", "connect", "tls", "timeout", "reset", "protocol", "blocked"])
def test_no_answer_is_a_failure(error_class: ErrorClass) -> None:
    """What the sender could not bring back keeps its class and its words."""
    failed = Answer(0, {}, b"", error_class, "in words", NOW - SECOND, SECOND)
    expected = Outcome("failure", 0, error_class, "in words", 0, b"", NOW - SECOND, SECOND, "", 7)
    assert judge(failed, replace(STANDARD, endpoint_version=7)) == expected


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
        ("whenever", 0),
        ("99999999999999999999", 86_400),
        ("", 0),
    ],
)
def test_retry_after_is_heard(status: int, value: str, seconds: int) -> None:
    """Of 429, 502, 503 and 504; a date counts from the end of the answer."""
    outcome = judge(answer(status, headers={"retry-after": value}), ANY_2XX)
    assert outcome.retry_after_us == seconds * SECOND


@pytest.mark.parametrize("status", [200, 301, 400, 410, 500])
def test_retry_after_of_others_is_not_heard(status: int) -> None:
    """It means something else there, or nothing."""
    assert judge(answer(status, headers={"retry-after": "120"}), ANY_2XX).retry_after_us == 0


def test_an_error_that_quotes_no_text_is_recorded_as_text() -> None:
    """Bytes of the receiver's that were no UTF-8 would break the record's encoding."""
    assert judge(answer(0, error_class="protocol", error="bad \udcff"), ANY_2XX).error == "bad ?"


def test_what_could_not_be_judged_is_a_failure() -> None:
    """With what is known of the request, and nothing that the answer asks for."""
    broken = answer(410, body=b"x", headers={"retry-after": "9"})
    outcome = unjudged(broken, replace(ANY_2XX, endpoint_version=7), "why \udcff")
    assert outcome == Outcome(
        *("failure", 410, "protocol", "why ?", 0, b"", NOW - SECOND, SECOND, ""), endpoint_version=7
    )
    assert decide(1, outcome, ANY_2XX, NOW, 0.0) == Verdict("retry", retry_at=NOW + 5 * SECOND)


def test_what_is_kept_of_an_answer() -> None:
    """16 KiB of a failure's body, 1 KiB of a success's, 200 characters of the error."""
    body = b"x" * (64 << 10)
    assert judge(answer(200, body=body), ANY_2XX).response_body == body[:RESPONSE_KEPT_SUCCESS]
    assert judge(answer(500, body=body), ANY_2XX).response_body == body[:RESPONSE_KEPT]
    assert len(judge(Answer(error_class="tls", error="é" * 999), ANY_2XX).error) == ERROR_TEXT_MAX


# -- deciding ---------------------------------------------------------------------------

FAILURE = Outcome("failure", 500, "http_5xx", "HTTP 500")


@given(
    st.lists(st.integers(0, 10**12), max_size=9).map(tuple),
    st.integers(0, 10**13),
    st.floats(0, 1, exclude_max=True),
)
def test_a_delivery_ends(delays: tuple[int, ...], retry_after: int, jitter: float) -> None:
    """N delays are exactly N + 1 attempts, each at or after its time; then it is failed."""
    policy, now, attempt = replace(ANY_2XX, delays_us=delays), NOW, 1
    outcome = replace(FAILURE, retry_after_us=retry_after)
    while (verdict := decide(attempt, outcome, policy, now, jitter)).decision == "retry":
        assert verdict.retry_at >= now + delays[attempt - 1]
        assert verdict.reason == ""
        now, attempt = verdict.retry_at, attempt + 1
    assert attempt == len(delays) + 1
    assert verdict == Verdict("failed", "http_5xx", 0)


# -- what an endpoint overrides ---------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, ANY_2XX),
        ({"retry_policy": (250, 2_000)}, replace(ANY_2XX, delays_us=(250_000, 2 * SECOND))),
        ({"retry_policy": ()}, replace(ANY_2XX, delays_us=())),
        ({"timeout_ms": 1_500}, replace(ANY_2XX, timeout_us=1_500_000)),
    ],
)
def test_an_endpoint_overrides_its_profile(chosen: dict[str, Any], expected: Policy) -> None:
    """Retries and timeout, each on its own; an empty list means no retries, not the profile's."""
    settings = EndpointSettings("https://example.com", **chosen)
    policy = policy_of(replace(ENDPOINT, settings=settings), ANY_2XX)
    assert policy == replace(expected, endpoint_version=ENDPOINT.version)


# -- skipping ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        (ENDPOINT, ""),
        (replace(ENDPOINT, epoch=1), ""),
        (None, "deleted"),
        (replace(ENDPOINT, deleted=True, enabled=False, epoch=3), "deleted"),
        (replace(ENDPOINT, enabled=False, epoch=3), "disabled"),
        (replace(ENDPOINT, enabled=False, epoch=2), "disabled"),
        (replace(ENDPOINT, epoch=3), "disabled"),
        (replace(ENDPOINT, enabled=False, epoch=3, disabled_reason="gone"), "gone"),
    ],
)
def test_what_is_skipped(endpoint: Endpoint | None, reason: str) -> None:
    """Deleted, disabled, gone; and what was routed before a disable stays skipped after the enable."""
    assert skip_reason(DELIVERY, endpoint) == reason
    assert reason in ("", *SKIP_REASONS)


@pytest.mark.parametrize(
    ("endpoint", "gone_version", "reason"),
    [
        (ENDPOINT, -1, ""),
        (ENDPOINT, 6, ""),
        (ENDPOINT, 7, "gone"),
        (replace(ENDPOINT, version=8), 7, ""),
        (replace(ENDPOINT, version=8, enabled=False, epoch=3, disabled_reason="gone"), 7, "gone"),
        (replace(ENDPOINT, version=8, enabled=False, epoch=3, disabled_reason="by hand"), 7, "disabled"),
        (replace(ENDPOINT, version=9, epoch=3), 7, "disabled"),
        (replace(ENDPOINT, version=8, deleted=True, enabled=False, epoch=3), 7, "deleted"),
        (None, 7, "deleted"),
    ],
)
def test_what_is_skipped_after_an_answer_that_disables(
    endpoint: Endpoint | None, gone_version: int, reason: str
) -> None:
    """At once, that version of the endpoint; one that was changed is tried again; the view comes first."""
    assert skip_reason(DELIVERY, endpoint, gone_version) == reason


# -- the record -------------------------------------------------------------------------


def test_the_record_of_an_attempt() -> None:
    """It repeats the delivery's identity and has every part of outcome and verdict in its place."""
    outcome = Outcome("failure", 503, "http_5xx", "HTTP 503", 9, b"busy", NOW, 12, "", 7)
    record = finished(DELIVERY, outcome, Verdict("retry", "", NOW + 5), b"embedded", "host-1")
    same = "delivery_id tenant endpoint_id message_id event_type attempt trigger origin accepted_at"
    for name in [*same.split(), "source_partition", "source_offset"]:
        assert getattr(record, name) == getattr(DELIVERY, name)
    rest = {name: value for name, value in asdict(record).items() if name not in asdict(DELIVERY)}
    assert rest == {
        "attempted_at": NOW,
        "duration_us": 12,
        "outcome": "failure",
        "status_code": 503,
        "error_class": "http_5xx",
        "error": "HTTP 503",
        "decision": "retry",
        "reason": "",
        "retry_at": NOW + 5,
        "request_bytes": 2,
        "response_body": b"busy",
        "worker": "host-1",
        "endpoint_version": 7,
        "disables": False,
        "delivery": b"embedded",
    }


def test_the_record_says_what_disables() -> None:
    """Of a delivery that was delivered too: an endpoint may take this one and want no more."""
    policy = policy_of(ENDPOINT, STANDARD)
    outcome = judge(answer(200, headers={"webhook-delivery": "disable"}), policy)
    record = finished(DELIVERY, outcome, decide(1, outcome, policy, NOW, 0.0), b"", "host-1")
    assert (record.decision, record.disables, record.endpoint_version) == ("delivered", True, 7)


def test_the_next_attempt_is_the_same_delivery() -> None:
    """Only the number goes up: id, body and epoch stay."""
    assert following(DELIVERY) == replace(DELIVERY, attempt=2)
