"""A replayer that takes replays up: nothing waits for what they wrote before, and that stays little."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

import consumers.replayer
from engine.core.change import CommandRejected
from engine.core.replay import CancelReplay, ReplayFinished, SendTest
from engine.runtime.replaying import readback
from engine.runtime.replaying import running as replaying
from tests.pipeline.replays import (
    Receivers,
    ask,
    attempts_of,
    facts,
    have,
    made_again,
    named,
    replay_of,
    several,
    start,
)
from tests.pipeline.world import World, a_world

SLOW = 0.001
"""So many deliveries a second."""


def read_back() -> float:
    """Records that replayers have read back, all in all."""
    return REGISTRY.get_sample_value("hooklog_read_back_records_total", {"group": "replayer"}) or 0.0


def with_slow_ones(world: World, count: int, messages: int) -> None:
    """So many replays that hardly go on, most of which wait their turn; then messages are delivered."""
    have(world, *several(3))
    for n in range(count):
        start(world, name=f"slow{n}", rate=SLOW)
    world.run(3)
    for n in range(messages):
        world.publish(f"more{n}")
    world.run(5)


def test_one_pass_over_the_log_serves_all_replays_that_are_taken_up() -> None:
    """However many there are, what they may have written is read once."""
    with a_world(Receivers()) as world:
        with_slow_ones(world, 30, 100)
        before = read_back()
        world.kill("replayer")
        world.run(1)
        assert len(world.replayer.replays) == 30
        written = sum(len(world.records(topic)) for topic in ("deliveries", "routings", "changes"))
        assert read_back() - before < 2 * written


def test_nobody_waits_for_what_is_read_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test goes out at once, however much replays have to read; a cancellation comes into its own later."""
    monkeypatch.setattr(readback, "POLL_MAX", 1)
    monkeypatch.setattr(consumers.replayer, "STEP_S", 0.0)
    with a_world(Receivers()) as world:
        with_slow_ones(world, 5, 100)
        world.kill("replayer")
        ask(world, SendTest("cmd_t", "acme", "test", world.clock.now(), "ok", "ping", b"{}"))
        ask(world, CancelReplay("stop", "acme", "test", 0, "slow4"))
        world.run(1)
        assert len(attempts_of(world, "test")) == 1
        assert world.replayer.replays == {}
        world.run(60)
        assert len(world.replayer.replays) == 4
        assert replay_of(world, "slow4").status == "cancelled"


def test_what_is_to_be_read_back_stays_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays that wait for their rate or turn say now and then that they have written nothing since."""
    monkeypatch.setattr(replaying, "REFRESH_EVERY_S", 10)
    with a_world(Receivers()) as world:
        with_slow_ones(world, 6, 200)
        world.run(12)
        before = read_back()
        world.kill("replayer")
        world.run(1)
        assert len(world.replayer.replays) == 6
        assert read_back() - before < 50


def test_nothing_is_made_twice_after_a_refresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the snapshots of slow replays were written again, each goes on where it was."""
    monkeypatch.setattr(replaying, "REFRESH_EVERY_S", 2)
    with a_world(Receivers()) as world:
        have(world, *several(6))
        for n in range(6):
            start(world, name=f"slow{n}", rate=0.2)
        for seconds in (1, 3, 7, 11, 13):
            world.run(seconds)
            world.kill("replayer")
        world.run(60)
        made = [(d.origin, d.message_id) for d in made_again(world)]
        assert sorted(made) == [(f"slow{n}", message) for n in range(6) for message in several(6)]
        assert set(named(world).values()) == {1}
        assert len(facts(world, ReplayFinished)) == 6


def test_a_tenant_has_only_so_many_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is refused, in words; when one was cancelled there is room again, after a restart too."""
    monkeypatch.setattr(replaying, "REPLAYS_MAX", 3)
    with a_world(Receivers()) as world:
        with_slow_ones(world, 4, 1)
        (refused,) = facts(world, CommandRejected)
        assert isinstance(refused, CommandRejected)
        assert (refused.code, refused.command) == ("too_many", "StartReplay")
        assert "cancel one" in refused.reason
        world.kill("replayer")
        start(world, name="early", rate=SLOW)
        world.run(1)
        assert len(facts(world, CommandRejected)) == 2
        ask(world, CancelReplay("stop", "acme", "test", 0, "slow0"))
        world.run(1)
        start(world, name="again", rate=SLOW)
        world.run(1)
        assert replay_of(world, "again").status == "running"
