"""The audit trail: every fact of `changes` is a readable row, and none tells a secret."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass

import pytest

from engine.core import change as c
from engine.core import directory as d
from engine.core.change import FactBase
from engine.ports import Record
from engine.runtime.history.rows import COLUMNS
from engine.runtime.history.trail import change_rows
from tests.schemas.samples import SAMPLES

FACTS = [sample for sample in SAMPLES if isinstance(sample, FactBase)]
AT = 1_767_225_600_123_456
WHO = ("cmd_1", "acme", "hl_1", AT)
SECRET = c.SealedSecret(2, "key_1", b"CANARY-nonce", b"CANARY-sealed", AT, 0)
SETTINGS = c.EndpointSettings(url="https://a.example.com/in", headers={"Authorization": "CANARY-header"})


def row(fact: FactBase) -> dict[str, object]:
    """The row of a fact, by column."""
    record = Record("changes", 3, 12, AT, None, b"", {})
    (values,) = change_rows(record, fact)["changes"]
    return dict(zip(COLUMNS["changes"], values, strict=True))


@pytest.mark.parametrize(
    ("fact", "subject", "subject_id", "change"),
    [
        (c.EndpointCreated(*WHO, "ep_1", 1, SETTINGS, True, SECRET), "endpoint", "ep_1", "created"),
        (c.SecretRotated(*WHO, "ep_1", 2, SECRET, 0), "endpoint", "ep_1", "secret_rotated"),
        (c.EndpointDisabled(*WHO, "ep_1", 2, "gone"), "endpoint", "ep_1", "disabled"),
        (c.CommandRejected(*WHO, "ep_1", "EnableEndpoint", "no"), "endpoint", "ep_1", "command_rejected"),
        (c.CommandRejected(*WHO, "", "CancelReplay", "no"), "command", "cmd_1", "rejected"),
        (d.TenantCreated(*WHO, "Acme Inc."), "tenant", "acme", "created"),
        (d.KeyCreated(*WHO, "k1", ("read",), b"CANARY", "", AT), "key", "k1", "created"),
        (d.EventTypePut(*WHO, "room.ended", "", "", ""), "event_type", "room.ended", "put"),
        (d.DataKeyRewrapped(*WHO, "dk1", "mk2"), "data_key", "dk1", "rewrapped"),
    ],
)
def test_a_fact_says_what_happened_to_what(
    fact: FactBase, subject: str, subject_id: str, change: str
) -> None:
    """Subject, its id and the change come from the fact's own name and fields."""
    found = row(fact)
    assert (found["subject"], found["subject_id"], found["change"]) == (subject, subject_id, change)
    assert (found["tenant"], found["actor"], found["at"], found["command_id"]) == (
        *("acme", "hl_1", AT // 1000),
        "cmd_1",
    )
    assert (found["log_partition"], found["log_offset"]) == (3, 12)


def test_details_are_readable_and_without_secrets() -> None:
    """Settings and times are in words; sealed bytes, digests and header values are not there at all."""
    created = str(row(c.EndpointCreated(*WHO, "ep_1", 1, SETTINGS, True, SECRET))["details"])
    details = json.loads(created)
    assert details["settings"]["url"] == SETTINGS.url
    assert details["settings"]["headers"] == ["Authorization"]
    assert details["secret"] == {
        "version": 2,
        "data_key_id": "key_1",
        "effective_at": "2026-01-01T00:00:00.123456Z",
        "expires_at": None,
    }
    key = str(row(d.KeyCreated(*WHO, "k1", ("read",), b"CANARY", "ci", AT))["details"])
    assert json.loads(key) == {
        **{"scopes": ["read"], "description": "ci", "expires_at": "2026-01-01T00:00:00.123456Z"}
    }
    assert "CANARY" not in created + key


def bytes_in(value: object) -> list[bytes]:
    """Every bytes value, at any depth."""
    if isinstance(value, bytes):
        return [value]
    if is_dataclass(value):
        return [found for f in fields(value) for found in bytes_in(getattr(value, f.name))]
    return [found for item in value for found in bytes_in(item)] if isinstance(value, tuple) else []


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_every_kind_of_fact_is_a_row_without_bytes(fact: FactBase) -> None:
    """Whatever is added to the log's vocabulary shows, and nothing that was bytes does."""
    found = row(fact)
    assert found["subject"]
    assert found["change"]
    assert isinstance(json.loads(str(found["details"])), dict)
    hidden = bytes_in(fact)
    assert not any(text in str(found["details"]) for raw in hidden for text in (str(raw), raw.hex()))
