"""Asking the control group for a change and waiting until it is so."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict

from engine.api.problems import Problem
from engine.api.publisher import Publisher
from engine.core.change import (
    Command,
    CommandRejected,
    CreateEndpoint,
    DisableEndpoint,
    EnableEndpoint,
    EndpointCreated,
    EndpointDeleted,
    EndpointDisabled,
    EndpointEnabled,
    EndpointUpdated,
)
from engine.core.endpoint import ALREADY, Endpoint
from engine.core.routing import partition_of
from engine.ports import Output
from engine.runtime.context import Context
from engine.runtime.views import CONFIGURATION_TOPICS, Configuration, View
from schemas import headers

DECIDED_WITHIN_S = 10.0
SETTLE_S = 0.025
"""The routers follow the same topic: by then their views have what ours has."""
_POLL_S = 0.1
_BATCH = 1_000
_REMEMBERED = 10_000
_STATUS_BY_REASON = (
    ("does not exist", 404),
    ("exists already", 409),
    ("has changed since", 409),
    ("there is no setting", 422),
    ("secret cannot be opened", 503),
)
"""How a rejection is answered: part of its reason, which the control group words; 409 for any other."""
_FACTS = (EndpointCreated, EndpointUpdated, EndpointEnabled, EndpointDisabled, EndpointDeleted)

EndpointFact = EndpointCreated | EndpointUpdated | EndpointEnabled | EndpointDisabled | EndpointDeleted


class Control:
    """Writes commands; follows `changes` from its end and the configuration from its beginning."""

    def __init__(
        self, context: Context, configuration: Configuration, publisher: Publisher, limit_s: float
    ) -> None:
        """Make it on the loop; `load` comes next. `limit_s`: how long a decision is waited for."""
        self._log = context.log
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()
        self._codec = context.codec
        self._publisher = publisher
        self._facts: OrderedDict[str, EndpointFact | CommandRejected] = OrderedDict()
        self._stopped = threading.Event()
        self.configuration = configuration

    def load(self) -> None:
        """Connect, and read the configuration to its end; blocks."""
        reader = self._log.reader()
        ends = reader.ends([("changes", n) for n in range(self._log.partitions("changes"))])
        reader.close()
        self._changes = self._log.follower(ends)
        self._view = View(self._log, CONFIGURATION_TOPICS, self.configuration.fold)
        self._view.load()

    def seen(self, tenant: str) -> bytes:
        """How far our view of the tenant's endpoints is: routers wait until theirs is as far."""
        partition = partition_of(tenant, self._log.partitions("endpoints"))
        return headers.view(partition, self._view.position("endpoints", partition))

    def follow_changes(self) -> None:
        """Run on a thread of its own, until `stop`."""
        while not self._stopped.is_set():
            if records := self._changes.poll(_POLL_S, _BATCH):
                for record in records:
                    self._remember(self._codec.decode(record.value))
                self._loop.call_soon_threadsafe(self._moved.set)
        self._changes.close()

    def follow_configuration(self) -> None:
        """Run on a thread of its own, until `stop`."""
        while not self._stopped.is_set():
            if self._view.advance(_POLL_S):
                self._loop.call_soon_threadsafe(self._moved.set)
        self._view.close()

    def stop(self) -> None:
        """Make both threads return."""
        self._stopped.set()

    async def ask(self, command: Command) -> Endpoint:
        """Return the endpoint as it is afterwards; Problem 404, 409, 422 or, at most 10 s later, 503."""
        partition = partition_of(command.tenant, self._log.partitions("commands"))
        key, value = command.tenant.encode(), self._codec.encode(command)
        await self._publisher.publish(Output("commands", partition, key, value))
        try:
            async with asyncio.timeout(self._limit_s):
                while (endpoint := self._done(command)) is None:
                    await self._next_move()
        except TimeoutError:
            raise Problem(
                503,
                f"the command is on the log, and was not decided within {self._limit_s:g} s: "
                "is the control group running? It may still take effect",
            ) from None
        await asyncio.sleep(SETTLE_S)
        return endpoint

    async def secret_of(self, endpoint: Endpoint) -> str:
        """Return the newest signing secret; Problem 404 or, at most 10 s later, 503."""
        if not endpoint.secrets:
            raise Problem(404, f"endpoint {endpoint.id!r} was deleted meanwhile")
        try:
            async with asyncio.timeout(self._limit_s):
                return await self._opened(endpoint)
        except (TimeoutError, ValueError):
            raise Problem(
                503,
                f"endpoint {endpoint.id!r} exists, but its secret could not be opened within "
                f"{self._limit_s:g} s: do the API and control have the same master key? "
                "A new endpoint's secret is in no later answer: delete the endpoint and create it again",
            ) from None

    async def _opened(self, endpoint: Endpoint) -> str:
        """Wait for our view to have the tenant's data key; ValueError if that opens it not."""
        while True:
            try:
                keyring = self.configuration.keyring
                return keyring.open(endpoint.tenant, endpoint.id, endpoint.secrets[-1])
            except KeyError:
                await self._next_move()

    async def _next_move(self) -> None:
        """Return when something has been followed that the caller, who looked just now, has not seen."""
        self._moved.clear()
        await self._moved.wait()

    def _remember(self, fact: object) -> None:
        if isinstance(fact, (*_FACTS, CommandRejected)):
            self._facts[fact.command_id] = fact
            if len(self._facts) > _REMEMBERED:
                self._facts.popitem(last=False)

    def _done(self, command: Command) -> Endpoint | None:
        """Return the endpoint once our view has what the command led to; None before."""
        fact = self._facts.get(command.command_id)
        if isinstance(fact, CommandRejected) and fact.reason != ALREADY:
            raise rejected(fact)
        if fact is None or isinstance(fact, CommandRejected):
            return _as_wanted(command, self.configuration.endpoints.get(command.endpoint_id))
        endpoint = self.configuration.endpoints.get(fact.endpoint_id)
        return endpoint if endpoint is not None and endpoint.version >= fact.version else None


def _as_wanted(command: Command, endpoint: Endpoint | None) -> Endpoint | None:
    """Return the endpoint if it is as asked: so already, or by a command that control has seen before."""
    match command:
        case EnableEndpoint():
            return endpoint if endpoint is not None and endpoint.enabled else None
        case DisableEndpoint():
            return endpoint if endpoint is not None and not endpoint.enabled else None
        case CreateEndpoint():
            return endpoint
        case _:
            return None


def rejected(fact: CommandRejected) -> Problem:
    """Build the problem that a rejection is answered with."""
    found = (status for part, status in _STATUS_BY_REASON if part in fact.reason)
    return Problem(next(found, 409), fact.reason)
