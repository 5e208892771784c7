"""The whole way of a delivery, in memory, group by group, with kills anywhere."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from consumers.router import UNACKNOWLEDGED_BYTES_MAX, Router
from consumers.scheduler import Scheduler
from engine.core.accounting import Range, gaps
from engine.core.model import Answer, InvalidRecord
from engine.ports import Output, TopicPartition
from engine.runtime.routing.unrecorded import BATCH_BYTES_MAX
from tests.pipeline.world import ANSWER_US, CODEC, GROUPS, PARTITIONS, POISON, World, a_world

STEP_US = 250_000
"""How far `World.run` moves the clock at a time."""


def answering(path: str, seen: int) -> Answer:
    """`ok` takes everything, `flaky` the second try, `down` nothing, `gone` is gone."""
    match path:
        case "ok":
            return Answer(200)
        case "flaky":
            return Answer(200 if seen else 503)
        case "gone":
            return Answer(410)
    return Answer(500)


def decisions(world: World) -> Counter[tuple[str, str]]:
    """(endpoint, last decision) of every delivery."""
    last: dict[str, tuple[int, str, str]] = {}
    for attempt in world.attempts():
        entry = (attempt.attempt, attempt.endpoint_id, attempt.decision)
        last[attempt.delivery_id] = max(last.get(attempt.delivery_id, entry), entry)
    return Counter((endpoint, decision) for _, endpoint, decision in last.values())


def test_every_kind_of_receiver_gets_its_due() -> None:
    """Delivered at once, after a retry, never (dead letter), or skipped after 410."""
    with a_world(answering) as world:
        for name in ("ok", "flaky", "down", "gone"):
            world.create_endpoint(name)
        world.run(1)
        for n in range(10):
            world.publish(f"m{n}")
        world.run(8)
        ended = decisions(world)
        assert ended["ok", "delivered"] == ended["flaky", "delivered"] == ended["down", "failed"] == 10
        assert ended["gone", "failed"] >= 1
        skipped_when_routed = sum(len(r.skipped) for b in world.batches() for r in b.routings)
        assert ended["gone", "failed"] + ended["gone", "skipped"] + skipped_when_routed == 10
        assert len(world.records("dead-letters")) == 10 + ended["gone", "failed"]
        assert world.seen["http://127.0.0.1/down", "m0"] == 3
        assert world.control.configuration.endpoints["gone"].disabled_reason == "gone"


def test_retries_are_never_early_and_soon() -> None:
    """A try is not made before its due time, and at most a step of the clock a hop after it."""
    with a_world(answering) as world:
        world.create_endpoint("down")
        world.run(1)
        world.publish("m")
        world.run(8)
        first, second, third = [at for _, at in world.requested_at]
        hops = 4 * STEP_US + ANSWER_US
        assert 1_000_000 <= second - first <= 1_100_000 + hops
        assert 3_000_000 <= third - second <= 3_300_000 + hops


def test_what_is_refused_names_its_reason() -> None:
    """No record, another payload under a known id, bad JSON: to `invalid`, and the rest goes on."""
    with a_world(answering) as world:
        world.create_endpoint("ok")
        world.run(1)
        world.publish("m", payload=b'{"a":1}')
        world.publish("m", payload=b'{"a":2}')
        world.publish("m", payload=b'{"a":1}')
        world.publish("n", payload=b"{")
        world.publish("", payload=b"{}")
        world.append("messages", "x", InvalidRecord("", 0, 0, "", "", b"", b"", 0))
        world.publish("last")
        world.run(2)
        refused = [CODEC.decode_as(InvalidRecord, r.value) for r in world.records("invalid")]
        assert sorted(r.reason for r in refused) == ["conflict", "id", "payload", "undecodable"]
        assert all(r.topic == "messages" for r in refused)
        assert decisions(world) == {("ok", "delivered"): 2}
        verdicts = Counter(r.verdict for b in world.batches() for r in b.routings)
        assert verdicts == {"routed": 2, "duplicate": 1, "invalid": 4}


def scheduled() -> float:
    """How many deliveries this process has made from messages."""
    return REGISTRY.get_sample_value("hooklog_deliveries_scheduled_total") or 0


def test_a_delivery_that_is_read_back_is_not_counted_again() -> None:
    """The metric says how many were put on `deliveries`, by whichever router."""
    with a_world(answering) as world:
        for name in ("a", "b"):
            world.create_endpoint(name)
        world.run(1)
        before = scheduled()
        world.publish("m")
        while len(world.records("deliveries")) < 2:
            world.step("router")
        assert world.records("routings") == []
        world.kill("router")
        world.run(1)
        assert [len(routing.matched) for batch in world.batches() for routing in batch.routings] == [2]
        assert scheduled() - before == len(world.records("deliveries")) == 2


def check_complete(world: World, messages: int) -> None:
    """Nothing lost, nothing forked, the books tile, and repeats only for what a kill left in flight."""
    for partition in range(PARTITIONS):
        ranges = [Range(b.first_offset, b.last_offset) for b in world.batches() if b.partition == partition]
        assert gaps(ranges, 0) == []
        assert max((r.last for r in ranges), default=-1) == world.log.end(("messages", partition)) - 1
    assert decisions(world) == {("ok", "delivered"): messages, ("flaky", "delivered"): messages}
    of: defaultdict[tuple[str, int], int] = defaultdict(int)
    for delivery in world.deliveries():
        of[delivery.delivery_id, delivery.attempt] += 1
    assert set(of.values()) == {1}, "no delivery and no retry is on the log twice"
    repeats = sum(world.seen.values()) - messages * 3
    assert repeats <= world.killed_in_flight


ACTIONS = st.one_of(
    st.sampled_from([("step", group) for group in GROUPS]),
    st.sampled_from([("kill", group) for group in ("router", "dispatcher", "scheduler", "health")]),
    st.sampled_from([("publish", ""), ("wait", ""), ("round", "")]),
    st.sampled_from([("wait", ""), ("round", "")]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ACTIONS, max_size=80))
def test_kills_lose_nothing_and_fork_nothing(actions: list[tuple[str, str]]) -> None:
    """Whatever is killed whenever, each message ends delivered once per endpoint on the log."""
    with a_world(answering) as world:
        world.create_endpoint("ok")
        world.create_endpoint("flaky")
        world.run(1)
        messages = 0
        for action, group in actions:
            match action:
                case "step":
                    world.step(group)
                case "round":
                    for each in GROUPS:
                        world.step(each)
                case "kill":
                    world.kill(group)
                case "publish":
                    world.publish(f"m{messages}")
                    messages += 1
                case "wait":
                    world.clock.us += 300_000
        world.publish("last")
        world.run(8)
        check_complete(world, messages + 1)


def test_what_is_kept_of_a_partition_goes_with_it() -> None:
    """Another router and scheduler take half of what there is, and give it back: each delivery ends once."""
    with a_world(answering) as world:
        for name in ("flaky", "down"):
            world.create_endpoint(name)
        world.run(1)
        for n in range(20):
            world.publish(f"m{n}")
        for group in ("router", "dispatcher", "scheduler"):
            world.step(group)
        router, scheduler = Router(world.context()), Scheduler(world.context())
        router.view.load()
        for _ in range(8):
            world.run(0.25)
            router.step()
            scheduler.step()
        for ours, theirs in ((world.router, router), (world.scheduler, scheduler)):
            mine, other = kept_of(ours), kept_of(theirs)
            assert mine == partitions_with_state(ours)
            assert other == partitions_with_state(theirs)
            assert mine
            assert other
            assert not mine & other
        router.close()
        scheduler.processor.close()
        assert not kept_of(router)
        assert not kept_of(scheduler)
        world.run(10)
        assert decisions(world) == {("flaky", "delivered"): 20, ("down", "failed"): 20}


def kept_of(group: Router | Scheduler) -> set[TopicPartition]:
    """The partitions of which it keeps something."""
    return set(group._states if isinstance(group, Router) else group._tiers)


def partitions_with_state(group: Router | Scheduler) -> set[TopicPartition]:
    """Those it owns, but for `attempts`, of which nothing is held."""
    return {at for at in group.processor.progress.owned if at[0] != "attempts"}


@pytest.mark.parametrize("topic", ["deliveries", "attempts", "retry.0", "retry.1s"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"cause": b"no coordinates", "disables": b"1"},
        {"delivery": b"d", "attempt": b"1", "due": b"x"},
    ],
)
def test_a_poison_record_blocks_nothing(topic: str, headers: dict[str, bytes]) -> None:
    """What nobody of ours wrote goes to `invalid`; what follows it on the topic is delivered and retried."""
    with a_world(answering) as world:
        world.create_endpoint("flaky")
        world.run(1)
        for partition in range(PARTITIONS):
            world.log.append(Output(topic, partition, b"k", POISON, headers))
        world.publish("m")
        world.run(4)
        for group in ("dispatcher", "scheduler", "router", "health"):
            world.kill(group)
        world.run(3)
        assert decisions(world) == {("flaky", "delivered"): 1}
        refused = [CODEC.decode_as(InvalidRecord, record.value) for record in world.records("invalid")]
        assert {record.topic for record in refused} <= {topic}
        assert {record.partition for record in refused} == set(range(PARTITIONS))


def test_a_batch_stays_small_enough_for_the_broker() -> None:
    """Many endpoints a message: the books are split before a record outgrows what the broker takes."""
    with a_world(answering) as world:
        for n in range(60):
            world.create_endpoint(f"ok-{'x' * 100}-{n}")
        world.run(2)
        for n in range(80):
            world.publish(f"m{n}")
        world.run(2)
        sizes = [len(record.value or b"") for record in world.records("routings")]
        assert max(sizes) < 2 * BATCH_BYTES_MAX
        assert sum(len(r.matched) for b in world.batches() for r in b.routings) == 60 * 80


def test_a_large_fan_out_waits_for_the_broker() -> None:
    """The router never has more under way than its bound, plus one message."""
    with a_world(answering) as world:
        for n in range(20):
            world.create_endpoint(f"ok{n}")
        world.run(1)
        payload = b'"' + b"x" * 200_000 + b'"'
        for n in range(20):
            world.publish(f"m{n}", payload=payload)
        world.step("router")
        assert world.router._unacknowledged_bytes <= UNACKNOWLEDGED_BYTES_MAX + 20 * 210_000
        world.run(3)
        assert world.router._unacknowledged_bytes == 0
