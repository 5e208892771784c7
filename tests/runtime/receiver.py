"""Real servers on loopback that behave as a test says, and senders for them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network

from engine.core.model import Answer
from engine.ports import Request
from engine.runtime.delivering.http import AiohttpSender

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TIMEOUT_S = 30.0
"""Of requests that are answered at once; generous, because it is never waited for."""

Handler = Callable[["Receiver", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Receiver:
    """A server on a free port; it counts connections and keeps each request as it came."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._connections: set[asyncio.Task[None]] = set()
        self.scheme = "http"
        self.port = 0
        self.accepted = 0
        self.requests: list[bytes] = []
        self.sent = 0
        """Bytes that `pour` could get rid of."""

    @property
    def url(self) -> str:
        """Where to send requests."""
        return f"{self.scheme}://127.0.0.1:{self.port}/hook?a=1"

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let the handler have a connection; close it afterwards."""
        self.accepted += 1
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._handler(self, reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    async def request(self, reader: asyncio.StreamReader) -> bytes:
        """Read one request to its end."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(length))
        return self.requests[-1]

    async def pour(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        """Send, and count what left or lies in the kernel's buffers."""
        writer.write(data)
        await writer.drain()
        self.sent += len(data)

    async def stop(self) -> None:
        """End the connections that are open still."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


@asynccontextmanager
async def receiving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver, until the end of the block."""
    receiver = Receiver(handler)
    server = await asyncio.start_server(receiver.accept, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    receiver.scheme = "http" if context is None else "https"
    try:
        yield receiver
    finally:
        server.close()
        await receiver.stop()
        await server.wait_closed()


@asynccontextmanager
async def sending() -> AsyncIterator[AiohttpSender]:
    """A sender that may go to loopback."""
    sender = AiohttpSender(LOOPBACK)
    try:
        yield sender
    finally:
        await sender.close()


def saying(*parts: bytes, pause: float = 0) -> Handler:
    """Answer each connection's first request with these bytes, then close."""

    async def handler(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receiver.request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return handler


async def keeping_alive(
    receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Answer every request and keep the connection."""
    while True:
        await receiver.request(reader)
        writer.write(OK)
        await writer.drain()


async def silent(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read for ever and say nothing."""
    while await reader.read(1 << 16):
        pass


def post(url: str, timeout: float = TIMEOUT_S) -> Request:
    """A request as the dispatcher makes it."""
    return Request(
        url, {"Content-Type": "application/json", "User-Agent": "hooklog/1"}, b'{"a":\x00}', timeout
    )


def exchange(
    handler: Handler, requests: int = 1, timeout: float = TIMEOUT_S
) -> tuple[list[Answer], Receiver]:
    """Send so many requests, one after the other."""

    async def main() -> tuple[list[Answer], Receiver]:
        async with receiving(handler) as receiver, sending() as sender:
            return [await sender.send(post(receiver.url, timeout)) for _ in range(requests)], receiver

    return asyncio.run(main())


def send(url: str, sender: Callable[[], AiohttpSender] = lambda: AiohttpSender(LOOPBACK)) -> Answer:
    """Send one request somewhere."""

    async def main() -> Answer:
        made = sender()
        answer = await made.send(post(url))
        await made.close()
        return answer

    return asyncio.run(main())


def with_body(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer with a body of known length."""
    lines = [b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, b"", body])
