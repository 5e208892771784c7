"""The chaos test's judge: what it accepts, and each thing that must turn a run red."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.dev.chaos.books import SECOND, Endpoint, Published, Request, Trouble, Verdict, judge
from engine.dev.chaos.cast import KINDS, RETRY_POLICY, SUBSCRIBERS, message_id, number_of, payload, reply

BY_NAME = {one.name: one for one in SUBSCRIBERS}
RUN = "c1"
M0 = message_id(RUN, 0)
PUBLISHED = Published(RUN, KINDS, {0: SECOND})
KILL = Trouble("kill 1", 10 * SECOND, 10 * SECOND)
FREEZE = Trouble("dispatcher away", 10 * SECOND, 30 * SECOND, overlaps=True)


@dataclass(frozen=True, slots=True)
class Made:
    """A record of an attempt that took a tenth of a second."""

    number: int = 1
    decision: str = "delivered"
    started: int = 2 * SECOND
    reason: str = ""
    outcome: str = "success"
    error_class: str = ""
    cause: str = ""

    @property
    def ended(self) -> int:
        """A tenth of a second later."""
        return self.started + SECOND // 10


class Frozen(Made):
    """A record of an attempt whose process was frozen for nine seconds."""

    @property
    def ended(self) -> int:
        """When its answer was noticed."""
        return self.started + 9 * SECOND


def made(number: int, decision: str = "retry", at: float = 2, **more: str) -> Made:
    """A record whose cause is of its number unless another is named."""
    fitting = {
        "outcome": "success" if decision == "delivered" else "failure",
        "cause": f"deliveries:0:{number}",
    }
    return Made(number, decision, int(at * SECOND), **{**fitting, **more})


def seen(at: float = 2.01, status: int = 200, answered: float = 0.01, fault: str = "") -> Request:
    """A request of the one message, `answered` so many seconds after it arrived."""
    arrived = int(at * SECOND)
    return Request(M0, arrived, arrived + int(answered * SECOND), status, fault)


def verdict(
    requests: Sequence[Request],
    records: Sequence[Made],
    name: str = "healthy",
    troubles: Sequence[Trouble] = (),
    passed_over: frozenset[str] = frozenset(),
) -> Verdict:
    """Of an endpoint that one acknowledged message is for."""
    attempts: Mapping[str, Sequence[Made]] = {M0: records} if records else {}
    return judge(Endpoint(BY_NAME[name], 0, requests, attempts, passed_over), PUBLISHED, troubles)


def test_a_delivery_as_it_should_be() -> None:
    """One request that is answered well, one record: nothing is wrong."""
    found = verdict([seen()], [made(1, "delivered")])
    assert (found.expected, found.delivered, found.requests, found.faults) == (1, 1, 1, {})


def test_a_retry_as_it_should_be() -> None:
    """A failure and then a success are two requests and two records."""
    found = verdict([seen(2.01, 500), seen(4.01)], [made(1), made(2, "delivered", 4)])
    assert (found.delivered, found.lost, found.faults) == (1, [], {})


@pytest.mark.parametrize(
    ("requests", "records", "fault"),
    [
        ([], [], "never attempted"),
        ([seen()], [], "never attempted"),
        ([seen(status=500)], [made(1)], "forgotten: attempt 2 was never made"),
        ([seen(status=500)], [made(1, "failed", reason="http_5xx")], "ended failed (http_5xx)"),
        ([seen(status=500)], [made(1, "failed", reason="http_5xx")], "failed (http_5xx) with attempts left"),
        (
            [seen(status=500)],
            [made(1, "delivered")],
            "delivered, says the log, and the receiver never answered well",
        ),
        ([], [made(1, "delivered")], "attempted, says the log, and the receiver did not see it"),
        (
            [seen(), seen(4.01)],
            [made(1, "delivered"), made(2, "failed", 4)],
            "contradiction: attempted again after its end",
        ),
        ([seen(4.01)], [made(2, "delivered", 4)], "attempts out of order"),
        (
            [seen(), seen(4.01)],
            [made(1, "delivered"), made(1, "delivered", 4)],
            "attempted twice, and nothing explains it",
        ),
        (
            [seen(), seen(4.01)],
            [made(1, "delivered"), made(1, "delivered", 4, cause="deliveries:0:9")],
            "a retry was forked: one attempt made for two records",
        ),
        (
            [seen(), seen(1.5)],
            [made(1, "delivered")],
            "repeated although its record was long on the log",
        ),
        ([seen(fault="another payload")], [made(1, "delivered")], "another payload"),
    ],
)
def test_what_turns_it_red(requests: list[Request], records: list[Made], fault: str) -> None:
    """Each thing that must not happen is named, with the message."""
    found = verdict(requests, records)
    assert fault in found.faults
    assert found.shown[fault] == [M0]


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("m-unknown", "received, and never published"),
        (message_id(RUN, KINDS), "received, and never published"),
        (message_id(RUN, 1), "received, and not subscribed"),
    ],
)
def test_requests_for_nothing_are_red(message: str, fault: str) -> None:
    """A receiver must not see what was never published, or what it did not subscribe to."""
    stray = seen()._replace(message=message)
    found = verdict([seen(), stray], [made(1, "delivered")], "dead")
    assert fault in found.faults


@pytest.mark.parametrize(
    ("arrived", "answered", "excused"),
    [
        (9.9, 0.5, True),  # in flight at the kill
        (9.9, 0.05, True),  # answered just before it: unacknowledged
        (3.0, 0.5, False),  # its record was long on the log
        (10.1, 0.1, True),  # on its way
        (11.0, 0.1, False),  # made after the kill
    ],
)
def test_a_kill_explains_only_what_was_in_flight(arrived: float, answered: float, excused: bool) -> None:
    """A repeated request counts for the kill that lost its record; any other one is red."""
    requests = [seen(arrived, answered=answered), seen(12.01)]
    found = verdict(requests, [made(1, "delivered", 12)], troubles=[KILL])
    assert [cause for cause, _ in found.lost] == ["kill 1" if excused else ""]
    assert bool(found.faults) is not excused


def test_two_owners_for_a_moment_may_both_record() -> None:
    """Two records of one attempt are explained by a freeze, and not by a kill."""
    requests, records = [seen(11.01), seen(20.01)], [made(1, "delivered", 11), made(1, "delivered", 20)]
    assert verdict(requests, records, troubles=[FREEZE]).faults == {}
    assert verdict(requests, records, troubles=[KILL]).faults.keys() == {
        "attempted twice, and nothing explains it"
    }


@pytest.mark.parametrize("first", [11.01, 15.01])
def test_the_attempt_of_a_frozen_owner_spans_that_of_the_next(first: float) -> None:
    """Whichever request is whose, each record has one."""
    frozen = Frozen(started=11 * SECOND, cause="deliveries:0:1")
    requests, records = [seen(first), seen(15.02)], [made(1, "delivered", 15), frozen]
    assert verdict(requests, records, troubles=[FREEZE]).faults == {}
    assert verdict(requests[1:], records, troubles=[FREEZE]).faults.keys() == {
        "attempted, says the log, and the receiver did not see it"
    }


def test_a_request_resent_on_a_dead_connection_is_of_the_same_attempt() -> None:
    """Cut off by the receiver and sent again within one attempt: counted, and not red."""
    found = verdict([seen(2.01, 0), seen(2.02)], [made(1, "delivered")])
    assert (found.resent, found.lost, found.faults) == (1, [], {})


def test_an_endpoint_that_is_gone_may_be_passed_over() -> None:
    """What the router skipped is legitimate for an endpoint that was disabled, and for no other."""
    gone = Endpoint(BY_NAME["gone"], 0, [], {}, frozenset({message_id(RUN, 1)}))
    assert judge(gone, Published(RUN, KINDS, {1: SECOND})).skipped == 1
    assert verdict([], [], passed_over=frozenset({M0})).faults == {"never attempted": 1}


def test_an_exhausted_delivery_may_fail_where_that_is_expected() -> None:
    """All attempts used up, at an endpoint that was dead: legitimate."""
    numbers = range(1, len(RETRY_POLICY) + 1)
    records = [made(n, "retry", 2 * n, error_class="connect") for n in numbers]
    last = made(len(RETRY_POLICY) + 1, "failed", 60, error_class="connect", reason="connect")
    assert verdict([], [*records, last], "dead").faults == {}


def test_a_late_endpoint_owes_nothing_at_first() -> None:
    """What was published around its creation may come or not; what came much later must."""
    late = Endpoint(BY_NAME["late"], 5 * SECOND, [], {})
    assert judge(late, Published(RUN, KINDS, {4: 6 * SECOND})).faults == {}
    assert judge(late, Published(RUN, KINDS, {4: 60 * SECOND})).faults == {"never attempted": 1}


@given(st.integers(0, 10**7))
def test_messages_are_found_again_by_name(number: int) -> None:
    """A name belongs to one number of one run, and its payload holds it."""
    name = message_id(RUN, number)
    assert number_of(RUN, name) == number
    assert number_of("another", name) is None
    assert name.encode() in payload(name)


@given(st.integers(0, 1000), st.integers(2, 8))
def test_receivers_answer_well_in_the_end(number: int, ordinal: int) -> None:
    """All but one answer any request of a message after the first well; moods go before."""
    name = message_id(RUN, number)
    for one in SUBSCRIBERS:
        if one.behaviour != "sometimes":
            assert 200 <= reply(one.behaviour, "", name, ordinal).status < 300
        assert reply(one.behaviour, "gone", name, ordinal).status == 410
        assert reply(one.behaviour, "down", name, ordinal).how == "reset"
