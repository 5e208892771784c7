"""Lanes in the whole pipeline: dead, slow and limited endpoints hold nobody and lose nothing."""

from __future__ import annotations

from collections import Counter
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.core.lane import Lane
from engine.core.model import Answer
from engine.ports import Output
from tests.pipeline.test_pipeline import decisions
from tests.pipeline.world import CODEC, World, a_world

REFUSED = Answer(0, error_class="connect")


class Switch:
    """Receivers that are up, but for those named here."""

    def __init__(self, *down: str) -> None:
        self.down = set(down)

    def __call__(self, path: str, seen: int) -> Answer:
        """Refused, or taken."""
        return REFUSED if path in self.down else Answer(200)


def snapshots(world: World) -> dict[str, Lane]:
    """What the log says last of each lane."""
    last = {(record.key or b"").decode(): record.value for record in world.records("lanes")}
    return {key: CODEC.decode_as(Lane, value) for key, value in last.items() if value is not None}


def open_inputs(world: World) -> int:
    """Records that hold the dispatcher's commit."""
    return world.intake.processor.progress.open_inputs()


def test_a_dead_endpoint_costs_a_cursor_and_holds_nothing() -> None:
    """Its backlog waits on the log behind a cursor, no offset is held, its neighbour is served."""
    with a_world(Switch("dead"), waiting=50) as world:
        world.create_endpoint("dead", retry_policy=(3_600_000,))
        world.create_endpoint("ok")
        world.run(1)
        for n in range(400):
            world.publish(f"m{n}")
        world.run(8)
        assert decisions(world)["ok", "delivered"] == 400
        lane = snapshots(world)["dead"]
        assert lane.parked
        assert lane.circuit == "open"
        assert open_inputs(world) == 0
        assert world.lanes.places.waiting <= 2
        assert 10 <= sum(n for (url, _), n in world.seen.items() if url.endswith("dead")) <= 80


def test_it_is_drained_when_it_comes_back() -> None:
    """A probe closes the circuit, everything is delivered once, in order, and the lane's record goes."""
    receiver = Switch("dead")
    with a_world(receiver, waiting=50) as world:
        world.create_endpoint("dead", retry_policy=(60_000, 3_600_000))
        world.run(1)
        for n in range(300):
            world.publish(f"m{n}")
        world.run(20)
        assert snapshots(world)["dead"].parked
        receiver.down.clear()
        world.run_until(lambda: decisions(world)["dead", "delivered"] == 300, 120)
        world.run_until(lambda: snapshots(world) == {}, 10)
        assert world.lanes.places.waiting == 0
        assert not world.lanes._lanes
        again = [key for key, seen in world.seen.items() if seen > 2]
        assert again == []


def test_one_that_dies_again_while_it_catches_up_gives_its_places_back() -> None:
    """Drained for a lane that has just been unparked: they wait on the log again, nobody else pays."""
    receiver = Switch("a")
    with a_world(receiver, waiting=400, endpoint_in_flight=1) as world:
        world.create_endpoint("a", event_types=("a",), retry_policy=(3_600_000,))
        world.create_endpoint("ok", event_types=("ok",))
        world.run(1)
        for n in range(90):
            world.publish(f"m{n}", "a")
        world.run(8)
        assert snapshots(world)["a"].parked
        receiver.down.clear()
        lane, world.answer_us = world.lanes._lanes["a"], lambda message: 500_000
        world.run_until(lambda: lane.circuit.state == "closed", 60)
        for n in range(60):
            world.publish(f"n{n}", "a")
        world.run_until(lambda: not lane.is_diverted, 60)
        assert len(lane.waiting) > 30, "all of them were drained for it"
        receiver.down.add("a")
        world.run_until(lambda: lane.circuit.state == "open", 30)
        world.run(1)
        assert world.lanes.places.waiting <= 2
        world.publish("well", "ok")
        world.run(1)
        receiver.down.clear()
        delivered = {("a", "delivered"): 150 - decisions(world)["a", "retry"], ("ok", "delivered"): 1}
        world.run_until(lambda: Counter(delivered) <= decisions(world), 240)
        assert all(seen <= 2 for seen in world.seen.values())


def test_what_waits_too_long_behind_an_open_circuit_fails() -> None:
    """When the policy's whole span is over: failed, dead letter, without another request."""
    with a_world(Switch("dead"), waiting=50) as world:
        world.create_endpoint("dead", retry_policy=(1_000,), timeout_ms=1_000)
        world.run(1)
        for n in range(100):
            world.publish(f"m{n}")
        world.run_until(lambda: decisions(world)["dead", "failed"] == 100, 120)
        reasons = Counter(a.reason for a in world.attempts() if a.decision == "failed")
        assert reasons["circuit_open"] > 50
        assert set(reasons) <= {"circuit_open", "connect"}
        assert all(a.outcome == "none" for a in world.attempts() if a.reason == "circuit_open")
        assert len(world.records("dead-letters")) == 100


@pytest.mark.parametrize("rate", [0.5, 4.0, 40.0])
def test_a_rate_limit_holds_across_restarts(rate: float) -> None:
    """Its rate and not more, however often the dispatcher is killed; what waits is parked, not held."""
    with a_world(Switch(), waiting=30) as world:
        world.create_endpoint("limited", rate_limit=rate)
        world.run(1)
        for n in range(300):
            world.publish(f"m{n}")
        for _ in range(5):
            world.run(4)
            world.kill("dispatcher")
        world.run(4)
        at = sorted(at for _, at in world.requested_at)
        burst = max(1.0, rate * 0.1)
        for first in range(0, len(at), 7):
            for last in range(first + 1, len(at), 5):
                seconds = (at[last] - at[first]) / 1e6
                assert last - first + 1 <= rate * seconds + burst + 1e-6
        assert len(at) >= min(300, 0.4 * rate * 24)
        assert open_inputs(world) <= 30


def test_two_copies_of_a_retry_due_in_an_hour_are_one_attempt() -> None:
    """Both reach `deliveries` an hour later; one is tried."""
    with a_world(lambda path, seen: Answer(200 if seen else 500)) as world:
        world.create_endpoint("ok", retry_policy=(3_600_000,))
        world.run(1)
        world.publish("m")
        world.run(3)
        (first,) = world.records("attempts")
        world.log.append(Output("attempts", first.partition, first.key, first.value, first.headers))
        tier = next(r for name in ("retry.4s", "retry.2s") for r in world.records(name))
        world.log.append(Output(tier.topic, tier.partition, tier.key, tier.value, tier.headers))
        world.kill("scheduler")
        for _ in range(1_200):
            world.clock.us += 4_000_000 - 250_000
            world.run(0.25)
        world.run(10)
        assert decisions(world) == {("ok", "delivered"): 1}
        assert list(world.seen.values()) == [2]
        assert len([d for d in world.deliveries() if d.attempt == 2]) == 2, "both copies came"


STEPS = [("step", "router"), ("step", "router"), ("step", "dispatcher"), ("step", "dispatcher")]
ACTIONS = st.one_of(
    st.sampled_from([*STEPS, ("step", "scheduler"), ("kill", "dispatcher")]),
    st.sampled_from([("publish", "1"), ("publish", "9"), ("wait", ""), ("wait", "")]),
    st.sampled_from([*STEPS, ("wait", ""), ("round", ""), ("toggle", "a"), ("toggle", "b")]),
    st.sampled_from(
        [("arrive", "1"), ("arrive", "2"), ("arrive", "9"), ("rest", ""), ("kill", "dispatcher")]
    ),
)
SLOW_US = (0, 150_000, 300_000, 600_000, 5_000_000)
"""So long a receiver takes to answer: the longest outlast a snapshot or two, and a kill."""


def publish(world: World, count: int) -> None:
    """Messages for everybody."""
    for n in range(count):
        world.publish(f"m{len(world.records('messages'))}-{n}")


def rest(world: World) -> None:
    """Only the dispatcher works, long enough to say in `lanes` how things are."""
    for _ in range(8):
        world.step("dispatcher")
        world.clock.us += 200_000


def act(world: World, receiver: Switch, action: str, name: str) -> None:
    """Do one of ACTIONS."""
    match action:
        case "step":
            world.step(name)
        case "kill":
            world.kill(name)
        case "toggle":
            receiver.down ^= {name}
        case "publish" | "arrive":
            publish(world, int(name))
            world.run(0.5 if action == "arrive" else 0)
        case "round":
            world.run(0.25)
        case "wait":
            world.clock.us += 300_000
        case _:
            rest(world)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACTIONS, min_size=20, max_size=80), st.sampled_from([1, 4, 10, 20, 40]))
def test_parking_loses_nothing_and_repeats_nothing(actions: list[tuple[str, str]], waiting: int) -> None:
    """Endpoints go down and come back, lanes park and drain, the dispatcher is killed anywhere."""
    receiver = Switch()
    with a_world(receiver, waiting=waiting, endpoint_in_flight=3) as world:
        world.answer_us = lambda message: SLOW_US[crc32(message.encode()) % 5]
        for name in ("a", "b", "ok"):
            world.create_endpoint(name, retry_policy=(1_000,) * 20)
        world.run(1)
        for action, name in actions:
            act(world, receiver, action, name)
        messages = len(world.records("messages"))
        receiver.down.clear()
        everything = {(name, "delivered"): messages for name in ("a", "b", "ok") if messages}
        world.run_until(lambda: decisions(world) == everything, 120)
        world.run_until(lambda: snapshots(world) == {} and open_inputs(world) == 0, 40)
        assert world.lanes.places.waiting == 0
        for attempt in world.attempts():
            assert attempt.outcome != "none"
        made = len(world.attempts())
        assert made <= sum(world.seen.values()) <= made + world.killed_in_flight
        world.kill("dispatcher")
        world.run(2)
        assert sum(world.seen.values()) <= made + world.killed_in_flight, "what is done stays done"
