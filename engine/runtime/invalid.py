"""What cannot be decoded or must be refused goes to `invalid`, with where it was and why."""

from __future__ import annotations

from engine.core.model import InvalidRecord
from engine.ports import Output, Record
from engine.runtime import telemetry
from schemas import headers
from schemas.codec import Codec

VALUE_MAX = 1 << 20
KEY_MAX = 4 << 10
"""Bytes of the raw value and key that are kept: the record has to fit the broker's limit."""


def invalid_output(codec: Codec, record: Record, reason: str, detail: str, now: int) -> Output:
    """Return the record for `invalid`, and count it."""
    telemetry.INVALID_RECORDS.labels(reason).inc()
    key, value = (record.key or b"")[:KEY_MAX], (record.value or b"")[:VALUE_MAX]
    at = (record.topic, record.partition, record.offset)
    refused = InvalidRecord(*at, reason, detail, key, value, now)
    return Output("invalid", 0, None, codec.encode(refused), {headers.CAUSE: headers.cause_for(record)})
