"""A process that was frozen for minutes, while somebody else did its work, does none of it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import cast

import pytest

from consumers.replayer import Replayer
from consumers.router import Router
from consumers.scheduler import Scheduler
from engine.core.accounting import Range, gaps
from engine.core.model import Answer
from engine.ports import Consumer, Position, Rebalance, Record, TopicPartition
from engine.runtime.memory import MemoryConsumer
from tests.pipeline.replays import made_again, resend
from tests.pipeline.world import World, a_world

LONG = 8
"""So many times 50 s, each with a message: longer than copies are remembered by whoever drops them."""


def fails_first(path: str, seen: int) -> Answer:
    """500, then 200."""
    return Answer(200 if seen else 500)


class Evicted:
    """ports.Consumer of a member that its group has given up, and that learns of it after some polls."""

    def __init__(self, inner: MemoryConsumer, rebalance: Rebalance, polls: int) -> None:
        self._inner = inner
        self._rebalance = rebalance
        self._polls = polls
        inner._group.members.remove(inner)
        for at in inner._next:
            del inner._group.owner[at]

    def poll(self, timeout: float, limit: int) -> list[Record]:
        """What was fetched before; then it is told, and comes back."""
        if self._polls:
            self._polls -= 1
            if self._polls:
                return self._inner._fetch(limit)
            self._rebalance.lost(list(self._inner._next))
            self._inner._drop(list(self._inner._next))
            self._inner._group.members.append(self._inner)
        return self._inner.poll(timeout, limit)

    def commit(self, positions: Mapping[TopicPartition, Position], *, wait: bool) -> None:
        """Nothing, until it is back."""
        if not self._polls:
            self._inner.commit(positions, wait=wait)

    def __getattr__(self, name: str) -> object:
        """All else is as it was."""
        return getattr(self._inner, name)


def evict(group: Router | Scheduler | Replayer, polls: int) -> None:
    """Let a member be given up, and learn of it after so many polls."""
    consumer, progress = group.processor.consumer, group.processor.progress
    assert isinstance(consumer, MemoryConsumer)
    evicted = cast(Consumer, Evicted(consumer, progress, polls))
    group.processor.consumer = evicted
    progress.bind(evicted)


def freeze(world: World, name: str) -> Router | Scheduler | Replayer:
    """Let a process stand still until its group gives it up, and another one take over; return the first."""
    frozen: Router | Scheduler | Replayer = getattr(world, name)
    evict(frozen, 4)
    world.start(name)
    return frozen


def thaw(world: World, frozen: Router | Scheduler | Replayer) -> None:
    """Let it go on: it polls what it had fetched before, then it learns of its eviction."""
    for _ in range(40):
        frozen.step()
        world.clock.us += 50_000
    world.run(10)


def pass_time(world: World) -> None:
    """Let the others work for minutes."""
    for n in range(LONG):
        world.publish(f"other{n}")
        world.run(50)


def requests(world: World) -> Counter[str]:
    """How often each message that matters here was sent."""
    ids = (request.headers["webhook-id"] for _, request in world.requests)
    return Counter(id for id in ids if not id.startswith("other"))


def test_a_retry_is_not_sent_again() -> None:
    """Those that it holds, and attempts that it had fetched."""
    with a_world(fails_first) as world:
        world.create_endpoint("ep", retry_policy=(4_000,))
        world.run(1)
        world.publish("held")
        world.run(2)
        assert [len(tier.held) for tier in world.scheduler._tiers.values() if tier.held] == [1]
        frozen = freeze(world, "scheduler")
        world.publish("fetched")
        pass_time(world)
        assert requests(world) == {"held": 2, "fetched": 2}
        thaw(world, frozen)
        assert requests(world) == {"held": 2, "fetched": 2}


def test_a_message_is_not_routed_again() -> None:
    """Nor is anything recorded of it a second time."""
    with a_world(lambda path, seen: Answer(200)) as world:
        world.create_endpoint("ep")
        world.run(1)
        frozen = freeze(world, "router")
        world.publish("m")
        pass_time(world)
        thaw(world, frozen)
        assert requests(world) == {"m": 1}
        assert len(world.deliveries()) == 1 + LONG


def test_a_resend_is_not_made_again() -> None:
    """A command that it had fetched was seen to."""
    with a_world(lambda path, seen: Answer(200)) as world:
        world.create_endpoint("ep")
        world.run(1)
        world.publish("m")
        world.run(1)
        frozen = freeze(world, "replayer")
        resend(world, "m")
        pass_time(world)
        assert len(made_again(world)) == 1
        thaw(world, frozen)
        assert len(made_again(world)) == 1
        assert requests(world) == {"m": 2}


@pytest.mark.parametrize("group", ["router", "scheduler", "replayer"])
def test_who_is_cut_off_for_a_while_goes_on(group: str) -> None:
    """Nobody else took over: what came meanwhile is done when it is a member again, once each."""
    with a_world(fails_first) as world:
        world.create_endpoint("ep", retry_policy=(2_000,))
        world.run(1)
        world.publish("before")
        world.run(1)
        evict(getattr(world, group), 100)
        world.publish("m")
        world.run(30)
        resend(world, "before")
        world.run(30)
        assert len(made_again(world)) == 1
        assert requests(world) == {"before": 3, "m": 2}
        for partition in range(2):
            batches = [b for b in world.batches() if b.partition == partition]
            assert gaps([Range(b.first_offset, b.last_offset) for b in batches], 0) == []
