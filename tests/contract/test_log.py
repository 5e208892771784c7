"""One suite for every ports.Log: the one in memory and Apache Kafka keep the same promises."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from confluent_kafka import TopicPartition as Coordinates
from confluent_kafka.admin import AdminClient

from engine.ports import (
    Consumer,
    Follower,
    Log,
    LogError,
    Output,
    Position,
    Producer,
    Record,
    TopicPartition,
    TrimmedError,
)
from engine.runtime.clock import SystemClock
from engine.runtime.kafka import KafkaAdmin, KafkaLog
from engine.runtime.memory import MemoryLog
from engine.runtime.settings import Settings

PARTITIONS = 2
LIMIT_S = 60.0


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def log(request: pytest.FixtureRequest) -> Log:
    """An empty log with all topics."""
    if request.param == "memory":
        return MemoryLog(PARTITIONS, SystemClock())
    settings = Settings(
        kafka=request.getfixturevalue("kafka"),
        prefix=request.getfixturevalue("prefix"),
        partitions=PARTITIONS,
        session_timeout_s=6,
    )
    KafkaAdmin(settings).create()
    return KafkaLog(settings)


class Owner:
    """ports.Rebalance that starts where it is told and remembers what it was told."""

    def __init__(self, log: Log, group: str = "router", topic: str = "messages") -> None:
        self.owned: set[TopicPartition] = set()
        self.revoked_ever: set[TopicPartition] = set()
        self.consumer: Consumer = log.consumer(group, [topic], self)

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Start from the commits."""
        self.owned.update(partitions)
        committed = self.consumer.committed(partitions)
        return {at: position.offset if position else 0 for at, position in committed.items()}

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Note it."""
        self.owned.difference_update(partitions)
        self.revoked_ever.update(partitions)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Note it."""
        self.revoked(partitions)

    def poll_until(self, ready: Callable[[list[Record]], bool]) -> list[Record]:
        """Poll until what came so far is enough."""
        records: list[Record] = []
        deadline = time.monotonic() + LIMIT_S
        while not ready(records):
            assert time.monotonic() < deadline, f"still waiting; came so far: {records}"
            records += self.consumer.poll(0.05, 100)
        return records


@pytest.fixture
def owner(log: Log) -> Iterator[Owner]:
    """A member of the group `router` that owns all of `messages`."""
    member = Owner(log)
    member.poll_until(lambda _: len(member.owned) == PARTITIONS)
    yield member
    member.consumer.close()


def write(producer: Producer, outputs: Sequence[Output]) -> list[int]:
    """Write and wait; offsets in the order of their acknowledgement."""
    offsets: list[int] = []
    for output in outputs:
        producer.send(output, offsets.append)
    assert producer.flush(LIMIT_S)
    return offsets


def message(partition: int, text: str) -> Output:
    """An output on `messages`."""
    return Output("messages", partition, b"key", text.encode(), {"cause": text.encode()})


def test_what_is_written_is_read_in_order(log: Log) -> None:
    """Offsets grow by one a partition; key, value, headers and broker time come back."""
    before = SystemClock().now() - 1_000_000
    assert write(log.producer(), [message(0, f"a{n}") for n in range(5)]) == [0, 1, 2, 3, 4]
    reader = log.reader()
    records = list(reader.read({("messages", 0): 2, ("messages", 1): 0}))
    assert [(r.topic, r.partition, r.offset, r.key, r.value, dict(r.headers)) for r in records] == [
        ("messages", 0, n, b"key", f"a{n}".encode(), {"cause": f"a{n}".encode()}) for n in (2, 3, 4)
    ]
    assert all(before < r.timestamp < before + 60_000_000 for r in records)
    reader.close()


def test_offsets_of_a_range(log: Log) -> None:
    """Starts, ends, and the first record since a time; the end where there is none."""
    write(log.producer(), [message(0, "a"), message(0, "b")])
    reader = log.reader()
    both = [("messages", 0), ("messages", 1)]
    assert reader.starts(both) == {("messages", 0): 0, ("messages", 1): 0}
    assert reader.ends(both) == {("messages", 0): 2, ("messages", 1): 0}
    assert reader.since(both, 0) == {("messages", 0): 0, ("messages", 1): 0}
    later = SystemClock().now() + 60_000_000
    assert reader.since(both, later) == {("messages", 0): 2, ("messages", 1): 0}
    reader.close()


def test_a_read_ends_where_the_log_ended_when_it_began(log: Log) -> None:
    """What is written after the call is not read, of a partition that had nothing neither."""
    producer = log.producer()
    write(producer, [message(0, "before")])
    reader = log.reader()
    records = reader.read({("messages", 0): 0, ("messages", 1): 0})
    write(producer, [message(0, "after"), message(1, "after")])
    assert [record.value for record in records] == [b"before"]
    assert list(reader.read({("messages", 0): 2})) == []
    reader.close()


def test_a_start_beyond_the_end_is_an_error(log: Log) -> None:
    """A log that lost its end or was made anew is never mistaken for one with nothing to read."""
    write(log.producer(), [message(0, "a")])
    reader = log.reader()
    with pytest.raises(TrimmedError):
        list(reader.read({("messages", 0): 5}))
    reader.close()


def test_acknowledgements_wait_for_poll(log: Log) -> None:
    """No callback runs inside `send`, and `len` counts what is not acknowledged."""
    producer = log.producer()
    offsets: list[int] = []
    producer.send(message(1, "x"), offsets.append)
    assert offsets == []
    assert len(producer) >= 1
    assert producer.flush(LIMIT_S)
    assert (offsets, len(producer)) == ([0], 0)


def test_a_tombstone_has_no_value(log: Log) -> None:
    """None is a value too."""
    write(log.producer(), [Output("messages", 0, b"gone", None)])
    reader = log.reader()
    assert [(r.key, r.value) for r in reader.read({("messages", 0): 0})] == [(b"gone", None)]
    reader.close()


def test_a_group_goes_on_from_its_commit(log: Log, owner: Owner) -> None:
    """Offset and metadata of a commit come back to the next member, which starts there."""
    write(log.producer(), [message(0, f"a{n}") for n in range(4)])
    first = owner.poll_until(lambda records: len(records) == 4)
    assert [record.offset for record in first] == [0, 1, 2, 3]
    owner.consumer.commit({("messages", 0): Position(2, "5,7")}, wait=True)
    assert owner.consumer.committed([("messages", 0)]) == {("messages", 0): Position(2, "5,7")}
    owner.consumer.close()
    heir = Owner(log)
    again = heir.poll_until(lambda records: len(records) == 2)
    assert [record.offset for record in again] == [2, 3]
    heir.consumer.close()


def test_metadata_has_a_limit(log: Log, owner: Owner) -> None:
    """4,090 bytes are taken, more than 4,096 refused."""
    owner.consumer.commit({("messages", 0): Position(0, "9" * 4_090)}, wait=True)
    with pytest.raises(LogError):
        owner.consumer.commit({("messages", 0): Position(0, "9" * 4_097)}, wait=True)


def test_the_lease_follows_commits(log: Log, owner: Owner) -> None:
    """A commit that the broker acknowledged moves the lease."""
    before = time.monotonic()
    owner.consumer.commit({("messages", 0): Position(0, "")}, wait=False)
    owner.poll_until(lambda _: owner.consumer.lease >= before)
    later = time.monotonic()
    owner.consumer.commit({("messages", 0): Position(0, "")}, wait=True)
    assert owner.consumer.lease >= later


def test_a_paused_partition_delivers_nothing(log: Log, owner: Owner) -> None:
    """Others go on; after a resume its records come, none twice."""
    owner.consumer.pause(("messages", 0))
    write(log.producer(), [message(0, "held"), message(1, "free")])
    assert [r.value for r in owner.poll_until(lambda records: len(records) > 0)] == [b"free"]
    owner.consumer.resume(("messages", 0))
    assert [r.value for r in owner.poll_until(lambda records: len(records) > 0)] == [b"held"]


class Breaking(Owner):
    """A member that cannot take what it is given."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Refuse."""
        raise LogError(f"cannot take {len(partitions)}")


def test_what_a_rebalance_breaks_on_is_raised_by_the_poll(log: Log) -> None:
    """The error itself comes out, with its words, and the member can still leave."""
    member = Breaking(log)
    with pytest.raises(LogError, match="cannot take"):
        member.poll_until(lambda _: False)
    member.consumer.close()


def test_partitions_have_one_owner(log: Log) -> None:
    """Two members share; when one leaves the other has all, each was told, and no pause outlives an owner."""
    members = [Owner(log, "health", "attempts"), Owner(_second(log), "health", "attempts")]
    deadline = time.monotonic() + LIMIT_S
    while [len(member.owned) for member in members] != [1, 1]:
        assert time.monotonic() < deadline
        for member in members:
            member.consumer.poll(0.05, 10)
            for at in member.owned:
                member.consumer.pause(at)
    assert members[0].owned.isdisjoint(members[1].owned)
    (moved,) = members[1].owned
    members[1].consumer.close()
    assert len(members[1].revoked_ever) >= 1
    members[0].poll_until(lambda _: len(members[0].owned) == PARTITIONS)
    write(log.producer(), [Output("attempts", n, b"key", b"value") for n in range(PARTITIONS)])
    flowing = members[0].poll_until(lambda records: len(records) > 0)
    assert [record.partition for record in flowing] == [moved[1]]
    members[0].consumer.close()


def _second(log: Log) -> Log:
    """Another process's log: on Kafka a static id of its own."""
    if isinstance(log, KafkaLog):
        return KafkaLog(log.settings.model_copy(update={"instance": "1"}))
    return log


def test_a_follower_sees_what_comes(log: Log) -> None:
    """It catches up to the end once, then gets what is appended."""
    producer = log.producer()
    write(producer, [message(0, "old")])
    follower = log.follower({("messages", 0): 0, ("messages", 1): 0})
    records: list[Record] = []
    deadline = time.monotonic() + LIMIT_S
    while not follower.caught_up:
        assert time.monotonic() < deadline
        records += follower.poll(0.05, 10)
    write(producer, [message(1, "new")])
    while len(records) < 2:
        assert time.monotonic() < deadline
        records += follower.poll(0.05, 10)
    assert [record.value for record in records] == [b"old", b"new"]
    follower.close()


def trim(log: Log, at: TopicPartition, start: int) -> None:
    """Let go of what lies below an offset, as retention does."""
    if isinstance(log, MemoryLog):
        log.trim(at, start)
    elif isinstance(log, KafkaLog):
        admin = AdminClient({"bootstrap.servers": log.settings.kafka})
        below = Coordinates(f"{log.settings.prefix}{at[0]}", at[1], start)
        for deleted in admin.delete_records([below]).values():
            deleted.result()


def find_nothing(follower: Follower, deadline: float) -> None:
    """Poll until the deadline, and get no record."""
    while time.monotonic() < deadline:
        assert follower.poll(0.05, 10) == []


def test_a_follower_says_what_was_trimmed_and_goes_on_elsewhere(log: Log) -> None:
    """Never a silent skip; from where the log begins now it follows as before."""
    at = ("deliveries", 0)
    outputs = [Output("deliveries", 0, b"key", b"%d" % n) for n in range(5)]
    write(log.producer(), outputs)
    trim(log, at, 3)
    reader, follower = log.reader(), log.follower({at: 1})
    deadline = time.monotonic() + LIMIT_S
    with pytest.raises(TrimmedError):
        find_nothing(follower, deadline)
    assert reader.starts([at]) == {at: 3}
    follower.move({at: 3})
    records: list[Record] = []
    while len(records) < 2:
        assert time.monotonic() < deadline
        records += follower.poll(0.05, 10)
    assert [record.value for record in records] == [b"3", b"4"]
    for closed in (reader, follower):
        closed.close()


def test_a_follower_says_how_far_it_is(log: Log) -> None:
    """Up to where nothing is missing, though nothing comes any more and a transaction's end is no record."""
    at = ("endpoints", 1)
    owner = Owner(log, "control", "commands")
    owner.poll_until(lambda _: len(owner.owned) == PARTITIONS)
    transactions = log.transactions("control-0")
    transactions.write([Output("endpoints", 1, b"k", b"snapshot")], {("commands", 0): 1}, owner.consumer)
    reader = log.reader()
    (tail,) = reader.tails([at]).values()
    follower = log.follower({at: 0})
    deadline = time.monotonic() + LIMIT_S
    while follower.reached.get(at, 0) < tail:
        assert time.monotonic() < deadline, (follower.reached, tail)
        follower.poll(0.05, 10)
    assert tail >= 1
    assert reader.tails([at]) == {at: tail}
    for closed in (follower, reader, owner.consumer):
        closed.close()


def test_a_transaction_is_all_or_nothing(log: Log) -> None:
    """Outputs and consumed offsets appear together."""
    owner = Owner(log, "control", "commands")
    owner.poll_until(lambda _: len(owner.owned) == PARTITIONS)
    transactions = log.transactions("control-0")
    outputs = [Output("changes", 0, b"k", b"fact"), Output("endpoints", 1, b"k", b"snapshot")]
    transactions.write(outputs, {("commands", 0): 3}, owner.consumer)
    reader = log.reader()
    values = [r.value for r in reader.read({("changes", 0): 0, ("endpoints", 1): 0})]
    assert sorted(values, key=str) == [b"fact", b"snapshot"]
    committed = owner.consumer.committed([("commands", 0)])[("commands", 0)]
    assert committed is not None
    assert committed.offset == 3
    reader.close()
    owner.consumer.close()


def test_a_newer_owner_of_the_name_fences(log: Log) -> None:
    """Whoever had the transactional name before can write nothing more."""
    owner = Owner(log, "control", "commands")
    owner.poll_until(lambda _: len(owner.owned) == PARTITIONS)
    old = log.transactions("control-0")
    log.transactions("control-0")
    with pytest.raises(LogError):
        old.write([Output("changes", 0, b"k", b"zombie")], {("commands", 0): 1}, owner.consumer)
    reader = log.reader()
    assert list(reader.read({("changes", 0): 0})) == []
    reader.close()
    owner.consumer.close()
