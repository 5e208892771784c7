"""An exact producer: idempotent, in a process of its own, it writes down what the broker acknowledged.

A line of the ledger: `number acknowledged-at` (Unix nanoseconds). It goes on through broker
restarts, stops at SIGTERM once all is acknowledged, and ends badly if anything was refused.
"""

from __future__ import annotations

import argparse
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import TextIO

from confluent_kafka import KafkaError, Message

from engine.dev.chaos.cast import KINDS, TENANT, message_id, payload
from engine.dev.demo.events import Message as Event_
from engine.dev.demo.publisher import PublishError, make_encoder, make_producer

_FLUSH_S = 120.0


def event(run: str, number: int) -> Event_:
    """The n-th message of a run."""
    name = message_id(run, number)
    now = time.time_ns() // 1000
    return Event_(TENANT, name, f"chaos.{number % KINDS}", payload(name), now, None, {})


@dataclass(frozen=True, slots=True)
class Load:
    """What to publish where: messages of `run`, `rate` a second."""

    kafka: str
    topic: str
    run: str
    rate: float


def publish(load: Load, ledger: TextIO, stop: Event) -> None:
    """Publish at a steady rate until told to stop, and wait for all that was; PublishError."""
    producer = make_producer(load.kafka)
    refused: list[KafkaError] = []
    encode = make_encoder()

    def acknowledged(number: int, error: KafkaError | None, _record: Message) -> None:
        if error is not None:
            refused.append(error)
        else:
            ledger.write(f"{number} {time.time_ns()}\n")

    number, start = 0, time.monotonic()
    while not stop.is_set() and not refused:
        while (wait := start + number / load.rate - time.monotonic()) > 0:
            producer.poll(min(wait, 0.05))
        one = event(load.run, number)
        producer.produce(load.topic, encode(one), one.id, on_delivery=partial(acknowledged, number))
        number += 1
    left = producer.flush(_FLUSH_S)
    if refused or left:
        raise PublishError(f"{len(refused)} records refused, {left} not acknowledged: {refused[:1]}")


def main() -> None:
    """Publish as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("kafka", "topic", "run"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    chosen = parser.parse_args()
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with chosen.ledger.open("w", buffering=1) as ledger:
        publish(Load(chosen.kafka, chosen.topic, chosen.run, chosen.rate), ledger, stop)


if __name__ == "__main__":
    main()
