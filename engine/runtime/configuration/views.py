"""Views: what the compacted topics say now, kept in memory and followed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from engine.core.directory import ApiKey, DataKey, EntryKind, EventType, Tenant, parse_directory_key
from engine.core.endpoint import Endpoint
from engine.core.replay import Replay
from engine.ports import Clock, Log, LogError, Reader, Record, TopicPartition
from engine.runtime import telemetry
from engine.runtime.clock import SystemClock
from engine.runtime.configuration.fresh import Freshness
from engine.runtime.configuration.vault import Keyring
from engine.runtime.topics import partitions_of
from schemas import headers
from schemas.codec import Codec, UnknownSchemaError

_BATCH = 5_000
_LOAD_LIMIT_S = 120.0
WAIT_S = 1.0
"""How long the records of a poll wait, all together, for the view that the API had when it took them."""

Fold = Callable[[Record], None]


class NewerRecordError(LogError):
    """A newer hooklog wrote configuration that this one cannot read; to work without it would be to guess."""


class View:
    """Follows compacted topics from their beginning and folds each record once, in order.

    `offsets` holds, for each partition, the offset after the last record folded.
    """

    def __init__(self, log: Log, topics: Sequence[str], fold: Fold) -> None:
        self._log = log
        reader = log.reader()
        starts = reader.starts(partitions_of(log, *topics))
        reader.close()
        self._fold = fold
        self._follower = log.follower(starts)
        self.offsets: dict[TopicPartition, int] = dict(starts)
        self._reached: Mapping[TopicPartition, int] = {}
        self.freshness: Freshness | None = None

    def keep_fresh(self, topic: str, clock: Clock) -> Freshness:
        """Have the broker asked where a topic ends, from `load` on, until `close`."""
        self.freshness = Freshness(self._log, clock, topic, self.reached)
        return self.freshness

    def load(self, limit_s: float = _LOAD_LIMIT_S) -> None:
        """Fold up to the end; LogError if that takes longer than `limit_s`."""
        clock = SystemClock()
        deadline = clock.monotonic() + limit_s
        while not self._follower.caught_up:
            self.advance(0.1)
            if clock.monotonic() > deadline:
                raise LogError(f"a view was not ready after {limit_s:g} s: is the broker overloaded?")
        if self.freshness is not None:
            self.freshness.start()

    def advance(self, timeout: float = 0) -> int:
        """Fold what has come since; return how many records. NewerRecordError: this process is too old."""
        records = self._follower.poll(timeout, _BATCH)
        for record in records:
            self._take(record)
            self.offsets[record.topic, record.partition] = record.offset + 1
        self._reached = self._follower.reached  # all before it is folded
        return len(records)

    def _take(self, record: Record) -> None:
        try:
            self._fold(record)
        except UnknownSchemaError as error:
            telemetry.UNKNOWN_SCHEMA.labels("view").inc()
            raise NewerRecordError(
                f"{record.topic}/{record.partition} offset {record.offset}: {error}: "
                "a newer hooklog wrote it; upgrade this one"
            ) from error

    def position(self, topic: str, partition: int) -> int:
        """Return the offset after the last record folded of a partition."""
        return self.offsets[topic, partition]

    def reached(self, at: TopicPartition) -> int:
        """Return the offset below which nothing is missing; a transaction's end takes one too."""
        return max(self.offsets[at], self._reached.get(at, 0))

    def close(self) -> None:
        """Stop following."""
        if self.freshness is not None:
            self.freshness.stop()
        self._follower.close()


class Awaited:
    """Makes a view no older than the API's was when it took a record in.

    Who creates an endpoint, then publishes, is served. Bounded, because the header is only as good as
    whoever wrote it: what lies beyond the end of `endpoints` nobody has seen, and all the records of one
    poll wait for `WAIT_S` at most.
    """

    def __init__(self, view: View, log: Log, reader: Reader, clock: Clock) -> None:
        self._view = view
        self._reader = reader
        self._clock = clock
        self._partitions = partitions_of(log, "endpoints")
        self._ends: Mapping[TopicPartition, int] = {}
        """Where `endpoints` ended when a record of this poll first named an offset that the view lacks."""
        self._until = 0.0

    def polled(self) -> None:
        """Records of another poll come: they may wait again."""
        self._ends = {}

    def wait(self, record: Record, advance: Callable[[float], object]) -> None:
        """Advance the view until it has what the record's header names."""
        seen = record.headers.get(headers.VIEW)
        parsed = headers.parse_view(seen) if seen is not None else None
        if parsed is None or ("endpoints", parsed[0]) not in self._view.offsets:
            return
        at, offset = ("endpoints", parsed[0]), parsed[1]
        if self._view.reached(at) >= offset:
            return
        if not self._ends:
            self._ends = self._reader.ends(self._partitions)
            self._until = self._clock.monotonic() + WAIT_S
        wanted = offset if offset <= self._ends[at] else 0
        while self._view.reached(at) < wanted and self._clock.monotonic() < self._until:
            advance(0.01)


class Configuration:
    """Endpoints, tenants, keys, event types and replays as the topics `endpoints` and `directory` say."""

    def __init__(
        self,
        codec: Codec,
        keyring: Keyring,
        changed: Callable[[Endpoint], None] | None = None,
        kept: Callable[[Endpoint], Endpoint] = lambda endpoint: endpoint,
    ) -> None:
        """`changed` is called with each snapshot; `kept` returns what of it is kept in memory."""
        self._codec = codec
        self._kept = kept
        self._changed = changed
        self.keyring = keyring
        self.endpoints: dict[str, Endpoint] = {}
        self.tenants: dict[str, Tenant] = {}
        self.keys: dict[str, ApiKey] = {}
        self.event_types: dict[str, EventType] = {}
        self.replays: dict[str, Replay] = {}

    def fold(self, record: Record) -> None:
        """Take in one record of `endpoints` or `directory`; a tombstone forgets."""
        key = (record.key or b"").decode()
        if record.value is not None:
            self._take(record.topic, self._codec.decode(record.value))
        elif record.topic == "endpoints":
            self._forget_endpoint(key)
        elif (entry := parse_directory_key(key)) is not None:  # None: of a newer hooklog, so not known here
            self._forget(*entry)

    def _take(self, topic: str, value: object) -> None:
        match value:
            case Endpoint():
                self.put(self._kept(value))
            case Tenant():
                self.tenants[value.id] = value
            case DataKey():
                self.keyring.put(value)
            case ApiKey():
                self.keys[value.id] = value
            case EventType():
                self.event_types[value.name] = value
            case Replay():
                self.replays[value.id] = value
            case other:
                raise TypeError(f"{type(other).__name__} does not belong on {topic}")

    def _forget_endpoint(self, id: str) -> None:
        known = self.endpoints.pop(id, None)
        if known is not None and self._changed is not None:
            self._changed(replace(known, deleted=True))

    def _forget(self, kind: EntryKind, id: str) -> None:
        match kind:
            case "tenant":
                self.tenants.pop(id, None)
            case "data_key":
                self.keyring.forget(id)
            case "api_key":
                self.keys.pop(id, None)
            case "event_type":
                self.event_types.pop(id, None)
            case "replay":
                self.replays.pop(id, None)
            case _:
                assert_never(kind)

    def put(self, endpoint: Endpoint) -> None:
        """Take in a snapshot unless a newer one is known already."""
        known = self.endpoints.get(endpoint.id)
        if known is None or known.version <= endpoint.version:
            self.endpoints[endpoint.id] = endpoint
            if self._changed is not None:
                self._changed(endpoint)

    def of_tenant(self, tenant: str) -> Mapping[str, Endpoint]:
        """Endpoints of a tenant that are not deleted, by id."""
        return {e.id: e for e in list(self.endpoints.values()) if e.tenant == tenant and not e.deleted}


def is_deleted(endpoints: Mapping[str, Endpoint], endpoint_id: str) -> bool:
    """Whether a view has an endpoint as deleted; one that it lacks may be too new for it."""
    known = endpoints.get(endpoint_id)
    return known is not None and known.deleted


CONFIGURATION_TOPICS = ("directory", "endpoints")
