"""A receiver that must not be the bottleneck: notes when each message id arrived, answers 204.

Not a web server: it knows the requests that webhook senders and wrk make. It prints
its port, tells how many requests it had (GET /count) and hands over its notes
(GET /notes: `nanoseconds id` a line), forgetting them. At /slow/… it takes 5 s to
answer, at /fails-once/… it answers each message's first request with 500.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import time
from typing import cast

import uvloop

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_ID = re.compile(rb"\r\n[Ww]ebhook-[Ii]d: *([^\r]*)")
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *([0-9]+)")
_END = b"\r\n\r\n"
_SLOW_S = 5
_FAILURE = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"

Note = tuple[int, bytes]
"""When the first byte of a request was read (Unix nanoseconds), and its message id."""


class Connection(asyncio.Protocol):
    """One keep-alive connection; `notes` and the messages that have `failed` are shared by all."""

    def __init__(self, notes: list[Note], failed: set[bytes]) -> None:
        self._notes = notes
        self._failed = failed
        self._rest = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is of no asyncio class

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete; keep the rest."""
        now = time.time_ns()
        data = self._rest + data if self._rest else data
        while data and (end := self._request_end(data)):
            self._answer(data[:end], now)
            data = data[end:]
        self._rest = data

    def _request_end(self, data: bytes) -> int:
        """Length of the first request in `data`, 0 while it is not all there."""
        head = data.find(_END)
        if head < 0:
            return 0
        length = _LENGTH.search(data, 0, head + 2)
        end = head + len(_END) + (int(length[1]) if length else 0)
        return end if len(data) >= end else 0

    def _answer(self, request: bytes, now: int) -> None:
        if self._transport is None:
            return
        if request.startswith(b"GET "):
            self._transport.write(self._report(request))
            return
        found = _ID.search(request)
        message = found[1] if found else b""
        self._notes.append((now, message))
        if request.startswith(b"POST /slow/"):
            asyncio.get_running_loop().call_later(_SLOW_S, self._transport.write, _ANSWER)
        elif request.startswith(b"POST /fails-once/") and message not in self._failed:
            self._failed.add(message)
            self._transport.write(_FAILURE)
        else:
            self._transport.write(_ANSWER)

    def _report(self, request: bytes) -> bytes:
        body = b"%d" % len(self._notes)
        if request.startswith(b"GET /notes "):
            body = b"".join(b"%d %s\n" % note for note in self._notes)
            self._notes.clear()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


async def serve(port: int) -> None:
    """Listen at a port of 127.0.0.1 (0: any free one) until cancelled."""
    notes: list[Note] = []
    failed: set[bytes] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(notes, failed), "127.0.0.1", port, backlog=1024)
    gc.collect()
    gc.freeze()
    gc.disable()  # it makes no cycles, and a pause here would be read as the pipeline's
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        uvloop.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
    except KeyboardInterrupt:
        raise SystemExit(0) from None
