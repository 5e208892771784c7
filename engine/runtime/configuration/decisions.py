"""Decisions: what a command leads to on `changes`, `endpoints` and `directory`.

The rules are in engine.core; here are the configuration they look at, the secrets, and the records.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import assert_never

from engine.core import directory_rules
from engine.core.change import (
    Command,
    CommandRejected,
    CreateEndpoint,
    EndpointCreated,
    EndpointDeleted,
    EndpointFact,
    EndpointUpdated,
    Refusal,
    RotateSecret,
    SecretRotated,
)
from engine.core.directory import (
    ApiKey,
    DataKey,
    DataKeyRewrapped,
    DeleteTenant,
    DirectoryCommand,
    DirectoryFact,
    EntryKind,
    EventType,
    EventTypeDeleted,
    EventTypePut,
    KeyCreated,
    KeyRevoked,
    RewrapDataKey,
    Tenant,
    TenantCreated,
    TenantDeleted,
    directory_key,
)
from engine.core.endpoint import Endpoint, decide, evolve, is_forgotten, reject, too_many
from engine.core.routing import partition_of
from engine.ports import Output
from engine.runtime import telemetry
from engine.runtime.configuration.vault import Keyring, new_data_key
from engine.runtime.configuration.views import Configuration
from engine.runtime.context import Context
from schemas import headers

UNSEALABLE = "its secret cannot be opened: do the API and control have the same master key?"
NOT_THE_SAME = "the data key cannot be opened, or is another one: does control have both master keys?"

ENDING_MAX = 1_000
"""Endpoints and keys of a deleted tenant that end in one transaction."""

_Sealing = EndpointCreated | EndpointUpdated | SecretRotated
"""Facts that carry what is sealed."""
_Entry = Tenant | DataKey | ApiKey | EventType
"""What control writes on `directory`."""


class Decisions:
    """The configuration as it stands, and what becomes of it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._partitions = context.log.partitions("commands")
        self._keyring = Keyring(context.vault)
        self._endpoints: defaultdict[str, set[str]] = defaultdict(set)
        """Ids of endpoints that are not deleted, by tenant: looking through all takes long."""
        self.configuration = Configuration(context.codec, self._keyring, self._count)

    def _count(self, endpoint: Endpoint) -> None:
        ids = self._endpoints[endpoint.tenant]
        (ids.discard if endpoint.deleted else ids.add)(endpoint.id)

    def settle(self) -> None:
        """Forget announcements that led to nothing: their commands come again."""
        for endpoint in list(self.configuration.endpoints.values()):
            if endpoint.rotating:
                self.configuration.put(replace(endpoint, rotating=False))

    # -- rotation --------------------------------------------------------------------------

    def announce(self, command: RotateSecret, cause: bytes) -> list[Output]:
        """Say that a new secret is being decided; nothing if there is no such endpoint."""
        endpoint = self.configuration.endpoints.get(command.endpoint_id)
        if endpoint is None or endpoint.deleted or endpoint.tenant != command.tenant:
            return []
        return [self._endpoint(replace(endpoint, rotating=True), cause)]

    def snapshot(self, endpoint_id: str, cause: bytes) -> Output:
        """Return an endpoint as it stands; it ends an announcement."""
        return self._endpoint(self.configuration.endpoints[endpoint_id], cause)

    # -- what is over ----------------------------------------------------------------------

    def tombstones(self, partitions: Collection[int], limit: int) -> list[Output]:
        """Forget endpoints of some partitions that were deleted long ago, at most so many at a time."""
        now, endpoints = self._context.clock.now(), self.configuration.endpoints
        over = (each for each in endpoints.values() if is_forgotten(each, now))
        here = (each for each in over if partition_of(each.tenant, self._partitions) in partitions)
        due = list(islice(here, limit))
        for endpoint in due:
            del endpoints[endpoint.id]
        return [_tombstone(partition_of(each.tenant, self._partitions), each) for each in due]

    # -- endpoints -------------------------------------------------------------------------

    def about_endpoint(self, command: Command, cause: bytes) -> list[Output]:
        """Decide a command about an endpoint."""
        now = self._context.clock.now()
        endpoint = self._known(command.endpoint_id)
        if isinstance(command, CreateEndpoint) and (refusal := self._not_created(command)):
            return self._decided(endpoint, reject(command, now, refusal), cause)
        fact = decide(endpoint, command, now)
        if not isinstance(fact, _Sealing):
            return self._decided(endpoint, fact, cause)
        try:
            clear, fact = self._opened(command, fact)
        except ValueError:
            return self._decided(endpoint, reject(command, now, Refusal("unopenable", UNSEALABLE)), cause)
        made = self._tenant(fact, cause)
        return made + self._decided(endpoint, self._sealed(fact, clear), cause)

    def _not_created(self, command: CreateEndpoint) -> Refusal | None:
        """Why its tenant gets no endpoint; None if it may. One that is there already is the rules' matter."""
        if ended := directory_rules.deleted_tenant(self.configuration.tenants, command.tenant):
            return ended
        ids = self._endpoints[command.tenant]
        is_there = command.endpoint_id in ids
        return None if is_there else too_many(command, len(ids), self._context.settings.tenant_endpoints_max)

    def _known(self, endpoint_id: str) -> Endpoint | None:
        """Return the endpoint; values of headers that an older hooklog left in the clear are sealed now."""
        known = self.configuration.endpoints.get(endpoint_id)
        key = None if known is None else self._keyring.of_tenant(known.tenant)
        if known is None or key is None:
            return known
        settings = self._keyring.seal_headers(key.id, (known.tenant, known.id), known.settings)
        return known if settings is known.settings else replace(known, settings=settings)

    def _opened(self, command: Command, fact: _Sealing) -> tuple[str, _Sealing]:
        """(the secret that a command brings, the fact with its header values in the clear); ValueError."""
        keyring, place, clear = self._keyring, (command.tenant, command.endpoint_id), ""
        if isinstance(command, CreateEndpoint | RotateSecret):
            clear = keyring.open_command(*place, command.secret)
        if isinstance(fact, SecretRotated):
            return clear, fact
        return clear, replace(fact, settings=keyring.open_command_headers(place, fact.settings))

    def _sealed(self, fact: _Sealing, clear: str) -> _Sealing:
        """Seal both by the tenant's data key."""
        keyring, place = self._keyring, (fact.tenant, fact.endpoint_id)
        key = keyring.of_tenant(fact.tenant)
        assert key is not None
        if not isinstance(fact, EndpointUpdated):
            fact = replace(fact, secret=keyring.seal(key.id, place, fact.secret, clear))
        if not isinstance(fact, SecretRotated):
            fact = replace(fact, settings=keyring.seal_headers(key.id, place, fact.settings))
        return fact

    def _tenant(self, fact: EndpointFact, cause: bytes) -> list[Output]:
        """Make the tenant and its data key if they are new."""
        outputs: list[Output] = []
        if fact.tenant not in self.configuration.tenants:
            created = TenantCreated(fact.command_id, fact.tenant, fact.actor, fact.at)
            outputs += self._listed(created, cause)
        return outputs + self._data_key(fact, cause)

    def _decided(
        self, endpoint: Endpoint | None, fact: EndpointFact | CommandRejected, cause: bytes
    ) -> list[Output]:
        if isinstance(fact, CommandRejected):
            return self._rejected(fact, cause)
        telemetry.COMMANDS.labels("accepted").inc()
        return self._happened(endpoint, fact, cause)

    def _rejected(self, fact: CommandRejected, cause: bytes) -> list[Output]:
        telemetry.COMMANDS.labels("rejected").inc()
        return [self._change(fact, cause)]

    def _happened(self, endpoint: Endpoint | None, fact: EndpointFact, cause: bytes) -> list[Output]:
        changed = evolve(endpoint, fact)
        self.configuration.put(changed)
        return [self._change(fact, cause), self._endpoint(changed, cause)]

    # -- the directory ---------------------------------------------------------------------

    def about_directory(self, command: DirectoryCommand, cause: bytes) -> list[Output]:
        """Decide a command about tenants, keys or event types."""
        now, known = self._context.clock.now(), self._directory
        fact = directory_rules.decide(known, command, now)
        if isinstance(command, RewrapDataKey) and isinstance(fact, DataKeyRewrapped):
            if self._keyring.is_same(command.data_key):
                self._keyring.put(replace(command.data_key, tenant=command.tenant))
            else:
                fact = directory_rules.reject(command, now, Refusal("unopenable", NOT_THE_SAME))
        if isinstance(fact, CommandRejected):
            return self._rejected(fact, cause)
        telemetry.COMMANDS.labels("accepted").inc()
        ended = self._endings(known, command, now) if isinstance(command, DeleteTenant) else []
        return self._over(ended, cause) + self._listed(fact, cause)

    @property
    def _directory(self) -> directory_rules.Directory:
        now = self.configuration
        return directory_rules.Directory(now.tenants, now.keys, now.event_types, self._keyring.data_keys)

    def ending(self, command: DeleteTenant, cause: bytes) -> Iterator[list[Output]]:
        """End what a tenant has, in parts that are whole each, until `ENDING_MAX` or fewer are left of it.

        Each part is for a transaction of its own, the first before the next is asked for: one transaction
        for a tenant of very many endpoints could exceed its time. Cut short it is taken up again: nothing
        but `TenantDeleted`, which comes with the rest, says that a command to delete a tenant was decided.
        """
        known, now = self._directory, self._context.clock.now()
        if isinstance(directory_rules.decide(known, command, now), CommandRejected):
            return
        facts = self._endings(known, command, now)
        for first in range(0, len(facts) - ENDING_MAX, ENDING_MAX):
            yield self._over(facts[first : first + ENDING_MAX], cause)

    def _endings(
        self, known: directory_rules.Directory, command: DeleteTenant, now: int
    ) -> list[EndpointDeleted | KeyRevoked]:
        return directory_rules.ending(
            known, self.configuration.of_tenant(command.tenant).values(), command, now
        )

    def _over(self, facts: Iterable[EndpointDeleted | KeyRevoked], cause: bytes) -> list[Output]:
        """End what a tenant had, before it: whoever reads its end knows that nothing of it is left."""
        outputs: list[Output] = []
        for fact in facts:
            if isinstance(fact, EndpointDeleted):
                outputs += self._happened(self.configuration.endpoints[fact.endpoint_id], fact, cause)
            else:
                outputs += self._listed(fact, cause)
        return outputs

    def _listed(self, fact: DirectoryFact, cause: bytes) -> list[Output]:
        """Write a fact and what stands on `directory` after it."""
        return [self._change(fact, cause), *self._records(fact, cause)]

    def _records(self, fact: DirectoryFact, cause: bytes) -> Iterable[Output]:
        now = self.configuration
        match fact:
            case TenantCreated() | TenantDeleted():
                tenant = directory_rules.tenant_after(now.tenants.get(fact.tenant), fact)
                now.tenants[tenant.id] = tenant
                keys = self._shredded(fact, cause) if tenant.deleted else self._data_key(fact, cause)
                return [*keys, self._entry(fact.tenant, "tenant", tenant.id, tenant, cause)]
            case KeyCreated() | KeyRevoked():
                key = directory_rules.key_after(now.keys.get(fact.key_id), fact)
                now.keys[key.id] = key
                return [self._entry(fact.tenant, "api_key", key.id, key, cause)]
            case EventTypePut():
                now.event_types[fact.name] = event_type = directory_rules.event_type_after(fact)
                return [self._entry(fact.tenant, "event_type", fact.name, event_type, cause)]
            case EventTypeDeleted():
                del now.event_types[fact.name]
                return [self._entry(fact.tenant, "event_type", fact.name, None, cause)]
            case DataKeyRewrapped():
                data_key = self._keyring.data_keys[fact.data_key_id]
                return [self._entry(fact.tenant, "data_key", data_key.id, data_key, cause)]
        assert_never(fact)

    def _shredded(self, fact: DirectoryFact, cause: bytes) -> list[Output]:
        """Take a tenant's data keys away: nothing that they sealed opens any more."""
        ids = [key.id for key in self._keyring.data_keys.values() if key.tenant == fact.tenant]
        for id in ids:
            self._keyring.forget(id)
        return [self._entry(fact.tenant, "data_key", id, None, cause) for id in ids]

    def _data_key(self, fact: EndpointFact | DirectoryFact, cause: bytes) -> list[Output]:
        """Make the tenant's data key if it has none, before the tenant: whoever sees that has the key."""
        if self._keyring.of_tenant(fact.tenant) is not None:
            return []
        key = new_data_key(self._context.vault, f"dk_{fact.command_id}", fact.tenant, fact.at)
        self._keyring.put(key)
        return [self._entry(fact.tenant, "data_key", key.id, key, cause)]

    # -- records ---------------------------------------------------------------------------

    def _change(self, fact: EndpointFact | DirectoryFact | CommandRejected, cause: bytes) -> Output:
        return self._output("changes", fact.tenant, fact.tenant, fact, cause)

    def _endpoint(self, endpoint: Endpoint, cause: bytes) -> Output:
        return self._output("endpoints", endpoint.tenant, endpoint.id, endpoint, cause)

    def _entry(self, tenant: str, kind: EntryKind, id: str, value: _Entry | None, cause: bytes) -> Output:
        return self._output("directory", tenant, directory_key(kind, id), value, cause)

    def _output(self, topic: str, tenant: str, key: str, value: object, cause: bytes) -> Output:
        """Build a record; without a value a tombstone. A tenant's records share a partition number."""
        encoded = None if value is None else self._context.codec.encode(value)
        return Output(
            topic, partition_of(tenant, self._partitions), key.encode(), encoded, {headers.CAUSE: cause}
        )


def _tombstone(partition: int, endpoint: Endpoint) -> Output:
    return Output("endpoints", partition, endpoint.id.encode(), None)
