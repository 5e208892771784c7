"""The records on the way of a delivery, as values.

Every class mirrors the Avro record of the same name in `schemas/`. Times are
integers: microseconds since 1970 UTC, unless a name ends in `_ms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Trigger = Literal["scheduled", "resend", "replay", "test"]
Result = Literal["success", "failure", "none"]
Decision = Literal["delivered", "retry", "failed", "skipped"]
RoutingVerdict = Literal["routed", "duplicate", "invalid"]
Status = Literal["delivered", "failed", "pending", "skipped"]
Asks = Literal["", "disable", "abort-message"]
"""What a receiver may ask for along with its answer."""

SkipReason = Literal[
    "disabled",
    "deleted",
    "gone",
    "aborted",
    "undecodable",  # reserved, nothing is skipped for it: a record that cannot be decoded goes to `invalid`
    "too_large",
]
ErrorClass = Literal[
    "dns",
    "connect",
    "tls",
    "timeout",
    "reset",
    "protocol",
    "blocked",
    "http_2xx",
    "http_3xx",
    "http_4xx",
    "http_5xx",
    "gone",
    "throttled",
    "circuit_open",
    "expired",
]
Reason = Literal["", SkipReason, ErrorClass]
"""Why a delivery was skipped or failed; empty in any other state."""
SKIP_REASONS: tuple[SkipReason, ...] = get_args(SkipReason)
ERROR_CLASSES: tuple[ErrorClass, ...] = get_args(ErrorClass)


@dataclass(frozen=True, slots=True)
class MessagePublished:
    """What a producer asks us to send."""

    tenant: str
    id: str
    event_type: str
    payload: bytes
    published_at: int
    ordering_key: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An endpoint that matched a message and gets nothing."""

    endpoint_id: str
    reason: SkipReason


@dataclass(frozen=True, slots=True)
class Routing:
    """What the router decided for one message."""

    offset: int
    tenant: str = ""
    message_id: str = ""
    event_type: str = ""
    accepted_at: int = 0
    digest: bytes = b""
    verdict: RoutingVerdict = "routed"
    matched: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class RoutedBatch:
    """What the router decided for a range of `messages`; ranges tile a partition."""

    partition: int
    first_offset: int
    last_offset: int
    view_offsets: tuple[int, ...] = ()
    routings: tuple[Routing, ...] = ()


@dataclass(frozen=True, slots=True)
class DeliveryScheduled:
    """All that one attempt needs; `attempt` is the number it will have."""

    delivery_id: str
    tenant: str
    endpoint_id: str
    message_id: str
    event_type: str
    attempt: int
    trigger: Trigger
    origin: str
    accepted_at: int
    published_at: int
    profile: str
    endpoint_epoch: int
    view_offset: int
    source_partition: int
    source_offset: int
    body: bytes


@dataclass(frozen=True, slots=True)
class AttemptFinished:
    """An attempt's outcome and the decision that follows: one record."""

    delivery_id: str
    tenant: str
    endpoint_id: str
    message_id: str
    event_type: str
    attempt: int
    trigger: Trigger
    origin: str
    accepted_at: int
    source_partition: int
    source_offset: int
    attempted_at: int
    duration_us: int
    outcome: Result
    status_code: int
    error_class: Literal["", ErrorClass]
    error: str
    decision: Decision
    reason: Reason
    retry_at: int
    request_bytes: int
    response_body: bytes
    worker: str
    endpoint_version: int = field(default=0, kw_only=True)
    """Version of the endpoint that the request used; 0 without a request."""
    disables: bool = field(default=False, kw_only=True)
    """Whether the answer disables that version of the endpoint."""
    delivery: bytes


@dataclass(frozen=True, slots=True)
class InvalidRecord:
    """A record that could not be decoded or had to be refused."""

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    key: bytes
    value: bytes
    seen_at: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from one HTTP request.

    `status_code` is 0 when there was no complete answer; then `error_class` says
    why in the glossary's words and `error` in plain ones. Header names are lower case.
    """

    status_code: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error_class: Literal["", ErrorClass] = ""
    error: str = ""
    started_at: int = 0
    duration_us: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer, judged by the endpoint's policy."""

    result: Result
    status_code: int = 0
    error_class: Literal["", ErrorClass] = ""
    error: str = ""
    retry_after_us: int = 0
    response_body: bytes = b""
    started_at: int = 0
    duration_us: int = 0
    asks: Asks = ""
    endpoint_version: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """How an endpoint's answers are judged and retried.

    N delays mean N + 1 attempts.
    """

    delays_us: tuple[int, ...]
    timeout_us: int
    success_codes: frozenset[int] | None = None
    """None is any 2xx."""
    gone_disables: bool = True
    answer_header: str = ""
    """Header of an answer, lower case, in which `disable` and `abort-message` are honoured; empty: none."""
    endpoint_version: int = 0
    """Version of the endpoint that this is the policy of; 0 in a profile."""
