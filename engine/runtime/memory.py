"""The log in memory: ports.Log without a broker, for tests and for trying things out.

It keeps Kafka's promises that hooklog relies on: order within a partition,
groups that own each partition once, commits with metadata, acknowledgements
that come later (on `poll`), callbacks inside `poll`, and transactions that
fence. A member that is `killed` loses its unacknowledged callbacks and its
uncommitted work, like a process that gets SIGKILL.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

from engine.ports import (
    Acknowledged,
    Clock,
    Consumer,
    LogError,
    Output,
    Position,
    Rebalance,
    Record,
    TopicPartition,
    TrimmedError,
)


class MemoryLog:
    """Topics in memory; every topic has the same number of partitions."""

    def __init__(self, partitions: int, clock: Clock) -> None:
        self._partitions = partitions
        self._clock = clock
        self._records: dict[TopicPartition, list[Record]] = defaultdict(list)
        self._starts: dict[TopicPartition, int] = {}
        self._groups: dict[str, _Group] = defaultdict(_Group)
        self._owners: dict[str, object] = {}
        self.changed = threading.Condition(threading.RLock())

    def partitions(self, topic: str) -> int:
        """Return the number of partitions."""
        return self._partitions

    def consumer(
        self, group: str, topics: Sequence[str], rebalance: Rebalance, *, patience_ms: int = 0
    ) -> MemoryConsumer:
        """Join a group; partitions move at everybody's next poll. Patience means nothing here."""
        partitions = [(topic, n) for topic in topics for n in range(self._partitions)]
        with self.changed:
            return MemoryConsumer(self, self._groups[group], partitions, rebalance)

    def producer(self, *, linger_ms: float = 0) -> MemoryProducer:
        """Make a producer; linger means nothing here."""
        return MemoryProducer(self)

    def transactions(self, name: str) -> MemoryTransactions:
        """Write transactions as `name`, fencing its last owner."""
        transactions = MemoryTransactions(self, name)
        self._owners[name] = transactions
        return transactions

    def reader(self) -> MemoryReader:
        """Make a reader of ranges."""
        return MemoryReader(self)

    def follower(self, starts: Mapping[TopicPartition, int], *, ahead_kb: int = 0) -> MemoryFollower:
        """Follow from `starts` on; nothing is fetched ahead here."""
        return MemoryFollower(self, starts)

    def append(self, output: Output) -> int:
        """Append a record at once; return its offset."""
        with self.changed:
            records = self._records[output.topic, output.partition]
            offset = len(records)
            records.append(
                Record(
                    output.topic,
                    output.partition,
                    offset,
                    self._clock.now(),
                    output.key,
                    output.value,
                    dict(output.headers),
                )
            )
            self.changed.notify_all()
            return offset

    def records(self, at: TopicPartition, start: int = 0) -> list[Record]:
        """Records of a partition from an offset on, as far as they are still there."""
        with self.changed:
            return self._records[at][max(start, self.start(at)) :]

    def untrimmed(self, at: TopicPartition, start: int) -> list[Record]:
        """Records from an offset on; TrimmedError if it is no longer there."""
        if start < self.start(at):
            raise TrimmedError(f"offset {start} of {at} is no longer on the log")
        return self.records(at, start)

    def start(self, at: TopicPartition) -> int:
        """First offset still on the log."""
        return self._starts.get(at, 0)

    def trim(self, at: TopicPartition, start: int) -> None:
        """Let go of what lies below an offset, as retention does."""
        self._starts[at] = start

    def end(self, at: TopicPartition) -> int:
        """Offset the next record will get."""
        return len(self._records[at])

    def owns_name(self, name: str, owner: object) -> bool:
        """Whether `owner` was the last to take a transactional name."""
        return self._owners.get(name) is owner


class _Group:
    """What a group has committed, and who is in it."""

    def __init__(self) -> None:
        self.positions: dict[TopicPartition, Position] = {}
        self.members: list[MemoryConsumer] = []
        self.owner: dict[TopicPartition, MemoryConsumer] = {}

    def share(self, member: MemoryConsumer) -> set[TopicPartition]:
        """Return the partitions that `member` should own: every n-th."""
        place, count = self.members.index(member), len(self.members)
        return {at for i, at in enumerate(sorted(member.wanted)) if i % count == place}


class MemoryConsumer:
    """ports.Consumer in memory."""

    def __init__(
        self, log: MemoryLog, group: _Group, wanted: Sequence[TopicPartition], rebalance: Rebalance
    ) -> None:
        self._log = log
        self._group = group
        self._rebalance = rebalance
        self._next: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._lease = 0.0
        self.wanted = wanted
        group.members.append(self)

    def poll(self, timeout: float, limit: int) -> list[Record]:
        """Up to `limit` records; waits at most `timeout` seconds for the first."""
        self._balance()
        with self._log.changed:
            if not (records := self._fetch(limit)) and timeout > 0:
                self._log.changed.wait(timeout)
                records = self._fetch(limit)
        return records

    def _balance(self) -> None:
        share = self._group.share(self)
        if gone := sorted(set(self._next) - share):
            self._rebalance.revoked(gone)
            self._drop(gone)
        free = [at for at in sorted(share - set(self._next)) if at not in self._group.owner]
        if free:
            self._group.owner.update(dict.fromkeys(free, self))
            self._next.update(self._rebalance.assigned(free))

    def _drop(self, partitions: Sequence[TopicPartition]) -> None:
        for at in partitions:
            self._next.pop(at, None)
            self._paused.discard(at)
            if self._group.owner.get(at) is self:
                del self._group.owner[at]

    def _fetch(self, limit: int) -> list[Record]:
        records: list[Record] = []
        for at in self._next:
            if at not in self._paused:
                found = self._log.untrimmed(at, self._next[at])[: limit - len(records)]
                self._next[at] += len(found)
                records += found
        return records

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Position | None]:
        """What the group has committed; None where it never has."""
        return {at: self._group.positions.get(at) for at in partitions}

    def commit(self, positions: Mapping[TopicPartition, Position], *, wait: bool) -> None:
        """Commit at once; positions over 4,095 bytes of metadata are refused."""
        too_long = [at for at, p in positions.items() if len(p.metadata) > 4_095]
        if too_long:
            raise LogError(f"commit metadata of {too_long[0]} is too long")
        with self._log.changed:
            self._group.positions.update({at: p for at, p in positions.items() if at in self._next})
            self._lease = self._log._clock.monotonic()

    @property
    def lease(self) -> float:
        """When the last commit was made (monotonic seconds)."""
        return self._lease

    def pause(self, partition: TopicPartition) -> None:
        """Deliver no more of this partition."""
        self._paused.add(partition)

    def resume(self, partition: TopicPartition) -> None:
        """Undo a pause."""
        self._paused.discard(partition)

    def close(self) -> None:
        """Leave, after a last `revoked`."""
        if self._next:
            self._rebalance.revoked(list(self._next))
        self.kill()

    def kill(self) -> None:
        """Be gone at once: nothing is drained, nothing committed."""
        self._drop(list(self._next))
        if self in self._group.members:
            self._group.members.remove(self)


class MemoryProducer:
    """ports.Producer in memory: under way for one poll, appended at the next, then acknowledged."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._sent: deque[tuple[Output, Acknowledged]] = deque()
        self._under_way: deque[tuple[Output, Acknowledged]] = deque()
        self._appended: deque[partial[None]] = deque()

    def send(self, output: Output, acknowledged: Acknowledged) -> None:
        """Queue it."""
        self._sent.append((output, acknowledged))

    def poll(self, timeout: float = 0) -> None:
        """Run the callbacks of what is appended, then append what was sent."""
        while self._appended:
            self._appended.popleft()()
        for output, acknowledged in self._under_way:
            self._appended.append(partial(acknowledged, self._log.append(output)))
        self._under_way, self._sent = self._sent, deque()

    def flush(self, timeout: float) -> bool:
        """Append and acknowledge everything; False if there is no time for it."""
        while timeout > 0 and len(self):
            self.poll()
        return len(self) == 0

    def __len__(self) -> int:
        return len(self._sent) + len(self._under_way) + len(self._appended)


class MemoryTransactions:
    """ports.Transactions in memory."""

    def __init__(self, log: MemoryLog, name: str) -> None:
        self._log = log
        self._name = name

    def write(
        self, outputs: Sequence[Output], consumed: Mapping[TopicPartition, int], consumer: Consumer
    ) -> None:
        """All of it or nothing; LogError once the name has a newer owner."""
        with self._log.changed:
            if not self._log.owns_name(self._name, self):
                raise LogError(f"{self._name} was fenced: somebody else has taken the name")
            for output in outputs:
                self._log.append(output)
            consumer.commit({at: Position(offset, "") for at, offset in consumed.items()}, wait=True)


class MemoryReader:
    """ports.Reader in memory."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def starts(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """First offset still on the log."""
        return {at: self._log.start(at) for at in partitions}

    def ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset the next record will get."""
        return {at: self._log.end(at) for at in partitions}

    def tails(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset the next record will get: here no transaction is ever open."""
        return self.ends(partitions)

    def since(self, partitions: Sequence[TopicPartition], timestamp: int) -> dict[TopicPartition, int]:
        """First offset appended at or after `timestamp`; the end if there is none."""
        late = {
            at: (r.offset for r in self._log.records(at) if r.timestamp >= timestamp) for at in partitions
        }
        return {at: next(offsets, self._log.end(at)) for at, offsets in late.items()}

    def read(self, starts: Mapping[TopicPartition, int]) -> Iterator[Record]:
        """Everything from each start to the end at the time of the call."""
        late = [at for at, start in starts.items() if start > self._log.end(at)]
        if late:
            raise TrimmedError(f"offset {starts[late[0]]} of {late[0]} is not on the log")
        return chain.from_iterable([self._log.untrimmed(at, start) for at, start in starts.items()])

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int | None]:
        """Where a group goes on; None where it never committed."""
        positions = self._log._groups[group].positions
        return {at: positions[at].offset if at in positions else None for at in partitions}

    def close(self) -> None:
        """Nothing to close."""


class MemoryFollower:
    """ports.Follower in memory."""

    def __init__(self, log: MemoryLog, starts: Mapping[TopicPartition, int]) -> None:
        self._log = log
        self._next = dict(starts)

    def move(self, starts: Mapping[TopicPartition, int]) -> None:
        """Follow these instead."""
        self._next = dict(starts)

    def poll(self, timeout: float, limit: int) -> list[Record]:
        """What has been appended since, at most `limit` records."""
        with self._log.changed:
            if not (records := self._fetch(limit)) and timeout > 0:
                self._log.changed.wait(timeout)
                records = self._fetch(limit)
            return records

    def _fetch(self, limit: int) -> list[Record]:
        records: list[Record] = []
        for at in self._next:
            found = self._log.untrimmed(at, self._next[at])[: limit - len(records)]
            self._next[at] += len(found)
            records += found
        return records

    @property
    def reached(self) -> Mapping[TopicPartition, int]:
        """How far it is: below there was nothing else."""
        return dict(self._next)

    @property
    def caught_up(self) -> bool:
        """Whether the end of every partition has been reached."""
        return all(offset >= self._log.end(at) for at, offset in self._next.items())

    def close(self) -> None:
        """Nothing to close."""
