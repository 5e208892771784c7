"""Views: a fold of the compacted topics, followed from their beginning."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from engine.core.change import EndpointSettings, SealedSecret
from engine.core.directory import DataKey, Tenant
from engine.core.endpoint import Endpoint
from engine.core.model import RoutedBatch
from engine.ports import LogError, Output, Record
from engine.runtime.clock import SystemClock
from engine.runtime.configuration.vault import AesVault, Keyring, new_data_key
from engine.runtime.configuration.views import CONFIGURATION_TOPICS, Configuration, NewerRecordError, View
from engine.runtime.memory import MemoryLog
from schemas.codec import Codec, UndecodableError, UnknownSchemaError

CODEC = Codec()
VAULT = AesVault(bytes(32))
ENDPOINT = Endpoint("ep_1", "acme", EndpointSettings("https://example.com"), version=1)
PARTITIONS = 2

Kept = Endpoint | Tenant | DataKey


def record(value: bytes | None, key: bytes = b"ep_1", topic: str = "endpoints") -> Record:
    """A record of configuration."""
    return Record(topic, 0, 0, 0, key, value, {})


class Watched:
    """A configuration over a log in memory, and what it told of changes."""

    def __init__(self) -> None:
        self.log = MemoryLog(PARTITIONS, SystemClock())
        self.changed: list[Endpoint] = []
        self.configuration = Configuration(CODEC, Keyring(VAULT), self.changed.append)

    def view(self) -> View:
        """A view that has read nothing yet."""
        return View(self.log, CONFIGURATION_TOPICS, self.configuration.fold)

    def write(self, value: Kept, partition: int = 0) -> None:
        """Append a snapshot to its topic."""
        topic = "endpoints" if isinstance(value, Endpoint) else "directory"
        self.log.append(Output(topic, partition, value.id.encode(), CODEC.encode(value)))


def test_a_view_loads_what_is_there() -> None:
    """Endpoints, tenants and data keys, of every partition."""
    watched = Watched()
    key = new_data_key(VAULT, "key_1", "acme", 5)
    for value in (ENDPOINT, Tenant("acme", "Acme"), key):
        watched.write(value, partition=0)
    watched.write(replace(ENDPOINT, id="ep_2"), partition=1)
    view = watched.view()
    view.load()
    assert set(watched.configuration.endpoints) == {"ep_1", "ep_2"}
    assert watched.configuration.tenants == {"acme": Tenant("acme", "Acme")}
    assert watched.configuration.keyring.of_tenant("acme") == key
    view.close()


def test_an_empty_log_is_loaded_at_once() -> None:
    """Nothing there is a view too."""
    view = Watched().view()
    view.load()
    assert view.advance() == 0


def test_a_view_follows() -> None:
    """What is appended later is folded once, and the positions say how far it got."""
    watched = Watched()
    watched.write(ENDPOINT)
    view = watched.view()
    assert view.position("endpoints", 0) == 0
    view.load()
    assert view.position("endpoints", 0) == 1
    watched.write(replace(ENDPOINT, version=2))
    watched.write(Tenant("acme"), partition=1)
    assert view.advance() == 2
    assert view.advance() == 0
    assert view.offsets == {
        ("directory", 0): 0,
        ("directory", 1): 1,
        ("endpoints", 0): 2,
        ("endpoints", 1): 0,
    }
    assert [endpoint.version for endpoint in watched.changed] == [1, 2]


def test_an_unknown_partition_has_no_position() -> None:
    """Asking for one is a mistake, not position 0."""
    with pytest.raises(KeyError):
        Watched().view().position("endpoints", PARTITIONS)


def test_what_a_newer_hooklog_wrote_is_not_passed_over() -> None:
    """It halts with what to do, is counted, and the position stays before it."""
    watched = Watched()
    watched.log.append(Output("endpoints", 0, b"ep_1", b"\xc3\x01" + bytes(8)))
    view = watched.view()
    sample = partial(REGISTRY.get_sample_value, "hooklog_unknown_schema_records_total", {"group": "view"})
    before = sample() or 0
    with pytest.raises(NewerRecordError, match=r"endpoints/0 offset 0: .* newer hooklog .* upgrade"):
        view.load()
    assert view.position("endpoints", 0) == 0
    assert sample() == before + 1


def test_a_record_that_cannot_be_folded_is_not_passed_over() -> None:
    """On our own topics nothing is skipped: it raises, and the position stays before it."""
    watched = Watched()
    watched.log.append(Output("endpoints", 0, b"ep_1", b"noise"))
    view = watched.view()
    with pytest.raises(UndecodableError):
        view.load()
    assert view.position("endpoints", 0) == 0


def test_a_view_that_never_gets_there() -> None:
    """A topic that grows as fast as it is read: an error that says so, not for ever."""
    log = MemoryLog(PARTITIONS, SystemClock())
    more = Output("endpoints", 0, b"ep_1", b"")
    log.append(more)

    def grow(_: Record) -> None:
        log.append(more)

    view = View(log, ("endpoints",), grow)
    with pytest.raises(LogError, match=r"not ready after 0\.05 s"):
        view.load(limit_s=0.05)


def test_a_tombstone_forgets() -> None:
    """And of what was never known it is nothing."""
    watched = Watched()
    watched.configuration.fold(record(CODEC.encode(ENDPOINT)))
    watched.configuration.fold(record(None))
    watched.configuration.fold(record(None, b"ep_9"))
    assert watched.configuration.endpoints == {}


@pytest.mark.parametrize("key", ["tenant:ep_1", "data_key:ep_1", "ep_1", "endpoint:ep_1", "other:ep_1"])
def test_a_tombstone_forgets_its_own_kind(key: str) -> None:
    """A tenant and a data key of the same id as an endpoint: only the one that is named goes."""
    watched = Watched()
    configuration = watched.configuration
    configuration.fold(record(CODEC.encode(ENDPOINT)))
    configuration.fold(record(CODEC.encode(Tenant("ep_1")), b"tenant:ep_1", "directory"))
    data_key = new_data_key(VAULT, "ep_1", "acme", 5)
    configuration.fold(record(CODEC.encode(data_key), b"data_key:ep_1", "directory"))
    configuration.fold(record(None, key.encode(), "directory"))
    assert ("ep_1" in configuration.tenants) == (key != "tenant:ep_1")
    assert (configuration.keyring.of_tenant("acme") is not None) == (key != "data_key:ep_1")
    assert configuration.endpoints == {"ep_1": ENDPOINT}
    assert watched.changed == [ENDPOINT]


def test_an_older_snapshot_never_overwrites() -> None:
    """Control may write a batch twice; the newer one stays, and nobody is told again."""
    watched = Watched()
    newer = replace(ENDPOINT, version=2, enabled=False)
    for endpoint in (ENDPOINT, newer, ENDPOINT):
        watched.configuration.fold(record(CODEC.encode(endpoint)))
    assert watched.configuration.endpoints == {"ep_1": newer}
    assert watched.changed == [ENDPOINT, newer]


@given(st.lists(st.tuples(st.sampled_from(["ep_1", "ep_2"]), st.integers(1, 9)), max_size=30))
def test_the_highest_version_counts(history: list[tuple[str, int]]) -> None:
    """In whatever order and however often snapshots come."""
    watched = Watched()
    for id, version in history:
        watched.configuration.put(replace(ENDPOINT, id=id, version=version))
    expected = {id: max(v for i, v in history if i == id) for id, _ in history}
    assert {id: e.version for id, e in watched.configuration.endpoints.items()} == expected


def test_a_deleted_endpoint_is_known_and_not_listed() -> None:
    """Deliveries of it are skipped as deleted; nobody is shown it."""
    watched = Watched()
    for endpoint in (ENDPOINT, replace(ENDPOINT, id="ep_2", deleted=True), replace(ENDPOINT, id="ep_3")):
        watched.configuration.put(endpoint)
    watched.configuration.put(replace(ENDPOINT, id="ep_4", tenant="globex"))
    assert set(watched.configuration.of_tenant("acme")) == {"ep_1", "ep_3"}
    assert set(watched.configuration.of_tenant("globex")) == {"ep_4"}
    assert watched.configuration.of_tenant("initech") == {}
    assert watched.configuration.endpoints["ep_2"].deleted


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (CODEC.encode(RoutedBatch(0, 0, 0)), TypeError),
        (b"", UndecodableError),
        (b"noise", UndecodableError),
        (b"\xc3\x01" + bytes(8), UnknownSchemaError),
    ],
)
def test_what_does_not_belong_there(value: bytes, error: type[Exception]) -> None:
    """Another record, or none: loud, because configuration must not be guessed."""
    with pytest.raises(error):
        Watched().configuration.fold(record(value))


def test_secrets_open_with_what_the_view_has_read() -> None:
    """The data key of `directory` opens the secret of `endpoints`."""
    watched = Watched()
    watched.write(new_data_key(VAULT, "key_1", "acme", 5))
    view = watched.view()
    view.load()
    keyring = watched.configuration.keyring
    sealed = keyring.seal("key_1", ("acme", "ep_1"), SealedSecret(1, "", b"", b""), "whsec_1")
    watched.write(replace(ENDPOINT, secrets=(sealed,)))
    view.advance()
    (secret,) = watched.configuration.endpoints["ep_1"].secrets
    assert keyring.open("acme", "ep_1", secret) == "whsec_1"
