"""`hooklog publish`: messages from a file or standard input onto the log, as any producer writes them."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.errors import FAILED, WRONG_INPUT, CommandError
from engine.cli.output import Format, Output, print_json
from engine.cli.settings import read_settings

if TYPE_CHECKING:
    from engine.cli.sources import Item
    from engine.ports import Log, Producer
    from engine.ports import Output as OutputRecord

_LINGER_MS = 5
_WAITING_MAX = 10_000
_POLL_S = 0.05
_FLUSH_S = 60.0
_SHOWN_ERRORS = 20
_SHOW_EVERY = 200


@dataclass(slots=True)
class Counts:
    """What became of the messages of a file."""

    published: int = 0
    refused: int = 0
    errors: list[str] = field(default_factory=list)

    def acknowledged(self, _offset: int) -> None:
        """One more is on the log."""
        self.published += 1

    def refuse(self, error: str) -> None:
        """One more is left out; the first few are told."""
        self.refused += 1
        if self.refused <= _SHOWN_ERRORS:
            self.errors.append(error)
            print(error, file=sys.stderr)


def publish(
    file: Annotated[str, typer.Argument(help="Avro container or NDJSON file; - is standard input.")],
    tenant: Annotated[str, typer.Option(help="For lines of NDJSON that name none.")] = "",
    event_type: Annotated[str, typer.Option("--event-type", help="The same for the event type.")] = "",
    output: Output = Format.text,
) -> None:
    """Publish messages. NDJSON: one object a line with tenant, event_type, payload, id?, ordering_key?.

    What is wrong is told by line or record and left out; then the exit status is 2.
    """
    from engine.cli.sources import Rules, read_items  # noqa: PLC0415
    from engine.runtime.clock import SystemClock  # noqa: PLC0415
    from engine.runtime.kafka import KafkaLog  # noqa: PLC0415

    settings = read_settings()
    rules = Rules(tenant, event_type, settings.payload_max, SystemClock().now)
    with _opened(file) as stream, _progress(stream) as show:
        counts = send_all(KafkaLog(settings), read_items(stream, rules), show)
    if output is Format.json:
        print_json({"published": counts.published, "refused": counts.refused, "errors": counts.errors})
    else:
        print(f"{counts.published} published, {counts.refused} refused")
    if counts.refused:
        raise typer.Exit(WRONG_INPUT)


def send_all(log: Log, items: Iterable[Item], show: Callable[[int], None]) -> Counts:
    """Publish and wait for every acknowledgement; `show` is told how many were sent."""
    from engine.core.model import MessagePublished  # noqa: PLC0415
    from engine.core.routing import message_key, partition_of  # noqa: PLC0415
    from engine.ports import Output as OutputRecord  # noqa: PLC0415
    from schemas.codec import Codec  # noqa: PLC0415

    counts, codec, sent = Counts(), Codec(), 0
    producer, partitions = log.producer(linger_ms=_LINGER_MS), log.partitions("messages")
    for where, item in items:
        if not isinstance(item, MessagePublished):
            counts.refuse(f"{where}: {item.reason}")
            continue
        key = message_key(item.id, item.tenant, item.ordering_key)
        at = partition_of(key, partitions)
        _send(producer, OutputRecord("messages", at, key.encode(), codec.encode(item)), counts)
        sent += 1
        if sent % _SHOW_EVERY == 0:
            show(sent)
    show(sent)
    if not producer.flush(_FLUSH_S):
        raise CommandError(f"Kafka has not acknowledged {len(producer)} messages in {_FLUSH_S:g} s", FAILED)
    return counts


def _send(producer: Producer, output: OutputRecord, counts: Counts) -> None:
    """Send it once there is room; what is acknowledged meanwhile is counted."""
    while not _is_queued(producer, output, counts):
        producer.poll(_POLL_S)
    producer.poll()
    while len(producer) >= _WAITING_MAX:
        producer.poll(_POLL_S)


def _is_queued(producer: Producer, output: OutputRecord, counts: Counts) -> bool:
    from engine.ports import QueueFullError  # noqa: PLC0415

    try:
        producer.send(output, counts.acknowledged)
    except QueueFullError:
        return False
    return True


@contextmanager
def _opened(file: str) -> Iterator[BufferedReader]:
    if file == "-":
        assert isinstance(sys.stdin.buffer, BufferedReader)
        yield sys.stdin.buffer
        return
    with Path(file).open("rb") as stream:
        yield stream


@contextmanager
def _progress(stream: BufferedReader) -> Iterator[Callable[[int], None]]:
    """A bar on standard error while a person watches; its length is the file's."""
    if not sys.stderr.isatty():
        yield lambda sent: None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as progress:
        size = _size(stream)
        bar = progress.add_task("publishing", total=size)
        yield lambda sent: progress.update(
            bar,
            completed=stream.tell() if size else sent,
            description=f"publishing, {sent} sent",
        )


def _size(stream: BufferedReader) -> int | None:
    found = os.fstat(stream.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None
