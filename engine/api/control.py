"""Asking the control group for a change and waiting until it is so."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TypeVar, assert_never

from engine.api.problems import Problem
from engine.api.publisher import Publisher
from engine.core.change import (
    REMEMBERED_US,
    Command,
    CommandBase,
    CommandRejected,
    CreateEndpoint,
    DeleteEndpoint,
    DisableEndpoint,
    EnableEndpoint,
    EndpointFact,
    RejectionCode,
)
from engine.core.directory import (
    CreateTenant,
    DataKeyRewrapped,
    DirectoryCommand,
    DirectoryFact,
    EventTypeDeleted,
    EventTypePut,
    KeyCreated,
    KeyRevoked,
    TenantCreated,
    TenantDeleted,
)
from engine.core.endpoint import ALREADY, Endpoint
from engine.core.replay import ReplayCommand
from engine.core.routing import partition_of
from engine.ports import Output, Record
from engine.runtime import telemetry
from engine.runtime.configuration.views import CONFIGURATION_TOPICS, Configuration, View
from engine.runtime.context import Context
from engine.runtime.topics import partitions_of
from schemas import headers
from schemas.codec import UnknownSchemaError

R = TypeVar("R")
Fact = EndpointFact | DirectoryFact | CommandRejected

DECIDED_WITHIN_S = 10.0
SETTLE_S = 0.025
"""The routers follow the same topic: by then their views have what ours has."""
_POLL_S = 0.1
_BATCH = 1_000
_REMEMBERED = 10_000
STATUS_BY_CODE: Mapping[RejectionCode, int] = {
    "not_found": 404,
    "exists": 409,
    "deleted": 409,
    "conflict": 409,
    "already": 409,
    "invalid": 422,
    "too_often": 409,
    "too_many": 409,
    "unopenable": 503,
}
"""How a rejection is answered; 409 for a code of a newer hooklog, and for none, which an older one wrote."""


class Rejected(Problem):
    """A command was refused; `code` says why, for programs."""

    def __init__(self, status: int, fact: CommandRejected) -> None:
        super().__init__(status, fact.reason)
        self.code = fact.code


class Control:
    """Writes commands; follows the configuration from its beginning, and `changes` from a day ago on.

    For so long a repeated command leads to no new fact, and is answered by the first one's.
    """

    def __init__(
        self, context: Context, configuration: Configuration, publisher: Publisher, limit_s: float
    ) -> None:
        """Make it on the loop; `load` comes next. `limit_s`: how long a decision is waited for."""
        self._log = context.log
        self._clock = context.clock
        self._limit_s = limit_s
        self._loop = asyncio.get_running_loop()
        self._moved = asyncio.Event()
        self._codec = context.codec
        self._publisher = publisher
        self._facts: OrderedDict[str, Fact] = OrderedDict()
        self._stopped = threading.Event()
        self.configuration = configuration

    def load(self) -> None:
        """Connect, and read the configuration to its end; blocks."""
        reader = self._log.reader()
        starts = reader.since(partitions_of(self._log, "changes"), self._clock.now() - REMEMBERED_US)
        reader.close()
        self._changes = self._log.follower(starts)
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
                    self._remember(record)
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
        return await self._asked(command, lambda: self._changed(command))

    async def ask_directory(self, command: DirectoryCommand) -> DirectoryFact:
        """Return the fact once our view has it, a repeat's the first; Problem 404, 409, 422 or 503."""
        return await self._asked(command, lambda: self._listed(command))

    async def ask_tenant(self, command: CreateTenant) -> None:
        """Return once our view has the tenant, and with it its data key; asks only if it has not."""

        def looked() -> bool | None:
            return command.tenant in self.configuration.tenants or None

        if not looked():
            await self._asked(command, looked)

    async def ask_replayer(self, command: ReplayCommand, done: Callable[[], R | None]) -> R:
        """Return what `done` finds once the replayer has done it; Problem 404, 409 or 503."""

        def looked() -> R | None:
            self.check_refused(command)
            return done()

        return await self._asked(command, looked)

    def check_refused(self, command: CommandBase) -> None:
        """Problem 404 or 409 if the command was rejected."""
        fact = self._facts.get(command.command_id)
        if isinstance(fact, CommandRejected):
            raise rejected(fact)

    async def write(self, command: CommandBase) -> None:
        """Write a command, with how far our view of the tenant's endpoints is."""
        partition = partition_of(command.tenant, self._log.partitions("commands"))
        found = {headers.VIEW: self.seen(command.tenant)}
        key, value = command.tenant.encode(), self._codec.encode(command)
        await self._publisher.publish(Output("commands", partition, key, value, found))

    async def _asked(self, command: CommandBase, done: Callable[[], R | None]) -> R:
        """Write the command and wait for what it leads to; Problem 503 if that takes longer than 10 s."""
        await self.write(command)
        try:
            async with asyncio.timeout(self._limit_s):
                while (found := done()) is None:
                    await self._next_move()
        except TimeoutError:
            raise Problem(
                503,
                f"the command is on the log, and was not decided within {self._limit_s:g} s: "
                "is the control group running, and the replayer? It may still take effect",
            ) from None
        await asyncio.sleep(SETTLE_S)
        return found

    def fact_of(self, command_id: str) -> Fact | None:
        """What a command of this id has led to, if it was decided before: then a request is a repeat."""
        return self._facts.get(command_id)

    async def moved_on(self, endpoint: Endpoint) -> None:
        """Return once our view has another version of it than this; Problem 503 if that takes too long."""
        try:
            async with asyncio.timeout(self._limit_s):
                while self.configuration.endpoints.get(endpoint.id, endpoint).version == endpoint.version:
                    await self._next_move()
        except TimeoutError:
            raise Problem(
                503, f"endpoint {endpoint.id!r} was changed, which this API has not seen yet: try again"
            ) from None

    async def secret_of(self, endpoint: Endpoint) -> str:
        """Return the newest signing secret; Problem 404 or, at most 10 s later, 503."""
        if not endpoint.secrets:
            raise _deleted_meanwhile(endpoint)
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
        """Wait for our view to have the tenant's data key; ValueError if that opens it not, Problem 404."""
        while True:
            try:
                keyring = self.configuration.keyring
                return keyring.open(endpoint.tenant, endpoint.id, endpoint.secrets[-1])
            except KeyError:
                if self.configuration.endpoints.get(endpoint.id, endpoint).deleted:
                    raise _deleted_meanwhile(endpoint) from None
                await self._next_move()

    async def _next_move(self) -> None:
        """Return when something has been followed that the caller, who looked just now, has not seen."""
        self._moved.clear()
        await self._moved.wait()

    def _remember(self, record: Record) -> None:
        try:
            fact = self._codec.decode(record.value)
        except UnknownSchemaError:  # a newer control decided it: no command of ours leads there
            telemetry.UNKNOWN_SCHEMA.labels("changes").inc()
            return
        if isinstance(fact, EndpointFact | DirectoryFact | CommandRejected):
            self._facts[fact.command_id] = fact  # of several the last says it: the first prepared for it
            if len(self._facts) > _REMEMBERED:
                self._facts.popitem(last=False)

    def _changed(self, command: Command) -> Endpoint | None:
        """Return the endpoint once our view has what the command led to; None before."""
        fact = self._facts.get(command.command_id)
        if isinstance(fact, CommandRejected) and not _is_so_already(fact):
            raise rejected(fact)
        if not isinstance(fact, EndpointFact):
            return _as_wanted(command, self.configuration.endpoints.get(command.endpoint_id))
        endpoint = self.configuration.endpoints.get(fact.endpoint_id)
        if endpoint is None or endpoint.version < fact.version:
            return None
        return _still_there(command, endpoint)

    def _listed(self, command: DirectoryCommand) -> DirectoryFact | None:
        """Return the fact that the command led to once our view has it; None before."""
        fact = self._facts.get(command.command_id)
        if isinstance(fact, CommandRejected):
            raise rejected(fact)
        if not isinstance(fact, DirectoryFact) or not _shows(self.configuration, fact):
            return None
        return fact


def _as_wanted(command: Command, endpoint: Endpoint | None) -> Endpoint | None:
    """Return the endpoint if it is as asked: so already, or by a command that control has seen before."""
    match command:
        case EnableEndpoint():
            return endpoint if endpoint is not None and endpoint.enabled else None
        case DisableEndpoint():
            return endpoint if endpoint is not None and not endpoint.enabled else None
        case CreateEndpoint():
            return None if endpoint is None else _still_there(command, endpoint)
        case _:
            return None


def _still_there(command: Command, endpoint: Endpoint) -> Endpoint:
    """Return it; Problem 409 or 404 if it was deleted since, and not by this command."""
    if not endpoint.deleted or isinstance(command, DeleteEndpoint):
        return endpoint
    if isinstance(command, CreateEndpoint):
        raise Problem(
            409,
            f"this request was made before, and its endpoint {endpoint.id!r} was deleted since: "
            "choose a new Idempotency-Key for a new endpoint",
        )
    raise _deleted_meanwhile(endpoint)


def _deleted_meanwhile(endpoint: Endpoint) -> Problem:
    return Problem(404, f"endpoint {endpoint.id!r} was deleted meanwhile")


def _shows(configuration: Configuration, fact: DirectoryFact) -> bool:
    """Whether a view has what a fact says, or something newer."""
    match fact:
        case TenantCreated():
            return fact.tenant in configuration.tenants
        case TenantDeleted():
            return _is_gone(configuration, fact.tenant)
        case KeyCreated():
            return fact.key_id in configuration.keys
        case KeyRevoked():
            key = configuration.keys.get(fact.key_id)
            return key is None or key.revoked_at > 0
        case EventTypePut() | EventTypeDeleted():
            known = configuration.event_types.get(fact.name)
            is_newer = known is not None and known.updated_at >= fact.at
            return is_newer or (known is None and isinstance(fact, EventTypeDeleted))
        case DataKeyRewrapped():
            return configuration.keyring.master_key_of(fact.data_key_id) in (None, fact.master_key_id)
    assert_never(fact)


def _is_gone(configuration: Configuration, tenant: str) -> bool:
    """Whether a view has all of a tenant's deletion."""
    known = configuration.tenants.get(tenant)
    is_deleted = known is None or known.deleted
    valid = (key for key in list(configuration.keys.values()) if key.tenant == tenant and not key.revoked_at)
    return is_deleted and next(valid, None) is None and not configuration.of_tenant(tenant)


def rejected(fact: CommandRejected) -> Rejected:
    """Build the problem that a rejection is answered with."""
    found = (status for code, status in STATUS_BY_CODE.items() if code == fact.code)
    return Rejected(next(found, 409), fact)


def _is_so_already(fact: CommandRejected) -> bool:
    """Whether what was asked for was so before; an older control group says it by the reason alone."""
    return fact.code == "already" or (not fact.code and fact.reason == ALREADY)
