"""Metrics of trouble: views that are not fresh, secrets that do not open."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from engine.core.change import SealedSecret
from engine.runtime.configuration.fresh import Freshness
from engine.runtime.configuration.vault import COMMAND_KEY_ID, AesVault, Keyring, new_data_key
from engine.runtime.memory import MemoryLog
from tests.pipeline.world import ManualClock

VAULT, OTHER = AesVault(bytes(32)), AesVault(bytes([1]) * 32)
SECRET = SealedSecret(1, "dk", b"", b"")


def failures(sealed: str) -> float:
    """How often something of a kind did not open."""
    return REGISTRY.get_sample_value("hooklog_decrypt_failures_total", {"sealed": sealed}) or 0


def test_a_data_key_of_another_master_key_is_noticed_before_a_delivery_needs_it() -> None:
    """When the view has it; one that opens is no trouble."""
    before = failures("data_key")
    Keyring(VAULT).put(new_data_key(VAULT, "dk", "acme", 1))
    assert failures("data_key") == before
    Keyring(VAULT).put(new_data_key(OTHER, "dk", "acme", 1))
    assert failures("data_key") == before + 1


def test_a_secret_that_does_not_open_is_counted() -> None:
    """At another place than its own, and a command's that another master key has sealed."""
    keyring = Keyring(VAULT)
    keyring.put(new_data_key(VAULT, "dk", "acme", 1))
    sealed = keyring.seal("dk", ("acme", "ep_1"), SECRET, "clear")
    before = failures("secret"), failures("command")
    assert keyring.open("acme", "ep_1", sealed) == "clear"
    with pytest.raises(ValueError, match="ep_2"):
        keyring.open("acme", "ep_2", sealed)
    foreign = Keyring(OTHER).seal(COMMAND_KEY_ID, ("new", "ep_1"), SECRET, "clear")
    with pytest.raises(ValueError, match="ep_1"):
        keyring.open_command("new", "ep_1", foreign)
    assert (failures("secret"), failures("command")) == (before[0] + 1, before[1] + 1)


def test_a_views_age_grows_until_it_is_known_to_be_complete() -> None:
    """By its partition that has been so for longest; before the first answer, since it was begun."""
    clock = ManualClock()
    reached = {("endpoints", 0): 0, ("endpoints", 1): 0}
    fresh = Freshness(MemoryLog(2, clock), clock, "endpoints", reached.__getitem__)
    fresh.ask()
    clock.us += 3_000_000
    assert fresh.age_s() == 3
    fresh.ask()
    assert fresh.age_s() == 0
    reached["endpoints", 1] = -1
    clock.us += 7_000_000
    fresh.ask()
    assert fresh.age_s() == float("inf")
    fresh.stop()
