"""The API over a log in memory, with the real control group, asked through httpx."""

from __future__ import annotations

import asyncio
import base64
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network

import httpx
import orjson
import pytest

from consumers import control
from engine.api.app import create_app
from engine.api.auth import BAAS_HEADER
from engine.api.control import DECIDED_WITHIN_S
from engine.api.services import Services, started
from engine.core.model import MessagePublished
from engine.ports import Record
from engine.runtime.clock import SystemClock
from engine.runtime.context import Context, open_context
from engine.runtime.history.clickhouse import History, connect
from engine.runtime.memory import MemoryLog
from engine.runtime.settings import Settings, load_settings

KEY = "hl_admin_for_tests"
PARTITIONS = 2
NOBODY = "http://127.0.0.1:9"
LIMIT_S = 60.0
_WAKE_S = 0.002


def make_context(settings: Settings | None = None, log: MemoryLog | None = None) -> Context:
    """A context whose log is in memory unless one is given."""
    return open_context(settings or _settings(), log or MemoryLog(PARTITIONS, SystemClock()))


def _settings(**more: object) -> Settings:
    master = base64.b64encode(os.urandom(32)).decode()
    given = {"admin_key": KEY, "master_key": master, "partitions": PARTITIONS, "payload_max": 2_000}
    return load_settings(**given, clickhouse=NOBODY, **more)


def dev_context() -> Context:
    """As in `hooklog dev`: http and loopback are allowed."""
    return make_context(_settings(allow_http=True, egress_allow=(ip_network("127.0.0.0/8"),)))


def holding(key: str) -> dict[str, str]:
    """Headers with a key: the usual one, and that of Meeting BaaS."""
    return {"Authorization": f"Bearer {key}", BAAS_HEADER: key}


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: `json` or `content`, and headers that replace the usual ones."""

    method: str
    path: str
    json: object = None
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Api:
    """Asks the API and waits for its answer; the loop runs only meanwhile."""

    def __init__(
        self, context: Context, limit_s: float = DECIDED_WITHIN_S, history: History | None = None
    ) -> None:
        self.context = context
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        asked = history or History(lambda: connect(context.settings))
        services = self._stack.enter_async_context(started(context, asked, limit_s))
        self.services: Services = self._runner.run(services)
        transport = httpx.ASGITransport(create_app(self.services), raise_app_exceptions=False)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://api")

    def ask(self, method: str, path: str, json: object = None, **headers: str) -> httpx.Response:
        """One request with the admin key; `idempotency_key="k"` is the header idempotency-key."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.together(Ask(method, path, json, headers=named))[0]

    def ask_as(self, key: str, method: str, path: str, json: object = None) -> httpx.Response:
        """One request with another key, in every header that may hold one."""
        return self.together(Ask(method, path, json, headers=holding(key)))[0]

    def new_key(self, *scopes: str, tenant: str | None = None) -> str:
        """Create an API key."""
        bound = {} if tenant is None else {"tenant": tenant}
        answer = self.ask("POST", "/v1/keys", {"scopes": scopes, **bound})
        assert answer.status_code == 201, answer.text
        key = answer.json()["key"]
        assert isinstance(key, str)
        return key

    def together(self, *requests: Ask) -> list[httpx.Response]:
        """Several requests at once."""

        async def gather() -> list[httpx.Response]:
            return await asyncio.gather(*map(self._send, requests))

        return self._runner.run(gather())

    def amid(self, others: Sequence[Ask], ask: Ask, then: Callable[[], None]) -> list[httpx.Response]:
        """One request while others wait for what only `then` lets them have; its answer comes first."""

        async def play() -> list[httpx.Response]:
            waiting = [asyncio.create_task(self._send(other)) for other in others]
            await asyncio.sleep(0)  # they have been begun
            try:
                answer = await asyncio.wait_for(self._send(ask), LIMIT_S)
            finally:
                then()
            return [answer, *await asyncio.gather(*waiting)]

        return self._runner.run(play())

    async def _send(self, ask: Ask) -> httpx.Response:
        named = {"Authorization": f"Bearer {KEY}", **ask.headers}
        headers = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
        content = orjson.dumps(ask.json) if ask.content is None and ask.json is not None else ask.content
        return await self._client.request(ask.method, ask.path, content=content, headers=headers)

    def close(self) -> None:
        """Stop everything."""
        self._runner.run(self._client.aclose())
        self._runner.run(self._stopped())
        self._runner.close()

    async def _stopped(self) -> None:
        stopping = asyncio.create_task(self._stack.aclose())
        while not stopping.done():
            wake(self.context)
            await asyncio.sleep(_WAKE_S)
        await stopping


def wake(context: Context) -> None:
    """Threads that wait for records look whether they are to stop, before their time is over."""
    assert isinstance(context.log, MemoryLog)
    with context.log.changed:
        context.log.changed.notify_all()


def join(context: Context, *threads: threading.Thread) -> None:
    """Wait for groups that were told to stop."""
    end = time.monotonic() + LIMIT_S
    while (left := [thread for thread in threads if thread.is_alive()]) and time.monotonic() < end:
        wake(context)
        left[0].join(_WAKE_S)
    assert not left


@contextmanager
def running(
    context: Context, limit_s: float = DECIDED_WITHIN_S, history: History | None = None
) -> Iterator[Api]:
    """The API with a control group beside it."""
    stop, is_ready = threading.Event(), threading.Event()
    group = threading.Thread(target=control.run, args=(context, stop, is_ready.set))
    group.start()
    assert is_ready.wait(LIMIT_S)
    api = Api(context, limit_s, history)
    try:
        yield api
    finally:
        api.close()
        stop.set()
        join(context, group)


@pytest.fixture(scope="module")
def shared_api() -> Iterator[Api]:
    """One API for all tests of a module; each uses a tenant of its own."""
    with running(make_context()) as running_api:
        yield running_api


def fields(answer: httpx.Response) -> list[str]:
    """Names of the fields that a refusal is about."""
    assert answer.status_code == 422, answer.text
    return [error["field"] for error in answer.json()["errors"]]


def published(api: Api) -> list[tuple[Record, MessagePublished]]:
    """Everything on `messages`."""
    log = api.context.log
    assert isinstance(log, MemoryLog)
    records = [record for n in range(PARTITIONS) for record in log.records(("messages", n))]
    return [(record, api.context.codec.decode_as(MessagePublished, record.value)) for record in records]
