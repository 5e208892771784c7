"""A real store behind a front that tells the truth or lies, as a test says."""

from __future__ import annotations

import http.client
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from engine.dev.process import free_port, spawn, stop, tail, wait_until
from engine.runtime.history.clickhouse import History, connect
from engine.runtime.history.migration import migrate
from engine.runtime.history.rollups import ROLLUPS
from engine.runtime.history.rows import COLUMNS
from engine.runtime.settings import load_settings
from tests.integration.history_fixtures import Store

ANSWER_S = 30.0
IMPATIENT_S = 2.0
"""How long who meets with silence waits: long enough for the truth, too."""
LIMIT_S = 60.0


class StoreProcess:
    """A store as a process on a folder; it may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._log = folder, folder / "store.log"
        self.port = free_port()

    def start(self) -> None:
        """Start it and wait until it answers."""
        argv = [
            *(sys.executable, "-m", "engine.dev.store"),
            *("--dir", str(self._folder), "--port", str(self.port)),
        ]
        self._process = spawn(argv, self._log)
        assert wait_until(self._answers, LIMIT_S), tail(self._log)

    def stop(self) -> None:
        """Stop it in order."""
        stop(self._process, LIMIT_S)

    def kill(self) -> None:
        """SIGKILL: it is gone in the middle of whatever it does."""
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/ping").text == "Ok.\n"
        except httpx.TransportError:
            return False


class Exchange(BaseHTTPRequestHandler):
    """One request that came to the front, read to its end."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Front
    body: bytes

    def do_POST(self) -> None:
        """Take in a request; the front's manner decides what becomes of it."""
        self.body = self._chunks() if self.headers["Transfer-Encoding"] else self._sized()
        manner = self.server.manner if self.server.concerns(self) else pass_on
        manner(self)

    do_GET = do_POST  # noqa: N815

    def _sized(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        """Answer and keep the connection."""
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def ask(self) -> tuple[int, bytes, list[tuple[str, str]]]:
        """Ask the store itself."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.store_port, timeout=ANSWER_S)
        try:
            kept = {n: v for n, v in self.headers.items() if n.lower() not in ("transfer-encoding", "host")}
            connection.request(self.command, self.path, self.body, kept)
            response = connection.getresponse()
            of_ours = [(n, v) for n, v in response.getheaders() if n.startswith("X-ClickHouse")]
            return response.status, response.read(), of_ours
        finally:
            connection.close()

    def hang_up(self) -> None:
        """End the connection with no further word."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


Manner = Callable[[Exchange], None]


class Front(ThreadingHTTPServer):
    """Passes requests on to the store, or does what its manner says."""

    daemon_threads = True

    def __init__(self, store_port: int) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.store_port = store_port
        self.released = threading.Event()
        self.be_honest()

    @property
    def url(self) -> str:
        """Where to reach it."""
        return f"http://127.0.0.1:{self.server_port}"

    def lie(self, manner: Manner, about: str = "") -> None:
        """Treat requests that mention `about` (in address or body) in this manner from now on."""
        self.manner, self._about = manner, about.encode()

    def be_honest(self) -> None:
        """Pass everything on."""
        self.lie(pass_on)

    def concerns(self, exchange: Exchange) -> bool:
        """Whether a request is to be treated in that manner."""
        return self._about in exchange.path.encode() + exchange.body

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are gone are no news."""


@contextmanager
def fronting(store: StoreProcess) -> Iterator[Front]:
    """A front for the store, until the end of the block."""
    with Front(store.port) as front:
        thread = threading.Thread(target=front.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield front
        finally:
            front.released.set()
            front.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreProcess]:
    """One store for a module."""
    process = StoreProcess(tmp_path_factory.mktemp("store"))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def front(process: StoreProcess) -> Iterator[Front]:
    """A front for it, honest at first."""
    with fronting(process) as front:
        yield front


@pytest.fixture
def served(front: Front) -> Iterator[Store]:
    """A migrated database of its own, reached through the front."""
    settings = load_settings(clickhouse=front.url, clickhouse_database=f"t{secrets.token_hex(4)}")
    client = connect(settings)
    migrate(client, settings)
    history = History(partial(connect, settings, ANSWER_S))
    yield Store(history, client, settings)
    front.be_honest()
    client.command(f"DROP DATABASE IF EXISTS {settings.clickhouse_database}", use_database=False)
    client.close()
    history.close()


@contextmanager
def impatient(store: Store) -> Iterator[Store]:
    """The same store for who gives up on silence soon, until the end of the block."""
    history = History(partial(connect, store.settings, IMPATIENT_S))
    try:
        yield replace(store, history=history)
    finally:
        history.close()


def contents(store: Store) -> dict[str, list[Sequence[object]]]:
    """All that the tables and the rollups say."""
    asked = {table: f"SELECT * FROM {table} FINAL ORDER BY ALL" for table in COLUMNS}
    asked |= {
        rollup.table: "SELECT * EXCEPT (durations, computed_at), finalizeAggregation(durations) AS quantiles"
        f" FROM {rollup.table} FINAL ORDER BY ALL"
        for rollup in ROLLUPS
    }
    return {table: store.history.query(sql).rows for table, sql in asked.items()}


EXCEPTION = b"Code: 241. DB::Exception: Memory limit exceeded. (MEMORY_LIMIT_EXCEEDED) (version 26.9)\n"


def pass_on(exchange: Exchange) -> None:
    """The truth."""
    status, body, headers = exchange.ask()
    exchange.answer(status, body, *headers)


def refuse(exchange: Exchange) -> None:
    """HTTP 500 with ClickHouse's own words."""
    exchange.answer(500, EXCEPTION, ("X-ClickHouse-Exception-Code", "241"))


def refuse_as_a_proxy(exchange: Exchange) -> None:
    """HTTP 502 from something in between."""
    exchange.answer(502, b"<html>Bad Gateway</html>")


def refuse_late(exchange: Exchange) -> None:
    """200, because the answer had begun, and the exception in its body."""
    exchange.answer(200, EXCEPTION, ("X-ClickHouse-Format", "Native"))


def babble(exchange: Exchange) -> None:
    """200 and something that is not ClickHouse's at all."""
    exchange.answer(200, b"<html>\xff\xfe welcome to the login page</html>")


def hang_up(exchange: Exchange) -> None:
    """Close the connection unasked: the store never hears of it."""
    exchange.hang_up()


def hang_up_after(exchange: Exchange) -> None:
    """The store does it, and nobody learns that it did."""
    exchange.ask()
    exchange.hang_up()


def cut_short(exchange: Exchange) -> None:
    """The store does it; the connection ends in the middle of the answer's head."""
    exchange.ask()
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    exchange.hang_up()


def say_nothing(exchange: Exchange) -> None:
    """The store does it, and the connection stays open in silence."""
    exchange.ask()
    exchange.server.released.wait(ANSWER_S)
    exchange.hang_up()
