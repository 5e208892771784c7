"""Every way we know for a receiver to be bad: each has an outcome, a deadline and bounded memory.

The table is the documentation: what comes over the wire, and what the attempt says of it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import NamedTuple

import pytest

from engine.core.model import Answer
from engine.runtime.delivering.http import BODY_MAX
from engine.runtime.delivering.wire import ANSWER_MAX, HEAD_MAX
from tests.runtime.receiver import (
    OK,
    Handler,
    Receiver,
    exchange,
    keeping_alive,
    post,
    receiving,
    saying,
    sending,
    silent,
    with_body,
)

DEADLINE_S = 0.5
"""Of requests that end by it; everything else ends long before `PATIENCE_S`."""
PATIENCE_S = 60.0
FLOOD = 100_000_000
TAKEN_MAX = 20_000_000
"""Of a flood; all but some hundred KB of it lie in the kernel's socket buffers, some MB on both sides."""

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FULL = b"x" * BODY_MAX
KB64 = b"x" * (64 << 10)


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def resetting(*parts: bytes) -> Handler:
    """Say this, then reset."""

    async def handler(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await saying(*parts, pause=0.05)(receiver, reader, writer)
        reset(writer)

    return handler


def flooding(head: bytes, piece: bytes) -> Handler:
    """Say the head, then 100 MB of the piece again and again, as fast as it is taken."""

    async def handler(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receiver.request(reader)
        await receiver.pour(writer, head)
        many = piece * (len(KB64) // len(piece) + 1)
        while receiver.sent < FLOOD:
            await receiver.pour(writer, many)

    return handler


def dripping(text: bytes, again: bytes = b"") -> Handler:
    """A byte at a time (a second is 0.02 s here), then the rest again and again."""
    return saying(*(bytes([byte]) for byte in text + again * 99), pause=0.02)


async def hasty(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer before the request is read."""
    await receiver.pour(writer, OK)
    await receiver.request(reader)


async def reset_at_once(
    receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Reset when the first byte comes: that is in the TLS handshake, if it is https."""
    await reader.read(1)
    reset(writer)


async def leave_at_once(
    receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Close when the first bytes come."""
    await reader.read(1 << 16)


class Bad(NamedTuple):
    """A receiver's behaviour, and what the attempt says: status and body, or the error class."""

    handler: Handler
    error_class: str
    status: int = 0
    body: bytes = b""
    scheme: str = "http"
    ends_by_deadline: bool = False


def late(handler: Handler, scheme: str = "http") -> Bad:
    """What only the deadline ends."""
    return Bad(handler, "timeout", scheme=scheme, ends_by_deadline=True)


TABLE = {
    # nothing, or the end
    "never answers": late(silent),
    "never shakes hands": late(silent, "https"),
    "closes before the answer": Bad(saying(b""), "reset"),
    "closes in the status line": Bad(saying(b"HTTP/1.1 2"), "reset"),
    "closes in the head": Bad(saying(HEAD + b"Content-Le"), "reset"),
    "closes in the body": Bad(saying(HEAD + b"Content-Length: 10\r\n\r\nabc"), "protocol"),
    "closes in a chunk": Bad(saying(CHUNKED + b"5\r\nab"), "protocol"),
    "closes in the TLS handshake": Bad(leave_at_once, "tls", scheme="https"),
    "resets before the answer": Bad(resetting(), "reset"),
    "resets in the head": Bad(resetting(HEAD + b"Content-Le"), "reset"),
    "resets in the body": Bad(resetting(HEAD + b"Content-Length: 10\r\n\r\nabc"), "protocol"),
    "resets in a chunk": Bad(resetting(CHUNKED + b"5\r\nab"), "protocol"),
    "resets in the TLS handshake": Bad(reset_at_once, "tls", scheme="https"),
    "speaks plain HTTP to TLS": Bad(hasty, "tls", scheme="https"),
    # slowly
    "drips the status line": late(dripping(OK)),
    "drips headers": late(dripping(HEAD, b"X: y\r\n")),
    "drips the body": late(dripping(HEAD + b"Content-Length: 99999\r\n\r\n", b"x")),
    "drips chunks": late(dripping(CHUNKED, b"1\r\nx\r\n")),
    "drips interim answers": late(dripping(b"", b"HTTP/1.1 102 Processing\r\n\r\n")),
    # too much
    "100 MB of body": Bad(flooding(HEAD + b"Content-Length: 100000000\r\n\r\n", b"x"), "", 200, FULL),
    "100 MB until the end": Bad(flooding(HEAD + b"\r\n", b"x"), "", 200, FULL),
    "100 MB in a chunk": Bad(flooding(CHUNKED + b"fffffff\r\n", b"x"), "", 200, FULL),
    "100 MB in chunks of a byte": Bad(flooding(CHUNKED, b"1\r\nx\r\n"), "", 200, FULL),
    "100 MB of chunk extension": Bad(flooding(CHUNKED + b"1;", b"x"), "protocol"),
    "100 MB of extensions to chunks": Bad(flooding(CHUNKED, b"1;" + KB64 + b"\r\nx\r\n"), "protocol"),
    "100 MB of chunk size": Bad(flooding(CHUNKED, b"0"), "protocol"),
    "100 MB of trailers": Bad(flooding(CHUNKED + b"0\r\n", b"X: y\r\n"), "protocol"),
    "10,000 headers": Bad(saying(HEAD + b"X: y\r\n" * 10_000 + b"\r\n"), "protocol"),
    "headers for ever": Bad(flooding(HEAD, b"X: y\r\n"), "protocol"),
    "a header of 100 KB": Bad(saying(HEAD + b"X: " + b"y" * 100_000 + b"\r\n\r\n"), "protocol"),
    "a header for ever": Bad(flooding(HEAD + b"X: ", b"y"), "protocol"),
    "a header's name for ever": Bad(flooding(HEAD, b"x"), "protocol"),
    "a folded header for ever": Bad(flooding(HEAD + b"X: a\r\n", b" b\r\n"), "protocol"),
    "padding for ever": Bad(flooding(HEAD + b"X:", b" "), "protocol"),
    "blank lines for ever": Bad(flooding(b"", b"\r\n"), "protocol"),
    "a status line for ever": Bad(flooding(HEAD[:-2], b"x"), "protocol"),
    "100 Continue for ever": Bad(flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "protocol"),
    "103 Early Hints for ever": Bad(
        flooding(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), "protocol"
    ),
    # nonsense
    "garbage": Bad(saying(b"\x00\xff garbage\r\n\r\n"), "protocol"),
    "HTTP/0.9": Bad(saying(b"hello, world"), "protocol"),
    "HTTP/0.9 with a page": Bad(saying(b"<html>no status line</html>\r\n\r\n"), "protocol"),
    "HTTP/2 without being asked": Bad(saying(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" * 9), "protocol"),
    "HTTP/3.7": Bad(saying(b"HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n"), "protocol"),
    "SSH": Bad(saying(b"SSH-2.0-OpenSSH_9.6\r\n"), "protocol"),
    "a status that is no number": Bad(saying(b"HTTP/1.1 abc OK\r\n\r\n"), "protocol"),
    "the status 000": Bad(saying(with_body(b"", status=b"000 Odd")), "protocol"),
    "the status 1000": Bad(saying(with_body(b"", status=b"1000 Odd")), "protocol"),
    "another protocol (101)": Bad(
        flooding(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", b"x"), "protocol"
    ),
    "a header without a colon": Bad(saying(HEAD + b"no colon\r\n\r\n"), "protocol"),
    "a NUL in a header": Bad(saying(with_body(b"", b"X: a\x00b")), "protocol"),
    "a chunk size that is none": Bad(saying(CHUNKED + b"zz\r\nab\r\n"), "protocol"),
    "a negative chunk size": Bad(saying(CHUNKED + b"-1\r\nab\r\n"), "protocol"),
    "a chunk size over 64 bits": Bad(saying(CHUNKED + b"f" * 18 + b"\r\nab\r\n"), "protocol"),
    # lies about the length
    "less than its Content-Length": Bad(saying(HEAD + b"Content-Length: 9\r\n\r\nab"), "protocol"),
    "more than its Content-Length": Bad(saying(HEAD + b"Content-Length: 2\r\n\r\nabcde"), "protocol"),
    "a negative Content-Length": Bad(saying(HEAD + b"Content-Length: -1\r\n\r\n"), "protocol"),
    "a Content-Length over 64 bits": Bad(
        saying(HEAD + b"Content-Length: " + b"9" * 23 + b"\r\n\r\n"), "protocol"
    ),
    "a Content-Length of 9 TB": Bad(
        saying(HEAD + b"Content-Length: 9" + b"0" * 12 + b"\r\n\r\nab"), "protocol"
    ),
    "two Content-Lengths": Bad(
        saying(HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), "protocol"
    ),
    "a Content-Length and chunks": Bad(
        saying(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        "protocol",
    ),
    # odd, and yet an answer
    "a redirect to itself": Bad(saying(with_body(b"", b"Location: /hook?a=1", status=b"307 Again")), "", 307),
    "an answer before the request is read": Bad(hasty, "", 200, b"ok"),
}


@pytest.mark.parametrize("bad", TABLE.values(), ids=TABLE)
def test_bad_receivers(bad: Bad) -> None:
    """One connection, one request, an outcome in time; and of a flood little is taken."""
    answer, receiver = ask(bad)
    assert (answer.status_code, answer.error_class, answer.body) == (bad.status, bad.error_class, bad.body)
    assert bool(answer.error) == bool(bad.error_class)
    assert len(answer.error) < 1_000
    assert "RawResponse" not in answer.error
    assert not (bad.error_class and answer.headers)
    assert receiver.accepted == 1
    assert len(receiver.requests) <= 1
    assert receiver.sent < TAKEN_MAX
    assert answer.duration_us >= DEADLINE_S * 1e6 or not bad.ends_by_deadline
    assert (answer.error == f"no complete answer within {DEADLINE_S:g} s") == bad.ends_by_deadline


def ask(bad: Bad) -> tuple[Answer, Receiver]:
    """Send it one request."""

    async def main() -> tuple[Answer, Receiver]:
        async with receiving(bad.handler) as receiver, sending() as sender:
            url = receiver.url.replace("http:", f"{bad.scheme}:")
            limit = DEADLINE_S if bad.ends_by_deadline else PATIENCE_S
            return await sender.send(post(url, limit)), receiver

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("blank", "error_class"),
    [(HEAD_MAX - 1_000, ""), (HEAD_MAX, "protocol")],
    ids=["just short enough", "too long"],
)
def test_how_long_a_head_may_be(blank: int, error_class: str) -> None:
    """Interim answers and all count; the body does not."""
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    (answer,), _ = exchange(saying(interim * (blank // len(interim)) + with_body(FULL)))
    assert answer.error_class == error_class


@pytest.mark.parametrize(
    ("chunks", "error_class"),
    [(ANSWER_MAX // 110_000, ""), (ANSWER_MAX // 90_000, "protocol")],
    ids=["just short enough", "too long"],
)
def test_how_long_an_answer_may_be(chunks: int, error_class: str) -> None:
    """Chunk extensions count, though nobody reads them."""
    (answer,), _ = exchange(saying(CHUNKED + (b"1;" + b"x" * 100_000 + b"\r\ny\r\n") * chunks + b"0\r\n\r\n"))
    assert answer.error_class == error_class
    assert len(answer.body) == (0 if error_class else chunks)


def test_each_answer_has_its_own_measure() -> None:
    """A connection may bring any number of answers of up to 16 KiB."""

    async def handler(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await receiver.request(reader)
            await receiver.pour(writer, with_body(FULL[:-1]))

    answers, receiver = exchange(handler, requests=100)
    assert {len(answer.body) for answer in answers} == {BODY_MAX - 1}
    assert (receiver.accepted, receiver.sent > ANSWER_MAX) == (1, True)


def test_what_comes_unasked_is_nobodys_answer() -> None:
    """A second answer is not taken for the next request's: that goes out on a new connection."""
    more = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"

    async def handler(receiver: Receiver, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await receiver.request(reader)
        await receiver.pour(writer, OK + (more if receiver.accepted == 1 else b""))
        await keeping_alive(receiver, reader, writer)

    answers, receiver = exchange(handler, requests=3)
    assert [(answer.status_code, answer.body) for answer in answers] == [(200, b"ok")] * 3
    assert (receiver.accepted, len(receiver.requests)) == (2, 3)


def test_a_flood_does_not_hold_up_others() -> None:
    """While a receiver pours interim answers, another one's answer is not late for it."""

    async def main() -> tuple[list[Answer], Answer]:
        flood = flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n")
        async with receiving(flood) as bad, receiving(keeping_alive) as good, sending() as sender:
            floods = [asyncio.create_task(sender.send(post(bad.url))) for _ in range(20)]
            answer = await sender.send(post(good.url))
            return await asyncio.gather(*floods), answer

    floods, answer = asyncio.run(main())
    assert answer.status_code == 200
    assert {flood.error_class for flood in floods} == {"protocol"}
