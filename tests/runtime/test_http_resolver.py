"""Names are looked up on threads of their own: one that nobody answers for delays no other."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Sequence

import pytest
import uvloop

from engine.ports import Request
from engine.runtime.delivering.http import AiohttpSender, Resolver
from engine.runtime.delivering.names import AddressInfo
from tests.runtime.receiver import LOOPBACK, TIMEOUT_S, keeping_alive, post, receiving, send

BLACK_HOLES = 40
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
LIMIT_S = 60.0


class Names:
    """A name server that never answers for some names, until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.asked: list[str] = []

    def look_up(self, host: str, port: int, **_: object) -> Sequence[AddressInfo]:
        """Loopback for `fast…`; everything else waits and is not found."""
        self.asked.append(host)
        if host.startswith("fast"):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        self.released.wait(LIMIT_S)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    async def wait_for(self, count: int) -> None:
        """Until so many lookups are under way at once."""
        deadline = time.monotonic() + LIMIT_S
        while len(self.asked) < count:
            assert time.monotonic() < deadline, f"only {len(self.asked)} lookups have begun"
            await asyncio.sleep(0.005)


def to(host: str, port: int, timeout: float = TIMEOUT_S) -> Request:
    """A request to a name."""
    return post(f"http://{host}:{port}/", timeout)


@LOOPS
def test_a_black_holed_name_delays_no_other(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """With forty lookups under way that nobody answers, another name is dialled at once."""
    names = Names()

    async def main() -> None:
        sender = AiohttpSender(LOOPBACK, resolver=Resolver(names.look_up))
        async with receiving(keeping_alive) as receiver:
            stuck = [
                asyncio.create_task(sender.send(to(f"slow{n}.test", receiver.port, 2 * LIMIT_S)))
                for n in range(BLACK_HOLES)
            ]
            await names.wait_for(BLACK_HOLES)
            answer = await sender.send(to("fast.test", receiver.port))
            assert (answer.status_code, answer.error) == (200, "")
            assert not any(each.done() for each in stuck)
            names.released.set()
            assert {(await each).error_class for each in stuck} == {"dns"}
        await sender.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def test_a_lookup_counts_towards_the_deadline() -> None:
    """A request to a name that nobody answers for times out; its lookup is not waited for."""
    names = Names()

    async def main() -> str:
        sender = AiohttpSender(LOOPBACK, resolver=Resolver(names.look_up))
        answer = await sender.send(to("slow.test", 1, 0.1))
        await sender.close()
        return answer.error_class

    assert asyncio.run(main()) == "timeout"
    names.released.set()


def test_a_name_is_looked_up_once_for_many_requests() -> None:
    """Its answer is kept for some seconds."""
    names = Names()

    async def main() -> None:
        sender = AiohttpSender(LOOPBACK, resolver=Resolver(names.look_up))
        async with receiving(keeping_alive) as receiver:
            for _ in range(3):
                await sender.send(to("fast.test", receiver.port))
        await sender.close()

    asyncio.run(main())
    assert names.asked == ["fast.test"]


def test_a_real_name() -> None:
    """The resolver of the system finds this machine; the guard sees the address, not the name."""

    async def main() -> int:
        async with receiving(keeping_alive) as receiver:
            sender = AiohttpSender(LOOPBACK)
            answer = await sender.send(to("localhost", receiver.port))
            await sender.close()
            return answer.status_code

    assert asyncio.run(main()) == 200


def test_what_is_no_name_is_an_answer_too() -> None:
    """A label of over 63 bytes makes Python's lookup raise UnicodeError."""
    assert send(f"http://{'a' * 64}.example.com/").error_class == "dns"
