"""Codes of rejections: what a program tells them apart by."""

from __future__ import annotations

from typing import get_args

import pytest

from engine.api.control import STATUS_BY_CODE, rejected
from engine.core import directory_rules
from engine.core import endpoint as rules
from engine.core.change import (
    Command,
    CommandRejected,
    CreateEndpoint,
    DeleteEndpoint,
    DisableEndpoint,
    EnableEndpoint,
    EndpointSettings,
    EndpointUpdated,
    RejectionCode,
    RotateSecret,
    SealedSecret,
    UpdateEndpoint,
)
from engine.core.directory import CreateTenant, DirectoryCommand, RevokeKey, Tenant
from engine.core.endpoint import Endpoint

BY = ("cmd", "acme", "hl_1", 5)
WHO = (*BY, "ep_1")
SETTINGS = EndpointSettings("https://hooks.example.com/in")
SECRET = SealedSecret(1, "key", b"nonce", b"sealed")
THERE = Endpoint("ep_1", "acme", SETTINGS, version=7, secrets=(SECRET,))
FULL = Endpoint("ep_1", "acme", SETTINGS, version=7, secrets=(SECRET,) * rules.SECRETS_MAX)
KNOWN = directory_rules.Directory({"acme": Tenant("acme"), "gone": Tenant("gone", deleted=True)}, {}, {}, {})


@pytest.mark.parametrize(
    ("endpoint", "command", "code"),
    [
        (None, DeleteEndpoint(*WHO), "not_found"),
        (THERE, EnableEndpoint(*WHO), "already"),
        (THERE, EnableEndpoint(*WHO, 6), "already"),
        (THERE, DisableEndpoint(*WHO, "r", None, 6), "conflict"),
        (THERE, DisableEndpoint(*WHO, "r", 9, 7), "conflict"),
        (THERE, UpdateEndpoint(*WHO, ("url",), SETTINGS, 6), "conflict"),
        (THERE, UpdateEndpoint(*WHO, ("shoe_size",), SETTINGS, 6), "invalid"),
        (FULL, RotateSecret(*WHO, SECRET, 0), "too_often"),
    ],
)
def test_a_rejected_command_about_an_endpoint_says_why_by_a_code(
    endpoint: Endpoint | None, command: Command, code: RejectionCode
) -> None:
    """Beside the words, which may change."""
    fact = rules.decide(endpoint, command, 9)
    assert isinstance(fact, CommandRejected)
    assert fact.code == code


@pytest.mark.parametrize(("count", "refused"), [(0, False), (9, False), (10, True), (75_000, True)])
def test_a_tenant_has_so_many_endpoints_and_no_more(count: int, *, refused: bool) -> None:
    """The words name the tenant, the limit and the setting."""
    refusal = rules.too_many(CreateEndpoint(*WHO, SETTINGS, True, SECRET), count, 10)
    assert (refusal is not None) == refused
    if refusal is not None:
        assert refusal.code == "too_many"
        for word in ("'acme'", f"{count} endpoints", "10 is the most", "HOOKLOG_TENANT_ENDPOINTS_MAX"):
            assert word in refusal.reason


def test_an_endpoint_that_was_off_is_enabled_only_in_the_version_expected() -> None:
    """Otherwise somebody has changed it meanwhile."""
    off = Endpoint("ep_1", "acme", SETTINGS, enabled=False, version=7)
    late = rules.decide(off, EnableEndpoint(*WHO, 6), 9)
    assert isinstance(late, CommandRejected)
    assert late.code == "conflict"
    assert not isinstance(rules.decide(off, EnableEndpoint(*WHO, 7), 9), CommandRejected)


@pytest.mark.parametrize("expected", [None, 7])
def test_an_update_of_the_version_expected_is_made(expected: int | None) -> None:
    """Or of any, where none is named: as commands of an older hooklog."""
    fact = rules.decide(THERE, UpdateEndpoint(*WHO, ("url",), SETTINGS, expected), 9)
    assert isinstance(fact, EndpointUpdated)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (CreateTenant(*BY, "Acme"), "exists"),
        (CreateTenant("cmd", "gone", "hl_1", 5, ""), "deleted"),
        (RevokeKey(*BY, "k9"), "not_found"),
    ],
)
def test_a_rejected_command_about_the_directory_says_why_by_a_code(
    command: DirectoryCommand, code: RejectionCode
) -> None:
    """Beside the words, which may change."""
    fact = directory_rules.decide(KNOWN, command, 9)
    assert isinstance(fact, CommandRejected)
    assert fact.code == code


def test_every_code_has_a_status_and_an_unknown_one_is_a_conflict() -> None:
    """A code that is added without a status is seen here; an older record has none."""
    assert set(STATUS_BY_CODE) == set(get_args(RejectionCode))
    unknown = {"": 409, "of_a_newer_one": 409}
    for code, status in [*STATUS_BY_CODE.items(), *unknown.items()]:
        answered = rejected(CommandRejected(*BY, "ep_1", "DeleteEndpoint", "does not exist", code))
        assert (answered.status_code, answered.detail, answered.code) == (status, "does not exist", code)
