"""What every Kafka client of ours shares: configuration, names, errors, records."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Any, TypeVar, cast

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from engine.ports import BrokerUnreachableError, LogError, Record, TrimmedError
from engine.runtime import telemetry
from engine.runtime.settings import Settings

T = TypeVar("T")
PARTITION = "TOPIC:PARTITION"
"""Stands for the partition in what `check` is told to do."""
Config = dict[str, Any]
_TRIMMED = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
_GONE = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
)
_UNREACHABLE = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._WAIT_COORD,
)
_LOG = telemetry.logger("kafka")


_REPORT_EVERY_S = 10.0
_reported: dict[str, float] = {}


def report(error: KafkaError, event: str = "kafka.trouble") -> None:
    """Count what a client ran into, say it now and then; LogError if it will not go on by itself."""
    if error.fatal() or error.code() == KafkaError._FATAL:
        raise LogError(_explained(error))
    telemetry.KAFKA_ERRORS.labels(error.name()).inc()
    now = time.monotonic()
    key = event + error.name()
    if now - _reported.get(key, -_REPORT_EVERY_S) >= _REPORT_EVERY_S:
        _reported[key] = now
        _LOG.warning(event, code=error.name(), error=error.str())


def _explained(error: KafkaError) -> str:
    """What the library says; with the setting to look at when somebody else took our name."""
    if "fenced" not in error.str():
        return error.str()
    return (
        "another process of this group has the same HOOKLOG_INSTANCE: give each process of a group its own;"
        " or a commit outlived a broker's absence: the restart mends that"
        f" ({error.str()})"
    )


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the brokers are; topic and group names carry the prefix there and nowhere else."""

    bootstrap: str
    prefix: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """How to connect (TLS, SASL): librdkafka's properties, secrets among them."""

    @classmethod
    def of(cls, settings: Settings) -> Cluster:
        """Return the cluster that the settings name."""
        return cls(settings.kafka, settings.prefix, settings.kafka_properties)

    def full(self, name: str) -> str:
        """`messages` -> `hooklog.messages`."""
        return self.prefix + name

    def at(self, partition: tuple[str, int], offset: int | None = None, metadata: str = "") -> TopicPartition:
        """Build the client library's coordinates."""
        full = self.full(partition[0])
        if offset is None:
            return TopicPartition(full, partition[1])
        if not metadata:
            return TopicPartition(full, partition[1], offset)
        return TopicPartition(full, partition[1], offset, metadata)

    def bare(self, partition: TopicPartition) -> tuple[str, int]:
        """Undo `at`."""
        return partition.topic[len(self.prefix) :], partition.partition

    def config(self, **more: str | float | bool) -> Config:
        """Configure any client; keyword `a_b` is the property `a.b`."""
        return {
            **self.options,
            "bootstrap.servers": self.bootstrap,
            "log_level": 2,
            "error_cb": report,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 1_000,
            # all topics are there before we start: one that is missing was deleted
            "topic.metadata.propagation.max.ms": 5_000,
            "topic.metadata.refresh.interval.ms": 30_000,
            **{name.replace("_", "."): value for name, value in more.items()},
        }

    def reader_config(self) -> Config:
        """Configure a consumer that commits nothing and sees the end of each partition."""
        return self.config(
            group_id=self.full("reader"),
            enable_auto_commit=False,
            auto_offset_reset="error",
            isolation_level="read_committed",
            enable_partition_eof=True,
            fetch_wait_max_ms=20,
            fetch_error_backoff_ms=20,
            fetch_queue_backoff_ms=20,
            queued_min_messages=20_000,
            queued_max_messages_kbytes=16_384,
        )


def check(message: Message, error: KafkaError, todo: str = "") -> None:
    """Raise on what cannot pass by itself; librdkafka goes on by itself after the rest."""
    where = f"{message.topic()}:{message.partition()}"
    if error.code() in _TRIMMED:
        raise TrimmedError(
            f"{where}: records were trimmed before they were read ({error.str()}). "
            f"{todo.replace(PARTITION, where)}See 'A trimmed topic' in the README's operations"
        )
    if error.code() in _GONE:
        raise LogError(f"topic {message.topic()} is gone ({error.str()}): run `hooklog topics check`")
    report(error)


def log_error(what: str, error: KafkaException) -> LogError:
    """Turn the library's error into the port's; `what` says what failed."""
    cause: KafkaError = error.args[0]
    kind = BrokerUnreachableError if cause.code() in _UNREACHABLE else LogError
    return kind(f"{what}: {_explained(cause)}")


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Raise the library's errors as the port's."""
    try:
        yield
    except KafkaException as error:
        raise log_error(what, error) from error


def sound(partitions: list[TopicPartition]) -> list[TopicPartition]:
    """Return per-partition results; raise the first error among them."""
    for partition in partitions:
        if partition.error is not None:
            raise KafkaException(partition.error)
    return partitions


_NO_HEADERS: Mapping[str, bytes] = {}


def to_record(message: Message, skip: int) -> Record:
    """Build a record; `skip` is the length of the topic prefix."""
    return Record(
        cast(str, message.topic())[skip:],
        cast(int, message.partition()),
        cast(int, message.offset()),
        message.timestamp()[1] * 1000,
        message.key(),
        message.value(),
        _headers(message),
    )


_read_headers = methodcaller("headers")
"""Where a name is not UTF-8 the library returns a list with a hole *and* an error. A call that the
interpreter has specialized (3.11) does not notice, and the hole can end the process; one through C does."""


def _headers(message: Message) -> Mapping[str, bytes]:
    """Headers by name; none if a name is not UTF-8, for the library reads all of them or breaks.

    The record itself is sound, and on `messages`, where anybody writes, headers are optional.
    Ask only once: the library keeps what broke.
    """
    try:
        headers = cast("list[tuple[str, bytes]] | None", _read_headers(message))
    except (SystemError, UnicodeDecodeError):
        telemetry.HEADERS_UNREADABLE.inc()
        return _NO_HEADERS
    return dict(headers) if headers else _NO_HEADERS


_PASSING = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.REQUEST_TIMED_OUT,
    *_UNREACHABLE,
    KafkaError._NOENT,  # "no leaders found" while a broker that came back is not connected yet
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.OFFSET_NOT_AVAILABLE,
)
"""What passes by itself: after a start, a new leader or a new topic."""
_RETRY_EVERY_S = 0.05


def persistently(what: str, call: Callable[[], T], limit_s: float) -> T:
    """Call until no error is a passing one; LogError of any other, or of the last after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return call()
        except KafkaException as error:
            if error.args[0].code() not in _PASSING or time.monotonic() > deadline:
                raise log_error(what, error) from error
            time.sleep(_RETRY_EVERY_S)
