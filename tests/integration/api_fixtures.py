"""The API over a log in memory, with the real control group, asked through httpx."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from ipaddress import ip_network

import httpx

from consumers import control
from engine.api.app import create_app
from engine.api.services import Services, started
from engine.core.model import MessagePublished
from engine.ports import Record
from engine.runtime.clickhouse import History, connect
from engine.runtime.clock import SystemClock
from engine.runtime.context import Context, open_context
from engine.runtime.memory import MemoryLog
from engine.runtime.settings import Settings, load_settings

KEY = "hl_admin_for_tests"
PARTITIONS = 2
NOBODY = "http://127.0.0.1:9"


def make_context(settings: Settings | None = None, log: MemoryLog | None = None) -> Context:
    """A context whose log is in memory unless one is given."""
    master = base64.b64encode(os.urandom(32)).decode()
    settings = settings or load_settings(
        admin_key=KEY, master_key=master, partitions=PARTITIONS, payload_max=2_000, clickhouse=NOBODY
    )
    return open_context(settings, log or MemoryLog(PARTITIONS, SystemClock()))


def dev_context() -> Context:
    """As in `hooklog dev`: http and loopback are allowed."""
    context = make_context()
    changed = {"allow_http": True, "egress_allow": (ip_network("127.0.0.0/8"),)}
    return make_context(context.settings.model_copy(update=changed))


class Api:
    """Asks the API and waits for its answer; the loop runs only meanwhile."""

    def __init__(self, context: Context, history: History | None = None) -> None:
        self.context = context
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        history = history or History(lambda: connect(context.settings))
        self.services: Services = self._run(self._stack.enter_async_context(started(context, history)))
        transport = httpx.ASGITransport(create_app(self.services), raise_app_exceptions=False)
        headers = {"Authorization": f"Bearer {KEY}"}
        self.client = httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers)

    def ask(self, method: str, path: str, **more: object) -> httpx.Response:
        """One request."""
        return self._run(self.client.request(method, path, **more))

    def together(self, *requests: tuple[str, str, dict[str, object]]) -> list[httpx.Response]:
        """Several requests at once."""

        async def gather() -> list[httpx.Response]:
            return await asyncio.gather(*(self.client.request(m, p, **more) for m, p, more in requests))

        return self._run(gather())

    def close(self) -> None:
        """Stop everything."""
        self._run(self.client.aclose())
        self._run(self._stack.aclose())
        self._runner.close()

    def _run(self, coroutine):
        return self._runner.run(coroutine)


@contextmanager
def running(context: Context) -> Iterator[Api]:
    """The API with a control group beside it."""
    stop, is_ready = threading.Event(), threading.Event()
    group = threading.Thread(target=control.run, args=(context, stop, is_ready.set))
    group.start()
    assert is_ready.wait(10)
    api = Api(context)
    try:
        yield api
    finally:
        api.close()
        stop.set()
        group.join(10)


def published(api: Api) -> list[tuple[Record, MessagePublished]]:
    """Everything on `messages`."""
    log = api.context.log
    assert isinstance(log, MemoryLog)
    records = [record for n in range(PARTITIONS) for record in log.records(("messages", n))]
    return [(record, api.context.codec.decode_as(MessagePublished, record.value)) for record in records]
