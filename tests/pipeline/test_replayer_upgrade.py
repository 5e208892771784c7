"""A command that a newer hooklog wrote halts one partition of the replayer, until it is upgraded."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import orjson
from prometheus_client import REGISTRY

from consumers.replayer import Replayer
from engine.core.replay import CancelReplay, SendTest
from engine.core.routing import partition_of
from engine.ports import Output
from engine.runtime.memory import MemoryConsumer
from schemas import codec
from schemas.codec import MARKER, PREFIX_BYTES, Codec
from tests.pipeline.replays import Receivers
from tests.pipeline.world import CODEC, PARTITIONS, TENANT, World, a_world

OTHER = next(
    f"t{n}" for n in range(99) if partition_of(f"t{n}", PARTITIONS) != partition_of(TENANT, PARTITIONS)
)


def older(folder: Path) -> Codec:
    """The codec of a hooklog whose cancellations named no replay yet: today's are unknown to it."""
    for path in Path(codec.__file__).parent.glob("*.avsc"):
        shutil.copy(path, folder)
    schema = orjson.loads((folder / "cancel_replay.avsc").read_bytes())
    schema["fields"] = [field for field in schema["fields"] if field["name"] != "replay_id"]
    (folder / "cancel_replay.avsc").write_bytes(orjson.dumps(schema))
    return Codec(folder)


def use(world: World, known: Codec) -> None:
    """Kill the replayer, and start one with another codec."""
    consumer = world.replayer.processor.consumer
    assert isinstance(consumer, MemoryConsumer)
    consumer.kill()
    world.replayer = Replayer(replace(world.context(), codec=known))


def have(world: World) -> None:
    """An endpoint of two tenants, whose commands lie on two partitions."""
    for tenant in (TENANT, OTHER):
        world.create_endpoint(f"ep-{tenant}", tenant=tenant)
    world.run(1)


def append(world: World, command: SendTest | CancelReplay) -> None:
    """Write a command on its tenant's partition."""
    at = partition_of(command.tenant, PARTITIONS)
    world.log.append(Output("commands", at, command.tenant.encode(), CODEC.encode(command)))


def send_test(world: World, tenant: str, number: int) -> None:
    """Ask for a test send."""
    append(world, SendTest(f"cmd_{tenant}{number}", tenant, "test", 0, f"ep-{tenant}", "ping", b"{}"))


CANCEL = CancelReplay("cmd_new", TENANT, "test", 0, "rpl_1")


def tried(world: World) -> list[str]:
    """Message ids of the test sends that were made, in order of the tenants."""
    return sorted(request.headers["webhook-id"] for _, request in world.requests)


def unknown() -> float:
    """What is counted."""
    return REGISTRY.get_sample_value("hooklog_unknown_schema_records_total", {"group": "replayer"}) or 0


def test_one_partition_waits_and_the_upgraded_replayer_goes_on(tmp_path: Path) -> None:
    """The other partition's commands are seen to; nothing of the halted one is lost or done twice."""
    with a_world(Receivers()) as world:
        have(world)
        use(world, older(tmp_path))
        send_test(world, TENANT, 0)
        send_test(world, OTHER, 0)
        world.run(2)
        assert tried(world) == sorted([f"test_{TENANT}0", f"test_{OTHER}0"])
        before = unknown()
        append(world, CANCEL)
        for number in (1, 2):
            send_test(world, TENANT, number)
            send_test(world, OTHER, number)
            world.run(2)
        seen = sorted([f"test_{TENANT}0", *(f"test_{OTHER}{n}" for n in range(3))])
        assert (tried(world), unknown()) == (seen, before + 1)
        use(world, older(tmp_path))  # a restart is no upgrade
        world.run(2)
        assert tried(world) == seen
        use(world, CODEC)
        world.run(2)
        assert tried(world) == sorted(f"test_{tenant}{n}" for tenant in (TENANT, OTHER) for n in range(3))


def test_a_replayer_older_than_the_commands_of_the_last_day_waits(tmp_path: Path) -> None:
    """Which ids a newer one has seen it cannot know: it sees to nothing of that partition."""
    with a_world(Receivers()) as world:
        have(world)
        append(world, CANCEL)
        send_test(world, TENANT, 0)
        world.run(2)
        use(world, older(tmp_path))
        send_test(world, TENANT, 1)
        send_test(world, OTHER, 1)
        world.run(2)
        assert tried(world) == sorted([f"test_{TENANT}0", f"test_{OTHER}1"])


def test_what_is_no_record_at_all_goes_to_invalid_and_halts_nothing() -> None:
    """Known fingerprint or none, but bytes that are not what it says."""
    with a_world(Receivers()) as world:
        have(world)
        known = CODEC.encode(SendTest("c", TENANT, "test", 0, "ep", "ping", b""))[:PREFIX_BYTES]
        for value in (b"poison", MARKER, known):
            world.log.append(Output("commands", partition_of(TENANT, PARTITIONS), b"k", value))
        send_test(world, TENANT, 0)
        world.run(2)
        assert tried(world) == [f"test_{TENANT}0"]
        assert len(world.records("invalid")) == 3
