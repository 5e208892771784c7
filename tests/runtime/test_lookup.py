"""Single records are found by their coordinates, and what is not there is not made up."""

from __future__ import annotations

import pytest

from engine.api.payloads import Payloads, Published
from engine.core.model import MessagePublished
from engine.ports import Output
from engine.runtime.clock import SystemClock
from engine.runtime.lookup import Lookup
from engine.runtime.memory import MemoryLog
from engine.runtime.replaying.originals import Original, Originals
from schemas.codec import Codec

CODEC = Codec()
MESSAGE = MessagePublished("acme", "m", "room.ended", b"{}", 5)
HERE = ("messages", 0)


def a_log() -> MemoryLog:
    """A message between two records that nobody can decode."""
    log = MemoryLog(2, SystemClock())
    for value in (b"noise", CODEC.encode(MESSAGE), b"\xc3\x01" + bytes(8)):
        log.append(Output(*HERE, b"m", value))
    return log


@pytest.mark.parametrize(
    ("partition", "offset", "is_there"),
    [(0, 0, True), (0, 2, True), (0, 3, False), (0, -1, False), (1, 0, False), (2, 0, False)],
)
def test_a_record_is_found_where_it_is(partition: int, offset: int, *, is_there: bool) -> None:
    """None before the beginning, behind the end, and on partitions that there are not."""
    lookup = Lookup(a_log())
    found = lookup.record(("messages", partition), offset)
    assert (None if found is None else found.offset) == (offset if is_there else None)
    lookup.close()


@pytest.mark.parametrize("offset", [0, 2])
def test_what_is_no_message_is_none(offset: int) -> None:
    """Topics may have been made anew: then anything may be where a message was."""
    payloads, originals = Payloads(a_log(), CODEC), Originals(a_log(), CODEC)
    assert payloads.read(HERE, offset) is None
    assert originals.message(HERE, offset, ("acme", "m")) is None


def test_a_message_is_found_for_its_owner_only() -> None:
    """By tenant and id; with the broker's time."""
    log = a_log()
    at = log.records(HERE)[1].timestamp
    assert Payloads(log, CODEC).read(HERE, 1) == Published(MESSAGE, at)
    originals = Originals(log, CODEC)
    assert originals.message(HERE, 1, ("acme", "m")) == Original(MESSAGE, at)
    assert originals.message(HERE, 1, ("globex", "m")) is None
    assert originals.message(HERE, 1, ("acme", "n")) is None
