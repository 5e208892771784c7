"""Names: whoever's server is silent waits alone, and known addresses serve while a lookup drags."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import pytest

from engine.runtime.delivering.http import AiohttpSender, Resolver
from engine.runtime.delivering.names import (
    DOUBTFUL_MAX,
    FAILED_S,
    PATIENCE_S,
    SLOW_S,
    STALE_S,
    AddressInfo,
    Name,
    Names,
)
from tests.runtime.receiver import LOOPBACK, keeping_alive, post, receiving

LIMIT_S = 60.0
SILENT = 150
INET = socket.AF_INET
AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
UNKNOWN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def info(address: str, port: int = 80) -> AddressInfo:
    """One address."""
    return (INET, socket.SOCK_STREAM, 6, "", (address, port))


class Server:
    """A name server: names it is silent about wait until it is released, others are answered by a table."""

    def __init__(self) -> None:
        self.table: dict[str, str | OSError] = {}
        self.silent: set[str] = set()
        self.released = threading.Event()
        self.asked: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def look_up(self, host: str, port: int, **_: object) -> Sequence[AddressInfo]:
        """Answer as the table says; who is not in it has the loopback."""
        with self._lock:
            self.asked[host] += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if host in self.silent or host.startswith("silent"):
                assert self.released.wait(LIMIT_S)
                raise AGAIN
            found = self.table.get(host, "127.0.0.1")
            if isinstance(found, OSError):
                raise found
            return [info(found, port)]
        finally:
            with self._lock:
                self.at_once -= 1


class Seconds:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


Scene = Callable[[Names, Server, Seconds], Awaitable[None]]


def play(scene: Scene) -> Server:
    """Run a scene with names that ask a server."""
    server, seconds = Server(), Seconds()

    async def main() -> None:
        names = Names(server.look_up, seconds)
        try:
            await asyncio.wait_for(scene(names, server, seconds), LIMIT_S)
        finally:
            server.released.set()
            names.close()

    asyncio.run(main())
    return server


async def ask(names: Names, host: str) -> str:
    """The first address of a host."""
    return str((await names.addresses(host, 80, INET))[0][4][0])


async def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_silent_servers_fail_nobody_elses_requests() -> None:
    """With 150 lookups that nobody answers, a known name is dialled and a new one too."""
    server = Server()

    async def main() -> None:
        sender = AiohttpSender(LOOPBACK, resolver=Resolver(server.look_up))
        async with receiving(keeping_alive) as first, receiving(keeping_alive) as second:
            assert (await sender.send(post(f"http://good.test:{first.port}/"))).status_code == 200
            stuck = [
                asyncio.create_task(sender.send(post(f"http://silent{n}.test:{first.port}/", LIMIT_S)))
                for n in range(SILENT)
            ]
            await until(lambda: server.at_once == SILENT)
            # at another port the library asks again
            for url in (f"http://good.test:{second.port}/", f"http://new.test:{second.port}/"):
                answer = await sender.send(post(url, 10))
                assert (answer.status_code, answer.error) == (200, "")
            server.released.set()
            assert {(await each).error_class for each in stuck} == {"dns"}
        await sender.close()

    asyncio.run(main())


def test_names_that_failed_share_few_threads() -> None:
    """When their failure is no answer any more; names that were found, and new ones, do not wait for them."""

    async def scene(names: Names, server: Server, seconds: Seconds) -> None:
        bad = [f"bad{n}.test" for n in range(2 * DOUBTFUL_MAX)]
        server.table = dict.fromkeys(bad, AGAIN)
        await ask(names, "good.test")
        assert await asyncio.gather(*(ask(names, each) for each in bad), return_exceptions=True)
        server.silent = set(bad)
        seconds.now += FAILED_S
        stuck = [asyncio.create_task(ask(names, each)) for each in bad]
        await until(lambda: server.at_once == DOUBTFUL_MAX)
        assert [await ask(names, each) for each in ("good.test", "new.test")] == ["127.0.0.1"] * 2
        assert server.at_once == DOUBTFUL_MAX
        server.released.set()
        assert {type(each) for each in await asyncio.gather(*stuck, return_exceptions=True)} == {
            socket.gaierror
        }

    play(scene)


@pytest.mark.parametrize(("took_s", "is_doubtful"), [(SLOW_S + 0.1, True), (SLOW_S / 2, False)])
def test_a_name_that_was_slow_is_doubtful_until_it_is_quick(took_s: float, *, is_doubtful: bool) -> None:
    """By what its last lookup took, whatever came before."""
    name = Name()
    for before in (SLOW_S / 2, 2 * SLOW_S):
        name.found([info("10.0.0.1")], before, 5)
        name.found([info("10.0.0.1")], took_s, 6)
        assert name.is_doubtful == is_doubtful
    name.failed(UNKNOWN, 7)
    assert name.is_doubtful


def test_one_lookup_a_name_is_under_way() -> None:
    """However many ask, and though those who asked first have given up."""

    async def scene(names: Names, server: Server, seconds: Seconds) -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask(names, "silent.test"), 0.05)
        server.released.set()
        both = await asyncio.gather(*(ask(names, "silent.test") for _ in range(2)), return_exceptions=True)
        assert [type(each) for each in both] == [socket.gaierror] * 2

    assert play(scene).asked["silent.test"] == 1


def test_a_failure_is_the_answer_for_some_seconds() -> None:
    """Then it is looked up again."""

    async def scene(names: Names, server: Server, seconds: Seconds) -> None:
        server.table["late.test"] = UNKNOWN
        raised = []
        for _ in range(3):
            with pytest.raises(socket.gaierror, match="not known") as caught:
                await ask(names, "late.test")
            raised.append(caught.value)
            seconds.now += FAILED_S / 4
        assert server.asked["late.test"] == 1
        assert len({id(each) for each in raised}) == 3
        server.table["late.test"] = "10.0.0.9"
        seconds.now += FAILED_S
        assert await ask(names, "late.test") == "10.0.0.9"

    play(scene)


def test_known_addresses_serve_while_a_lookup_drags_and_no_longer_than_they_are_young() -> None:
    """Nobody waits for a silent server but for a moment, until its last answer is too old."""

    async def scene(names: Names, server: Server, seconds: Seconds) -> None:
        assert await ask(names, "good.test") == "127.0.0.1"
        server.silent.add("good.test")
        seconds.now += STALE_S - 1
        assert await ask(names, "good.test") == "127.0.0.1"
        seconds.now += 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(names, "good.test"), 2 * PATIENCE_S)
        server.released.set()
        with pytest.raises(socket.gaierror):
            await ask(names, "good.test")

    play(scene)


def test_a_new_address_serves_as_soon_as_it_is_found() -> None:
    """A quick lookup is waited for, though an older address is known."""

    async def scene(names: Names, server: Server, seconds: Seconds) -> None:
        for address in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
            server.table["moving.test"] = address
            assert await ask(names, "moving.test") == address

    play(scene)


@pytest.mark.parametrize(("failure", "serves"), [(AGAIN, True), (UNKNOWN, False)])
def test_what_a_failure_says_of_the_last_addresses(failure: OSError, *, serves: bool) -> None:
    """A server that is silent says nothing against them; one that knows of none does."""

    async def scene(names: Names, server: Server, seconds: Seconds) -> None:
        assert await ask(names, "gone.test") == "127.0.0.1"
        server.table["gone.test"] = failure
        for _ in range(2):
            if serves:
                assert await ask(names, "gone.test") == "127.0.0.1"
            else:
                with pytest.raises(socket.gaierror):
                    await ask(names, "gone.test")

    assert play(scene).asked["gone.test"] == 2


def test_a_lookup_that_finds_nothing_is_a_failure() -> None:
    """The library would break on an empty list."""
    names = Names(lambda *_, **__: [])

    async def main() -> None:
        with pytest.raises(OSError, match="no address"):
            await ask(names, "empty.test")
        names.close()

    asyncio.run(main())


def test_so_many_names_are_remembered() -> None:
    """Those asked for last: what is behind endpoints that are gone does not stay."""

    async def main() -> None:
        names = Names(Server().look_up, most=3)
        for host in ("a.test", "b.test", "c.test", "a.test", "d.test"):
            await ask(names, host)
        assert [host for host, _ in names._names] == ["c.test", "a.test", "d.test"]
        names.close()

    asyncio.run(main())
