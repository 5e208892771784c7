"""Host names to addresses for deliveries: what one name's server does delays no other name (docs/adr/0004).

The system's lookup blocks a thread, for tens of seconds where nobody answers, and
anybody may name endpoints whose servers never do. So names that were found at
once the last time, new ones, and those that were not found or slow have threads
of their own; no name has two lookups under way; and where the last addresses are
young enough they serve while a lookup drags. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

QUICK_MAX = 64
NEW_MAX = 256
DOUBTFUL_MAX = 32
"""Names looked up at a time, of each kind."""
SLOW_S = 1.0
"""A lookup that takes longer makes its name doubtful, like one that fails."""
FAILED_S = 5.0
"""For so long a failure is the answer, and nothing is looked up."""
STALE_S = 300.0
"""For so long addresses may serve while they are looked up anew, or the name's server is silent."""
PATIENCE_S = 0.25
"""How long a lookup is waited for where such addresses are known."""
NAMES_MAX = 50_000

AddressInfo = tuple[int, int, int, str, tuple[object, ...]]
"""One of what `socket.getaddrinfo` returns: family, kind, protocol, name, address."""
Lookup = Callable[..., Sequence[AddressInfo]]


class Name:
    """What is known of a name in one address family."""

    __slots__ = ("addresses", "failed_at", "failure", "found_at", "is_doubtful", "under_way")

    def __init__(self) -> None:
        self.addresses: Sequence[AddressInfo] = ()
        self.found_at = self.failed_at = float("-inf")
        self.failure: OSError | None = None
        """Why the last lookup found nothing."""
        self.is_doubtful = False
        self.under_way: asyncio.Task[None] | None = None

    def usable(self, now: float) -> Sequence[AddressInfo]:
        """Addresses that are young enough; none if there are no such."""
        return self.addresses if now - self.found_at < STALE_S else ()

    def failed_lately(self, now: float) -> bool:
        """Whether it need not be looked up again yet."""
        return self.failure is not None and now - self.failed_at < FAILED_S

    def found(self, addresses: Sequence[AddressInfo], took_s: float, now: float) -> None:
        """Take in what a lookup found."""
        self.addresses, self.found_at, self.failure = addresses, now, None
        self.is_doubtful = took_s > SLOW_S

    def failed(self, failure: OSError, now: float) -> None:
        """Take in that one found nothing; a server that is silent says nothing against the addresses."""
        self.failure, self.failed_at, self.is_doubtful = failure, now, True
        if not (isinstance(failure, socket.gaierror) and failure.errno == socket.EAI_AGAIN):
            self.addresses = ()


class Names:
    """The names that deliveries go to, and the threads that look them up."""

    def __init__(
        self, lookup: Lookup, monotonic: Callable[[], float] = time.monotonic, most: int = NAMES_MAX
    ) -> None:
        """`most` names are remembered."""
        self._lookup = lookup
        self._most = most
        self._monotonic = monotonic
        self._quick = ThreadPoolExecutor(QUICK_MAX, "dns")
        self._new = ThreadPoolExecutor(NEW_MAX, "dns-new")
        self._doubtful = ThreadPoolExecutor(DOUBTFUL_MAX, "dns-doubtful")
        self._names: dict[tuple[str, int], Name] = {}
        """The one asked for last is the last."""

    async def addresses(self, host: str, port: int, family: socket.AddressFamily) -> Sequence[AddressInfo]:
        """Return the addresses of a host; OSError if there are none."""
        name = self._name(host, family)
        if not name.failed_lately(self._monotonic()):
            if name.under_way is None:
                name.under_way = asyncio.create_task(self._look_up(name, host, port, family))
            lookup, usable = name.under_way, name.usable(self._monotonic())
            await asyncio.wait({lookup}, timeout=PATIENCE_S if usable else None)
            if lookup.done():
                lookup.result()
        if usable := name.usable(self._monotonic()):
            return usable
        assert name.failure is not None
        raise type(name.failure)(*name.failure.args)  # another one: each that is raised keeps its traceback

    def _name(self, host: str, family: int) -> Name:
        key = (host, family)
        name = self._names[key] = self._names.pop(key) if key in self._names else Name()
        if len(self._names) > self._most:
            del self._names[next(iter(self._names))]
        return name

    async def _look_up(self, name: Name, host: str, port: int, family: int) -> None:
        """Look a name up, and keep what comes of it."""
        loop = asyncio.get_running_loop()
        look_up = partial(_timed, partial(self._lookup, host, port, family=family, **_HINTS))
        try:
            found, took_s = await loop.run_in_executor(self._threads(name), look_up)
            name.found(found, took_s, self._monotonic())
        except UnicodeError as error:  # a label of over 63 bytes
            name.failed(OSError(f"{host!r} is no host name: {error}"), self._monotonic())
        except OSError as error:
            name.failed(error, self._monotonic())
        finally:
            name.under_way = None

    def _threads(self, name: Name) -> ThreadPoolExecutor:
        if name.is_doubtful:
            return self._doubtful
        return self._quick if name.addresses else self._new

    def close(self) -> None:
        """Let the threads end; what they look up is of no use any more."""
        for threads in (self._quick, self._new, self._doubtful):
            threads.shutdown(wait=False, cancel_futures=True)


_HINTS = {"type": socket.SOCK_STREAM, "flags": socket.AI_ADDRCONFIG}


def _timed(look_up: Callable[[], Sequence[AddressInfo]]) -> tuple[Sequence[AddressInfo], float]:
    """(what was found, how long it took in seconds): on the thread, for waiting for one is not the name's."""
    begun = time.monotonic()
    found = look_up()
    if not found:
        raise OSError("the name has no address")
    return found, time.monotonic() - begun
