"""The sender of requests, against real servers that behave as badly as they can."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time

import pytest

from engine.ports import Request
from engine.runtime.delivering.http import BODY_MAX
from tests.runtime.receiver import (
    OK,
    TIMEOUT_S,
    exchange,
    receiving,
    saying,
    send,
    sending,
    with_body,
)

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


def test_a_refused_connection() -> None:
    """Nobody listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else gets it
        answer = send(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert (answer.status_code, answer.error_class) == (0, "connect")


def test_an_unknown_host() -> None:
    """A name that no resolver knows (RFC 6761)."""
    assert send("http://receiver.invalid/").error_class == "dns"
