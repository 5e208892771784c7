"""What the log says of every delivery, read as any outsider could: a plain consumer, the public schemas."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import fastavro
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from fastavro.schema import fingerprint, to_parsing_canonical_form

_SCHEMAS = Path(__file__).parents[3] / "schemas"
_PREFIX_BYTES = 10
_BATCH = 2_000
_WAIT_S = 30


@dataclass(frozen=True, slots=True)
class Attempt:
    """One AttemptFinished. Times in Unix nanoseconds; `cause` names the record that led to it."""

    delivery: str
    number: int
    endpoint: str
    message: str
    decision: str
    reason: str
    outcome: str
    error_class: str
    started: int
    ended: int
    cause: str


@dataclass(slots=True)
class Facts:
    """All that was read so far; the first attempt of a number counts, the others are copies."""

    attempts: defaultdict[str, list[Attempt]] = field(default_factory=lambda: defaultdict(list))
    """By delivery, in the order of the log."""
    matched: set[tuple[str, str]] = field(default_factory=set)
    """(endpoint, message) of every delivery that the router tells of."""
    ended: set[tuple[str, str]] = field(default_factory=set)
    passed_over: set[tuple[str, str]] = field(default_factory=set)
    scheduled: defaultdict[tuple[str, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    """Causes of the records on the delay topics and `deliveries`, by (delivery, attempt)."""
    records: int = 0

    def add_attempt(self, record: dict[str, Any], cause: str) -> None:
        """Take in an AttemptFinished."""
        started = record["attempted_at"] * 1000
        one = Attempt(
            record["delivery_id"],
            record["attempt"],
            record["endpoint_id"],
            record["message_id"],
            record["decision"],
            record["reason"],
            record["outcome"],
            record["error_class"],
            started,
            started + record["duration_us"] * 1000,
            cause,
        )
        self.attempts[one.delivery].append(one)
        if one.decision != "retry":
            self.ended.add((one.endpoint, one.message))

    def add_routings(self, record: dict[str, Any]) -> None:
        """Take in a RoutedBatch."""
        for routing in record["routings"]:
            if routing["verdict"] == "routed":
                message = routing["message_id"]
                self.matched.update((endpoint, message) for endpoint in routing["matched"])
                self.passed_over.update((skipped["endpoint_id"], message) for skipped in routing["skipped"])

    def add_scheduled(self, headers: dict[str, bytes], topic: str) -> None:
        """Take in a record of a delay topic or of `deliveries`: what led to it, and where."""
        key = headers["delivery"].decode(), int(headers["attempt"])
        cause = headers["cause"].decode()
        if cause.startswith("attempts:"):
            self.scheduled[key].add(cause)


class LogFollower:
    """Reads the topics from their beginning on, without a group; `follow` takes in what is new."""

    def __init__(self, kafka: str, prefix: str) -> None:
        self.facts = Facts()
        self._prefix = prefix
        self._readers = {fingerprint_of(schema): schema for schema in _schemas()}
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka,
                "group.id": "chaos-judge",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "log_level": 2,
            }
        )
        topics = self._consumer.list_topics(timeout=_WAIT_S).topics
        wanted = [name for name in topics if self._is_wanted(name.removeprefix(prefix))]
        self._consumer.assign([TopicPartition(t, p, 0) for t in wanted for p in topics[t].partitions])

    def _is_wanted(self, topic: str) -> bool:
        return topic in ("attempts", "routings", "deliveries") or topic.startswith("retry.")

    def follow(self, seconds: float) -> int:
        """Take in what there is, waiting so long for more; how many records."""
        before = self.facts.records
        while messages := self._consumer.consume(_BATCH, seconds):
            for message in messages:
                self._take(message)
            if len(messages) < _BATCH:
                break
        return self.facts.records - before

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if error.fatal() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise RuntimeError(f"the log cannot be read: {error.str()}")
            return
        self.facts.records += 1
        topic = (message.topic() or "").removeprefix(self._prefix)
        headers = dict(cast("list[tuple[str, bytes]]", message.headers() or []))
        if topic in ("attempts", "routings"):
            self._take_decoded(topic, message.value() or b"", headers)
        else:
            self.facts.add_scheduled(headers, topic)

    def _take_decoded(self, topic: str, value: bytes, headers: dict[str, bytes]) -> None:
        schema = self._readers.get(value[:_PREFIX_BYTES])
        if schema is None:
            raise RuntimeError(f"a record of {topic} is of no schema in {_SCHEMAS}")
        record = fastavro.schemaless_reader(io.BytesIO(value[_PREFIX_BYTES:]), schema, None)
        assert isinstance(record, dict)
        if "routings" in record:
            self.facts.add_routings(record)
        elif topic == "routings":
            pass  # a ResentBatch: what is made again is nobody's first delivery
        else:
            self.facts.add_attempt(record, headers["cause"].decode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()


def _schemas() -> Iterable[dict[str, Any]]:
    for name in ("attempt_finished", "routed_batch", "resent_batch"):
        schema: dict[str, Any] = json.loads(_without_times((_SCHEMAS / f"{name}.avsc").read_text()))
        yield schema


def _without_times(text: str) -> str:
    """Times stay integers."""
    return text.replace('"logicalType"', '"ignored"')


def fingerprint_of(schema: dict[str, Any]) -> bytes:
    """What the records of a schema begin with."""
    return b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
