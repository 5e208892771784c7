"""The rules of a delivery: how an answer is judged and what follows from it.

Pure, and all in one place: `judge` turns an answer into an outcome, `decide`
an outcome into a decision, `finished` both into the one record of an attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from engine.core.endpoint import Endpoint
from engine.core.model import (
    Answer,
    Asks,
    AttemptFinished,
    Decision,
    DeliveryScheduled,
    ErrorClass,
    Outcome,
    Policy,
    Reason,
    SkipReason,
)
from engine.core.retry import next_attempt_at, parse_retry_after

THROTTLED = frozenset({429, 502, 503, 504})
RESPONSE_KEPT = 16 << 10
"""Bytes of an unsuccessful answer's body that its record keeps."""
RESPONSE_KEPT_SUCCESS = 1 << 10
ERROR_TEXT_MAX = 200
ANSWER_WORDS: Mapping[str, Asks] = {"disable": "disable", "abort-message": "abort-message"}
"""What an answer header may say; anything else says nothing."""
_BY_HUNDREDS: Mapping[int, ErrorClass] = {2: "http_2xx", 3: "http_3xx", 4: "http_4xx", 5: "http_5xx"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows an attempt. `retry_at` is 0 unless the decision is retry."""

    decision: Decision
    reason: Reason = ""
    retry_at: int = 0
    disables: bool = False
    """Whether the endpoint, as the request found it, is disabled and its lane stops at once."""


def once(policy: Policy) -> Policy:
    """Return the policy of a test send: one attempt, whose answer disables nothing."""
    return replace(policy, delays_us=(), gone_disables=False, answer_header="")


def policy_of(endpoint: Endpoint, default: Policy) -> Policy:
    """Return the profile's policy with what the endpoint overrides."""
    delays, timeout = endpoint.settings.retry_policy, endpoint.settings.timeout_ms
    return replace(
        default,
        delays_us=default.delays_us if delays is None else tuple(d * 1000 for d in delays),
        timeout_us=default.timeout_us if timeout is None else timeout * 1000,
        endpoint_version=endpoint.version,
    )


def is_success(status_code: int, policy: Policy) -> bool:
    """2xx, or what the profile narrows it to."""
    if policy.success_codes is None:
        return 200 <= status_code < 300
    return status_code in policy.success_codes


def error_class_of(status_code: int, policy: Policy) -> ErrorClass:
    """Error class of an answer that is no success."""
    if status_code == 410 and policy.gone_disables:
        return "gone"
    if status_code == 429:
        return "throttled"
    return _BY_HUNDREDS.get(status_code // 100, "protocol")


def judge(answer: Answer, policy: Policy) -> Outcome:
    """Judge an answer by the endpoint's policy."""
    error_class, error = answer.error_class, answer.error
    if not error_class and not is_success(answer.status_code, policy):
        error_class, error = error_class_of(answer.status_code, policy), f"HTTP {answer.status_code}"
    return Outcome(
        "failure" if error_class else "success",
        answer.status_code,
        error_class,
        _text(error),
        _retry_after_us(answer),
        answer.body[: RESPONSE_KEPT if error_class else RESPONSE_KEPT_SUCCESS],
        answer.started_at,
        answer.duration_us,
        "disable" if error_class == "gone" else _asks(answer, policy),
        policy.endpoint_version,
    )


def unjudged(answer: Answer, policy: Policy, why: str) -> Outcome:
    """Return the outcome of an answer that `judge` or `decide` broke on: a failure whose text says why."""
    return Outcome(
        "failure",
        answer.status_code,
        "protocol",
        _text(why),
        started_at=answer.started_at,
        duration_us=answer.duration_us,
        endpoint_version=policy.endpoint_version,
    )


def _text(error: str) -> str:
    """What a record holds of an error: it may quote bytes of the receiver's that are no text."""
    return error[:ERROR_TEXT_MAX].encode(errors="replace").decode()


def _retry_after_us(answer: Answer) -> int:
    """The wait that the receiver asks for, from the end of its answer on."""
    wait = answer.headers.get("retry-after", "") if answer.status_code in THROTTLED else ""
    return parse_retry_after(wait, answer.started_at + answer.duration_us) if wait else 0


def _asks(answer: Answer, policy: Policy) -> Asks:
    said = answer.headers.get(policy.answer_header, "")  # a profile without one: no header has an empty name
    return ANSWER_WORDS.get(said.strip().lower(), "")


def decide(attempt: int, outcome: Outcome, policy: Policy, now: int, jitter: float) -> Verdict:
    """Decide what follows attempt number `attempt`; `jitter` is in [0, 1)."""
    disables = outcome.asks == "disable"
    if outcome.result == "success":
        return Verdict("delivered", disables=disables)
    if disables:
        return Verdict("failed", "gone", disables=True)
    if outcome.asks == "abort-message":
        return Verdict("skipped", "aborted")
    due = next_attempt_at(policy, attempt, now, outcome.retry_after_us, jitter)
    return Verdict("failed", outcome.error_class) if due is None else Verdict("retry", retry_at=due)


def skip_reason(
    delivery: DeliveryScheduled, endpoint: Endpoint | None, gone_version: int = -1
) -> Literal["", SkipReason]:
    """Why a delivery must not be attempted any more; empty if it may.

    `gone_version` is the highest version of the endpoint that an answer has disabled. Until the fact
    that it is disabled is here nothing more is sent to that version; a changed endpoint is tried again.
    A test send goes to a disabled endpoint too: people test before they enable.
    """
    if endpoint is None or endpoint.deleted:
        return "deleted"
    if delivery.trigger == "test":
        return ""
    if not endpoint.enabled or delivery.endpoint_epoch < endpoint.epoch:
        return "gone" if endpoint.disabled_reason == "gone" else "disabled"
    return "gone" if endpoint.version <= gone_version else ""


def finished(
    delivery: DeliveryScheduled, outcome: Outcome, verdict: Verdict, embedded: bytes, worker: str
) -> AttemptFinished:
    """Return the one record of an attempt; `embedded` is the delivery to retry or to keep, encoded."""
    return AttemptFinished(
        delivery_id=delivery.delivery_id,
        tenant=delivery.tenant,
        endpoint_id=delivery.endpoint_id,
        message_id=delivery.message_id,
        event_type=delivery.event_type,
        attempt=delivery.attempt,
        trigger=delivery.trigger,
        origin=delivery.origin,
        accepted_at=delivery.accepted_at,
        source_partition=delivery.source_partition,
        source_offset=delivery.source_offset,
        attempted_at=outcome.started_at,
        duration_us=outcome.duration_us,
        outcome=outcome.result,
        status_code=outcome.status_code,
        error_class=outcome.error_class,
        error=outcome.error,
        decision=verdict.decision,
        reason=verdict.reason,
        retry_at=verdict.retry_at,
        request_bytes=len(delivery.body),
        response_body=outcome.response_body,
        worker=worker,
        endpoint_version=outcome.endpoint_version,
        disables=verdict.disables,
        delivery=embedded,
    )


def following(delivery: DeliveryScheduled) -> DeliveryScheduled:
    """Return the delivery as its next attempt needs it."""
    return replace(delivery, attempt=delivery.attempt + 1)
