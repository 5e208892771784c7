"""Who creates an endpoint and then publishes through the API is served, however late a router's view is."""

from __future__ import annotations

import threading

import pytest

from consumers.router import Router
from engine.core.change import EndpointSettings
from engine.core.endpoint import Endpoint
from engine.core.model import MessagePublished, RoutedBatch
from engine.core.routing import partition_of
from engine.ports import Output
from engine.runtime.context import Context
from engine.runtime.memory import MemoryLog
from engine.runtime.settings import Settings
from schemas import headers
from tests.pipeline.world import CODEC, PARTITIONS, PROFILES, TENANT, VAULT

ENDPOINT = Endpoint("ep", TENANT, EndpointSettings("https://example.com/"), version=1)


class Ticking:
    """A clock that goes on by so much each time it is asked, and is not asked for ever."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._asked = 0

    def now(self) -> int:
        """Wall clock, microseconds."""
        return int(self.monotonic() * 1e6)

    def monotonic(self) -> float:
        """Seconds."""
        self._asked += 1
        assert self._asked < 20_000, "it is waited for for ever"
        return self._asked * self._step_s


def routed(view: bytes, delay_s: float, clock: Ticking) -> tuple[str, ...]:
    """Publish with a `view` header, write the endpoint some time later; who matched."""
    log = MemoryLog(PARTITIONS, clock)
    settings = Settings(partitions=PARTITIONS)
    router = Router(Context(settings, log, clock, CODEC, PROFILES, VAULT, "test"))
    message = MessagePublished(TENANT, "m", "room.ended", b"{}", 0)
    log.append(Output("messages", 0, b"m", CODEC.encode(message), {headers.VIEW: view}))
    at = partition_of(TENANT, PARTITIONS)
    later = threading.Timer(delay_s, log.append, [Output("endpoints", at, b"ep", CODEC.encode(ENDPOINT))])
    later.start()
    while not (found := log.records(("routings", 0))):
        router.step()
    later.join()
    router.close()
    (routing,) = CODEC.decode_as(RoutedBatch, found[0].value).routings
    return routing.matched


def test_the_router_waits_for_the_view_that_the_api_had() -> None:
    """The endpoint reaches the router after the message, and matches it all the same."""
    assert routed(headers.view(partition_of(TENANT, PARTITIONS), 1), 0.2, Ticking(0.0005)) == ("ep",)


@pytest.mark.parametrize("view", [b"0:999", b"99:1", b"nonsense", b"-1:5", b"", b"0:" + b"9" * 5_000])
def test_a_header_that_cannot_come_true_is_not_waited_for_long(view: bytes) -> None:
    """Whoever wrote it: the message goes on when the bound is over."""
    assert routed(view, 0.0, Ticking(0.1)) in {(), ("ep",)}
