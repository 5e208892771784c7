"""The sender's connections: TLS, the egress guard at every dial, and when one is used again."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.core.model import Answer
from engine.runtime.delivering.http import AiohttpSender, guarded_socket
from tests.runtime.receiver import (
    OK,
    TIMEOUT_S,
    Handler,
    Receiver,
    exchange,
    keeping_alive,
    post,
    receiving,
    saying,
    send,
    sending,
    silent,
    with_body,
)

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

    async def main() -> tuple[list[Answer], Receiver]:
        async with receiving(handler) as receiver, sending() as sender:
            return [await sender.send(post(receiver.url, limit)) for limit in (0.3, TIMEOUT_S)], receiver

    answers, receiver = asyncio.run(main())
    assert [answer.error_class for answer in answers] == ["timeout", ""]
    assert receiver.accepted == 2
