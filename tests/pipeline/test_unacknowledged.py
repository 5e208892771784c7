"""The broker takes our records late, or not at all: requests wait for it, and none is made twice for that."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from consumers.dispatcher import Dispatcher
from engine.ports import Acknowledged, Output, QueueFullError
from engine.runtime.memory import MemoryLog, MemoryProducer
from engine.runtime.processor import Processor
from engine.runtime.progress import Flow
from engine.runtime.unacknowledged import SIZE_MAX, Unacknowledged
from tests.pipeline.test_lanes import Switch, open_inputs
from tests.pipeline.world import ManualClock, World, a_world

FLOW = Flow("copy", ("in",), lambda _, partition: (("out", partition),))
LEASE_S = 3.0


class Hesitant(MemoryProducer):
    """A producer whose broker acknowledges nothing while `is_away`, with room for so many records."""

    def __init__(self, log: MemoryLog, room: int = 10**9) -> None:
        super().__init__(log)
        self.is_away = True
        self._room = room

    def send(self, output: Output, acknowledged: Acknowledged) -> None:
        """QueueFullError where the library has one."""
        if len(self) >= self._room:
            raise QueueFullError(f"{len(self)} records wait for Kafka's acknowledgement")
        super().send(output, acknowledged)

    def poll(self, timeout: float = 0) -> None:
        """Nothing comes back while it is away."""
        if not self.is_away:
            super().poll(timeout)


def test_requests_stop_while_the_oldest_record_is_not_acknowledged() -> None:
    """Commits go through all the same; when the records do too, everything ends, and nothing twice."""
    with a_world(Switch(), in_flight=4) as world:
        producer = world.intake.processor.producer = Hesitant(world.log)
        world.create_endpoint("a")
        world.run(1)
        for n in range(400):
            world.publish(f"m{n}")
        world.run(LEASE_S + 1)
        made = len(world.requests)
        assert 0 < made < 100
        world.run(20)
        assert len(world.requests) == made
        assert len(producer) == made
        producer.is_away = False
        world.run_until(lambda: len(world.attempts()) == 400, 60)
        world.run(1)
        assert len(world.requests) == 400
        assert open_inputs(world) == 0


def end_elsewhere(processor: Processor, output: Output, count: int) -> None:
    """Another thread finishes what was taken in, as the event loop does."""
    taken = [entry for entry, _ in processor.poll(0, 100)]
    assert len(taken) == count

    def finish() -> None:
        for number, entry in enumerate(taken):
            processor.finish(entry, output._replace(value=b"%d" % number))

    ending = threading.Thread(target=finish)
    ending.start()
    ending.join()


def test_a_record_waits_where_there_is_no_room() -> None:
    """Sent from another thread, it breaks nothing: the thread that polls sends it, in order, when it can."""
    clock = ManualClock()
    log = MemoryLog(1, clock)
    for _ in range(5):
        log.append(Output("in", 0, None, b""))
    processor = Processor(log, FLOW, clock)
    producer = processor.producer = Hesitant(log, room=2)
    end_elsewhere(processor, Output("out", 0, None, b""), 5)
    processor.turn()
    assert processor.unacknowledged.count == 5
    assert processor.progress.open_inputs() == 5
    producer.is_away = False
    for _ in range(12):
        clock.us += 250_000
        processor.turn()
    assert [record.value for record in log.records(("out", 0))] == [b"%d" % n for n in range(5)]
    assert processor.unacknowledged.count == 0
    assert processor.progress.open_inputs() == 0
    processor.close()


def test_a_drain_waits_for_what_had_no_room() -> None:
    """What has ended is on the log before the partition is given up."""
    clock = ManualClock()
    log = MemoryLog(1, clock)
    for _ in range(5):
        log.append(Output("in", 0, None, b""))
    processor = Processor(log, FLOW, clock)
    producer = processor.producer = Hesitant(log, room=2)
    end_elsewhere(processor, Output("out", 0, None, b""), 5)
    producer.is_away = False
    processor.close()
    assert log.end(("out", 0)) == 5


OUT = Output("attempts", 0, None, b"")


def test_one_partition_that_is_stuck_is_seen_among_busy_ones() -> None:
    """The oldest record of all counts, however many others have been acknowledged since."""
    unacknowledged = Unacknowledged()
    unacknowledged.sent(OUT, 0.0)
    for second in range(1, 6):
        size = unacknowledged.sent(OUT._replace(partition=1), second)
        unacknowledged.acknowledged(("attempts", 1), size)
        unacknowledged.look(second)
        assert unacknowledged.is_late(second, LEASE_S) is (second - 1 >= LEASE_S), "seen first at 1"
    unacknowledged.acknowledged(("attempts", 0), size)
    unacknowledged.look(6.0)
    assert not unacknowledged.is_late(6.0, LEASE_S)
    assert (unacknowledged.count, unacknowledged.size) == (0, 0)


def test_a_busy_partition_is_not_late() -> None:
    """There is always something under way, and never for long."""
    unacknowledged = Unacknowledged()
    sizes = [unacknowledged.sent(OUT, 0.0)]
    for tenth in range(1, 100):
        sizes.append(unacknowledged.sent(OUT, tenth / 10))
        unacknowledged.acknowledged(OUT[:2], sizes.pop(0))
        unacknowledged.look(tenth / 10)
        assert unacknowledged.count == 1
        assert not unacknowledged.is_late(tenth / 10, 0.5)


def test_too_many_bytes_are_late_at_once() -> None:
    """The library's queue is never filled by what we begin."""
    unacknowledged = Unacknowledged()
    for _ in range(64):
        unacknowledged.sent(OUT._replace(value=bytes(SIZE_MAX // 64)), 0.0)
    unacknowledged.look(0.0)
    assert unacknowledged.is_late(0.0, LEASE_S)


@pytest.mark.parametrize("limit", ["waiting", "waiting_bytes"])
def test_they_fill_the_dispatchers_window(limit: str) -> None:
    """What has ended and is not acknowledged takes places of what waits, and bytes: intake stops."""

    async def fill(world: World) -> tuple[float, float]:
        settings = world.settings.model_copy(update={limit: 5_000})
        dispatcher = Dispatcher(replace(world.context(), settings=settings))
        processor = dispatcher._intake.processor
        before = dispatcher._fill()
        for _ in range(5_000 if limit == "waiting" else 5):
            processor.send(OUT._replace(value=bytes(1_000)), lambda: None)
        processor.unacknowledged.look(0.0)
        after = dispatcher._fill()
        dispatcher._intake.close()
        await dispatcher._sender.close()
        return before, after

    with a_world(Switch()) as world:
        before, after = asyncio.run(fill(world))
        assert before == 0
        assert after >= 1
