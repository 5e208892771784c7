"""The rules of a delivery: how an answer is judged and what follows from it.

Pure, and all in one place: `judge` turns an answer into an outcome, `decide`
an outcome into a decision, `finished` both into the one record of an attempt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.core.endpoint import Endpoint
from engine.core.model import Answer, AttemptFinished, Decision, DeliveryScheduled, Outcome, Policy
from engine.core.retry import next_attempt_at, parse_retry_after

THROTTLED = frozenset({429, 502, 503, 504})
RESPONSE_KEPT = 16 << 10
"""Bytes of an unsuccessful answer's body that its record keeps."""
RESPONSE_KEPT_SUCCESS = 1 << 10
ERROR_TEXT_MAX = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows an attempt. `retry_at` is 0 unless the decision is retry."""

    decision: Decision
    reason: str = ""
    retry_at: int = 0


def policy_of(endpoint: Endpoint, default: Policy) -> Policy:
    """Return the profile's policy with what the endpoint overrides."""
    delays, timeout = endpoint.settings.retry_policy, endpoint.settings.timeout_ms
    return replace(
        default,
        delays_us=default.delays_us if delays is None else tuple(d * 1000 for d in delays),
        timeout_us=default.timeout_us if timeout is None else timeout * 1000,
    )


def is_success(status_code: int, policy: Policy) -> bool:
    """2xx, or what the profile narrows it to."""
    if policy.success_codes is None:
        return 200 <= status_code < 300
    return status_code in policy.success_codes


def error_class_of(status_code: int, policy: Policy) -> str:
    """Error class of an answer that is no success."""
    if status_code == 410 and policy.gone_disables:
        return "gone"
    if status_code == 429:
        return "throttled"
    return f"http_{status_code // 100}xx" if 200 <= status_code < 600 else "protocol"


def judge(answer: Answer, policy: Policy) -> Outcome:
    """Judge an answer by the endpoint's policy."""
    if answer.error_class:
        return _outcome(answer, answer.error_class, answer.error)
    if is_success(answer.status_code, policy):
        return Outcome(
            "success",
            answer.status_code,
            response_body=answer.body[:RESPONSE_KEPT_SUCCESS],
            started_at=answer.started_at,
            duration_us=answer.duration_us,
        )
    return _outcome(answer, error_class_of(answer.status_code, policy), f"HTTP {answer.status_code}")


def _outcome(answer: Answer, error_class: str, error: str) -> Outcome:
    wait = answer.headers.get("retry-after", "") if answer.status_code in THROTTLED else ""
    ended = answer.started_at + answer.duration_us
    return Outcome(
        "failure",
        answer.status_code,
        error_class,
        error[:ERROR_TEXT_MAX],
        parse_retry_after(wait, ended) if wait else 0,
        answer.body[:RESPONSE_KEPT],
        answer.started_at,
        answer.duration_us,
    )


def decide(attempt: int, outcome: Outcome, policy: Policy, now: int, jitter: float) -> Verdict:
    """Decide what follows attempt number `attempt`; `jitter` is in [0, 1)."""
    if outcome.result == "success":
        return Verdict("delivered")
    if outcome.error_class == "gone":
        return Verdict("failed", "gone")
    due = next_attempt_at(policy, attempt, now, outcome.retry_after_us, jitter)
    return Verdict("failed", outcome.error_class) if due is None else Verdict("retry", retry_at=due)


def skip_reason(delivery: DeliveryScheduled, endpoint: Endpoint | None) -> str:
    """Why a delivery must not be attempted any more; empty if it may."""
    if endpoint is None or endpoint.deleted:
        return "deleted"
    if not endpoint.enabled or delivery.endpoint_epoch < endpoint.epoch:
        return "gone" if endpoint.disabled_reason == "gone" else "disabled"
    return ""


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
        delivery=embedded,
    )


def following(delivery: DeliveryScheduled) -> DeliveryScheduled:
    """Return the delivery as its next attempt needs it."""
    return replace(delivery, attempt=delivery.attempt + 1)
