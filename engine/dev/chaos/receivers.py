"""The receivers' side: answers as the cast says, and writes down every request.

A process of its own that nobody kills. It prints one line of JSON with its ports,
takes the secrets (PUT /secrets/NAME) and the moods (PUT /modes/NAME: `down`, `gone`
or nothing), and shows the books (GET /books) and how many requests came (GET /count).
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections import Counter
from dataclasses import dataclass, field

from aiohttp import web

from engine.dev.chaos.cast import SUBSCRIBERS, How, Mode, Reply, Subscriber, payload, reply
from engine.dev.demo.signatures import check, data_of

_DEAD = "dead"
"""The receiver with a port of its own, at which nobody listens while it is down."""
_LIES: dict[How, bytes] = {
    "reset": b"",
    "garbage": b"\x00\x01 not HTTP at all\r\n\r\n",
    "half": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nand the rest",
}
_MODES: dict[str, Mode] = {"": "", "down": "down", "gone": "gone"}


@dataclass(slots=True)
class Receiver:
    """One receiver's state, and its book: (message id, arrived, answered, status, fault), Unix ns."""

    subscriber: Subscriber
    secret: str = ""
    mode: Mode = ""
    book: list[list[object]] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)

    def note(self, headers: dict[str, str], body: bytes) -> tuple[list[object], Reply]:
        """Write a request down; the line, in which `answered` is still 0, and what to answer."""
        name = headers.get("webhook-id", "")
        self.requests[name] += 1
        fault = self._fault(name, headers, body)
        answer = reply(self.subscriber.behaviour, self.mode, name, self.requests[name])
        line: list[object] = [name, time.time_ns(), 0, answer.status, fault]
        self.book.append(line)
        return line, answer

    def _fault(self, name: str, headers: dict[str, str], body: bytes) -> str:
        try:
            fault = check("standard", self.secret, headers, body, time.time())
        except (ValueError, KeyError, TypeError) as error:
            return f"malformed: {type(error).__name__}: {error}"
        return fault or ("" if data_of("standard", body) == payload(name) else "another payload")


class Site:
    """The dead receiver's port: listens, or is only bound so that nobody else takes it."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        self._socket = _bound(0)
        self._site: web.SockSite | None = None
        self.port: int = self._socket.getsockname()[1]

    async def up(self) -> None:
        """Listen."""
        if self._site is None:
            self._site = web.SockSite(self._runner, self._socket)
            await self._site.start()

    async def down(self) -> None:
        """Refuse connections."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
            self._socket.close()
            self._socket = _bound(self.port)

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


RECEIVERS = web.AppKey("receivers", dict[str, Receiver])
SITE = web.AppKey("site", list[Site])


async def _receive(request: web.Request) -> web.StreamResponse:
    receiver = request.app[RECEIVERS][request.match_info["name"]]
    headers = {name.lower(): value for name, value in request.headers.items()}
    line, answer = receiver.note(headers, await request.read())
    try:
        await asyncio.sleep(answer.delay_s)
        return _plain(answer) if answer.how == "plain" else _lie(request, answer.how)
    finally:
        line[2] = time.time_ns()


def _plain(answer: Reply) -> web.Response:
    headers = {"Retry-After": str(answer.retry_after_s)} if answer.retry_after_s else None
    return web.Response(status=answer.status, headers=headers)


def _lie(request: web.Request, how: How) -> web.Response:
    """Write what is no answer, and hang up."""
    if request.transport is not None:
        request.transport.write(_LIES[how])
        request.transport.abort() if how == "reset" else request.transport.close()
    return web.Response(status=500)  # goes nowhere


async def _take_secret(request: web.Request) -> web.Response:
    request.app[RECEIVERS][request.match_info["name"]].secret = await request.text()
    return web.Response(status=204)


async def _take_mode(request: web.Request) -> web.Response:
    name, mode = request.match_info["name"], _MODES[await request.text()]
    request.app[RECEIVERS][name].mode = mode
    if name == _DEAD:
        await (request.app[SITE][0].down() if mode == "down" else request.app[SITE][0].up())
    return web.Response(status=204)


async def _show_books(request: web.Request) -> web.Response:
    return web.json_response({name: one.book for name, one in request.app[RECEIVERS].items()})


async def _show_count(request: web.Request) -> web.Response:
    return web.Response(text=str(sum(len(one.book) for one in request.app[RECEIVERS].values())))


def make_app() -> web.Application:
    """All receivers, one path each, and their books."""
    app = web.Application()
    app[RECEIVERS] = {one.name: Receiver(one) for one in SUBSCRIBERS}
    app.router.add_get("/books", _show_books)
    app.router.add_get("/count", _show_count)
    app.router.add_put("/secrets/{name}", _take_secret)
    app.router.add_put("/modes/{name}", _take_mode)
    app.router.add_post("/{name}", _receive)
    app.router.add_post("/{name}/{more}", _receive)
    return app


async def serve() -> None:
    """Listen at two free ports of 127.0.0.1 until cancelled; one is the dead receiver's."""
    app = make_app()
    sites: list[Site] = []
    app[SITE] = sites
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    sites.append(Site(runner))
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    await sites[0].up()
    print(json.dumps({"port": port, _DEAD: sites[0].port}), flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
        sites[0].close()


if __name__ == "__main__":
    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        raise SystemExit(0) from None
