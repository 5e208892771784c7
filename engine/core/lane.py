"""A lane's rules: when an endpoint may be sent to, and how much at a time.

Three things hold an endpoint back, each a value with its transitions here: the
circuit stops requests to one that is down, the cap follows what it bears at a
time, the bucket keeps to its rate limit. What waits too long for them expires.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.core.delivery import THROTTLED
from engine.core.model import DeliveryScheduled, ErrorClass, Outcome, Policy
from engine.core.retry import JITTER_MAX

CircuitState = Literal["closed", "open", "half_open"]
Expiry = Literal["", "circuit_open", "expired"]
"""Why a delivery waits no longer; empty: it waits on."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Full snapshot of one lane: written while it is parked or its circuit is not closed, else a tombstone.

    While `parked`, every record of the endpoint on its partition of `deliveries`
    from offset `cursor` on is the lane's: it waits there, unread, until it is drained.
    """

    endpoint_id: str
    tenant: str = ""
    parked: bool = False
    cursor: int = 0
    attempts_from: int = 0
    """Offset on `attempts` below which nothing behind the cursor has an output, unless it is in `done`."""
    done: tuple[int, ...] = ()
    circuit: CircuitState = "closed"
    opened: int = 0
    """How often in a row the circuit has opened."""
    probe_at: int = 0
    """When an open circuit lets a probe through, microseconds since 1970 UTC."""
    changed_at: int = 0
    worker: str = ""


# -- the circuit -----------------------------------------------------------------------

OPENS_AFTER = 10
"""Failures in a row that open a circuit."""
UNWILLING_US = 30_000_000
"""How long an endpoint that does answer must have answered nothing but 429, 502, 503 or 504."""
PAUSE_US, PAUSE_MAX_US = 5_000_000, 30_000_000
UNREACHABLE: frozenset[ErrorClass] = frozenset({"dns", "connect", "tls", "timeout", "reset"})


@dataclass(frozen=True, slots=True)
class Circuit:
    """Whether an endpoint is up, as its last attempts say. Times are microseconds since 1970 UTC."""

    state: CircuitState = "closed"
    failures: int = 0
    """In a row, while closed."""
    since: int = 0
    """When the first of them was."""
    opened: int = 0
    probe_at: int = 0


CLOSED = Circuit()


def is_down(outcome: Outcome) -> bool:
    """Whether an outcome speaks of the endpoint, not of the one message: not reached, or not willing now."""
    return outcome.error_class in UNREACHABLE or outcome.status_code in THROTTLED


def lets_through(circuit: Circuit, now: int) -> bool:
    """Whether a request may begin: any while closed, one probe when an open circuit's pause is over."""
    return circuit.state == "closed" or (circuit.state == "open" and now >= circuit.probe_at)


def is_suspect(circuit: Circuit) -> bool:
    """Whether the last that was heard of the endpoint is that it is down."""
    return circuit.state != "closed" or circuit.failures > 0


def probing(circuit: Circuit) -> Circuit:
    """Return the circuit while its probe is under way."""
    return Circuit("half_open", opened=circuit.opened, probe_at=circuit.probe_at)


def after(circuit: Circuit, outcome: Outcome, now: int, *, probe: bool) -> Circuit:
    """Fold an attempt's outcome in. Once it is open only its probe counts: the rest began before."""
    down = is_down(outcome)
    if probe and circuit.state == "half_open":
        return _opened(circuit, outcome, now) if down else CLOSED
    if circuit.state != "closed":
        return circuit
    if not down:
        return CLOSED
    failing = Circuit("closed", circuit.failures + 1, circuit.since or now)
    lasted = now - failing.since >= UNWILLING_US or outcome.error_class in UNREACHABLE
    return _opened(circuit, outcome, now) if lasted and failing.failures >= OPENS_AFTER else failing


def _opened(circuit: Circuit, outcome: Outcome, now: int) -> Circuit:
    pause = min(PAUSE_US << circuit.opened, PAUSE_MAX_US)
    wait = max(pause, min(outcome.retry_after_us, PAUSE_MAX_US))
    return Circuit("open", opened=min(circuit.opened + 1, 10), probe_at=now + wait)


# -- the in-flight cap -----------------------------------------------------------------

CAP_FIRST = 8.0


@dataclass(frozen=True, slots=True)
class Cap:
    """How many requests an endpoint bears at a time: grows with success, halves when it is too much.

    It doubles a round trip until the first setback, then grows by one a round trip
    (additive increase, multiplicative decrease; RFC 5681, section 3.1, for packets).
    """

    size: float = CAP_FIRST
    threshold: float = float("inf")
    shrunk_at: int = 0
    """Requests begun before then tell nothing new, microseconds since 1970 UTC."""


def first_cap(most: int) -> Cap:
    """Return the cap of an endpoint that is not known yet, at most `most`."""
    return Cap(min(CAP_FIRST, float(most)))


def adapted(cap: Cap, outcome: Outcome, now: int, most: int) -> Cap:
    """Fold an attempt's outcome into the cap, which stays within 1 and `most`."""
    if is_down(outcome):
        if outcome.started_at < cap.shrunk_at:
            return cap
        half = max(1.0, cap.size / 2)
        return Cap(half, half, now)
    if cap.size >= most:
        return cap
    step = 1.0 if cap.size < cap.threshold else 1.0 / cap.size
    return Cap(min(cap.size + step, float(most)), cap.threshold, cap.shrunk_at)


# -- the rate limit --------------------------------------------------------------------

BURST_S = 0.1
RATE_MIN = 0.001
"""Slowest rate limit, requests/s: one in a quarter of an hour, whatever the log says."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket that starts empty; `at` is when `tokens` was right, microseconds since 1970 UTC."""

    at: int
    tokens: float = 0.0


def refilled(bucket: Bucket, rate: float, now: int) -> Bucket:
    """Add what `rate` (requests/s) gives by `now`; it holds a tenth of a second's worth, at least one."""
    tokens = bucket.tokens + max(0, now - bucket.at) * max(rate, RATE_MIN) / 1e6
    return Bucket(now, min(tokens, max(1.0, rate * BURST_S)))


def spent(bucket: Bucket) -> Bucket:
    """Take one token."""
    return Bucket(bucket.at, bucket.tokens - 1)


def token_at(bucket: Bucket, rate: float) -> int:
    """When one token will be there, microseconds since 1970 UTC."""
    missing = max(0.0, 1 - bucket.tokens)
    return bucket.at + int(missing * 1e6 / max(rate, RATE_MIN)) + 1


# -- expiry ----------------------------------------------------------------------------

EXPIRES_US = 3 * 86_400_000_000
"""After so long a delivery that still waits in a lane has expired, unless its policy is longer."""
KEPT_MARGIN_US = 86_400_000_000


def span_us(policy: Policy) -> int:
    """Return how long the policy's whole schedule can last: every delay with its jitter, every timeout."""
    delays = sum(policy.delays_us)
    return int(delays * (1 + JITTER_MAX)) + policy.timeout_us * (len(policy.delays_us) + 1)


def began_at(delivery: DeliveryScheduled, appended_at: int) -> int:
    """When a delivery's time began: the message's acceptance; a resend's or replay's is its own record."""
    return delivery.accepted_at if delivery.trigger == "scheduled" else appended_at


def expiry(circuit: Circuit, policy: Policy, began: int, kept_until: int, now: int) -> Expiry:
    """Why a delivery that waits ends as failed now; empty if it may wait on.

    `kept_until` is when the log may let go of its record: whatever the policy says, it ends a day before.
    """
    waited, span = now - began, span_us(policy)
    if circuit.state == "open" and now < circuit.probe_at and waited > span:
        return "circuit_open"
    is_over = waited > max(span, EXPIRES_US) or now > kept_until - KEPT_MARGIN_US
    return "expired" if is_over else ""
