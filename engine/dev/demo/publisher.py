"""An ordinary producer, as any platform would write one: confluent-kafka, fastavro, the public schema.

The one file of the demo that talks Kafka.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable

import fastavro
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from fastavro.schema import fingerprint, to_parsing_canonical_form

from engine.dev.demo import events

_QUEUE_FULL_WAIT_S = 1
_FLUSH_S = 30
_ADMIN_S = 10


class PublishError(RuntimeError):
    """The broker did not acknowledge a record."""


def make_encoder() -> Callable[[events.Message], bytes]:
    """Return a function from message to Avro single-object bytes."""
    schema = events.read_schema()
    parsed = fastavro.parse_schema(schema)
    prefix = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))

    def encode(message: events.Message) -> bytes:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, parsed, message._asdict())
        return prefix + out.getvalue()

    return encode


def make_producer(bootstrap: str) -> Producer:
    """Configured as the producer's guide says: acks=all, idempotent, Java's partitioner."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "linger.ms": 0,
        }
    )


def publish(
    bootstrap: str,
    topic: str,
    messages: Iterable[events.Message],
    on_sent: Callable[[], None],
    per_second: float,
) -> None:
    """Write messages to the topic and wait for every acknowledgement; PublishError if one is missing."""
    producer, encode = make_producer(bootstrap), make_encoder()
    refused: list[KafkaError] = []

    def acknowledged(error: KafkaError | None, _record: Message) -> None:
        if error is not None:
            refused.append(error)
        on_sent()

    start = time.monotonic()
    for number, message in enumerate(messages):
        _serve_until(producer, start + number / per_second)
        _produce(producer, topic, message.id, encode(message), acknowledged)
    left = producer.flush(_FLUSH_S)
    if refused or left:
        raise PublishError(f"{len(refused)} records refused, {left} not acknowledged: {refused[:1]}")


def _serve_until(producer: Producer, at: float) -> None:
    """Run callbacks until a time (monotonic seconds); a poll returns after the first."""
    producer.poll(0)
    while (left := at - time.monotonic()) > 0:
        producer.poll(left)


Acknowledged = Callable[[KafkaError | None, Message], None]


def _produce(producer: Producer, topic: str, key: str, value: bytes, acknowledged: Acknowledged) -> None:
    while True:
        try:
            producer.produce(topic, value=value, key=key, on_delivery=acknowledged)
        except BufferError:
            producer.poll(_QUEUE_FULL_WAIT_S)
        else:
            return


def count_records(bootstrap: str, beginning: str) -> dict[str, int]:
    """How many records have passed through each topic whose name begins so."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "demo-counts"})
    try:
        topics = consumer.list_topics(timeout=_ADMIN_S).topics
        names = sorted(name for name in topics if name.startswith(beginning))
        return {name: sum(_end(consumer, name, p) for p in topics[name].partitions) for name in names}
    finally:
        consumer.close()


def _end(consumer: Consumer, topic: str, partition: int) -> int:
    offsets = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_ADMIN_S)
    if offsets is None:
        raise PublishError(f"the broker did not say where {topic} [{partition}] ends")
    return offsets[1]
