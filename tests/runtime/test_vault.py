"""The vault: what is sealed opens in its place with its key, and nothing ever shows it otherwise."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from engine.core.change import EndpointSettings, SealedSecret
from engine.core.directory import DataKey
from engine.core.endpoint import Endpoint
from engine.ports import Sealed
from engine.runtime.configuration.vault import (
    COMMAND_KEY_ID,
    KEY_BYTES,
    AesVault,
    Keyring,
    load_master_keys,
    new_data_key,
    secret_context,
)
from engine.runtime.settings import Settings, SettingsError

MASTER = bytes(range(KEY_BYTES))
ENCODED = base64.b64encode(MASTER).decode()
SECRET = "whsec_canary"
VAULT = AesVault(MASTER)
DATA_KEY = b"d" * KEY_BYTES
PLACE = secret_context("acme", "ep_1", 1)


def flipped(sealed: Sealed, at: int) -> Sealed:
    """The same with one bit of nonce or ciphertext the other way round."""
    changed = bytearray(sealed.nonce + sealed.ciphertext)
    changed[at] ^= 1
    return Sealed(bytes(changed[: len(sealed.nonce)]), bytes(changed[len(sealed.nonce) :]))


# -- sealing ----------------------------------------------------------------------------


@given(st.text(max_size=100), st.text(max_size=100), st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES))
def test_what_is_sealed_opens(secret: str, context: str, data_key: bytes) -> None:
    """Any secret, under any key, in any place."""
    assert VAULT.open(data_key, context, VAULT.seal(data_key, context, secret)) == secret


@given(st.binary(max_size=64), st.text(max_size=40))
def test_what_is_wrapped_unwraps(data_key: bytes, data_key_id: str) -> None:
    """A data key by its id."""
    assert VAULT.unwrap(data_key_id, VAULT.wrap(data_key_id, data_key), VAULT.master_key_id) == data_key


def test_nothing_is_sealed_the_same_twice() -> None:
    """Each has a nonce of its own, and the ciphertext holds nothing of the secret."""
    sealed = [VAULT.seal(DATA_KEY, PLACE, SECRET) for _ in range(100)]
    assert len({s.nonce for s in sealed}) == len({s.ciphertext for s in sealed}) == 100
    assert not any(SECRET.encode() in s.ciphertext for s in sealed)
    assert {len(s.nonce) for s in sealed} == {12}


@pytest.mark.parametrize(
    ("data_key", "context"),
    [
        (b"e" * KEY_BYTES, PLACE),
        (DATA_KEY, secret_context("globex", "ep_1", 1)),
        (DATA_KEY, secret_context("acme", "ep_2", 1)),
        (DATA_KEY, secret_context("acme", "ep_1", 2)),
        (DATA_KEY, ""),
    ],
)
def test_it_opens_nowhere_else(data_key: bytes, context: str) -> None:
    """With another key, tenant, endpoint or version: ValueError with nothing of the secret in it."""
    with pytest.raises(ValueError, match="another key or another place") as refused:
        VAULT.open(data_key, context, VAULT.seal(DATA_KEY, PLACE, SECRET))
    assert "canary" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_changed_bit_is_noticed() -> None:
    """Anywhere in nonce, ciphertext or tag."""
    sealed = VAULT.seal(DATA_KEY, PLACE, SECRET)
    for at in range(len(sealed.nonce + sealed.ciphertext)):
        with pytest.raises(ValueError, match="cannot open"):
            VAULT.open(DATA_KEY, PLACE, flipped(sealed, at))


@pytest.mark.parametrize("sealed", [Sealed(b"", b""), Sealed(b"n" * 12, b""), Sealed(b"n" * 12, b"x" * 15)])
def test_what_was_never_sealed_is_a_value_error(sealed: Sealed) -> None:
    """Empty or too short to hold a tag."""
    with pytest.raises(ValueError, match=r"."):
        VAULT.open(DATA_KEY, PLACE, sealed)


def test_another_master_key_unwraps_nothing() -> None:
    """And has another id, so that it shows which one is needed."""
    other = AesVault(bytes(KEY_BYTES))
    wrapped = VAULT.wrap("key_1", DATA_KEY)
    with pytest.raises(
        ValueError, match=rf"id {VAULT.master_key_id}, and here is {other.master_key_id}: set"
    ):
        other.unwrap("key_1", wrapped, VAULT.master_key_id)
    with pytest.raises(ValueError, match="cannot open"):
        other.unwrap("key_1", wrapped, other.master_key_id)
    assert other.master_key_id != VAULT.master_key_id
    assert other.command_key != VAULT.command_key


def test_a_vault_keeps_its_key_to_itself() -> None:
    """Its repr says which key it has, not the key."""
    assert repr(VAULT) == f"AesVault(master_key_id='{VAULT.master_key_id}')"
    for shown in (MASTER.hex(), ENCODED, str(MASTER)[2:-1], VAULT.command_key.hex()):
        assert shown not in repr(VAULT)
        assert shown not in repr(Keyring(VAULT))


# -- the master key ---------------------------------------------------------------------


def settings(**chosen: Any) -> Settings:
    """Settings with a master key or a file of it."""
    return Settings(**chosen)


def test_the_master_key_of_a_setting() -> None:
    """Base64, with or without a line's end; the setting wins over the file."""
    assert load_master_keys(settings(master_key=SecretStr(ENCODED))) == (MASTER,)
    assert load_master_keys(settings(master_key=SecretStr(f"{ENCODED}\n"), master_key_file="/none")) == (
        MASTER,
    )


def test_the_master_key_of_a_file(tmp_path: Path) -> None:
    """As an editor leaves it, with a newline."""
    (tmp_path / "key").write_text(f"{ENCODED}\n")
    assert load_master_keys(settings(master_key_file=tmp_path / "key")) == (MASTER,)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        MASTER,
        b"\xff" * KEY_BYTES,
        base64.b64encode(b"canary"),
        base64.b64encode(MASTER + b"x"),
        base64.urlsafe_b64encode(b"\xff" * KEY_BYTES),
        ENCODED.encode()[:-1],
        b"canary: not base64!",
        "clé canary".encode(),
    ],
)
def test_a_file_without_a_key(tmp_path: Path, content: bytes) -> None:
    """What it holds is not shown; the message names the setting and says what it must be."""
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(
        SettingsError, match=r"HOOKLOG_MASTER_KEY_FILE=.*: must be 32 bytes in base64"
    ) as refused:
        load_master_keys(settings(master_key_file=tmp_path / "key"))
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "canary", "clé canary", ENCODED + "canary"])
def test_a_setting_without_a_key(text: str) -> None:
    """Neither is what the setting holds."""
    with pytest.raises(SettingsError, match="HOOKLOG_MASTER_KEY: must be 32 bytes in base64") as refused:
        load_master_keys(settings(master_key=SecretStr(text)))
    assert "canary" not in str(refused.value)


def test_no_key_at_all(tmp_path: Path) -> None:
    """Without one, or without its file, it says what to do."""
    with pytest.raises(SettingsError, match="set HOOKLOG_MASTER_KEY_FILE"):
        load_master_keys(settings())
    with pytest.raises(SettingsError, match="No such file"):
        load_master_keys(settings(master_key_file=tmp_path / "none"))
    with pytest.raises(SettingsError, match="Is a directory"):
        load_master_keys(settings(master_key_file=tmp_path))


# -- the keyring ------------------------------------------------------------------------

TO_SEAL = SealedSecret(1, COMMAND_KEY_ID, b"", b"", 10, 20)


def ring(*keys: DataKey) -> Keyring:
    """A keyring that has read some of `directory`."""
    keyring = Keyring(VAULT)
    for key in keys:
        keyring.put(key)
    return keyring


def test_a_secret_goes_from_command_to_data_key() -> None:
    """Sealed for control by the command key, then by the tenant's; version and times stay."""
    keyring = ring(new_data_key(VAULT, "key_1", "acme", 5))
    sent = keyring.seal(COMMAND_KEY_ID, ("acme", "ep_1"), TO_SEAL, SECRET)
    kept = keyring.seal("key_1", ("acme", "ep_1"), sent, keyring.open("acme", "ep_1", sent))
    assert (kept.data_key_id, kept.version, kept.effective_at, kept.expires_at) == ("key_1", 1, 10, 20)
    assert keyring.open("acme", "ep_1", kept) == SECRET
    for secret in (sent, kept):
        assert SECRET not in repr(secret)


def test_another_process_with_the_same_master_key_opens_it() -> None:
    """All that is needed is on the log."""
    key = new_data_key(VAULT, "key_1", "acme", 5)
    sealed = ring(key).seal("key_1", ("acme", "ep_1"), TO_SEAL, SECRET)
    other = Keyring(AesVault(MASTER))
    other.put(key)
    assert other.open("acme", "ep_1", sealed) == SECRET


@pytest.mark.parametrize("place", [("globex", "ep_1"), ("acme", "ep_2")])
def test_a_sealed_secret_is_bound_to_its_endpoint(place: tuple[str, str]) -> None:
    """Copied into another endpoint's snapshot it does not open."""
    keyring = ring(new_data_key(VAULT, "key_1", "acme", 5))
    sealed = keyring.seal("key_1", ("acme", "ep_1"), TO_SEAL, SECRET)
    with pytest.raises(ValueError, match="another place"):
        keyring.open(*place, sealed)


def test_a_data_key_that_is_gone() -> None:
    """KeyError: the secret is shredded, or the view has not got there."""
    sealed = ring(new_data_key(VAULT, "key_1", "acme", 5)).seal("key_1", ("acme", "ep_1"), TO_SEAL, SECRET)
    endpoint = Endpoint("ep_1", "acme", EndpointSettings("https://example.com"), secrets=(sealed,))
    assert not ring().opens(endpoint)
    assert ring(new_data_key(VAULT, "key_1", "acme", 5)).opens(endpoint)
    with pytest.raises(KeyError):
        ring().open("acme", "ep_1", sealed)


def test_the_newest_data_key_of_a_tenant() -> None:
    """Each tenant has its own; the last one read is the one to seal with."""
    first, second = (new_data_key(VAULT, id, "acme", 5) for id in ("key_1", "key_2"))
    keyring = ring(first, new_data_key(VAULT, "key_3", "globex", 5), second)
    assert keyring.of_tenant("acme") == second
    assert keyring.of_tenant("initech") is None
    assert first.master_key_id == VAULT.master_key_id


def test_a_data_key_that_is_wrapped_anew_replaces_the_old() -> None:
    """A key of the same id that comes later counts, the opened one is forgotten."""
    keyring = ring(new_data_key(VAULT, "key_1", "acme", 5))
    sealed = keyring.seal("key_1", ("acme", "ep_1"), TO_SEAL, SECRET)
    keyring.put(new_data_key(VAULT, "key_1", "acme", 6))
    with pytest.raises(ValueError, match="another key"):
        keyring.open("acme", "ep_1", sealed)


def test_a_forgotten_data_key_opens_nothing() -> None:
    """Even if it was opened before; another of the same tenant stays."""
    first, second = (new_data_key(VAULT, id, "acme", 5) for id in ("key_1", "key_2"))
    keyring = ring(first, second)
    sealed = keyring.seal("key_2", ("acme", "ep_1"), TO_SEAL, SECRET)
    keyring.forget("key_2")
    keyring.forget("key_9")
    with pytest.raises(KeyError):
        keyring.open("acme", "ep_1", sealed)
    assert keyring.of_tenant("acme") == first


class Overtaken(AesVault):
    """A vault that takes its time: while it unwraps a key, another thread puts the next of that id."""

    def __init__(self) -> None:
        super().__init__(MASTER)
        self.keyring = Keyring(self)
        self.coming: list[DataKey] = []

    def unwrap(self, data_key_id: str, sealed: Sealed, master_key_id: str) -> bytes:
        """Unwrap, and be overtaken."""
        opened = super().unwrap(data_key_id, sealed, master_key_id)
        while self.coming:
            self.keyring.put(self.coming.pop())
        return opened


def test_a_data_key_that_comes_while_the_old_one_is_opened() -> None:
    """One thread follows `directory`, another signs: the old key serves this call and none after it."""
    old, new = (new_data_key(VAULT, "key_1", "acme", at) for at in (5, 6))
    by_old, by_new = (ring(key).seal("key_1", ("acme", "ep_1"), TO_SEAL, SECRET) for key in (old, new))
    vault = Overtaken()
    vault.keyring.put(old)
    vault.coming = [new]
    assert vault.keyring.open("acme", "ep_1", by_old) == SECRET
    assert vault.keyring.open("acme", "ep_1", by_new) == SECRET
    with pytest.raises(ValueError, match="another key"):
        vault.keyring.open("acme", "ep_1", by_old)
