"""HTTP for deliveries: ports.Sender on aiohttp (why aiohttp: docs/adr/0004).

No redirects, environment proxies, cookies or decompression; one deadline over
everything; at most 16 KiB of an answer are kept; every address is checked when
it is dialled; idle connections are kept for at most 4 s, because receivers
close them after 5.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache

import aiohttp
from aiohttp import ClientSession
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from engine.core.address import Network, refusal
from engine.core.model import Answer, ErrorClass
from engine.ports import Request
from engine.runtime.delivering.names import AddressInfo, Lookup, Names
from engine.runtime.delivering.wire import BoundedConnector

IDLE_S = 4.0
BODY_MAX = 16 << 10
DNS_CACHE_S = 10
_UNWANTED = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")


class BlockedAddressError(Exception):
    """The egress guard refuses an address. Not an OSError: aiohttp would try the next one."""


class _Exchange:
    """How far one request has come."""

    __slots__ = ("answered", "blocked", "dialled")

    def __init__(self) -> None:
        self.blocked = ""
        """Why an address of its host was not dialled; the library forgets that when it tries another."""
        self.dialled = False
        """Whether a connection was made for it; else it went out on an idle one."""
        self.answered = False
        """Whether the head of an answer has come."""


_EXCHANGE: ContextVar[_Exchange] = ContextVar("exchange")
"""The request that the running task makes; aiohttp's own tracing costs more than the rest of us."""
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
SocketFactory = Callable[[AddressInfo], socket.socket]


def guarded_socket(allowed: tuple[Network, ...]) -> Callable[..., socket.socket]:
    """Make sockets for addresses that the egress guard lets through."""

    def make(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        why = refusal(str(address[0]), int(str(address[1])), allowed)
        if (exchange := _EXCHANGE.get(None)) is not None:
            exchange.dialled = True
            exchange.blocked = why or exchange.blocked
        if why:
            raise BlockedAddressError(why)
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    return make


ERRORS: tuple[tuple[type[BaseException], ErrorClass], ...] = (
    (BlockedAddressError, "blocked"),
    (aiohttp.InvalidURL, "blocked"),  # 127.1 and the like: refused before anything is dialled
    (asyncio.TimeoutError, "timeout"),
    (aiohttp.ClientConnectorDNSError, "dns"),
    (aiohttp.ClientSSLError, "tls"),
    (aiohttp.ServerFingerprintMismatch, "tls"),
    (aiohttp.ClientConnectorError, "connect"),
    (aiohttp.ServerDisconnectedError, "reset"),
    (ConnectionError, "reset"),
    (aiohttp.ClientOSError, "reset"),
    (aiohttp.ClientError, "protocol"),
)
"""The one map from what the library raises to the glossary's error classes; the first that fits counts."""
_RAISED = tuple(raised for raised, _ in ERRORS)
_DIED = (aiohttp.ServerDisconnectedError, ConnectionError, aiohttp.ClientOSError)


def error_class_of(error: BaseException) -> ErrorClass:
    """Return the error class of what the library raised."""
    if _is_dropped_handshake(error):
        return "tls"
    return next(name for raised, name in ERRORS if isinstance(error, raised))


def _is_dropped_handshake(error: BaseException) -> bool:
    """Whether a connection was made and ended before the first byte of ours: only TLS comes in between."""
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(
        error.os_error, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
    )


@lru_cache(10_000)
def _url(text: str) -> URL:
    """Raise the library's own error for what its parser cannot read: a bare ValueError is no answer."""
    try:
        return URL(text)
    except ValueError as error:
        raise aiohttp.InvalidURL(text, str(error)) from None


class Resolver(AbstractResolver):
    """Names as the library asks for them, which keeps what it is told for `DNS_CACHE_S`."""

    def __init__(self, lookup: Lookup = socket.getaddrinfo) -> None:
        self._names = Names(lookup)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host; OSError if there are none."""
        found = await self._names.addresses(host, port, family)
        return [_resolved(host, port, each) for each in found]

    async def close(self) -> None:
        """Look nothing up any more."""
        self._names.close()


def _resolved(host: str, port: int, info: AddressInfo) -> ResolveResult:
    family, _, protocol, _, address = info
    numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(
        hostname=host, host=str(address[0]), port=port, family=family, proto=protocol, flags=numeric
    )


class AiohttpSender:
    """ports.Sender. Create it inside the running loop."""

    def __init__(
        self,
        allowed: tuple[Network, ...] = (),
        socket_factory: SocketFactory | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._factory = socket_factory or guarded_socket(allowed)
        self._resolver = resolver or Resolver()
        self._pooled = self._session(reuse=True)
        self._fresh = self._session(reuse=False)

    def _session(self, *, reuse: bool) -> ClientSession:
        kept = {"keepalive_timeout": IDLE_S} if reuse else {"force_close": True}
        connector = BoundedConnector(
            limit=0,
            ttl_dns_cache=DNS_CACHE_S,
            socket_factory=self._factory,
            resolver=self._resolver,
            **kept,
        )
        return ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            skip_auto_headers=_UNWANTED,
            read_bufsize=BODY_MAX,
        )

    async def send(self, request: Request) -> Answer:
        """POST and wait for the answer or the deadline; what goes wrong is in the Answer."""
        begun = time.perf_counter()
        started = time.time_ns()  # second: time between the two must not cut the request's span short
        exchange = _Exchange()
        _EXCHANGE.set(exchange)
        try:
            async with asyncio.timeout(request.timeout):
                status, headers, body = await self._post(request, exchange)
        except _RAISED as error:
            name, text = error_class_of(error), _describe(error, request.timeout)
            if name == "connect" and exchange.blocked:  # of several addresses this one, the others failed
                name, text = "blocked", exchange.blocked
            return Answer(0, {}, b"", name, text, started // 1000, _us_since(begun))
        return Answer(status, headers, body, "", "", started // 1000, _us_since(begun))

    async def _post(self, request: Request, exchange: _Exchange) -> tuple[int, dict[str, str], bytes]:
        try:
            return await _exchange(self._pooled, request, exchange)
        except _DIED as error:
            # an idle connection that the receiver had closed already: nobody has seen this request
            if exchange.dialled or exchange.answered or _is_cut(error):
                raise
        return await _exchange(self._fresh, request, exchange)

    async def close(self) -> None:
        """Close idle connections."""
        await self._pooled.close()
        await self._fresh.close()
        await self._resolver.close()


async def _exchange(
    session: ClientSession, request: Request, exchange: _Exchange
) -> tuple[int, dict[str, str], bytes]:
    async with session.post(
        _url(request.url),
        data=request.body,
        headers=request.headers,
        allow_redirects=False,
        timeout=_NO_TIMEOUT,
    ) as response:
        exchange.answered = True
        if response.status < 200:  # another protocol that nobody asked for, or a number that means nothing
            response.close()
            raise aiohttp.ClientPayloadError(f"the status {response.status} is no answer to a POST")
        body = await _read(response)
        return response.status, {name.lower(): value for name, value in response.headers.items()}, body


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read at most 16 KiB; the connection of a longer answer is closed, not drained."""
    body = b""
    while len(body) < BODY_MAX:
        if not (part := await response.content.read(BODY_MAX - len(body))):
            return body
        body += part
    response.close()
    return body


def _is_cut(error: BaseException) -> bool:
    """Whether the answer had begun: aiohttp's error then holds what came of it, in place of a text."""
    return isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)


def _describe(error: BaseException, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no complete answer within {timeout:g} s"
    if _is_cut(error):
        return "the connection was closed in the middle of the answer"
    if _is_dropped_handshake(error):
        return "the connection was closed in the TLS handshake"
    return str(error) or type(error).__name__


def _us_since(begun: float) -> int:
    return int((time.perf_counter() - begun) * 1_000_000)
