"""The one process that owns the embedded ClickHouse engine's folder; speaks ClickHouse's HTTP interface.

Stock clients work against it as against a server, except that each request is a session of its own: SET, USE
and temporary tables last one request.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson
from aiohttp import web
from chdb._exceptions import ChdbError  # what chdb itself exports is another class of that name
from chdb.state.sqlitelike import Connection

from engine.dev.statement import rows_format
from engine.dev.store_request import MAX_BODY, Query, RequestError, parse

_HOST = "127.0.0.1"
_THREADS = 6  # queries that run at a time; they wait for disk and locks more than for the two cores
_STOP_S = 10.0
_ENGINE = {
    # The process holds 0.2 GB besides; together at most 1 GB.
    "max_server_memory_usage": 700 << 20,
    "mark_cache_size": 32 << 20,
    "index_mark_cache_size": 8 << 20,
    "uncompressed_cache_size": 0,
}
_STATUS = {
    **dict.fromkeys((6, 26, 27, 33, 36, 38, 41, 42, 43, 53, 62, 72, 117, 456, 457), 400),
    **dict.fromkeys((46, 47, 50, 56, 60, 81, 115), 404),
    48: 501,
    159: 408,
    164: 403,
}
_LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})


class StoreError(RuntimeError):
    """The store cannot start; the message says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the engine answered; `format` is None when there are no rows to answer with."""

    body: bytes
    format: str | None
    summary: Mapping[str, str]


class Engine:
    """The embedded ClickHouse engine in one folder; `run` may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        self._path = str(folder.resolve() / "clickhouse")
        self._incoming = folder / "incoming"
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir()
        # The engine lives as long as some connection does; this one also sets its limits.
        self._first = Connection(f"{self._path}?{urlencode(_ENGINE)}")
        self.timezone = self._first.query("SELECT timezone()", "TabSeparated").bytes().decode().strip()

    def run(self, query: Query) -> Result:
        """Run it on a connection of its own (0.1 ms), so no SET, USE or readonly outlives the request."""
        connection = Connection(self._path)
        try:
            if query.database:
                connection.query(f"USE {_quoted(query.database, '`')}")
            if query.settings:
                pairs = (f"{name} = {_quoted(value)}" for name, value in query.settings.items())
                connection.query(f"SET {', '.join(pairs)}")
            return self._run(connection, query)
        finally:
            connection.close()

    def _run(self, connection: Any, query: Query) -> Result:
        if query.insert is None:
            rows = rows_format(query.text, query.format)
            result = connection.query(query.text, query.format, params=dict(query.parameters))
            return Result(result.bytes() or b"", rows, _summary(result, "read"))
        # The engine takes data inside a statement only up to the first empty line, so it goes through a file.
        with tempfile.NamedTemporaryFile(dir=self._incoming) as file:
            file.write(query.data or b"")
            file.flush()
            result = connection.query(query.insert.from_file(file.name), params=dict(query.parameters))
        return Result(b"", None, _summary(result, "written"))

    def close(self) -> None:
        """Shut the engine down; no query may be running."""
        self._first.close()
        self._lock.close()


def _lock(folder: Path) -> Any:
    """Held as long as the returned file is open; the system lets go of it when the process dies."""
    file = (folder / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise StoreError(f"another store has {folder} open: stop it, or choose another folder") from None
    return file


def _quoted(text: str, quote: str = "'") -> str:
    return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote) + quote


def _summary(result: Any, what: str) -> dict[str, str]:
    """Statistics as in the header X-ClickHouse-Summary; an insert has read what it wrote."""
    counts = {f"{what}_rows": result.rows_read(), f"{what}_bytes": result.bytes_read()}
    counts["elapsed_ns"] = int(result.elapsed() * 1e9)
    return {name: str(count) for name, count in counts.items()}


class Front:
    """ClickHouse's HTTP interface over an Engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(_THREADS, "query")

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=MAX_BODY, middlewares=[_local_only])
        app.router.add_get("/ping", self._ok)
        app.router.add_route("GET", "/", self._query)
        app.router.add_route("POST", "/", self._query)
        return app

    def close(self) -> None:
        """Wait for the queries that run."""
        self._threads.shutdown()

    async def _ok(self, _: web.Request) -> web.Response:
        return web.Response(text="Ok.\n")

    async def _query(self, request: web.Request) -> web.Response:
        if request.method == "GET" and "query" not in request.query:
            return await self._ok(request)
        loop = asyncio.get_running_loop()
        try:
            parameters, body = await _read(request)
            result = await loop.run_in_executor(self._threads, self._run, parameters, request.headers, body)
        except RequestError as error:
            return web.Response(status=400, text=f"{error}\n")
        except ChdbError as error:
            return failure(str(error))
        return self._answer(result, request.query.get("query_id", ""))

    def _run(self, parameters: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Result:
        return self._engine.run(parse(parameters, headers, body))

    def _answer(self, result: Result, query_id: str) -> web.Response:
        headers = {
            "X-ClickHouse-Summary": orjson.dumps(result.summary).decode(),
            "X-ClickHouse-Query-Id": query_id,
            "X-ClickHouse-Timezone": self._engine.timezone,
        }
        if result.format is not None:
            headers["X-ClickHouse-Format"] = result.format
        return web.Response(body=result.body, headers=headers, content_type="application/octet-stream")


async def _read(request: web.Request) -> tuple[dict[str, str], bytes]:
    """Parameters and body; the parameters may also be a form, as clients send what is too long for a URL."""
    parameters = dict(request.query)
    if request.method == "GET":  # as ClickHouse has it: what a link can do must change nothing
        parameters["readonly"] = "2"
    if request.content_type != "multipart/form-data":
        return parameters, await request.read()
    for name, value in (await request.post()).items():
        if not isinstance(value, str):
            raise RequestError("tables sent with a query (external data) are not supported")
        parameters[name] = value
    return parameters, b""


def failure(message: str) -> web.Response:
    """An engine's error as ClickHouse answers it: status, code in a header, its text."""
    text = message[max(message.find("Code: "), 0) :]
    found = re.match(r"Code: (\d+)\.", text)
    code = int(found[1]) if found else 1002  # UNKNOWN_EXCEPTION
    headers = {"X-ClickHouse-Exception-Code": str(code)}
    return web.Response(status=_STATUS.get(code, 500), text=f"{text}\n", headers=headers)


@web.middleware
async def _local_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """There are no passwords, so no page in this machine's browser may send it a query."""
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    if host not in _LOCAL_HOSTS or "Origin" in request.headers:
        raise web.HTTPForbidden(text="the store answers programs on this machine only\n")
    return await handler(request)


async def serve(engine: Engine, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, then finish the queries that run."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    front = Front(engine)
    runner = web.AppRunner(
        front.application(), auto_decompress=False, access_log=None, shutdown_timeout=_STOP_S
    )
    await runner.setup()
    await web.SockSite(runner, listener).start()
    print(f"store: http://{_HOST}:{listener.getsockname()[1]}", flush=True)
    await stopped.wait()
    await runner.cleanup()
    front.close()


@contextmanager
def _opened(folder: Path) -> Iterator[Engine]:
    engine = Engine(folder)
    try:
        yield engine
    finally:
        engine.close()


def main() -> None:
    """Run the store: `python -m engine.dev.store --dir D --port P` (0 is any free port)."""
    parser = argparse.ArgumentParser(prog="store")
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8123)
    arguments = parser.parse_args()
    try:
        listener = socket.create_server((_HOST, arguments.port))
    except OSError as error:
        sys.exit(
            f"store: cannot listen at port {arguments.port}: {error} (--clickhouse-port chooses another)"
        )
    try:
        with listener, _opened(arguments.dir) as engine:
            asyncio.run(serve(engine, listener))
    except StoreError as error:
        sys.exit(f"store: {error}")


if __name__ == "__main__":
    main()
