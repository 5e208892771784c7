"""The endpoint aggregate: any history folds, facts count once, and what is refused changes nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.change import (
    Command,
    CommandRejected,
    CreateEndpoint,
    DeleteEndpoint,
    DisableEndpoint,
    EnableEndpoint,
    EndpointCreated,
    EndpointDeleted,
    EndpointDisabled,
    EndpointEnabled,
    EndpointFact,
    EndpointSettings,
    EndpointUpdated,
    RotateSecret,
    SealedSecret,
    SecretRotated,
    UpdateEndpoint,
)
from engine.core.endpoint import (
    ALREADY,
    KEPT_US,
    ROTATES_AFTER_US,
    SECRETS_MAX,
    TOO_OFTEN,
    Endpoint,
    active_secrets,
    decide,
    evolve,
)

SETTINGS = EndpointSettings("https://example.com")
SECRET = SealedSecret(1, "key_1", b"nonce", b"sealed")
WHO = ("cmd_1", "acme", "hl_1", 5, "ep_1")
"""Command id, tenant, actor, time, endpoint."""

NEXT = replace(SECRET, version=0)
"""What a command brings: control says which version it becomes."""
CREATE = CreateEndpoint(*WHO, SETTINGS, True, SECRET)
UPDATE = UpdateEndpoint(*WHO, ("url",), EndpointSettings("https://other.example.com", description="ignored"))
NEW = Endpoint("ep_1", "acme", SETTINGS, version=1, secrets=(SECRET,), created_at=9, updated_at=9)
OFF = replace(NEW, enabled=False, disabled_reason="by hand", epoch=1, version=2)
GONE = replace(NEW, deleted=True, enabled=False, secrets=(), epoch=1, version=2)


commands = st.one_of(
    st.builds(CreateEndpoint, *map(st.just, WHO), st.just(SETTINGS), st.booleans(), st.just(SECRET)),
    st.just(UPDATE),
    st.just(EnableEndpoint(*WHO)),
    st.builds(DisableEndpoint, *map(st.just, WHO), st.just("by hand"), st.none() | st.integers(0, 4)),
    st.just(DeleteEndpoint(*WHO)),
    st.builds(RotateSecret, *map(st.just, WHO), st.just(NEXT), st.integers(0, 2 * ROTATES_AFTER_US)),
)
histories = st.lists(commands, max_size=30)


def happened(history: list[Command]) -> list[EndpointFact]:
    """Facts that a history of commands leads to."""
    endpoint, facts = None, []
    for now, command in enumerate(history, 100):
        fact = decide(endpoint, command, now)
        if not isinstance(fact, CommandRejected):
            facts.append(fact)
            endpoint = evolve(endpoint, fact)
    return facts


def fold(facts: list[EndpointFact]) -> Endpoint | None:
    """The snapshot that facts add up to."""
    endpoint = None
    for fact in facts:
        endpoint = evolve(endpoint, fact)
    return endpoint


# -- commands ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "command", "expected"),
    [
        (None, CREATE, EndpointCreated("cmd_1", "acme", "hl_1", 9, "ep_1", 1, SETTINGS, True, SECRET)),
        (NEW, EnableEndpoint(*WHO), ALREADY),
        (NEW, DisableEndpoint(*WHO, "by hand"), EndpointDisabled(*WHO[:3], 9, "ep_1", 2, "by hand")),
        (NEW, DisableEndpoint(*WHO, "gone", 0), EndpointDisabled(*WHO[:3], 9, "ep_1", 2, "gone")),
        (NEW, DisableEndpoint(*WHO, "gone", 1), "changed since"),
        (NEW, DisableEndpoint(*WHO, "gone", None, 1), EndpointDisabled(*WHO[:3], 9, "ep_1", 2, "gone")),
        (NEW, DisableEndpoint(*WHO, "gone", 0, 1), EndpointDisabled(*WHO[:3], 9, "ep_1", 2, "gone")),
        (NEW, DisableEndpoint(*WHO, "gone", None, 0), "changed since"),
        (NEW, DisableEndpoint(*WHO, "gone", 0, 2), "changed since"),
        (NEW, DisableEndpoint(*WHO, "gone", 1, 1), "changed since"),
        (OFF, DisableEndpoint(*WHO, "gone", None, 1), ALREADY),
        (NEW, DeleteEndpoint(*WHO), EndpointDeleted(*WHO[:3], 9, "ep_1", 2)),
        (NEW, CREATE, "exists already"),
        (OFF, EnableEndpoint(*WHO), EndpointEnabled(*WHO[:3], 9, "ep_1", 3)),
        (OFF, DisableEndpoint(*WHO, "again"), ALREADY),
        (OFF, DeleteEndpoint(*WHO), EndpointDeleted(*WHO[:3], 9, "ep_1", 3)),
        (GONE, CREATE, "exists already"),
        *(
            (endpoint, command, "does not exist")
            for endpoint in (None, GONE)
            for command in (
                UPDATE,
                EnableEndpoint(*WHO),
                DisableEndpoint(*WHO, "by hand"),
                DeleteEndpoint(*WHO),
                RotateSecret(*WHO, NEXT, 0),
            )
        ),
    ],
)
def test_what_a_command_leads_to(
    endpoint: Endpoint | None, command: Command, expected: EndpointFact | str
) -> None:
    """One fact with the next version, or a rejection that says why."""
    fact = decide(endpoint, command, 9)
    if isinstance(expected, str):
        assert isinstance(fact, CommandRejected)
        assert expected in fact.reason
        assert fact.command == type(command).__name__
        assert (fact.command_id, fact.tenant, fact.actor, fact.endpoint_id) == (
            "cmd_1",
            "acme",
            "hl_1",
            "ep_1",
        )
    else:
        assert fact == expected


def test_an_update_changes_what_it_names() -> None:
    """The other settings in the command are ignored; the fact holds all of them afterwards."""
    fact = decide(NEW, UPDATE, 9)
    assert isinstance(fact, EndpointUpdated)
    assert fact.fields == ("url",)
    assert fact.settings == replace(SETTINGS, url="https://other.example.com")
    assert evolve(NEW, fact) == replace(NEW, settings=fact.settings, version=2, updated_at=9)


@pytest.mark.parametrize(
    "command",
    [
        UPDATE,
        EnableEndpoint(*WHO),
        DisableEndpoint(*WHO, "by hand"),
        DeleteEndpoint(*WHO),
        RotateSecret(*WHO, NEXT, 0),
    ],
)
@pytest.mark.parametrize("endpoint", [NEW, OFF])
def test_another_tenants_endpoint_does_not_exist(endpoint: Endpoint, command: Any) -> None:
    """The answer is the same as for one that nobody ever made: nothing is given away."""
    theirs, nobodys = (decide(e, replace(command, tenant="globex"), 9) for e in (endpoint, None))
    assert theirs == nobodys
    assert isinstance(theirs, CommandRejected)


@pytest.mark.parametrize("enabled", [True, False])
def test_an_endpoint_may_start_disabled(*, enabled: bool) -> None:
    """It is created as asked for, in epoch 0, with its one secret."""
    fact = decide(None, replace(CREATE, enabled=enabled), 9)
    assert not isinstance(fact, CommandRejected)
    assert evolve(None, fact) == replace(NEW, enabled=enabled)


# -- facts ------------------------------------------------------------------------------


def test_disabling_and_enabling() -> None:
    """A disable raises the epoch and says why; an enable clears the reason and keeps the epoch."""
    disabled = evolve(NEW, EndpointDisabled(*WHO[:3], 20, "ep_1", 2, "gone"))
    assert disabled == replace(NEW, enabled=False, disabled_reason="gone", epoch=1, version=2, updated_at=20)
    enabled = evolve(disabled, EndpointEnabled(*WHO[:3], 30, "ep_1", 3))
    assert enabled == replace(NEW, epoch=1, version=3, updated_at=30)


def test_a_deleted_endpoint_has_no_secrets() -> None:
    """Its snapshot stays for a while, without them, and nothing is delivered in its epoch any more."""
    deleted = evolve(NEW, EndpointDeleted(*WHO[:3], 20, "ep_1", 2))
    assert deleted == replace(GONE, updated_at=20)


def test_a_fact_about_nothing_is_an_error() -> None:
    """A log that begins in the middle must not be folded in silence."""
    with pytest.raises(ValueError, match="'ep_1', which was never created"):
        evolve(None, EndpointDeleted(*WHO[:3], 20, "ep_1", 2))


@given(histories)
def test_any_history_folds(history: list[Command]) -> None:
    """Whatever is asked in whatever order: facts are numbered 1, 2, 3… and the snapshot is their sum."""
    facts = happened(history)
    assert [fact.version for fact in facts] == list(range(1, len(facts) + 1))
    endpoint = fold(facts)
    assert (endpoint is None) == (not facts)
    if endpoint is not None:
        assert endpoint.version == len(facts)
        assert endpoint.updated_at == facts[-1].at
        assert not (endpoint.deleted and (endpoint.enabled or endpoint.secrets))
        assert endpoint.enabled <= (endpoint.disabled_reason == "")


@given(histories, st.data())
def test_facts_that_come_again_change_nothing(history: list[Command], data: st.DataObject) -> None:
    """At least once is enough: any fact folded before may come again at any later place."""
    facts = happened(history)
    again: list[EndpointFact] = []
    for number, fact in enumerate(facts, 1):
        again += [fact, *data.draw(st.lists(st.sampled_from(facts[:number]), max_size=3))]
    assert fold(again) == fold(facts)


@given(histories)
def test_the_epoch_only_grows(history: list[Command]) -> None:
    """By one at each disable and at the deletion, and at nothing else."""
    endpoint, epoch = None, 0
    for fact in happened(history):
        endpoint = evolve(endpoint, fact)
        epoch += isinstance(fact, EndpointDisabled | EndpointDeleted)
        assert endpoint.epoch == epoch


@given(histories)
def test_a_command_given_twice_is_as_given_once(history: list[Command]) -> None:
    """Only numbers, times and secrets differ: it is enabled or disabled all the same, in the same epoch."""
    once, twice = fold(happened(history)), fold(happened([c for c in history for _ in range(2)]))
    assert (once is None) == (twice is None)
    if once is not None and twice is not None:
        numbered = replace(twice, version=once.version, updated_at=once.updated_at)
        assert replace(numbered, created_at=once.created_at, secrets=once.secrets) == once


# -- secrets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "versions"),
    [(9, []), (10, [1]), (19, [1]), (20, [2, 1]), (29, [2, 1]), (30, [2]), (10**18, [2])],
)
def test_which_secrets_sign(now: int, versions: list[int]) -> None:
    """From `effective_at` on and before `expires_at`, the newest first; during an overlap both."""
    number = count(1)
    spans = ((10, 30), (20, 0), (2 * 10**18, 0))
    secrets = tuple(SealedSecret(next(number), "key", b"", b"", *span) for span in spans)
    assert [s.version for s in active_secrets(replace(NEW, secrets=secrets), now)] == versions


def test_an_unknown_setting_is_rejected() -> None:
    """A command that names no setting of an endpoint changes nothing and crashes nobody."""
    settings = EndpointSettings("https://example.com/")
    endpoint = Endpoint("ep", "acme", settings, version=1)
    command = UpdateEndpoint("c", "acme", "key", 0, "ep", ("url", "color"), settings)
    fact = decide(endpoint, command, 1)
    assert isinstance(fact, CommandRejected)
    assert fact.reason == "there is no setting color"


# -- rotation ---------------------------------------------------------------------------


def rotated(endpoint: Endpoint, now: int, overlap_us: int = 0) -> Endpoint:
    """The endpoint after a rotation."""
    fact = decide(endpoint, RotateSecret(*WHO, NEXT, overlap_us), now)
    assert isinstance(fact, SecretRotated)
    return evolve(endpoint, fact)


def versions(endpoint: Endpoint, now: int) -> list[int]:
    """Versions of the secrets that sign."""
    return [secret.version for secret in active_secrets(endpoint, now)]


def test_a_new_secret_takes_over_at_once_or_after_an_overlap() -> None:
    """Until `effective_at` the old one signs alone, then the new one; during an overlap both do."""
    now, at = 1_000, 1_000 + ROTATES_AFTER_US
    at_once, both = rotated(NEW, now), rotated(NEW, now, 500)
    assert at_once.version == NEW.version + 1
    assert [versions(at_once, t) for t in (now, at - 1, at, at + 1)] == [[1], [1], [2], [2]]
    assert [versions(both, t) for t in (at - 1, at, at + 499, at + 500)] == [[1], [2, 1], [2, 1], [2]]


def test_a_rotation_at_once_ends_every_old_secret() -> None:
    """A leaked one too that an earlier rotation had given a long overlap; a longer one lengthens nothing."""
    overlapping = rotated(NEW, 0, 10_000_000)
    assert versions(rotated(overlapping, 1_000_000), 1_000_000 + ROTATES_AFTER_US) == [3]
    longer = rotated(overlapping, 1_000_000, 90_000_000)
    assert versions(longer, 10_000_000 + ROTATES_AFTER_US) == [3, 2]


def test_a_clock_that_went_back_lets_no_old_secret_sign_again() -> None:
    """The newest secret takes over last."""
    again = rotated(rotated(NEW, 5_000_000), 1_000_000)
    assert again.secrets[-1].effective_at == again.secrets[-2].effective_at
    assert versions(again, 5_000_000 + ROTATES_AFTER_US) == [3]


def test_expired_secrets_go_and_versions_are_never_used_twice() -> None:
    """A minute after its end a secret is in no snapshot; the next one has a version of its own."""
    old = rotated(NEW, 1_000)
    late = rotated(old, 2_000 + ROTATES_AFTER_US + KEPT_US)
    assert [secret.version for secret in late.secrets] == [2, 3]


def test_rotating_again_and_again_is_bounded() -> None:
    """A snapshot holds so many secrets; when some have expired, it goes on."""
    endpoint = NEW
    for now in range(SECRETS_MAX - 1):
        endpoint = rotated(endpoint, now)
    refused = decide(endpoint, RotateSecret(*WHO, NEXT, 0), SECRETS_MAX)
    assert isinstance(refused, CommandRejected)
    assert refused.reason == TOO_OFTEN
    assert len(rotated(endpoint, KEPT_US + 2 * ROTATES_AFTER_US).secrets) == 2


@given(st.lists(st.tuples(st.integers(0, 100_000_000), st.integers(0, 100_000_000)), max_size=30))
def test_one_secret_always_signs(rotations: list[tuple[int, int]]) -> None:
    """Whatever was asked when: at every time from its creation on, and the newest once its time has come."""
    endpoint = NEW
    for now, overlap_us in rotations:
        fact = decide(endpoint, RotateSecret(*WHO, NEXT, overlap_us), now)
        if not isinstance(fact, CommandRejected):
            endpoint = evolve(endpoint, fact)
    newest = endpoint.secrets[-1]
    starts = {secret.effective_at for secret in endpoint.secrets} | {newest.effective_at}
    since = endpoint.secrets[0].effective_at
    assert all(versions(endpoint, at) for at in starts if at >= since)
    assert versions(endpoint, newest.effective_at)[0] == newest.version
