"""The customers' side of the demo: HTTP receivers that verify, behave as told, and keep books.

One process, one path a receiver. It prints one line of JSON with its ports, takes
the secrets (PUT /secrets/NAME) and shows the books (GET /books).
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

from aiohttp import web

from engine.dev.demo.books import Entry, digest
from engine.dev.demo.signatures import check, data_of, event_type_of
from engine.dev.demo.subscribers import SUBSCRIBERS, Subscriber

_BODY_MAX = 1 << 20


@dataclass(slots=True)
class Receiver:
    """One receiver's state: its secret, once it was told, and its book."""

    subscriber: Subscriber
    secret: str = ""
    book: list[Entry] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)

    def note(self, headers: dict[str, str], body: bytes) -> int:
        """Write a request into the book; returns the status to answer."""
        message_id = headers.get("webhook-id", "")
        self.requests[message_id] += 1
        ordinal = self.requests[message_id]
        status = self.subscriber.first_status if ordinal == 1 else 0
        fault, event_type, found = self._verify(headers, body)
        status = 401 if fault else status or self.subscriber.status
        self.book.append(Entry(message_id, event_type, ordinal, status, found, time.time_ns(), fault))
        return status

    def _verify(self, headers: dict[str, str], body: bytes) -> tuple[str, str, str]:
        profile = self.subscriber.profile
        try:
            fault = check(profile, self.secret, headers, body, time.time())
            return fault, event_type_of(profile, body), digest(data_of(profile, body))
        except (ValueError, KeyError, TypeError) as error:
            return f"malformed: {type(error).__name__}: {error}", "", ""


RECEIVERS = web.AppKey("receivers", dict[str, Receiver])


async def _receive(request: web.Request) -> web.Response:
    receiver = request.app[RECEIVERS][request.match_info["name"]]
    headers = {name.lower(): value for name, value in request.headers.items()}
    status = receiver.note(headers, await request.read())
    await asyncio.sleep(receiver.subscriber.delay_s)
    return web.Response(status=status, headers={"Retry-After": "1"} if status == 503 else None)


async def _take_secret(request: web.Request) -> web.Response:
    receiver = request.app[RECEIVERS][request.match_info["name"]]
    receiver.secret = await request.text()
    return web.Response(status=204)


async def _show_books(request: web.Request) -> web.Response:
    books = request.app[RECEIVERS].items()
    return web.json_response({name: [asdict(entry) for entry in receiver.book] for name, receiver in books})


def make_app() -> web.Application:
    """All receivers that listen, one path each, and their books."""
    app = web.Application(client_max_size=_BODY_MAX)
    app[RECEIVERS] = {one.name: Receiver(one) for one in SUBSCRIBERS if one.status}
    app.router.add_get("/books", _show_books)
    app.router.add_put("/secrets/{name}", _take_secret)
    app.router.add_post("/{name}", _receive)
    return app


async def serve() -> None:
    """Listen at a free port of 127.0.0.1 until cancelled."""
    runner = web.AppRunner(make_app(), access_log=None)
    await runner.setup()
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))  # bound and never listening: nobody else can take the port
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports = {"port": runner.addresses[0][1], "refusing": refusing.getsockname()[1]}
        print(json.dumps(ports), flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        raise SystemExit(0) from None
