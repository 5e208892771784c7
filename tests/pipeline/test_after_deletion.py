"""After an endpoint or a whole tenant was deleted nothing of it is sent, made again, tried or told of."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from engine.core.change import CommandRejected, DeleteEndpoint, DisableEndpoint, EndpointDisabled
from engine.core.directory import DeleteTenant
from engine.core.health import EndpointHealth
from engine.core.model import Answer
from engine.core.notice import Notice
from engine.core.replay import Resend, SendTest, StartReplay
from tests.pipeline.health_scene import Scene
from tests.pipeline.mailing_scene import Post, a_notice, away, here
from tests.pipeline.replays import ask, facts, first_of, made_again, replay_of, several, start
from tests.pipeline.test_lanes import REFUSED, open_inputs, snapshots
from tests.pipeline.test_operations import publish
from tests.pipeline.world import CODEC, TENANT, World, a_world

ENDPOINTS = ("ok", "down", "dead", "slow")
Delete = Callable[[World], None]


def one_by_one(world: World) -> None:
    """Delete each endpoint."""
    for name in ENDPOINTS:
        ask(world, DeleteEndpoint(f"delete-{name}", TENANT, "test", 0, name))


def all_at_once(world: World) -> None:
    """Delete the tenant."""
    ask(world, DeleteTenant("delete", TENANT, "test", 0))


def receiver(path: str, seen: int) -> Answer:
    """One that fails, one that is not reached, others that take everything."""
    return {"down": Answer(500), "dead": REFUSED}.get(path) or Answer(200)


def in_full_swing(world: World) -> None:
    """Retries wait in tiers, a backlog behind a circuit, others for their rate; replays go on or wait."""
    world.create_endpoint("ok")
    world.create_endpoint("down", retry_policy=(3_000, 10_000, 20_000))
    world.create_endpoint("dead", retry_policy=(5_000, 3_600_000))
    world.create_endpoint("slow", rate_limit=0.5)
    world.run(1)
    for message in several(60):
        world.publish(message)
    world.run(5)
    for n in range(6):
        start(world, name=f"r{n}", rate=1.0)
    start(world, name="all", endpoint_id="", rate=1.0)
    world.run(3)
    assert snapshots(world)["dead"].circuit == "open"
    assert [a.decision for a in world.attempts() if a.endpoint_id == "down"].count("retry") >= 60


@pytest.mark.parametrize("delete", [one_by_one, all_at_once])
def test_nothing_is_sent_any_more(delete: Delete) -> None:
    """What waited anywhere ends as skipped, replays end with why, and nothing is left over."""
    with a_world(receiver, waiting=100) as world:
        in_full_swing(world)
        delete(world)
        world.run(1)
        sent, made = len(world.requests), len(made_again(world))
        world.run(60)
        assert len(world.requests) == sent
        assert len(made_again(world)) == made
        last = {a.delivery_id: (a.decision, a.reason) for a in world.attempts()}
        waited = [id for id, ended in last.items() if ended == ("skipped", "deleted")]
        assert len(waited) > 100
        assert {d.delivery_id for d in world.deliveries()} == last.keys()
        assert "retry" not in {decision for decision, _ in last.values()}
        replays = [replay_of(world, name) for name in ("all", *(f"r{n}" for n in range(6)))]
        assert {replay.status for replay in replays} == {"finished"}
        assert all("deleted" in r.reason or "no endpoint" in r.reason for r in replays)
        assert open_inputs(world) == 0
        assert snapshots(world) == {}


@pytest.mark.parametrize("delete", [one_by_one, all_at_once])
def test_nothing_is_made_again_or_tried(delete: Delete) -> None:
    """Resends, replays and tests that are asked for afterwards are refused; new messages match nothing."""
    with a_world(receiver, waiting=100) as world:
        in_full_swing(world)
        old = first_of(world, "m0")
        delete(world)
        world.run(1)
        made, sent, before = len(made_again(world)), len(world.requests), len(facts(world, CommandRejected))
        at = (old.source_partition, old.source_offset, 1)
        ask(world, Resend("again", TENANT, "test", 0, old.endpoint_id, old.delivery_id, "m0", *at))
        ask(world, SendTest("cmd_t", TENANT, "test", 0, "ok", "ping", b"{}"))
        for id in ("ok", ""):
            wanted = (id, 0, 0, "all", (), 0.0)
            ask(world, StartReplay(f"late{id}", TENANT, "test", 0, f"late{id}", *wanted))  # type: ignore[arg-type]
        world.publish("late")
        world.run(1)
        assert len(facts(world, CommandRejected)) - before == 4
        assert "late" not in {delivery.message_id for delivery in world.deliveries()}
        world.run(30)
        assert len(world.requests) == sent
        assert len(made_again(world)) == made


@pytest.mark.parametrize("delete", [one_by_one, all_at_once])
def test_nobody_is_told_any_more(delete: Delete) -> None:
    """Its health is forgotten: no digest, no warning, no disabling by us."""
    settings = {"warn_after": "10s", "disable_after": "20s", "disable_apart": "1s"}
    with a_world(receiver, waiting=100, **settings) as world:
        in_full_swing(world)
        delete(world)
        world.run(2)
        told = len(world.records("notices"))
        world.run(120)
        assert len(world.records("notices")) == told
        latest = {record.key: record.value for record in world.records("health")}
        assert [CODEC.decode_as(EndpointHealth, v) for v in latest.values() if v is not None] == []
        asked = [CODEC.decode(record.value) for record in world.records("commands")]
        late = [each for each in asked if isinstance(each, DisableEndpoint)]
        assert len(facts(world, EndpointDisabled)) == len(late)


def test_that_it_was_disabled_is_not_told_of_one_that_was_deleted() -> None:
    """The fact may be taken in after the deletion."""
    scene = Scene()
    scene.endpoint("ep", version=3, deleted=True)
    scene.disabled("ep", version=2)
    scene.endpoint("other", version=2)
    scene.disabled("other", version=2)
    scene.settle()
    assert [notice.endpoint_id for notice in scene.notices()] == ["other"]


def gone_from(post: Post, notice: Notice) -> None:
    """Let the view have its endpoint as deleted."""
    post.scene.endpoint(notice.endpoint_id, deleted=True)
    record = post.scene.records("endpoints")[-1]
    post.endpoints[notice.endpoint_id] = CODEC.decode(record.value)  # type: ignore[assignment]


def test_mail_that_waits_is_dropped() -> None:
    """The mail server was away when the endpoint was deleted: other mail goes out, after a restart too."""
    post = Post()
    post.server.says = away
    post.tell(*(a_notice(n) for n in range(3)))
    post.work(10)
    gone_from(post, a_notice(1))
    post.server.says = here
    post.work(400)
    assert sorted(post.server.ids) == sorted(a_notice(n).id for n in (0, 2))
    post.kill()
    post.work(400)
    assert len(post.server.ids) == 2


def test_no_operational_webhook_tells_of_it() -> None:
    """The platform's tenant hears of the other endpoint only."""
    post = Post(operations_tenant="platform")
    gone_from(post, a_notice(1))
    post.tell(a_notice(1), a_notice(2))
    assert [message.id for message in publish(post.scene, endpoints=post.endpoints)] == [a_notice(2).id]
