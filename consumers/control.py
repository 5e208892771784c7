"""control: commands -> changes + endpoints + directory, one Kafka transaction a batch.

The single writer of configuration. A command id seen before is a no-op. Here
topics must agree and latency does not matter, so a transaction is worth it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from threading import Event

from engine.core.change import (
    Command,
    CommandRejected,
    CreateEndpoint,
    DeleteEndpoint,
    DisableEndpoint,
    EnableEndpoint,
    EndpointFact,
    Fact,
    TenantCreated,
    UpdateEndpoint,
)
from engine.core.endpoint import DataKey, Endpoint, Tenant, decide, evolve, reject
from engine.core.recent import Recent
from engine.core.routing import partition_of
from engine.ports import Output, Record
from engine.runtime import telemetry
from engine.runtime.atleastonce import AtLeastOnce
from engine.runtime.context import Context, Ready
from engine.runtime.invalid import invalid_output
from engine.runtime.vault import COMMAND_KEY_ID, Keyring, new_data_key
from engine.runtime.views import CONFIGURATION_TOPICS, Configuration, View
from schemas import headers
from schemas.codec import UndecodableError, UnknownSchemaError

GROUP = "control"
BATCH_MAX = 100
SEEN_US = 24 * 3_600_000_000
SEEN_MAX = 200_000
"""Command ids that are remembered at most: some 30 MB."""
UNSEALABLE = "its secret cannot be opened: do the API and control have the same master key?"
COMMANDS = (CreateEndpoint, UpdateEndpoint, EnableEndpoint, DisableEndpoint, DeleteEndpoint)


class Control:
    """Configuration as it stands, and the commands decided lately."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._partitions = context.log.partitions("commands")
        self._inputs = AtLeastOnce(context.log, GROUP, ("commands",))
        self._transactions = context.log.transactions(f"{GROUP}-{context.settings.instance}")
        self._seen: Recent[bool] = Recent(SEEN_US, SEEN_MAX)
        self._configuration = Configuration(context.codec, Keyring(context.vault))

    def step(self, timeout: float) -> None:
        """Decide the commands that are there, all in one transaction."""
        records = self._inputs.poll(timeout, BATCH_MAX)
        if self._inputs.gained:
            self._inputs.gained = False
            self._load()
        if not records:
            return
        outputs = [output for made in self._inputs.each(records, self._handle) for output in made]
        self._transactions.write(outputs, self._inputs.next, self._inputs.consumer)

    def _load(self) -> None:
        """Learn what other members decided before these partitions came to us."""
        view = View(self._context.log, CONFIGURATION_TOPICS, self._configuration.fold)
        view.load()
        view.close()
        self._seen = Recent(SEEN_US, SEEN_MAX)
        reader = self._context.log.reader()
        changes = [("changes", partition) for _, partition in self._inputs.next]
        unread: dict[int, str] = {}
        for record in reader.read(reader.since(changes, self._context.clock.now() - SEEN_US)):
            try:
                fact = self._context.codec.decode(record.value)
            except UnknownSchemaError as error:
                unread.setdefault(record.partition, f"changes offset {record.offset}: {error}")
            else:
                self._remember(getattr(fact, "command_id", ""), record.timestamp)
        reader.close()
        for partition, reason in unread.items():  # what was decided there we cannot know
            self._inputs.hold(("commands", partition), reason)

    def _remember(self, command_id: str, at: int) -> None:
        self._seen.put(command_id.encode(), True, at)

    def _handle(self, record: Record) -> Iterable[Output]:
        try:
            command = self._context.codec.decode(record.value)
        except UndecodableError as error:
            return [self._invalid(record, str(error))]
        if not isinstance(command, COMMANDS):
            return [self._invalid(record, f"a {type(command).__name__} is no command")]
        if command.command_id.encode() in self._seen:
            telemetry.COPIES_DROPPED.labels(GROUP).inc()
            return []
        self._remember(command.command_id, record.timestamp)
        return self._decide(command, headers.cause_for(record))

    def _decide(self, command: Command, cause: bytes) -> list[Output]:
        now = self._context.clock.now()
        endpoint = self._configuration.endpoints.get(command.endpoint_id)
        made: list[Output] = []
        if isinstance(command, CreateEndpoint) and endpoint is None:
            try:
                clear = self._open(command)
            except ValueError:
                return self._decided(None, reject(command, now, UNSEALABLE), cause)
            made = self._tenant(command, now, cause)
            command = self._resealed(command, clear)
        return made + self._decided(endpoint, decide(endpoint, command, now), cause)

    def _decided(
        self, endpoint: Endpoint | None, fact: EndpointFact | CommandRejected, cause: bytes
    ) -> list[Output]:
        if isinstance(fact, CommandRejected):
            telemetry.COMMANDS.labels("rejected").inc()
            return [self._change(fact, cause)]
        telemetry.COMMANDS.labels("accepted").inc()
        return [self._change(fact, cause), self._snapshot(endpoint, fact, cause)]

    def _open(self, command: CreateEndpoint) -> str:
        sealed = replace(command.secret, data_key_id=COMMAND_KEY_ID)
        return self._configuration.keyring.open(command.tenant, command.endpoint_id, sealed)

    def _tenant(self, command: CreateEndpoint, now: int, cause: bytes) -> list[Output]:
        """Make the tenant and its data key if they are new."""
        outputs: list[Output] = []
        if command.tenant not in self._configuration.tenants:
            tenant = Tenant(command.tenant, created_at=now)
            self._configuration.tenants[tenant.id] = tenant
            created = TenantCreated(command.command_id, tenant.id, command.actor, now)
            outputs += [self._change(created, cause), self._directory(tenant.id, "tenant", tenant, cause)]
        if self._configuration.keyring.of_tenant(command.tenant) is None:
            key = new_data_key(self._context.vault, f"dk_{command.command_id}", command.tenant, now)
            self._configuration.keyring.put(key)
            outputs.append(self._directory(command.tenant, "data_key", key, cause))
        return outputs

    def _resealed(self, command: CreateEndpoint, clear: str) -> CreateEndpoint:
        """Seal the secret with the tenant's data key instead of the command key."""
        keyring = self._configuration.keyring
        key = keyring.of_tenant(command.tenant)
        assert key is not None
        sealed = keyring.seal(key.id, (command.tenant, command.endpoint_id), command.secret, clear)
        return replace(command, secret=sealed)

    def _change(self, fact: Fact, cause: bytes) -> Output:
        return self._output("changes", fact.tenant, fact.tenant, fact, cause)

    def _directory(self, tenant: str, kind: str, value: Tenant | DataKey, cause: bytes) -> Output:
        return self._output("directory", tenant, f"{kind}:{value.id}", value, cause)

    def _snapshot(self, endpoint: Endpoint | None, fact: EndpointFact, cause: bytes) -> Output:
        changed = evolve(endpoint, fact)
        self._configuration.put(changed)
        return self._output("endpoints", changed.tenant, changed.id, changed, cause)

    def _output(self, topic: str, tenant: str, key: str, value: object, cause: bytes) -> Output:
        partition = partition_of(tenant, self._partitions)
        return Output(
            topic, partition, key.encode(), self._context.codec.encode(value), {headers.CAUSE: cause}
        )

    def _invalid(self, record: Record, detail: str) -> Output:
        return invalid_output(self._context.codec, record, "undecodable", detail, self._context.clock.now())

    def close(self) -> None:
        """Leave the group."""
        self._inputs.consumer.close()


def run(context: Context, stop: Event, ready: Ready) -> None:
    """Run until `stop` is set."""
    control = Control(context)
    ready()
    while not stop.is_set():
        control.step(0.05)
    control.close()
