"""A processor with a lease: what could be somebody else's by now waits until it is known whose it is."""

from __future__ import annotations

from engine.ports import Output, TopicPartition
from engine.runtime.memory import MemoryLog
from engine.runtime.processor import Processor
from engine.runtime.progress import Flow
from tests.pipeline.world import ManualClock

HERE = ("in", 0)
LEASE_S = 3.0
LIMIT = 10


class Fresh:
    """A processor of one partition with three records to take in, and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(1, self.clock)
        flow = Flow("group", ("in",), lambda topic, partition: (("out", partition),))
        self.processor = Processor(self.log, flow, self.clock, lease_s=LEASE_S)
        for _ in range(3):
            self.log.append(Output(*HERE, b"key", b"value"))

    def freeze(self) -> None:
        """Nothing happens for longer than the lease."""
        self.clock.us += 4_000_000

    def offsets(self) -> list[int]:
        """What is taken in now."""
        return [record.offset for _, record in self.processor.each(self.processor.poll(0, LIMIT))]


def lost(fresh: Fresh, *partitions: TopicPartition) -> None:
    """Somebody else owns them now."""
    fresh.processor.progress.lost(partitions)


def test_nothing_is_taken_in_before_a_commit_was_acknowledged() -> None:
    """It is made at once when a partition was gained; what was fetched until then comes after it."""
    fresh = Fresh()
    assert fresh.offsets() == []
    fresh.processor.turn()
    assert fresh.offsets() == [0, 1, 2]


def test_what_was_polled_before_a_freeze_comes_again_once() -> None:
    """In its order, when a commit was acknowledged, before what comes later."""
    fresh = Fresh()
    fresh.processor.poll(0, LIMIT)
    fresh.processor.turn()
    taken = []
    for _, record in fresh.processor.each(fresh.processor.poll(0, LIMIT)):
        taken.append(record.offset)
        fresh.freeze()
    assert taken == [0]
    assert fresh.offsets() == []
    fresh.log.append(Output(*HERE, b"key", b"value"))
    assert fresh.offsets() == []
    fresh.processor.turn()
    assert fresh.offsets() == [1, 2, 3]


def test_what_was_polled_of_a_lost_partition_is_dropped() -> None:
    """Its new owner takes it in."""
    fresh = Fresh()
    fresh.processor.poll(0, LIMIT)
    lost(fresh, HERE)
    fresh.processor.consumer.commit({}, wait=True)
    assert fresh.processor.is_ours
    assert fresh.offsets() == []


def test_while_it_waits_only_so_much_is_fetched() -> None:
    """However long no commit is acknowledged: the log holds the rest, not this process."""
    fresh = Fresh()
    for _ in range(30):
        fresh.log.append(Output(*HERE, b"key", b"value"))
        assert fresh.offsets() == []
    assert fresh.processor.progress.open_inputs() == LIMIT
    fresh.processor.turn()
    assert fresh.offsets() == list(range(LIMIT))
    assert [offset for _ in range(3) for offset in fresh.offsets()] == list(range(LIMIT, 33))
