"""What a replay has to deliver, by what is on the log."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.core.change import EndpointSettings
from engine.core.endpoint import Endpoint
from engine.core.model import AttemptFinished, Decision, RoutedBatch, Routing, Trigger
from engine.core.replay import (
    CancelReplay,
    Only,
    Replay,
    Resent,
    ResentBatch,
    StartReplay,
    begun,
    cancel,
    ended,
    finish,
    resent_id,
    started,
)
from engine.core.routing import subscriber, subscription, takes
from engine.core.survey import Survey, Wanted

ENDPOINT = Endpoint("ep", "acme", EndpointSettings("https://example.com", ("room.*",)))
OTHER = Endpoint("other", "acme", EndpointSettings("https://example.com"))


def survey(only: Only = "missed", *, event_types: tuple[str, ...] = (), since: int = 0) -> Survey:
    """A survey of one partition's first 100 offsets, for `ep`."""
    wanted = Wanted("acme", since, only, event_types, (100,))
    return Survey(wanted, {"ep": subscriber(ENDPOINT, 1)})


def routing(offset: int, *matched: str) -> Routing:
    """A message of the tenant, accepted at its offset."""
    return Routing(offset, "acme", f"m{offset}", "room.ended", offset, matched=matched)


def route(into: Survey, *routings: Routing) -> None:
    """Fold them."""
    into.routed(RoutedBatch(0, routings[0].offset, routings[-1].offset, (), routings))


def attempt(offset: int, decision: Decision, trigger: Trigger = "scheduled") -> AttemptFinished:
    """An attempt at `ep`."""
    return AttemptFinished(
        *(f"{trigger}{offset}", "acme", "ep", f"m{offset}", "room.ended", 1, trigger, "", offset, 0, offset),
        *(0, 0),
        outcome="failure",
        status_code=500,
        error_class="",
        error="",
        decision=decision,
        reason="",
        retry_at=0,
        request_bytes=0,
        response_body=b"",
        worker="w",
        delivery=b"",
    )


def made_again(offset: int, trigger: Trigger = "resend") -> ResentBatch:
    """A delivery of a message that is not its first."""
    each = Resent(f"{trigger}{offset}", "ep", f"m{offset}", "room.ended", trigger, "o", offset, 0, offset)
    return ResentBatch("cmd", "acme", "hl", 0, (each,))


def chosen(found: Survey) -> list[int]:
    """Offsets that go to `ep`."""
    return [n for n in range(200) if found.is_wanted("ep", "room.ended", (0, n))]


@pytest.mark.parametrize(
    ("changed", "is_wanted"),
    [
        ({}, True),
        ({"tenant": "else"}, False),
        ({"verdict": "duplicate"}, False),
        ({"verdict": "invalid"}, False),
        ({"event_type": "recording.completed"}, False),
        ({"accepted_at": 4}, False),
        ({"offset": 100}, False),
        ({"offset": 99}, True),
        ({"matched": ("ep",)}, True),
    ],
)
def test_all_is_what_was_routed_and_matches(changed: dict[str, object], is_wanted: bool) -> None:
    """Of the tenant, in the range, of the subscription as it is now, whatever became of it."""
    found = survey("all", since=5)
    made = replace(routing(7), **changed)  # type: ignore[arg-type]
    route(found, made)
    found.conclude()
    assert found.is_wanted("ep", made.event_type, (0, made.offset)) is is_wanted


@pytest.mark.parametrize(
    ("matched", "attempts", "again", "is_missed"),
    [
        ((), [], [], True),
        (("other",), [], [], True),
        (("ep",), [], [], False),
        (("ep",), [attempt(7, "retry")], [], False),
        (("ep",), [attempt(7, "delivered")], [], False),
        (("ep",), [attempt(7, "failed")], [], True),
        (("ep",), [attempt(7, "skipped")], [], True),
        (("ep",), [attempt(7, "failed")], [made_again(7)], False),
        (("ep",), [attempt(7, "failed"), attempt(7, "retry", "resend")], [made_again(7)], False),
        (("ep",), [attempt(7, "failed"), attempt(7, "delivered", "resend")], [made_again(7)], False),
        (("ep",), [attempt(7, "failed"), attempt(7, "failed", "resend")], [made_again(7)], True),
        ((), [attempt(7, "delivered", "test")], [made_again(7, "test")], True),
    ],
)
def test_missed_is_what_never_came_and_is_not_on_its_way(
    matched: tuple[str, ...], attempts: list[AttemptFinished], again: list[ResentBatch], is_missed: bool
) -> None:
    """Delivered by whatever trigger, or pending by whatever trigger, is not missed."""
    found = survey()
    route(found, routing(7, *matched))
    for each in again:
        found.resent(each)
    for one in attempts:
        found.attempted(one)
    found.conclude()
    assert chosen(found) == ([7] if is_missed else [])
    assert found.by_event_type() == ({"room.ended": 1} if is_missed else {})


def test_failed_is_each_message_once_by_its_dead_letter() -> None:
    """Marked where the dead letter lies; what was made good or is on its way is left alone."""
    found = survey("failed")
    route(found, routing(1), routing(2))
    found.resent(made_again(3))
    found.attempted(attempt(2, "delivered", "resend"))
    found.conclude()
    for offset, message in enumerate((1, 2, 3, 1), start=50):
        found.dead(attempt(message, "failed"), 0, offset)
    found.dead(replace(attempt(4, "failed"), tenant="else"), 0, 60)
    assert chosen(found) == [50]
    assert found.span(0) == (50, 51)
    assert (found.count(0, 0, 51), found.count(0, 51, 100)) == (1, 0)


@pytest.mark.parametrize(
    ("event_types", "event_type", "is_taken"),
    [
        ((), "a", True),
        (("a",), "a", True),
        (("a",), "ab", False),
        (("a.*",), "a.b", True),
        (("a.*",), "ab", False),
        (("*",), "a", True),
    ],
)
def test_event_types_are_as_in_a_subscription(
    event_types: tuple[str, ...], event_type: str, is_taken: bool
) -> None:
    """A list of types and prefixes; none is all."""
    assert takes(subscription(event_types or None), event_type) is is_taken


def snapshot() -> Replay:
    """A replay that has begun."""
    command = StartReplay("cmd", "acme", "hl", 1, "rpl", "ep", 2, 0, "all", ("room.*",), 2.5)
    return begun(started(command, 9, (5, 6)), (1, 77), (0, 0))


def test_a_replay_begins_with_a_frozen_end() -> None:
    """No end is now; the cursors are at the beginning."""
    replay = snapshot()
    assert (replay.until, replay.ends, replay.cursors) == (9, (5, 6), (0, 0))
    assert (replay.partition, replay.offset, replay.status) == (1, 77, "running")


def test_a_replay_ends_once() -> None:
    """What comes after the end changes nothing."""
    replay = snapshot()
    fact = cancel(replay, CancelReplay("stop", "acme", "hl2", 1, "rpl"), 20)
    over = ended(replay, fact)
    assert (over.status, over.ended_at, fact.actor) == ("cancelled", 20, "hl2")
    assert ended(over, finish(replay, 30, "late")) == over
    assert ended(replay, finish(replay, 30, "why")).reason == "why"


def test_ids_come_from_what_made_the_delivery_and_of_what() -> None:
    """Every part counts; the same parts give the same id."""
    base = ("cmd", "t", (1, 2), "ep")
    others = [("cm", *base[1:]), ("cmd", "u", (1, 2), "ep"), ("cmd", "t", (2, 2), "ep")]
    others += [("cmd", "t", (1, 3), "ep"), ("cmd", "t", (1, 2), "eq")]
    assert resent_id(*base) == resent_id(*base)
    assert len({resent_id(*each) for each in [base, *others]}) == 6
