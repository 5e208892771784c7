"""Views: what the compacted topics say now, kept in memory and followed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from engine.core.endpoint import DataKey, Endpoint, Tenant
from engine.ports import Log, LogError, Record
from engine.ports import TopicPartition as Partition
from engine.runtime import telemetry
from engine.runtime.clock import SystemClock
from engine.runtime.vault import Keyring
from schemas.codec import Codec, UnknownSchemaError

_BATCH = 5_000
_LOAD_LIMIT_S = 120.0

Fold = Callable[[Record], None]


class NewerRecordError(LogError):
    """A newer hooklog wrote configuration that this one cannot read; to work without it would be to guess."""


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

    def load(self, limit_s: float = _LOAD_LIMIT_S) -> None:
        """Fold up to the end; LogError if that takes longer than `limit_s`."""
        clock = SystemClock()
        deadline = clock.monotonic() + limit_s
        while not self._follower.caught_up:
            self.advance(0.1)
            if clock.monotonic() > deadline:
                raise LogError(f"a view was not ready after {limit_s:g} s: is the broker overloaded?")

    def advance(self, timeout: float = 0) -> int:
        """Fold what has come since; return how many records. NewerRecordError: this process is too old."""
        records = self._follower.poll(timeout, _BATCH)
        for record in records:
            self._take(record)
            self.offsets[record.topic, record.partition] = record.offset + 1
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
            self._forget(record.topic, (record.key or b"").decode())
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

    def _forget(self, topic: str, key: str) -> None:
        kind, _, id = key.partition(":")
        if topic == "endpoints":
            known = self.endpoints.pop(key, None)
            if known is not None and self._changed is not None:
                self._changed(replace(known, deleted=True))
        elif kind == "tenant":
            self.tenants.pop(id, None)
        elif kind == "data_key":
            self.keyring.forget(id)

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
