"""The directory's rules: what a command leads to, and that facts fold, whatever the history."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.change import CommandRejected, EndpointSettings, SealedSecret
from engine.core.directory import (
    ApiKey,
    CreateKey,
    CreateTenant,
    DataKey,
    DataKeyRewrapped,
    DeleteEventType,
    DeleteTenant,
    DirectoryCommand,
    DirectoryFact,
    EntryKind,
    EventType,
    EventTypeDeleted,
    EventTypePut,
    KeyCreated,
    KeyRevoked,
    PutEventType,
    RevokeKey,
    RewrapDataKey,
    Tenant,
    TenantCreated,
    TenantDeleted,
    directory_key,
    parse_directory_key,
)
from engine.core.directory_rules import Directory, decide, ending, event_type_after, key_after, tenant_after
from engine.core.endpoint import Endpoint

BY = ("cmd_1", "acme", "hl_1", 5)
"""Command id, tenant, actor, when it was asked for."""
FACT = ("cmd_1", "acme", "hl_1", 9)
PLATFORM = ("cmd_1", "", "hl_1", 5)
ACME, GONE = Tenant("acme", "Acme", 1), Tenant("gone", "Gone", 1, deleted=True)
KEY = ApiKey("k1", "acme", ("read",), b"digest", "for tests", 0, 1)
PLATFORMS = ApiKey("k2", "", ("admin",), b"digest", "", 0, 1)
DATA_KEY = DataKey("dk_1", "acme", "master_1", b"nonce", b"wrapped", 1)
ROOM = EventType("room.ended", "A room ended", "{}", "{}", 1)
NOW = Directory(
    {"acme": ACME, "gone": GONE},
    {"k1": KEY, "k2": PLATFORMS, "k3": replace(KEY, id="k3", revoked_at=2)},
    {"room.ended": ROOM},
    {"dk_1": DATA_KEY},
)
CREATE_KEY = CreateKey(*BY, "k9", ("read",), b"digest", "for tests", 77)
PUT = PutEventType(*PLATFORM, "room.ended", "new", "{}", "")
REWRAP = RewrapDataKey(*BY, "master_1", replace(DATA_KEY, master_key_id="master_2", wrapped=b"again"))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (CreateTenant("c", "new", "a", 5, "New"), TenantCreated("c", "new", "a", 9, "New")),
        (CreateTenant(*BY, "Acme"), "tenant 'acme' exists already"),
        (CreateTenant("c", "gone", "a", 5, "Again"), "tenant 'gone' was deleted"),
        (DeleteTenant(*BY), TenantDeleted(*FACT)),
        (DeleteTenant("c", "gone", "a", 5), "tenant 'gone' does not exist"),
        (DeleteTenant("c", "nobody", "a", 5), "tenant 'nobody' does not exist"),
        (DeleteTenant(*PLATFORM), "does not exist"),
        (CREATE_KEY, KeyCreated(*FACT, "k9", ("read",), b"digest", "for tests", 77)),
        (replace(CREATE_KEY, key_id="k1"), "API key 'k1' exists already"),
        (replace(CREATE_KEY, tenant="gone"), "tenant 'gone' does not exist"),
        (replace(CREATE_KEY, tenant="nobody"), "tenant 'nobody' does not exist"),
        (
            replace(CREATE_KEY, tenant=""),
            KeyCreated("cmd_1", "", "hl_1", 9, "k9", ("read",), b"digest", "for tests", 77),
        ),
        (RevokeKey(*BY, "k1"), KeyRevoked(*FACT, "k1")),
        (RevokeKey(*PLATFORM, "k2"), KeyRevoked("cmd_1", "", "hl_1", 9, "k2")),
        (RevokeKey(*BY, "k2"), "API key 'k2' does not exist"),
        (RevokeKey(*BY, "k3"), "API key 'k3' does not exist"),
        (RevokeKey(*BY, "k9"), "API key 'k9' does not exist"),
        (PUT, EventTypePut("cmd_1", "", "hl_1", 9, "room.ended", "new", "{}", "")),
        (DeleteEventType(*PLATFORM, "room.ended"), EventTypeDeleted("cmd_1", "", "hl_1", 9, "room.ended")),
        (DeleteEventType(*PLATFORM, "room.begun"), "event type 'room.begun' does not exist"),
        (REWRAP, DataKeyRewrapped(*FACT, "dk_1", "master_2")),
        (replace(REWRAP, expected_master_key_id="master_0"), "data key 'dk_1' has changed since"),
        (replace(REWRAP, data_key=replace(DATA_KEY, id="dk_9")), "data key 'dk_9' does not exist"),
        (replace(REWRAP, tenant="gone"), "tenant 'gone' does not exist"),
    ],
)
def test_what_a_command_leads_to(command: DirectoryCommand, expected: DirectoryFact | str) -> None:
    """One fact, or a rejection that says why."""
    fact = decide(NOW, command, 9)
    if isinstance(expected, str):
        assert isinstance(fact, CommandRejected)
        assert expected in fact.reason
        assert (fact.command, fact.tenant, fact.actor) == (
            type(command).__name__,
            command.tenant,
            command.actor,
        )
    else:
        assert fact == expected


def test_a_tenant_takes_its_endpoints_and_keys_along() -> None:
    """Its valid ones, each by a fact under the same command; what ended before is not told twice."""
    secret = SealedSecret(1, "dk_1", b"nonce", b"sealed")
    endpoint = Endpoint("ep_1", "acme", EndpointSettings("https://a.example"), version=3, secrets=(secret,))
    deleted = replace(endpoint, id="ep_2", deleted=True)
    facts = ending(NOW, [endpoint, deleted], DeleteTenant(*BY), 9)
    assert [
        (type(fact).__name__, getattr(fact, "endpoint_id", "") or getattr(fact, "key_id", ""))
        for fact in facts
    ] == [
        ("EndpointDeleted", "ep_1"),
        ("KeyRevoked", "k1"),
    ]
    assert {(fact.command_id, fact.actor, fact.at) for fact in facts} == {("cmd_1", "hl_1", 9)}


def test_a_revoked_key_keeps_no_digest() -> None:
    """Nothing can be compared with it any more; revoked again, it stays as it is."""
    revoked = key_after(KEY, KeyRevoked(*FACT, "k1"))
    assert revoked == replace(KEY, digest=b"", revoked_at=9)
    assert key_after(revoked, KeyRevoked(*FACT[:3], 20, "k1")) == revoked
    with pytest.raises(ValueError, match="'k9', which was never created"):
        key_after(None, KeyRevoked(*FACT, "k9"))


@dataclass
class Folded:
    """What facts add up to."""

    tenants: dict[str, Tenant] = field(default_factory=dict)
    keys: dict[str, ApiKey] = field(default_factory=dict)
    event_types: dict[str, EventType] = field(default_factory=dict)

    @property
    def directory(self) -> Directory:
        """As a decision sees it."""
        return Directory(self.tenants, self.keys, self.event_types, {})

    def fold(self, fact: DirectoryFact) -> None:
        """Take one in."""
        match fact:
            case TenantCreated() | TenantDeleted():
                self.tenants[fact.tenant] = tenant_after(self.tenants.get(fact.tenant), fact)
            case KeyCreated() | KeyRevoked():
                self.keys[fact.key_id] = key_after(self.keys.get(fact.key_id), fact)
            case EventTypePut():
                self.event_types[fact.name] = event_type_after(fact)
            case EventTypeDeleted():
                del self.event_types[fact.name]


TENANTS = st.sampled_from(("acme", "globex"))
IDS = st.sampled_from(("k1", "k2"))
commands = st.one_of(
    st.builds(CreateTenant, st.just("c"), TENANTS, st.just("a"), st.just(5), st.just("Name")),
    st.builds(DeleteTenant, st.just("c"), TENANTS, st.just("a"), st.just(5)),
    st.builds(
        CreateKey,
        *(st.just("c"), TENANTS | st.just(""), st.just("a"), st.just(5), IDS),
        *(st.just(("read",)), st.just(b"digest"), st.just(""), st.just(0)),
    ),
    st.builds(RevokeKey, st.just("c"), TENANTS | st.just(""), st.just("a"), st.just(5), IDS),
    st.builds(PutEventType, *map(st.just, (*PLATFORM, "room.ended", "", "", ""))),
    st.builds(DeleteEventType, *map(st.just, (*PLATFORM, "room.ended"))),
)


@given(st.lists(commands, max_size=40))
def test_any_history_folds(history: list[DirectoryCommand]) -> None:
    """No accepted command breaks the fold; once is as good as twice; the deleted and the revoked stay so."""
    folded = Folded()
    for now, command in enumerate(history, 10):
        before = replace(folded, tenants={**folded.tenants}, keys={**folded.keys})
        facts: list[DirectoryFact] = []
        fact = decide(folded.directory, command, now)
        if isinstance(fact, CommandRejected):
            continue
        if isinstance(command, DeleteTenant):
            facts = [
                each for each in ending(folded.directory, [], command, now) if isinstance(each, KeyRevoked)
            ]
        for each in (*facts, fact):
            folded.fold(each)
        assert isinstance(decide(folded.directory, command, now), CommandRejected) or isinstance(
            command, PutEventType
        )
        assert all(folded.tenants[id].deleted for id, tenant in before.tenants.items() if tenant.deleted)
        assert all(not folded.keys[id].digest for id, key in before.keys.items() if key.revoked_at)
    for key in folded.keys.values():
        assert key.revoked_at or not key.tenant or not folded.tenants[key.tenant].deleted


# -- keys ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "id", "key"),
    [
        ("tenant", "acme", "tenant:acme"),
        ("data_key", "dk_1", "data_key:dk_1"),
        ("api_key", "hl_1", "api_key:hl_1"),
        ("event_type", "room.ended", "event_type:room.ended"),
        ("event_type", "room:ended", "event_type:room:ended"),
        ("replay", "rpl_1", "replay:rpl_1"),
    ],
)
def test_keys(kind: EntryKind, id: str, key: str) -> None:
    """They stand on the log for ever; an id may hold a colon."""
    assert directory_key(kind, id) == key
    assert parse_directory_key(key) == (kind, id)


@pytest.mark.parametrize("key", ["", "ep_1", "endpoint:ep_1", ":acme", "Tenant:acme"])
def test_keys_of_no_kind(key: str) -> None:
    """What a newer hooklog keeps there is nothing here."""
    assert parse_directory_key(key) is None
