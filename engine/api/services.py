"""What the routes work with, and its threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from hashlib import sha256
from weakref import WeakValueDictionary

from engine.api.control import DECIDED_WITHIN_S, Control
from engine.api.payloads import Lately, Payloads
from engine.api.publisher import Publisher
from engine.core.change import REMEMBERED_US
from engine.core.recent import Recent
from engine.runtime.configuration.vault import Keyring
from engine.runtime.configuration.views import Configuration
from engine.runtime.context import Context
from engine.runtime.health.circuits import Circuits
from engine.runtime.history.clickhouse import History
from engine.runtime.replaying.originals import Originals
from engine.runtime.settings import SettingsError

_LATELY_US = 600_000_000
_LATELY_MAX = 20_000
_CLAIMED_MAX = 100_000
"""Idempotency-Keys that are remembered at most: some 20 MB."""

_ASKING_MAX = 64
"""Threads that may wait at once, for ClickHouse above all: one that hangs must not hold up other routes."""


@dataclass(frozen=True, slots=True)
class Services:
    """Made by `started`, on the loop that serves."""

    context: Context
    configuration: Configuration
    publisher: Publisher
    control: Control
    payloads: Payloads
    originals: Originals
    lately: Lately
    claimed: Recent[bytes]
    """What Idempotency-Keys were used for by this process in the last day."""
    changing: WeakValueDictionary[str, asyncio.Lock]
    """Who changes an endpoint's settings here, by id: at once they would refuse each other."""
    history: History
    circuits: Circuits
    admin_digest: bytes
    """SHA-256 of the admin key."""
    threads: Sequence[asyncio.Future[None]]
    """Each ends only when stopped, or with the error that ended it."""

    @property
    def is_ready(self) -> bool:
        """Whether everything that follows the log still does."""
        return not any(thread.done() for thread in self.threads)


@asynccontextmanager
async def started(
    context: Context, history: History, limit_s: float = DECIDED_WITHIN_S
) -> AsyncIterator[Services]:
    """Load the configuration, start the threads, and stop them at the end."""
    digest = _admin_digest(context)
    keyring = Keyring(context.vault)
    configuration = Configuration(context.codec, keyring)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(_ASKING_MAX, "ask"))
    await asyncio.to_thread(_warm, context)
    publisher = Publisher(await asyncio.to_thread(context.log.producer))
    control = Control(context, configuration, publisher, limit_s)
    await asyncio.to_thread(control.load)
    readers = ExitStack()
    payloads = readers.enter_context(closing(Payloads(context.log, context.codec)))
    originals = readers.enter_context(closing(Originals(context.log, context.codec)))
    circuits = readers.enter_context(closing(Circuits(context.log, context.codec)))
    lately = Lately(_LATELY_US, _LATELY_MAX)
    claimed: Recent[bytes] = Recent(REMEMBERED_US, _CLAIMED_MAX)
    steps = (publisher.run, control.follow_changes, control.follow_configuration)
    pool = ThreadPoolExecutor(len(steps), "api")
    threads = [loop.run_in_executor(pool, step) for step in steps]
    try:
        yield Services(
            context,
            configuration,
            publisher,
            control,
            payloads,
            originals,
            lately,
            claimed,
            WeakValueDictionary(),
            history,
            circuits,
            digest,
            threads,
        )
    finally:
        publisher.stop()
        control.stop()
        await asyncio.wait(threads)
        pool.shutdown()
        readers.close()
        history.close()


def _warm(context: Context) -> None:
    """Look the topics up that routes write to: the first time blocks, which the loop must not."""
    for topic in ("messages", "commands", "endpoints", "attempts"):
        context.log.partitions(topic)


def _admin_digest(context: Context) -> bytes:
    key = context.settings.admin_key
    if key is None or not key.get_secret_value():
        raise SettingsError("no admin key: set HOOKLOG_ADMIN_KEY to a long random text")
    return sha256(key.get_secret_value().encode()).digest()
