"""The rules of a lane: circuit, cap, bucket, expiry."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.lane import (
    CLOSED,
    EXPIRES_US,
    KEPT_MARGIN_US,
    OPENS_AFTER,
    PAUSE_MAX_US,
    PAUSE_US,
    RATE_MIN,
    UNWILLING_US,
    Bucket,
    Cap,
    Circuit,
    adapted,
    after,
    began_at,
    expiry,
    first_cap,
    is_suspect,
    lets_through,
    probing,
    refilled,
    span_us,
    spent,
    token_at,
)
from engine.core.model import DeliveryScheduled, ErrorClass, Outcome, Policy, Trigger

SECOND = 1_000_000
AT = 1_760_000_000 * SECOND
OK = Outcome("success", 200)
REFUSED = Outcome("failure", 0, "connect")


def failing(outcome: Outcome, times: int, every_us: int = 0, circuit: Circuit = CLOSED) -> Circuit:
    """The circuit after so many like outcomes."""
    for n in range(times):
        circuit = after(circuit, outcome, AT + n * every_us, probe=False)
    return circuit


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e-9, RATE_MIN])
def test_no_rate_is_too_small_to_reckon_with(rate: float) -> None:
    """Whatever is on the log, the next token has a time, and comes then."""
    at = token_at(Bucket(0), rate)
    assert at == 1_000_000_001
    assert refilled(Bucket(0), rate, at).tokens >= 1


@pytest.mark.parametrize(("most", "size"), [(1, 1), (3, 3), (8, 8), (64, 8)])
def test_an_unknown_endpoint_is_trusted_with_no_more_than_is_allowed(most: int, size: int) -> None:
    """The setting holds from the first request on."""
    assert first_cap(most).size == size


@pytest.mark.parametrize(
    ("error_class", "status", "apart_us", "opens"),
    [
        ("connect", 0, 0, True),
        ("dns", 0, 0, True),
        ("tls", 0, 0, True),
        ("timeout", 0, 0, True),
        ("reset", 0, 0, True),
        ("throttled", 429, 0, False),
        ("throttled", 429, UNWILLING_US // (OPENS_AFTER - 1) + 1, True),
        ("http_5xx", 503, UNWILLING_US // (OPENS_AFTER - 1) + 1, True),
        ("http_5xx", 500, UNWILLING_US, False),
        ("http_4xx", 404, UNWILLING_US, False),
        ("http_3xx", 301, UNWILLING_US, False),
        ("protocol", 0, UNWILLING_US, False),
        ("blocked", 0, UNWILLING_US, False),
    ],
)
def test_what_opens_a_circuit(error_class: ErrorClass, status: int, apart_us: int, opens: bool) -> None:
    """One that is not reached, at once; one that is unwilling, when it stays so; never its answers."""
    outcome = Outcome("failure", status, error_class)
    assert failing(outcome, OPENS_AFTER - 1, apart_us).state == "closed"
    assert (failing(outcome, OPENS_AFTER, apart_us).state == "open") is opens


@pytest.mark.parametrize("outcome", [OK, Outcome("failure", 500, "http_5xx"), Outcome("failure", 404)])
def test_any_answer_ends_the_row(outcome: Outcome) -> None:
    """Failures count in a row: whatever shows that the endpoint is up starts again."""
    almost = failing(REFUSED, OPENS_AFTER - 1)
    assert after(almost, outcome, AT, probe=False) == CLOSED


def test_an_open_circuit_lets_one_probe_through() -> None:
    """Nothing before its pause is over, then one probe, then nothing until that has ended."""
    circuit = failing(REFUSED, OPENS_AFTER)
    assert not lets_through(circuit, circuit.probe_at - 1)
    assert lets_through(circuit, circuit.probe_at)
    assert not lets_through(probing(circuit), circuit.probe_at + 1)


def test_the_probe_decides() -> None:
    """Its success closes the circuit, its failure doubles the pause up to the longest."""
    circuit = failing(REFUSED, OPENS_AFTER)
    assert after(probing(circuit), OK, AT, probe=True) == CLOSED
    pauses = []
    for _ in range(5):
        pauses.append(circuit.probe_at - AT)
        circuit = after(probing(circuit), REFUSED, AT, probe=True)
        assert circuit.state == "open"
    assert pauses == [PAUSE_US, 2 * PAUSE_US, 4 * PAUSE_US, PAUSE_MAX_US, PAUSE_MAX_US]


@pytest.mark.parametrize("outcome", [OK, REFUSED])
def test_what_began_before_it_opened_tells_nothing(outcome: Outcome) -> None:
    """Only the probe moves a circuit that is not closed."""
    circuit = failing(REFUSED, OPENS_AFTER)
    assert after(circuit, outcome, AT, probe=False) == circuit
    assert after(probing(circuit), outcome, AT, probe=False) == probing(circuit)


def test_retry_after_lengthens_the_pause_within_bounds() -> None:
    """An unwilling endpoint's own wish counts, but a probe is never further away than the longest pause."""
    apart = UNWILLING_US // (OPENS_AFTER - 1) + 1
    asking = Outcome("failure", 503, "http_5xx", retry_after_us=20 * SECOND)
    circuit = failing(asking, OPENS_AFTER, apart)
    assert circuit.probe_at == AT + (OPENS_AFTER - 1) * apart + 20 * SECOND
    later = after(probing(circuit), replace(asking, retry_after_us=10**12), AT, probe=True)
    assert later.probe_at == AT + PAUSE_MAX_US


OUTCOMES = st.sampled_from([OK, REFUSED, Outcome("failure", 503, "http_5xx"), Outcome("failure", 500)])


@given(st.lists(st.tuples(OUTCOMES, st.integers(0, 60 * SECOND)), max_size=80))
def test_a_circuit_is_never_stuck(history: list[tuple[Outcome, int]]) -> None:
    """Whatever happened, within the longest pause a request may begin, and a success closes it."""
    circuit, now = CLOSED, AT
    for outcome, step in history:
        now += step
        probe = circuit.state == "open" and lets_through(circuit, now)
        circuit = after(probing(circuit) if probe else circuit, outcome, now, probe=probe)
    assert lets_through(circuit, now + PAUSE_MAX_US)
    if circuit.state == "open":
        assert after(probing(circuit), OK, now, probe=True) == CLOSED


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5 * SECOND)), max_size=300), st.integers(1, 64))
def test_a_cap_stays_within_its_bounds(history: list[tuple[bool, int]], most: int) -> None:
    """Between one and the setting, from the first setback on."""
    cap, now = Cap(1.0), AT
    for good, step in history:
        now += step
        outcome = Outcome("success", 200, started_at=now) if good else replace(REFUSED, started_at=now)
        cap = adapted(cap, outcome, now, most)
        assert 1 <= cap.size <= max(most, 1)


def test_a_cap_doubles_then_halves_then_creeps() -> None:
    """Slow start to the bound; a setback halves it once for all requests that began before."""
    cap = Cap()
    for n in range(60):
        cap = adapted(cap, replace(OK, started_at=AT + n), AT + n, 64)
    assert cap.size == 64
    for _ in range(20):
        cap = adapted(cap, replace(REFUSED, started_at=AT), AT + SECOND, 64)
    assert cap.size == 32
    grown = cap
    for _ in range(32):
        grown = adapted(grown, replace(OK, started_at=AT + 2 * SECOND), AT + 2 * SECOND, 64)
    assert 32.9 < grown.size < 33.1


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (200, "http_2xx"),
        (301, "http_3xx"),
        (400, "http_4xx"),
        (404, "http_4xx"),
        (410, "gone"),
        (500, "http_5xx"),
        (501, "http_5xx"),
    ],
)
def test_an_answer_that_is_no_overload_does_not_shrink(status: int, error_class: ErrorClass) -> None:
    """A refusal of the one message says nothing about how much the endpoint bears."""
    outcome = Outcome("failure", status, error_class, started_at=AT)
    assert adapted(Cap(10.0), outcome, AT, 64).size >= 10


@given(st.floats(0.01, 5_000), st.lists(st.integers(0, SECOND), min_size=1, max_size=200))
def test_a_bucket_gives_its_rate_and_not_more(rate: float, steps: list[int]) -> None:
    """It starts empty, and in no time more tokens come than the rate and a tenth of a second's worth."""
    bucket, now, taken = Bucket(AT), AT, 0
    for step in steps:
        now += step
        bucket = refilled(bucket, rate, now)
        while bucket.tokens >= 1:
            bucket, taken = spent(bucket), taken + 1
        assert taken <= rate * (now - AT) / SECOND + 1e-6


@given(st.floats(0.01, 5_000), st.floats(0, 1))
def test_the_next_token_is_foretold(rate: float, tokens: float) -> None:
    """When `token_at` says so, there is one; a hundredth of the wait earlier there is none."""
    bucket = Bucket(AT, tokens)
    at = token_at(bucket, rate)
    assert refilled(bucket, rate, at).tokens >= 1 - 1e-6
    early = AT + int((at - AT) * 0.99) - 2
    assert tokens > 0.99 or refilled(bucket, rate, max(early, AT)).tokens < 1


POLICY = Policy((SECOND, 3 * SECOND), 10 * SECOND)
OPEN = Circuit("open", opened=1, probe_at=AT + 5 * SECOND)


def test_the_span_covers_every_delay_and_timeout() -> None:
    """Delays with their jitter, and a timeout an attempt."""
    assert span_us(POLICY) == int(4 * SECOND * 1.1) + 30 * SECOND
    assert span_us(Policy((), 10 * SECOND)) == 10 * SECOND


@pytest.mark.parametrize(
    ("circuit", "waited_us", "why"),
    [
        (CLOSED, 0, ""),
        (CLOSED, 3_600 * SECOND, ""),
        (CLOSED, EXPIRES_US + 1, "expired"),
        (OPEN, 34 * SECOND, ""),
        (OPEN, 35 * SECOND, "circuit_open"),
        (replace(OPEN, probe_at=AT), 35 * SECOND, ""),
        (probing(OPEN), 35 * SECOND, ""),
        (probing(OPEN), EXPIRES_US + 1, "expired"),
    ],
)
def test_what_waits_too_long_expires(circuit: Circuit, waited_us: int, why: str) -> None:
    """Behind an open circuit after the policy's span, but a probe comes first; anything else after days."""
    assert expiry(circuit, POLICY, AT - waited_us, AT + 4 * EXPIRES_US, AT) == why


def test_a_long_policy_is_not_cut_short() -> None:
    """A schedule longer than the days that anything may wait has its whole span."""
    long = Policy((EXPIRES_US,), SECOND)
    assert expiry(CLOSED, long, AT - EXPIRES_US - 1, AT + 2 * EXPIRES_US, AT) == ""


@pytest.mark.parametrize("circuit", [CLOSED, OPEN, replace(OPEN, probe_at=AT), probing(OPEN)])
@pytest.mark.parametrize(("left_us", "why"), [(KEPT_MARGIN_US, ""), (KEPT_MARGIN_US - 1, "expired")])
def test_nothing_waits_until_the_log_lets_go_of_it(circuit: Circuit, left_us: int, why: str) -> None:
    """However long its schedule is: a day before, it ends, so that somebody is told."""
    month = Policy((30 * 86_400 * SECOND,) * 50, SECOND)
    assert expiry(circuit, month, AT - 6 * 86_400 * SECOND, AT + left_us, AT) == why


@pytest.mark.parametrize(("trigger", "began"), [("scheduled", 5), ("resend", 9), ("replay", 9), ("test", 9)])
def test_when_a_deliverys_time_began(trigger: Trigger, began: int) -> None:
    """With the message's acceptance; what a person asks for later begins with its own record."""
    delivery = DeliveryScheduled(
        "d",
        "t",
        "e",
        "m",
        "x",
        1,
        trigger,
        "",
        5,
        0,
        "hooklog",
        0,
        0,
        0,
        0,
        b"",
    )
    assert began_at(delivery, 9) == began


@pytest.mark.parametrize(
    ("circuit", "suspect"),
    [(CLOSED, False), (Circuit("closed", failures=1), True), (OPEN, True), (probing(OPEN), True)],
)
def test_a_suspect_is_one_that_was_down_when_last_heard_of(circuit: Circuit, *, suspect: bool) -> None:
    """One failure is enough."""
    assert is_suspect(circuit) is suspect


@pytest.mark.parametrize("circuit", [Circuit("closed", failures=9), probing(OPEN)])
def test_one_answer_clears_a_suspect(circuit: Circuit) -> None:
    """Of a request that counts: any while closed, the probe while half open."""
    assert not is_suspect(after(circuit, Outcome("success", status_code=200), AT, probe=True))
