"""Who creates an endpoint and then publishes through the API is served, however late a router's view is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from consumers.router import Router
from engine.core.change import EndpointSettings
from engine.core.endpoint import Endpoint
from engine.core.model import MessagePublished, RoutedBatch
from engine.core.routing import partition_of
from engine.ports import Output, Record, TopicPartition
from engine.runtime.configuration.views import WAIT_S
from engine.runtime.context import Context
from engine.runtime.memory import MemoryFollower, MemoryLog, MemoryReader
from engine.runtime.settings import Settings
from schemas import headers
from tests.pipeline.world import CODEC, PARTITIONS, PROFILES, TENANT, VAULT

ENDPOINT = Endpoint("ep", TENANT, EndpointSettings("https://example.com/"), version=1)
AT = partition_of(TENANT, PARTITIONS)


class Ticking:
    """A clock that goes on by so much each time it is asked, and is not asked for ever."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self.asked = 0

    def now(self) -> int:
        """Wall clock, microseconds."""
        return int(self.monotonic() * 1e6)

    def monotonic(self) -> float:
        """Seconds."""
        self.asked += 1
        assert self.asked < 20_000, "it is waited for for ever"
        return self.asked * self._step_s


class LateFollower(MemoryFollower):
    """Is told of nothing by so many polls: a view that is behind."""

    def __init__(self, log: MemoryLog, starts: Mapping[TopicPartition, int], polls: int) -> None:
        super().__init__(log, starts)
        self._left = polls

    def poll(self, timeout: float, limit: int) -> list[Record]:
        """Nothing yet, or what has been appended since."""
        self._left -= 1
        return super().poll(0, limit) if self._left < 0 else []


class CountingReader(MemoryReader):
    """Counts how often it is asked where `endpoints` ends."""

    asked = 0

    def ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Offset the next record will get."""
        CountingReader.asked += any(topic == "endpoints" for topic, _ in partitions)
        return super().ends(partitions)


class LateLog(MemoryLog):
    """The log of a router whose view is behind by so many polls."""

    def __init__(self, clock: Ticking, polls: int) -> None:
        super().__init__(PARTITIONS, clock)
        self._polls = polls

    def follower(self, starts: Mapping[TopicPartition, int], *, ahead_kb: int = 0) -> MemoryFollower:
        """Follow late."""
        return LateFollower(self, starts, self._polls)

    def reader(self) -> MemoryReader:
        """Make a reader that counts."""
        return CountingReader(self)


def routed(views: Sequence[bytes], polls: int, clock: Ticking) -> list[tuple[str, ...]]:
    """Publish a message with each of these `view` headers, the endpoint being there; who matched each."""
    log = LateLog(clock, polls)
    log.append(Output("endpoints", AT, b"ep", CODEC.encode(ENDPOINT)))
    router = Router(Context(Settings(partitions=PARTITIONS), log, clock, CODEC, PROFILES, VAULT, "test"))
    for number, view in enumerate(views):
        value = CODEC.encode(MessagePublished(TENANT, f"m{number}", "room.ended", b"{}", 0))
        log.append(Output("messages", 0, b"m", value, {headers.VIEW: view}))
    matched: list[tuple[str, ...]] = []
    while len(matched) < len(views):
        router.step()
        batches = [CODEC.decode_as(RoutedBatch, each.value) for each in log.records(("routings", 0))]
        matched = [routing.matched for batch in batches for routing in batch.routings]
    router.close()
    return matched


def test_the_router_waits_for_the_view_that_the_api_had() -> None:
    """The endpoint reaches the router after the message, and matches it all the same."""
    assert routed([headers.view(AT, 1)], 200, Ticking(0.0005)) == [("ep",)]


@pytest.mark.parametrize(
    "view", [b"%d:2" % AT, b"0:999", b"99:1", b"nonsense", b"-1:5", b"", b"0:" + b"9" * 5_000]
)
def test_a_header_that_cannot_have_been_true_is_not_waited_for(view: bytes) -> None:
    """Whoever wrote it: nobody has read beyond the end of `endpoints`. The end is asked once a poll."""
    clock = Ticking(0.0005)
    CountingReader.asked = 0
    assert routed([view] * 100, 10**9, clock) == [()] * 100
    assert clock.asked * 0.0005 < WAIT_S
    assert CountingReader.asked <= 1


def test_all_records_of_a_poll_wait_once() -> None:
    """A view that does not come on holds a hundred messages up for no longer than one."""
    clock = Ticking(0.005)
    assert routed([headers.view(AT, 1)] * 100, 10**9, clock) == [()] * 100
    assert WAIT_S <= clock.asked * 0.005 < 5 * WAIT_S
