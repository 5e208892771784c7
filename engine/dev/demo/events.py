"""Makes and reads `events.avro`: what the three platforms' producers would write.

`python -m engine.dev.demo.events` writes the file anew; the same seed gives the same records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, cast

import fastavro

from engine.dev.demo import payloads
from engine.dev.demo.payloads import Make

FILE = Path(__file__).with_name("events.avro")
SCHEMA_FILE = Path(__file__).parents[3] / "schemas" / "message_published.avsc"
_SEED = 20260118
_FIRST = datetime(2026, 1, 18, 10, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Message(NamedTuple):
    """One event of the file; `published_at` in microseconds since 1970 UTC."""

    tenant: str
    id: str
    event_type: str
    payload: bytes
    published_at: int
    ordering_key: str | None
    attributes: dict[str, str]


MIX: Mapping[str, Mapping[str, tuple[int, Make]]] = {
    "baxcloud": {
        "room.created": (110, payloads.room("created")),
        "room.started": (100, payloads.room("active")),
        "room.ended": (100, payloads.room("ended")),
        "room.deleted": (40, payloads.room("deleted")),
        "participant.joined": (230, payloads.participant("joinedAt")),
        "participant.left": (180, payloads.participant("leftAt")),
        "participant.updated": (60, payloads.participant("updatedAt")),
        "recording.started": (50, payloads.recording("started")),
        "recording.stopped": (50, payloads.recording("stopped")),
        "recording.available": (50, payloads.recording("available")),
        "stream.started": (20, payloads.recording("live")),
        "stream.ended": (10, payloads.recording("ended")),
    },
    "bedrud": {
        "room.ended": (120, payloads.bedrud_room),
        "participant.joined": (220, payloads.bedrud_participant),
        "participant.left": (170, payloads.bedrud_participant),
        "recording.completed": (90, payloads.bedrud_recording),
    },
    "meetingbaas": {
        "meeting.completed": (120, payloads.meeting_completed),
        "meeting.failed": (60, payloads.meeting_failed),
        "meeting.started": (120, payloads.meeting_started),
        "transcription.available": (90, payloads.transcription),
        "transcription.updated": (120, payloads.transcription),
        "calendar.synced": (60, payloads.calendar),
        "event.added": (60, payloads.calendar),
        "event.updated": (50, payloads.calendar),
        "event.deleted": (20, payloads.calendar),
    },
}
"""Per tenant and event type: how many, and how one is made."""


def _to_json(rng: Random, payload: payloads.Payload) -> bytes:
    """Written as different producers' libraries do: compact, spaced, indented, escaped to ASCII."""
    long: list[Any] = payload.get("transcript") or payload.get("chat") or []
    if len(long) > 5:
        return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
    match rng.randrange(4):
        case 0:
            return json.dumps(payload).encode()
        case 1:
            return json.dumps(payload, ensure_ascii=False, indent=1).encode()
        case _:
            return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def make_messages() -> list[Message]:
    """All messages of the file, in the order in which they happened."""
    rng = Random(_SEED)  # noqa: S311 - the same file for everybody is the point
    kinds = [
        (tenant, event_type, make)
        for tenant, types in MIX.items()
        for event_type, (count, make) in types.items()
        for _ in range(count)
    ]
    rng.shuffle(kinds)
    return [_message(rng, number, *kind) for number, kind in enumerate(kinds)]


def _message(rng: Random, number: int, tenant: str, event_type: str, make: Make) -> Message:
    at = _FIRST + timedelta(milliseconds=700 * number, microseconds=rng.randrange(600_000))
    name = f"{tenant[:3]}_{number:05d}_{rng.getrandbits(64):016x}"
    trace = {"traceparent": f"00-{rng.getrandbits(128):032x}-{rng.getrandbits(64):016x}-01"}
    payload = _to_json(rng, make(rng, at))
    return Message(tenant, name, event_type, payload, (at - _EPOCH) // _MICROSECOND, None, trace)


def read_schema() -> dict[str, Any]:
    """The public schema of what producers write; times stay integers."""
    schema: dict[str, Any] = json.loads(SCHEMA_FILE.read_text())
    for field in schema["fields"]:
        if isinstance(field["type"], dict):
            field["type"].pop("logicalType", None)
    return schema


def read_messages(path: Path = FILE) -> Iterator[Message]:
    """Read an Avro container file of MessagePublished records."""
    with path.open("rb") as file:
        for record in fastavro.reader(file, reader_schema=read_schema()):
            yield Message(**cast(dict[str, Any], record))


def write_messages(path: Path, messages: list[Message]) -> None:
    """Write the container file (deflate)."""
    records = [message._asdict() for message in messages]
    with path.open("wb") as file:
        fastavro.writer(file, read_schema(), records, codec="deflate", sync_marker=b"hooklog demo 001")


if __name__ == "__main__":
    write_messages(FILE, make_messages())
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes")
