"""The sender of requests, against real servers on loopback that behave as badly as they can."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.core.model import Answer
from engine.ports import Request
from engine.runtime.http import BODY_MAX, AiohttpSender, guarded_socket

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TIMEOUT_S = 5.0
"""Of requests that are answered at once; generous, because it is never waited for."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
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


# -- answers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (OK, 200, b"ok"),
        (with_body(b"sorry", status=b"500 Oh"), 500, b"sorry"),
        (with_body(b"", status=b"410 Gone"), 410, b""),
        (with_body(b"", b"Location: http://127.0.0.1:1/", status=b"302 Found"), 302, b""),
        (with_body(b"", b"Location: /hook", status=b"307 Temporary Redirect"), 307, b""),
        (with_body(b"x", status=b"799 Odd"), 799, b"x"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, b"ok"),
        (with_body(b"x" * (BODY_MAX - 1)), 200, b"x" * (BODY_MAX - 1)),
        (with_body(b"x" * BODY_MAX), 200, b"x" * BODY_MAX),
        (with_body(b"x" * BODY_MAX + b"y" * 9), 200, b"x" * BODY_MAX),
    ],
)
def test_answers(raw: bytes, status: int, body: bytes) -> None:
    """Any status is an answer; no redirect is followed, and at most 16 KiB are kept."""
    (answer,), receiver = exchange(saying(raw))
    assert (answer.status_code, answer.body, answer.error_class, answer.error) == (status, body, "", "")
    assert receiver.accepted == len(receiver.requests) == 1


def test_header_names_are_lower_case() -> None:
    """So that `retry-after` is found however it was written."""
    (answer,), _ = exchange(saying(with_body(b"", b"RETRY-After: 5", b"X-Odd: \xff\xfe")))
    assert answer.headers["retry-after"] == "5"
    assert all(name == name.lower() for name in answer.headers)


def test_a_body_is_not_decompressed() -> None:
    """A bomb stays as small as it came."""
    bomb = gzip.compress(bytes(8 << 20))
    (answer,), _ = exchange(saying(with_body(bomb, b"Content-Encoding: gzip")))
    assert len(bomb) < BODY_MAX
    assert answer.body == bomb


def test_a_huge_body_is_left_unread() -> None:
    """Of 100 MB at most what fits into buffers leaves the receiver; the connection is closed."""
    sent = 0

    async def handler(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await receiver.request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        while sent < 100_000_000:
            writer.write(bytes(1 << 16))
            await writer.drain()
            sent += 1 << 16

    answers, receiver = exchange(handler, requests=2)
    for answer in answers:
        assert (answer.status_code, len(answer.body)) == (200, BODY_MAX)
        assert answer.duration_us < 2_000_000
    assert receiver.accepted == 2
    assert sent < 40_000_000


def test_when_and_how_long() -> None:
    """The start is wall-clock time, the duration covers the whole exchange, both in microseconds."""
    before = time.time_ns() // 1000
    (answer,), _ = exchange(saying(OK[:10], OK[10:], pause=0.05))
    assert before <= answer.started_at <= time.time_ns() // 1000
    assert 50_000 <= answer.duration_us <= time.time_ns() // 1000 - answer.started_at + 1_000


# -- requests ---------------------------------------------------------------------------


def test_a_request_is_what_was_asked_for() -> None:
    """POST, the path as it is, the given headers and body, and nothing that the library adds for itself."""
    _, receiver = exchange(saying(OK))
    head, _, body = receiver.requests[0].partition(b"\r\n\r\n")
    first, *headers = head.split(b"\r\n")
    assert first == b"POST /hook?a=1 HTTP/1.1"
    assert body == b'{"a":\x00}'
    assert {tuple(line.split(b": ", 1)) for line in headers} == {
        (b"Host", b"127.0.0.1:%d" % receiver.port),
        (b"Content-Type", b"application/json"),
        (b"User-Agent", b"hooklog/1"),
        (b"Content-Length", b"7"),
    }


def test_no_header_is_added() -> None:
    """Without a User-Agent or Content-Type of ours there is none."""

    async def main() -> bytes:
        async with receiving(saying(OK)) as receiver, sending() as sender:
            await sender.send(Request(receiver.url, {}, b"x", TIMEOUT_S))
            return receiver.requests[0]

    names = [
        line.partition(b":")[0] for line in asyncio.run(main()).partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    ]
    assert sorted(names) == [b"Content-Length", b"Host"]


def test_no_cookie_comes_back() -> None:
    """What one endpoint sets, no later request carries."""
    _, receiver = exchange(saying(with_body(b"", b"Set-Cookie: canary=1; Path=/")), requests=2)
    assert len(receiver.requests) == 2
    assert b"canary" not in receiver.requests[1]
    assert b"cookie" not in receiver.requests[1].lower()


def test_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy named by the environment would see every payload, and connect where the guard cannot look."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    (answer,), receiver = exchange(saying(OK))
    assert (answer.status_code, receiver.accepted) == (200, 1)


# -- what goes wrong --------------------------------------------------------------------

MANY_HEADERS = b"".join(b"X-%d: y\r\n" % n for n in range(10_000))


@pytest.mark.parametrize(
    ("raw", "error_class"),
    [
        (b"", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "reset"),
        (b"HTTP/1.1 2", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "protocol"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "protocol"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n", "protocol"),
        (b"\x00\xff garbage\r\n\r\n", "protocol"),
        (b"<html>no status line</html>\r\n\r\n", "protocol"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "protocol"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "protocol"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\n" + MANY_HEADERS + b"\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 " + b"y" * 100_000 + b"\r\n\r\n", "protocol"),
    ],
)
def test_broken_answers(raw: bytes, error_class: str) -> None:
    """A connection that ends before an answer is a reset, nonsense is a protocol error; one request each."""
    (answer,), receiver = exchange(saying(raw))
    assert (answer.status_code, answer.error_class) == (0, error_class)
    assert (answer.headers, answer.body) == ({}, b"")
    assert answer.error
    assert "RawResponse" not in answer.error
    assert receiver.accepted == 1


def drip(handler_says: bytes) -> Handler:
    """One byte each 0.05 s."""
    return saying(*(handler_says[i : i + 1] for i in range(len(handler_says))), pause=0.05)


@pytest.mark.parametrize(
    "handler",
    [
        silent,
        drip(OK),
        drip(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 99),
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", *[b"x"] * 99, pause=0.05),
        saying(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 99, pause=0.05),
    ],
    ids=["silence", "slow status line", "slow headers", "slow body", "endless 100"],
)
def test_one_deadline_covers_everything(handler: Handler) -> None:
    """However busy the receiver keeps the connection, the request ends in time."""
    (answer,), _ = exchange(handler, timeout=0.3)
    assert (answer.status_code, answer.error_class) == (0, "timeout")
    assert answer.error == "no complete answer within 0.3 s"
    assert 300_000 <= answer.duration_us < 1_500_000


def test_a_refused_connection() -> None:
    """Nobody listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else gets it
        answer = send(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert (answer.status_code, answer.error_class) == (0, "connect")


def test_an_unknown_host() -> None:
    """A name that no resolver knows (RFC 6761)."""
    assert send("http://receiver.invalid/").error_class == "dns"


# -- TLS --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's context with a certificate for 127.0.0.1 that nobody has signed."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    today = datetime.fromtimestamp(time.time(), UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(names, critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    clear = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path: Path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(certificate.public_bytes(pem) + key.private_bytes(pem, *clear))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def test_a_certificate_that_nobody_signed(self_signed: ssl.SSLContext) -> None:
    """The handshake ends before a byte of the payload leaves."""

    async def main() -> tuple[Answer, Receiver]:
        async with receiving(keeping_alive, self_signed) as receiver, sending() as sender:
            return await sender.send(post(receiver.url)), receiver

    answer, receiver = asyncio.run(main())
    assert (answer.status_code, answer.error_class) == (0, "tls")
    assert receiver.requests == []


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x28"])
def test_tls_where_there_is_none(says: bytes) -> None:
    """A plain server's answer, or an alert, instead of a handshake."""

    async def handler(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        writer.write(says)
        await writer.drain()

    async def main() -> Answer:
        async with receiving(handler) as receiver, sending() as sender:
            return await sender.send(post(receiver.url.replace("http:", "https:")))

    assert asyncio.run(main()).error_class == "tls"


def test_the_deadline_covers_the_handshake() -> None:
    """A server that accepts and then says nothing."""

    async def main() -> Answer:
        async with receiving(silent) as receiver, sending() as sender:
            return await sender.send(post(receiver.url.replace("http:", "https:"), 0.3))

    assert asyncio.run(main()).error_class == "timeout"


# -- the egress guard -------------------------------------------------------------------

BLOCKED = """
http://127.0.0.1:{port}/ https://127.0.0.1:{port}/ http://localhost:{port}/ http://127.1:{port}/
http://2130706433:{port}/ http://0x7f000001:{port}/ http://0177.0.0.1:{port}/ http://0:{port}/ http://0.0.0.0:{port}/
http://10.0.0.1/ http://192.168.1.1/ http://169.254.169.254/latest/meta-data/ http://100.100.100.200/ http://168.63.129.16/
http://[::1]:{port}/ http://[::]:{port}/ http://[::ffff:127.0.0.1]:{port}/ http://[::ffff:7f00:1]:{port}/ http://[fd00:ec2::254]/
http://[fe80::1]/ http://[64:ff9b::7f00:1]/ http://[2002:7f00:1::1]/
"""


@pytest.mark.parametrize("url", BLOCKED.split())
def test_a_blocked_address_is_never_dialled(url: str) -> None:
    """Loopback, private networks and metadata, in every form that resolves to them: no socket is made."""
    made: list[object] = []
    guard = guarded_socket(())

    def recording(info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        made.append(guard(info))
        raise AssertionError(info)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        target = url.format(port=listening.getsockname()[1])
        answer = send(target, lambda: AiohttpSender(socket_factory=recording))
    assert (answer.status_code, answer.error_class) == (0, "blocked")
    assert "is not" in answer.error
    assert made == []


def test_everything_private_is_blocked_by_default() -> None:
    """Without allowed networks a receiver on loopback gets no connection."""

    async def main() -> tuple[Answer, Receiver]:
        async with receiving(keeping_alive) as receiver:
            sender = AiohttpSender()
            answer = await sender.send(post(receiver.url))
            await sender.close()
            return answer, receiver

    answer, receiver = asyncio.run(main())
    assert answer.error_class == "blocked"
    assert receiver.accepted == 0


# -- connections ------------------------------------------------------------------------


def dying_when_reused(last_words: bytes = b"", *, abort: bool = False) -> Handler:
    """Answer a connection's first request; end it when a second comes."""

    async def handler(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receiver.request(reader)
        writer.write(OK)
        await receiver.request(reader)
        writer.write(last_words)
        if abort:
            writer.transport.abort()

    return handler


def test_a_connection_is_used_again() -> None:
    """Three requests, one connection."""
    answers, receiver = exchange(keeping_alive, requests=3)
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert (receiver.accepted, len(receiver.requests)) == (1, 3)


@pytest.mark.parametrize("abort", [False, True], ids=["closed", "reset"])
def test_a_request_that_dies_on_an_idle_connection_is_sent_again(*, abort: bool) -> None:
    """Once, on a new connection, within the same attempt: the receiver had closed the old one."""
    answers, receiver = exchange(dying_when_reused(abort=abort), requests=2)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert (receiver.accepted, len(receiver.requests)) == (2, 3)
    before, again = (request.replace(b"Connection: close\r\n", b"") for request in receiver.requests[1:])
    assert before == again


def test_a_request_that_dies_on_a_new_connection_is_not_sent_again() -> None:
    """The receiver may have seen it: that is for the schedule to decide."""
    (answer,), receiver = exchange(saying(b""))
    assert answer.error_class == "reset"
    assert (receiver.accepted, len(receiver.requests)) == (1, 1)


def test_it_is_sent_again_only_once() -> None:
    """If the new connection dies too, that is the outcome."""

    async def handler(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receiver.request(reader)
        if receiver.accepted == 1:
            writer.write(OK)
            await receiver.request(reader)

    answers, receiver = exchange(handler, requests=2)
    assert [answer.error_class for answer in answers] == ["", "reset"]
    assert (receiver.accepted, len(receiver.requests)) == (2, 3)


@pytest.mark.parametrize(
    "last_words",
    [
        b"H",
        b"HTTP/1.1 5",
        b"HTTP/1.1 500 Oh\r\nContent-Le",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\nab",
        b"garbage\r\n\r\n",
    ],
)
def test_an_answer_that_has_begun_is_not_asked_for_again(last_words: bytes) -> None:
    """A byte of the answer means that the receiver has seen the request."""
    answers, receiver = exchange(dying_when_reused(last_words), requests=2)
    assert answers[1].error_class in ("reset", "protocol")
    assert (receiver.accepted, len(receiver.requests)) == (1, 2)


def test_a_long_answer_closes_its_connection() -> None:
    """What was not read is not drained before the next request."""

    async def handler(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await receiver.request(reader)
            writer.write(with_body(bytes(1 << 20)))
            await writer.drain()

    _, receiver = exchange(handler, requests=2)
    assert (receiver.accepted, len(receiver.requests)) == (2, 2)


def test_the_connection_of_a_timeout_is_not_used_again() -> None:
    """A late answer must never be taken for the next request's."""

    async def handler(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receiver.request(reader)
        if receiver.accepted == 1:
            await reader.read()
        writer.write(OK)

    answers, receiver = exchange(handler, requests=2, timeout=0.3)
    assert [answer.error_class for answer in answers] == ["timeout", ""]
    assert receiver.accepted == 2
