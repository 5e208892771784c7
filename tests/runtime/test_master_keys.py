"""Several master keys: the first wraps, any that is known unwraps, and commands open under either."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from pydantic import SecretStr

from engine.runtime.configuration.vault import AesVault, Keyring, load_master_keys, new_data_key
from engine.runtime.settings import SettingsError
from tests.runtime.test_vault import DATA_KEY, ENCODED, MASTER, SECRET, TO_SEAL, VAULT, ring, settings

OTHER = bytes(reversed(MASTER))
BOTH = AesVault(OTHER, MASTER)


def test_a_vault_wraps_by_the_first_and_unwraps_by_any() -> None:
    """Which one a data key is under, it says itself."""
    assert BOTH.master_key_id == AesVault(OTHER).master_key_id != VAULT.master_key_id
    assert BOTH.unwrap("key_1", VAULT.wrap("key_1", DATA_KEY), VAULT.master_key_id) == DATA_KEY
    assert AesVault(OTHER).unwrap("key_1", BOTH.wrap("key_1", DATA_KEY), BOTH.master_key_id) == DATA_KEY
    assert repr(BOTH) == f"AesVault(master_key_id={BOTH.master_key_id!r})"


def test_a_rewrapped_data_key_is_the_same_under_another_master_key() -> None:
    """What it sealed opens; one that holds other bytes is not the same."""
    key = new_data_key(VAULT, "key_1", "acme", 5)
    sealed = ring(key).seal("key_1", ("acme", "ep_1"), TO_SEAL, SECRET)
    both = Keyring(BOTH)
    both.put(key)
    rewrapped = both.rewrapped(key)
    assert both.is_same(rewrapped)
    assert not both.is_same(new_data_key(BOTH, "key_1", "acme", 5))
    assert (rewrapped.id, rewrapped.tenant, rewrapped.created_at) == (key.id, key.tenant, key.created_at)
    new = Keyring(AesVault(OTHER))
    new.put(rewrapped)
    assert new.open("acme", "ep_1", sealed) == SECRET
    assert not ring(key).is_same(rewrapped)


def test_a_command_is_opened_by_whichever_key_sealed_it() -> None:
    """The tenant's data key, the command key, the previous command key; in its place, and nowhere else."""
    key = new_data_key(VAULT, "key_1", "acme", 5)
    by_data_key = ring(key).seal_command("acme", "ep_1", 0, SECRET)
    by_old, by_new = (Keyring(vault).seal_command("acme", "ep_1", 0, SECRET) for vault in (VAULT, BOTH))
    assert [each.data_key_id for each in (by_data_key, by_old, by_new)] == ["key_1", "command", "command"]
    opener = Keyring(BOTH)
    opener.put(key)
    for sealed in (by_data_key, by_old, by_new):
        assert opener.open_command("acme", "ep_1", sealed) == SECRET
        with pytest.raises(ValueError, match="cannot open"):
            opener.open_command("acme", "ep_2", sealed)
    with pytest.raises(ValueError, match="cannot open"):
        Keyring(VAULT).open_command("acme", "ep_1", by_new)


def test_the_previous_master_key_is_read_like_the_master_key(tmp_path: Path) -> None:
    """From its variable or its file; the message names which of the two is wrong."""
    second = base64.b64encode(OTHER).decode()
    (tmp_path / "old").write_text(second)
    both = (MASTER, OTHER)
    given = {"master_key": SecretStr(ENCODED)}
    assert load_master_keys(settings(**given, previous_master_key=SecretStr(second))) == both
    assert load_master_keys(settings(**given, previous_master_key_file=tmp_path / "old")) == both
    with pytest.raises(SettingsError, match=r"^HOOKLOG_PREVIOUS_MASTER_KEY: must be 32 bytes") as caught:
        load_master_keys(settings(**given, previous_master_key=SecretStr("c2hvcnQ=")))
    assert "c2hvcnQ" not in str(caught.value)
