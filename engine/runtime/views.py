"""Views: what the compacted topics say now, kept in memory and followed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from engine.core.endpoint import DataKey, Endpoint, Tenant
from engine.ports import Log, Record
from engine.ports import TopicPartition as Partition
from engine.runtime.clock import SystemClock
from engine.runtime.vault import Keyring
from schemas.codec import Codec

_BATCH = 5_000
_LOAD_LIMIT_S = 120.0

Fold = Callable[[Record], None]


class View:
    """Follows compacted topics from their beginning and folds each record once, in order.

    `offsets` holds, for each partition, the offset after the last record folded.
    """

    def __init__(self, log: Log, topics: Sequence[str], fold: Fold) -> None:
        reader = log.reader()
        partitions = [(topic, n) for topic in topics for n in range(log.partitions(topic))]
        starts = reader.starts(partitions)
        reader.close()
        self._fold = fold
        self._follower = log.follower(starts)
        self.offsets: dict[Partition, int] = dict(starts)

    def load(self) -> None:
        """Fold up to the end; TimeoutError if that takes over two minutes."""
        clock = SystemClock()
        deadline = clock.monotonic() + _LOAD_LIMIT_S
        while not self._follower.caught_up:
            self.advance(0.1)
            if clock.monotonic() > deadline:
                raise TimeoutError(
                    f"a view was not ready after {_LOAD_LIMIT_S:g} s: is the broker overloaded?"
                )

    def advance(self, timeout: float = 0) -> int:
        """Fold what has come since; return how many records."""
        records = self._follower.poll(timeout, _BATCH)
        for record in records:
            self._fold(record)
            self.offsets[record.topic, record.partition] = record.offset + 1
        return len(records)

    def position(self, topic: str, partition: int) -> int:
        """Return the offset after the last record folded of a partition."""
        return self.offsets[topic, partition]

    def close(self) -> None:
        """Stop following."""
        self._follower.close()


class Configuration:
    """Endpoints, tenants and data keys as the topics `endpoints` and `directory` say."""

    def __init__(
        self, codec: Codec, keyring: Keyring, changed: Callable[[Endpoint], None] | None = None
    ) -> None:
        self._codec = codec
        self._changed = changed
        self.keyring = keyring
        self.endpoints: dict[str, Endpoint] = {}
        self.tenants: dict[str, Tenant] = {}

    def fold(self, record: Record) -> None:
        """Take in one record of `endpoints` or `directory`; a tombstone forgets."""
        if record.value is None:
            self._forget((record.key or b"").decode())
            return
        match self._codec.decode(record.value):
            case Endpoint() as endpoint:
                self.put(endpoint)
            case Tenant() as tenant:
                self.tenants[tenant.id] = tenant
            case DataKey() as key:
                self.keyring.put(key)
            case other:
                raise TypeError(f"{type(other).__name__} does not belong on {record.topic}")

    def _forget(self, endpoint_id: str) -> None:
        known = self.endpoints.pop(endpoint_id, None)
        if known is not None and self._changed is not None:
            self._changed(replace(known, deleted=True))

    def put(self, endpoint: Endpoint) -> None:
        """Take in a snapshot unless a newer one is known already."""
        known = self.endpoints.get(endpoint.id)
        if known is None or known.version <= endpoint.version:
            self.endpoints[endpoint.id] = endpoint
            if self._changed is not None:
                self._changed(endpoint)

    def of_tenant(self, tenant: str) -> Mapping[str, Endpoint]:
        """Endpoints of a tenant that are not deleted, by id."""
        return {e.id: e for e in self.endpoints.values() if e.tenant == tenant and not e.deleted}


CONFIGURATION_TOPICS = ("directory", "endpoints")
