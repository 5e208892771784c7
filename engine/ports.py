"""What the users of core need from outside. Adapters are in `engine.runtime`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from engine.core.model import Answer

TopicPartition = tuple[str, int]
"""Topic name without the prefix, partition number."""

Headers = Mapping[str, bytes]


class Record(NamedTuple):
    """A record read from the log. `timestamp` is the broker's append time, microseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Output(NamedTuple):
    """A record to be written; the partition is always named, never hashed."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = {}


class Position(NamedTuple):
    """A committed offset and the metadata (at most 4,095 bytes) that goes with it."""

    offset: int
    metadata: str


Acknowledged = Callable[[int], None]
"""Called with the offset that the broker gave an output."""


class LogError(RuntimeError):
    """The log did not do what it must; the process stops and is started again."""


class TrimmedError(LogError):
    """The offset to go on from is no longer on the log: going on would skip records in silence."""


class BrokerUnreachableError(LogError):
    """No broker answered within the time that the settings allow."""


class QueueFullError(LogError):
    """What was sent and is not acknowledged yet leaves no room; whoever sends must bound that."""


class Rebalance(Protocol):
    """Told by a consumer, from within `poll`, what it owns."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the offset to start from for each."""

    def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish and commit what is under way, then forget them."""

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget them; somebody else owns them already."""


class Consumer(Protocol):
    """One member of a consumer group. All calls come from one thread."""

    def poll(self, timeout: float, limit: int) -> list[Record]:
        """Up to `limit` records; waits at most `timeout` seconds for the first."""

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Position | None]:
        """What the group has committed; None where it never has."""

    def commit(self, positions: Mapping[TopicPartition, Position], *, wait: bool) -> None:
        """Commit; without `wait` the broker's answer shows in `lease`."""

    @property
    def lease(self) -> float:
        """When the last commit that the broker acknowledged was sent (monotonic seconds)."""

    def pause(self, partition: TopicPartition) -> None:
        """Deliver no more of this partition; polling goes on."""

    def resume(self, partition: TopicPartition) -> None:
        """Undo a pause; nothing if it is not paused."""

    def close(self) -> None:
        """Leave, after a last `revoked`."""


class Producer(Protocol):
    """Idempotent, acks=all. `send` may be called from any thread, `poll` from one."""

    def send(self, output: Output, acknowledged: Acknowledged) -> None:
        """Queue it; never waits, runs no callback. QueueFullError if there is no room.

        A record the broker finally refuses halts the process.
        """

    def poll(self, timeout: float = 0) -> None:
        """Run the callbacks of what has been acknowledged."""

    def flush(self, timeout: float) -> bool:
        """True when everything sent is acknowledged."""

    def __len__(self) -> int:
        """Records sent and not yet acknowledged."""


class Transactions(Protocol):
    """Writes that agree: all outputs and the consumed offsets, or nothing."""

    def write(
        self, outputs: Sequence[Output], consumed: Mapping[TopicPartition, int], consumer: Consumer
    ) -> None:
        """One transaction. A newer owner of the same inputs makes it raise and change nothing.

        After any other LogError it may have been committed or not: only a restart tells.
        """


class Reader(Protocol):
    """Reads ranges without a group, visible (committed) records only."""

    def starts(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """First offset still on the log."""

    def ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset the next record will get."""

    def tails(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset the next record will get, those of open transactions counted too.

        BrokerUnreachableError if none answers within a second or two.
        """

    def since(self, partitions: Sequence[TopicPartition], timestamp: int) -> dict[TopicPartition, int]:
        """First offset appended at or after `timestamp` (microseconds); the end if there is none."""

    def read(self, starts: Mapping[TopicPartition, int]) -> Iterator[Record]:
        """Everything from each start to the end at the time of the call, in order a partition.

        TrimmedError if a start is not on the log; LogError if the log says nothing for too long.
        """

    def committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int | None]:
        """Where a group goes on; None where it never committed."""

    def close(self) -> None:
        """Let go of the connection."""


class Follower(Protocol):
    """Follows topics without a group, from given offsets on."""

    def move(self, starts: Mapping[TopicPartition, int]) -> None:
        """Follow these from now on, from these offsets, and nothing else."""

    def poll(self, timeout: float, limit: int) -> list[Record]:
        """What has been appended since, at most `limit` records."""

    @property
    def reached(self) -> Mapping[TopicPartition, int]:
        """Ends that were reached so far: what `poll` returned is all that there was below."""

    @property
    def caught_up(self) -> bool:
        """Whether the end of every partition has been reached once."""

    def close(self) -> None:
        """Let go of the connection."""


class Log(Protocol):
    """The event log. Topic names are without the prefix."""

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic."""

    def consumer(
        self, group: str, topics: Sequence[str], rebalance: Rebalance, *, patience_ms: int = 0
    ) -> Consumer:
        """Join a group. With patience a fetch waits that long for more: fewer, fuller fetches."""

    def producer(self, *, linger_ms: float = 0) -> Producer:
        """A warmed-up producer."""

    def transactions(self, name: str) -> Transactions:
        """Write transactions as `name`, which fences whoever used the name before."""

    def reader(self) -> Reader:
        """A warmed-up reader."""

    def follower(self, starts: Mapping[TopicPartition, int], *, ahead_kb: int = 16_384) -> Follower:
        """Follow from `starts` on; at most about `ahead_kb` are fetched before they are polled."""


class Request(NamedTuple):
    """One HTTP POST. `timeout` (seconds) covers connect, TLS, headers and body."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout: float


class Sender(Protocol):
    """Makes HTTP requests; what an endpoint does wrong is an Answer, never an exception."""

    async def send(self, request: Request) -> Answer:
        """POST it and wait for the answer or the deadline."""

    async def close(self) -> None:
        """Close idle connections."""


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> int:
        """Wall clock, microseconds since 1970 UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back."""


class Sealed(NamedTuple):
    """AES-256-GCM ciphertext and its nonce."""

    nonce: bytes
    ciphertext: bytes


class Vault(Protocol):
    """Seals and opens secrets; the master key stays inside."""

    @property
    def master_key_id(self) -> str:
        """What the master key that wraps is called; tells nothing of it."""

    @property
    def command_key(self) -> bytes:
        """What commands' secrets are sealed by."""

    @property
    def command_keys(self) -> tuple[bytes, ...]:
        """What commands' secrets may be sealed by, `command_key` first."""

    def knows(self, master_key_id: str) -> bool:
        """Whether the master key of that id is here."""

    def wrap(self, data_key_id: str, data_key: bytes) -> Sealed:
        """Wrap a tenant's data key by the master key."""

    def unwrap(self, data_key_id: str, sealed: Sealed, master_key_id: str) -> bytes:
        """Unwrap a tenant's data key; ValueError if the master key it is wrapped by is not here."""

    def seal(self, data_key: bytes, context: str, secret: str) -> Sealed:
        """Seal a secret; `context` (tenant|endpoint|version) is authenticated, not stored."""

    def open(self, data_key: bytes, context: str, sealed: Sealed) -> str:
        """Open it; a wrong key or context raises ValueError without any of the secret in it."""
