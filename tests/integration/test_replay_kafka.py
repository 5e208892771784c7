"""A replay on Kafka whose process is killed in the midst, again and again: nothing twice, nothing lost."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from engine.core.model import AttemptFinished, DeliveryScheduled
from engine.core.replay import Replay, ResentBatch, StartReplay
from engine.dev.bench.scenario import receiver
from engine.dev.process import wait_until
from tests.integration.groups import CODEC, ENDPOINT, LIMIT_S, TENANT, Groups, loaded

pytestmark = pytest.mark.integration
MESSAGES = 1_000
RATE = 500.0
KILLS = (100, 500)
"""After so many deliveries of the replay a kill is due."""


@pytest.fixture
def groups(kafka: str, prefix: str, tmp_path: Path) -> Iterator[Groups]:
    """Groups at work for one endpoint."""
    groups = Groups(kafka, prefix, tmp_path)
    with receiver(tmp_path) as url:
        try:
            groups.start("control", "router", "dispatcher", "replayer")
            groups.create_endpoint(url)
            yield groups
        finally:
            groups.stop()


def replayed(groups: Groups) -> Counter[str]:
    """How often each delivery of the replay is on the log."""
    found = (CODEC.decode_as(DeliveryScheduled, record.value) for record in groups.records("deliveries"))
    return Counter(each.delivery_id for each in found if each.trigger == "replay")


def is_making(groups: Groups, count: int) -> bool:
    """Whether so many are, and the replayer, which may have been killed before, runs."""
    return replayed(groups).total() >= count and "replayer" in groups.supervisor.pids()


def named(groups: Groups) -> Counter[str]:
    """How often each of them is named."""
    batches = (CODEC.decode(record.value) for record in groups.records("routings"))
    return Counter(
        each.delivery_id for batch in batches if isinstance(batch, ResentBatch) for each in batch.deliveries
    )


def snapshot(groups: Groups) -> Replay | None:
    """The last snapshot of the replay."""
    records = [r for r in groups.records("directory") if (r.key or b"").startswith(b"replay:")]
    return CODEC.decode_as(Replay, records[-1].value) if records else None


def has_ended(groups: Groups) -> bool:
    """Whether the snapshot says so."""
    replay = snapshot(groups)
    return replay is not None and replay.status == "finished"


def test_kills_in_the_midst_of_a_replay_repeat_nothing(groups: Groups) -> None:
    """Each message is delivered again exactly once, and the snapshot's counts are true."""
    with loaded(groups, 2_000) as load:
        assert wait_until(lambda: load.sent >= MESSAGES, LIMIT_S, 0.01)
    groups.wait_delivered()
    now = time.time_ns() // 1000
    command = StartReplay("start", TENANT, "test", now, "rpl_1", ENDPOINT, 0, 0, "all", (), RATE)
    groups.write("commands", TENANT, command)
    for count in KILLS:
        assert wait_until(partial(is_making, groups, count), LIMIT_S, 0.05)
        groups.supervisor.signal("replayer", signal.SIGKILL)
    assert wait_until(lambda: has_ended(groups), LIMIT_S, 0.2), snapshot(groups)
    on_log, replay = replayed(groups), snapshot(groups)
    assert replay is not None
    assert (len(on_log), set(on_log.values())) == (load.sent, {1})
    assert named(groups) == on_log
    assert (replay.planned, replay.deliveries, replay.missing) == (load.sent, load.sent, 0)

    def attempted() -> set[str]:
        found = (CODEC.decode_as(AttemptFinished, record.value) for record in groups.records("attempts"))
        return {each.delivery_id for each in found if each.trigger == "replay"}

    assert wait_until(lambda: attempted() == set(on_log), LIMIT_S, 0.2)
