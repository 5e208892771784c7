"""Publishes at a given pace, in a process of its own, and notes when each message was handed to Kafka."""

from __future__ import annotations

import argparse
import gc
import hashlib
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer

from engine.dev.demo import events
from engine.dev.demo.publisher import PublishError, make_encoder, make_producer

PAYLOAD_BYTES = 600
_FLUSH_S = 60


@dataclass(frozen=True, slots=True)
class Load:
    """What to publish: `count` messages named `run`-number, `rate` a second (0: as fast as it goes)."""

    kafka: str
    topic: str
    tenant: str
    event_type: str
    run: str
    count: int
    rate: float


def message_id(run: str, number: int) -> str:
    """Name a message; `number_of` undoes it."""
    return f"{run}-{number:07d}"


def number_of(run: str, name: str) -> int | None:
    """Which message of the run it is; None if it is of another."""
    before, _, number = name.rpartition("-")
    return int(number) if before == run else None


def make_payload(run: str, number: int) -> bytes:
    """600 bytes of JSON that no other message has."""
    start = b'{"run":"%s","number":%d,"text":"' % (run.encode(), number)
    seed = hashlib.sha512(start).hexdigest().encode()
    filling = (seed * (PAYLOAD_BYTES // len(seed) + 1))[: PAYLOAD_BYTES - len(start) - 2]
    return start + filling + b'"}'


def publish(load: Load) -> array[int]:
    """Publish the load; when each message was handed to the producer, Unix nanoseconds."""
    producer, encode = make_producer(load.kafka), make_encoder()
    _warm_up(producer, encode, load)
    failed: list[KafkaError] = []

    def acknowledged(error: KafkaError | None, _record: Message) -> None:
        if error is not None:
            failed.append(error)

    sent = array("q", bytes(8 * load.count))
    start = time.monotonic()
    for number in range(load.count):
        value = encode(_message(load, number))
        _wait_for_turn(start, number, load.rate)
        sent[number] = time.time_ns()
        _produce(producer, load, message_id(load.run, number), value, acknowledged)
    left = producer.flush(_FLUSH_S)
    if failed or left:
        raise PublishError(f"{len(failed)} records refused, {left} not acknowledged: {failed[:1]}")
    return sent


def _message(load: Load, number: int) -> events.Message:
    name, payload = message_id(load.run, number), make_payload(load.run, number)
    return events.Message(load.tenant, name, load.event_type, payload, time.time_ns() // 1000, None, {})


def _wait_for_turn(start: float, number: int, rate: float) -> None:
    """Keep to the schedule that was fixed at the start: a late message does not delay the next."""
    if rate and (wait := start + number / rate - time.monotonic()) > 0:
        time.sleep(wait)


Acknowledged = Callable[[KafkaError | None, Message], None]


def _produce(producer: Producer, load: Load, key: str, value: bytes, acknowledged: Acknowledged) -> None:
    producer.poll(0)
    while True:
        try:
            producer.produce(load.topic, value=value, key=key, on_delivery=acknowledged)
        except BufferError:
            producer.poll(1)
        else:
            return


def _warm_up(producer: Producer, encode: Callable[[events.Message], bytes], load: Load) -> None:
    """A producer's first record costs half a second (metadata, producer id); nobody is told of this one."""
    unheard = events.Message(load.tenant, f"{load.run}-warm", "bench.unheard", b"{}", 0, None, {})
    for number in range(64):  # enough to meet every partition
        producer.produce(load.topic, value=encode(unheard), key=f"{load.run}-warm{number}")
    if producer.flush(_FLUSH_S):
        raise PublishError("Kafka does not acknowledge")
    gc.collect()
    gc.freeze()


def main() -> None:
    """Publish as the command line says and write the times to a file of 8-byte integers."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("kafka", "topic", "tenant", "event-type", "run"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    chosen = vars(parser.parse_args())
    out: Path = chosen.pop("out")
    out.write_bytes(publish(Load(**chosen)).tobytes())


if __name__ == "__main__":
    main()
