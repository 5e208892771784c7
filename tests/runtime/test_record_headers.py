"""Records as the client library gives them, with headers that its own producer refuses to write."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka
from confluent_kafka import Consumer, Message, TopicPartition
from prometheus_client import REGISTRY

from engine.runtime.kafka.client import to_record

TOPIC = "p.messages"
LIMIT_S = 60.0
# librdkafka's rd_kafka_type_t and the tags of rd_kafka_producev
PRODUCER, END, NAMED_TOPIC, VALUE, KEY, FLAGS, COPY, HEADERS = 0, 0, 1, 4, 5, 7, 2, 10
Headers = list[tuple[bytes, bytes | None]]


def librdkafka() -> ctypes.CDLL:
    """The very library that the client wraps: its producer takes bytes as names."""
    (path,) = (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka*")
    library = ctypes.CDLL(str(path))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
        getattr(library, name).restype = ctypes.c_void_p
    return library


def write(bootstrap: str, records: list[Headers]) -> None:
    """Write a record with each of these headers."""
    library, error = librdkafka(), ctypes.create_string_buffer(200)
    conf = ctypes.c_void_p(library.rd_kafka_conf_new())
    assert library.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), error, 200) == 0
    client = ctypes.c_void_p(library.rd_kafka_new(PRODUCER, conf, error, 200))
    for number, headers in enumerate(records):
        held = ctypes.c_void_p(library.rd_kafka_headers_new(1))
        for name, value in headers:
            size = ctypes.c_ssize_t(-1 if value is None else len(value))
            library.rd_kafka_header_add(held, name, ctypes.c_ssize_t(-1), value, size)
        value, key = b"value %d" % number, b"\xff"
        arguments = (NAMED_TOPIC, TOPIC.encode(), VALUE, value, ctypes.c_size_t(len(value)))
        keyed = (KEY, key, ctypes.c_size_t(len(key)), FLAGS, COPY, HEADERS, held, END)
        assert library.rd_kafka_producev(client, *arguments, *keyed) == 0
    assert library.rd_kafka_flush(client, int(LIMIT_S * 1000)) == 0
    library.rd_kafka_destroy(client)


@contextmanager
def a_broker() -> Iterator[tuple[Consumer, str]]:
    """(a consumer, the address): librdkafka's mock cluster lives in the consumer."""
    consumer = Consumer(
        {
            "test.mock.num.brokers": 1,
            "bootstrap.servers": "",
            "group.id": "g",
            "auto.offset.reset": "earliest",
        }
    )
    (broker,) = consumer.list_topics(timeout=LIMIT_S).brokers.values()
    yield consumer, f"{broker.host}:{broker.port}"
    consumer.close()


def read(consumer: Consumer, count: int) -> list[Message]:
    """As many messages as were written."""
    partitions = consumer.list_topics(TOPIC, timeout=LIMIT_S).topics[TOPIC].partitions
    consumer.assign([TopicPartition(TOPIC, number, 0) for number in partitions])
    found: list[Message] = []
    deadline = time.monotonic() + LIMIT_S
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {len(found)} came"
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            found.append(message)
    return found


def unreadable() -> float:
    """What is counted."""
    return REGISTRY.get_sample_value("hooklog_headers_unreadable_total") or 0


def test_a_header_that_is_no_text_costs_a_record_its_headers_and_nothing_else() -> None:
    """Key, value and time are there, wherever the name stands; others keep their headers, before and after.

    By the hundredth record the interpreter has specialized what it runs, and no longer looks for the error.
    """
    before = unreadable()
    sound: Headers = [(b"view", b"0:1"), ("é".encode(), b"v")]
    written = [sound] * 100 + [[(b"x\xff", b"v")], [(b"view", b"0:1"), (b"x\xff", b"v")], sound] * 10
    with a_broker() as (consumer, address):
        write(address, written)
        messages = read(consumer, len(written))
        records = {record.value: record for record in (to_record(each, 2) for each in messages)}
    for number, given in enumerate(written):
        record = records[b"value %d" % number]
        expected = {"view": b"0:1", "é": b"v"} if given is sound else {}
        assert (record.topic, record.key, dict(record.headers)) == ("messages", b"\xff", expected)
        assert record.timestamp > 0
    assert unreadable() == before + 20
