"""`hooklog tail`: what is on a topic, decoded."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import fields, is_dataclass
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli.errors import CommandError
from engine.cli.output import Format, Output, print_json, stopped_by_signal
from engine.cli.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engine.ports import Log, Record
    from engine.runtime.settings import Settings
    from schemas.codec import Codec

_POLL_S = 0.2
_BATCH = 500
_TEXT_MAX = 200


def tail(
    topic: Annotated[str, typer.Argument(help="Name without the prefix, such as attempts.")],
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="All that is there, then on.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Stop after so many records; 0: never.")
    ] = 0,
    output: Output = Format.text,
) -> None:
    """Show records of a topic as they come, until Ctrl-C."""
    from engine.runtime.kafka import KafkaLog  # noqa: PLC0415
    from schemas.codec import Codec  # noqa: PLC0415

    settings = read_settings()
    _check_topic(topic, settings)
    log, codec = KafkaLog(settings), Codec()
    with stopped_by_signal() as stop:
        for seen, record in enumerate(_follow(log, topic, stop, from_beginning=from_beginning), 1):
            if output is Format.json:
                print_json(described(record, codec))
            else:
                print(_line(described(record, codec)), flush=True)
            if seen == limit:
                break


def _check_topic(topic: str, settings: Settings) -> None:
    from engine.runtime.topics import catalogue  # noqa: PLC0415

    names = [spec.name for spec in catalogue(settings)]
    if topic not in names:
        raise CommandError(f"there is no topic {topic!r}: choose among {', '.join(names)}")


def _follow(log: Log, topic: str, stop: Event, *, from_beginning: bool) -> Iterator[Record]:
    from engine.runtime.topics import partitions_of  # noqa: PLC0415

    partitions = partitions_of(log, topic)
    reader = log.reader()
    starts = reader.starts(partitions) if from_beginning else reader.ends(partitions)
    reader.close()
    follower = log.follower(starts)
    try:
        while not stop.is_set():
            yield from follower.poll(_POLL_S, _BATCH)
    finally:
        follower.close()


def described(record: Record, codec: Codec) -> dict[str, object]:
    """A record as plain values; bytes that are no text as base64."""
    from engine.core.profile import rfc3339  # noqa: PLC0415
    from schemas.codec import UndecodableError, UnknownSchemaError  # noqa: PLC0415

    kind, value = "tombstone", None
    if record.value is not None:
        try:
            decoded = codec.decode(record.value)
            kind, value = type(decoded).__name__, plain(decoded)
        except (UndecodableError, UnknownSchemaError) as error:
            kind, value = f"undecodable: {error}", plain(record.value)
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "at": rfc3339(record.timestamp),
        "key": plain(record.key),
        "headers": plain(record.headers),
        "record": kind,
        "value": value,
    }


def plain(value: object) -> object:
    """Dataclasses become dicts, bytes text or `base64:…`."""
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


def _text(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"base64:{b64encode(value).decode()}"
    return f"base64:{b64encode(value).decode()}" if "\0" in text else text


def _line(shown: Mapping[str, object]) -> str:
    value = shown["value"]
    pairs = value.items() if isinstance(value, dict) else [("value", value)]
    told = " ".join(f"{name}={_short(item)}" for name, item in pairs)
    return f"{shown['at']} {shown['topic']}-{shown['partition']}@{shown['offset']} {shown['record']} {told}"


def _short(value: object) -> str:
    text = str(value).replace("\n", "\\n")
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"
