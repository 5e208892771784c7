"""The API with every group on a log in memory, a real receiver, and what tests ask of both."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from consumers import dispatcher, replayer, router, scheduler
from engine.core.model import AttemptFinished
from engine.dev.process import wait_until
from engine.runtime.history.clickhouse import History
from engine.runtime.history.projection import Projection
from engine.runtime.history.rows import columns
from engine.runtime.memory import MemoryLog
from tests.integration.api_fixtures import Api, dev_context, join, running
from tests.integration.history_fixtures import Store

LIMIT_S = 60.0
GROUPS = (router, dispatcher, scheduler, replayer)


class Receiver(ThreadingHTTPServer):
    """Answers with `status` and `body`; keeps the requests: headers and body."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.requests: list[tuple[dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}/in"

    @property
    def bodies(self) -> list[bytes]:
        """Of the requests."""
        return [body for _, body in self.requests]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Take the request in."""
        assert isinstance(self.server, Receiver)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((dict(self.headers.items()), body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on loopback."""
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def api_with_groups(history: History) -> Iterator[Api]:
    """The API with every group on a thread."""
    context = dev_context()
    stop, threads = threading.Event(), []
    for group in GROUPS:
        ready = threading.Event()
        threads.append(threading.Thread(target=group.run, args=(context, stop, ready.set)))
        threads[-1].start()
        assert ready.wait(LIMIT_S)
    try:
        with running(context, history=history) as made:
            yield made
    finally:
        stop.set()
        join(context, *threads)


def ok(answer: httpx.Response, status: int = 200) -> dict[str, object]:
    """The body of an answer that has this status."""
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert isinstance(found, dict)
    return found


def endpoint(api: Api, receiver: Receiver, **more: object) -> str:
    """Create an endpoint for the receiver."""
    body = {"tenant": "acme", "url": receiver.url, "retry_policy": []} | more
    return str(ok(api.ask("POST", "/v1/endpoints", body), 201)["id"])


def attempts(api: Api) -> list[AttemptFinished]:
    """Every attempt on the log."""
    log = api.context.log
    assert isinstance(log, MemoryLog)
    records = [r for n in range(log.partitions("attempts")) for r in log.records(("attempts", n))]
    return [api.context.codec.decode_as(AttemptFinished, r.value) for r in records]


def publish(api: Api, count: int, event_type: str = "room.ended") -> None:
    """Publish messages."""
    for n in range(count):
        body = {"tenant": "acme", "event_type": event_type, "payload": {"n": n}}
        ok(api.ask("POST", "/v1/messages", body), 202)


def wait_attempts(api: Api, count: int, trigger: str = "scheduled") -> list[AttemptFinished]:
    """Wait for so many attempts with a trigger."""

    def found() -> list[AttemptFinished]:
        return [each for each in attempts(api) if each.trigger == trigger]

    assert wait_until(lambda: len(found()) >= count, LIMIT_S, 0.02), len(found())
    return found()


def wait_replay(api: Api, replay_id: object, status: str = "finished") -> dict[str, object]:
    """Wait until a replay has ended so."""
    ask = partial(api.ask, "GET", f"/v1/replays/{replay_id}")
    assert wait_until(lambda: ok(ask())["status"] == status, LIMIT_S, 0.05), ask().text
    return ok(ask())


def project(api: Api, store: Store) -> None:
    """Bring the history up to date with the attempts."""
    log, projection = api.context.log, Projection("hooklog.")
    assert isinstance(log, MemoryLog)
    for topic in ("routings", "attempts"):
        for n in range(log.partitions(topic)):
            for record in log.records((topic, n)):
                for table, rows in projection.rows(record).items():
                    if rows:
                        token = f"{topic}-{n}-{record.offset}"
                        store.history.insert(table, columns(table, rows), token)
