"""Progress: whatever is finished in whatever order, and killed whenever, every input has one output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.ports import LogError, Output, Position, Record, TopicPartition
from engine.runtime.memory import MemoryConsumer, MemoryLog
from engine.runtime.owned import METADATA_MAX, Input, Owned, decode_positions, encode_positions
from engine.runtime.processor import Processor
from engine.runtime.progress import Flow
from schemas.headers import CAUSE, cause, parse_cause
from tests.pipeline.world import ManualClock, NoWait

PARTITIONS = 2
Held = list[tuple[Input, Record]]


def outputs_of(topic: str, partition: int) -> tuple[tuple[str, int], ...]:
    """An input of `in` goes to either partition of `out`; a `late` one to its own."""
    if topic == "late":
        return (("out", partition),)
    return tuple(("out", n) for n in range(PARTITIONS))


FLOW = Flow("copy", ("in", "late"), outputs_of, waiting=frozenset({"late"}))


class Copier:
    """A group that copies `in` to `out` in any order, and `late` in its own order."""

    def __init__(self, log: MemoryLog, clock: ManualClock) -> None:
        self.processor = Processor(log, FLOW, clock)
        self.held: Held = []
        self.late: Held = []

    def poll(self) -> None:
        """Take in what is there."""
        for taken, record in self.processor.poll(0, 3):
            if not taken.done:
                (self.late if record.topic == "late" else self.held).append((taken, record))

    def finish(self, choice: int) -> None:
        """Write the output of one of those held."""
        if self.held:
            self._copy(*self.held.pop(choice % len(self.held)), partition=choice % PARTITIONS)

    def finish_late(self) -> None:
        """Write the output of the first that waits."""
        if self.late:
            taken, record = self.late.pop(0)
            self.processor.progress.release(taken)
            self._copy(taken, record, partition=record.partition)

    def _copy(self, taken: Input, record: Record, *, partition: int) -> None:
        found = {CAUSE: cause(record.topic, record.partition, record.offset)}
        self.processor.finish(taken, Output("out", partition, None, record.value, found))

    def kill(self) -> None:
        """Be gone."""
        assert isinstance(self.processor.consumer, MemoryConsumer)
        self.processor.consumer.kill()


def new_log(clock: ManualClock) -> MemoryLog:
    """An empty log."""
    log = MemoryLog(PARTITIONS, clock)
    log.changed = NoWait()
    return log


def act(copier: Copier, clock: ManualClock, action: int, choice: int) -> None:
    """Do one thing that a group does."""
    match action:
        case 0 | 1:
            copier.poll()
        case 2 | 3:
            copier.finish(choice)
        case 4:
            copier.finish_late()
        case 5:
            copier.processor.turn()
        case _:
            clock.us += 250_000
            copier.processor.turn()


def finish_all(copier: Copier, clock: ManualClock) -> None:
    """Let it work undisturbed."""
    for _ in range(40):
        copier.poll()
        copier.finish(0)
        copier.finish_late()
        clock.us += 250_000
        copier.processor.turn()


Step = tuple[int, int]
STEPS = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5)), max_size=70)


@settings(max_examples=1_500, deadline=None)
@given(STEPS)
def test_one_output_an_input(steps: Sequence[Step]) -> None:
    """However often the group is killed, each input ends with exactly one output."""
    clock = ManualClock()
    log = new_log(clock)
    for n in range(6):
        log.append(Output("in", n % PARTITIONS, None, b"%d" % n))
        log.append(Output("late", n % PARTITIONS, None, b"late%d" % n))
    copier = Copier(log, clock)
    for action, choice in steps:
        if action == 8:
            copier.kill()
            copier = Copier(log, clock)
        else:
            act(copier, clock, action, choice)
    finish_all(copier, clock)
    causes = Counter(
        parse_cause(record.headers[CAUSE]) for n in range(PARTITIONS) for record in log.records(("out", n))
    )
    wanted = {
        (topic, n, offset) for topic in ("in", "late") for n in range(PARTITIONS) for offset in range(3)
    }
    assert causes == dict.fromkeys(wanted, 1)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_commit_never_passes_an_open_input(steps: Sequence[Step]) -> None:
    """The committed offset is at most the lowest input whose output is not acknowledged."""
    clock = ManualClock()
    log = new_log(clock)
    for n in range(6):
        log.append(Output("in", n % PARTITIONS, None, b"%d" % n))
    copier = Copier(log, clock)
    for action, choice in steps:
        act(copier, clock, action % 8, choice)
        written = {
            parse_cause(record.headers[CAUSE])
            for n in range(PARTITIONS)
            for record in log.records(("out", n))
        }
        for at, position in copier.processor.consumer.committed([("in", 0), ("in", 1)]).items():
            done = position.offset if position else 0
            assert all((*at, offset) in written for offset in range(done))


def test_clean_stop_leaves_nothing_to_read_back() -> None:
    """After `close` the commit is at the end, so the next owner starts there."""
    clock = ManualClock()
    log = new_log(clock)
    log.append(Output("in", 0, None, b"x"))
    copier = Copier(log, clock)
    copier.poll()
    copier.finish(0)
    copier.processor.close()
    heir = Copier(log, clock)
    heir.poll()
    assert heir.held == []
    assert heir.processor.progress.owned["in", 0].next == 1


def test_a_lost_partition_commits_nothing() -> None:
    """What somebody else owns already is dropped, and its offset stays."""
    clock = ManualClock()
    log = new_log(clock)
    log.append(Output("in", 0, None, b"x"))
    copier = Copier(log, clock)
    copier.poll()
    copier.processor.progress.lost([("in", 0)])
    clock.us += 250_000
    copier.processor.turn()
    assert copier.processor.consumer.committed([("in", 0)]) == {("in", 0): None}


def outputs_on(counts: Mapping[str, int]) -> list[TopicPartition]:
    """So many partitions of each topic."""
    return [(topic, n) for topic, count in counts.items() for n in range(count)]


TOPICS = st.dictionaries(
    st.sampled_from(["deliveries", "dead-letters", "retry.0", "retry.5s"]), st.integers(1, 20)
)


@given(TOPICS, st.data())
def test_positions_round_trip(counts: dict[str, int], data: st.DataObject) -> None:
    """Commit metadata says the position of each output, whatever the order they are asked for in."""
    outputs = outputs_on(counts)
    position = st.integers(0, 2**63 - 1)
    positions = tuple(data.draw(st.lists(position, min_size=len(outputs), max_size=len(outputs))))
    metadata = encode_positions(outputs, positions)
    assert len(metadata) <= METADATA_MAX
    assert decode_positions(metadata, outputs) == positions
    other_way = outputs_on(dict(reversed(counts.items())))
    by_output = dict(zip(outputs, positions, strict=True))
    assert decode_positions(metadata, other_way) == tuple(by_output[at] for at in other_way)


def test_positions_name_their_topics() -> None:
    """A topic that the commit does not know is read from its beginning; one that is gone is left out."""
    before = outputs_on({"dead-letters": 1, "retry.0": 1, "retry.30s": 1, "retry.2m": 1})
    metadata = encode_positions(before, (4, 5, 6, 7))
    assert metadata == "dead-letters=4;retry.0=5;retry.30s=6;retry.2m=7"
    changed = outputs_on({"dead-letters": 1, "retry.0": 1, "retry.20s": 1, "retry.2m": 1})
    assert decode_positions(metadata, changed) == (4, 5, 0, 7)
    assert decode_positions(metadata, before[:2]) == (4, 5)
    assert decode_positions("", before) == (0, 0, 0, 0)


def test_positions_of_an_older_hooklog() -> None:
    """They come without names: their number must be that of today's outputs."""
    assert decode_positions("1,2", outputs_on({"out": 2})) == (1, 2)
    with pytest.raises(LogError, match="start once with the HOOKLOG_TIERS of before"):
        decode_positions("1,2", outputs_on({"out": 3}))


def test_positions_that_do_not_fit_are_refused() -> None:
    """Too long, or of another number of partitions: an error that says what to do."""
    with pytest.raises(LogError, match="fewer partitions"):
        encode_positions(outputs_on({"out": 300}), (10**18,) * 300)
    with pytest.raises(LogError, match=r"2 positions of out where 3 belong: .*HOOKLOG_PREFIX"):
        decode_positions("out=1,2", outputs_on({"out": 3}))


def test_positions_of_found_inputs_are_kept() -> None:
    """Until the highest input found is committed, the old positions stay in the commit."""
    owned = Owned(("in", 0), (("out", 0),), 5, (7,))
    owned.highest_found = 6
    ends = {("out", 0): 50}
    taken = [owned.take(offset, owned.positions(offset, ends)) for offset in (5, 6, 7)]
    assert owned.committable(ends) == (5, (7,))
    taken[0].done = taken[1].done = True
    assert owned.committable(ends) == (7, (50,))
    taken[2].done = True
    assert owned.committable(ends) == (8, (50,))


def test_a_group_without_a_commit_does_not_guess() -> None:
    """A log that no longer begins at 0 and a group that never committed: halt."""

    class Trimmed(MemoryLog):
        def reader(self):  # type: ignore[no-untyped-def]
            reader = super().reader()
            reader.starts = lambda partitions: dict.fromkeys(partitions, 3)  # type: ignore[method-assign]
            return reader

    log = Trimmed(PARTITIONS, ManualClock())
    with pytest.raises(LogError, match="refusing to guess"):
        Copier(log, ManualClock()).poll()


def test_position_metadata_is_what_a_new_owner_reads() -> None:
    """A commit carries a position for each output partition."""
    clock = ManualClock()
    log = new_log(clock)
    log.append(Output("in", 0, None, b"x"))
    log.append(Output("out", 1, None, b"somebody else's", {}))
    copier = Copier(log, clock)
    copier.poll()
    clock.us += 250_000
    copier.processor.turn()
    assert copier.processor.consumer.committed([("in", 0)]) == {("in", 0): Position(0, "out=0,1")}


def test_work_begun_is_waited_for() -> None:
    """A partition is busy while something begun is not done; nothing begins once it is being given up."""
    owned = Owned(("in", 0), (("out", 0),), 0, (0,))
    first, second = (owned.take(offset, (0,)) for offset in (0, 1))
    assert not owned.is_busy()
    assert first.begin()
    assert owned.is_busy()
    owned.stopping = True
    assert not second.begin()
    first.done = True
    assert not owned.is_busy()


class TickingClock(ManualClock):
    """A second passes whenever somebody looks."""

    def monotonic(self) -> float:
        """Seconds."""
        self.us += 1_000_000
        return super().monotonic()


@pytest.mark.parametrize("is_broken", [False, True])
def test_what_broke_is_not_waited_for(*, is_broken: bool) -> None:
    """An input that was begun and never ends takes a drain's whole time, unless the group has broken."""
    clock = TickingClock()
    log = new_log(clock)
    log.append(Output("in", 0, None, b"x"))
    copier = Copier(log, clock)
    copier.poll()
    (taken, _), *_ = copier.held
    assert taken.begin()
    if is_broken:
        copier.processor.give_up()
    assert copier.processor.drain([*copier.processor.progress.owned.values()]) is is_broken
