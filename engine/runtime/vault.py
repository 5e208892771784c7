"""Envelope encryption of signing secrets (design.md, section 7).

master key -> data key per tenant (wrapped, in `directory`) -> secret
(AES-256-GCM, NIST SP 800-38D, 96-bit random nonces). The associated data
binds a ciphertext to its place, so it opens nowhere else. A secret on its way
to `control` is sealed by the command key, which is derived from the master key.
"""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from engine.core.change import SealedSecret
from engine.core.endpoint import DataKey, Endpoint
from engine.ports import Sealed
from engine.runtime.settings import Settings, SettingsError

KEY_BYTES = 32
NONCE_BYTES = 12
COMMAND_KEY_ID = "command"


def secret_context(tenant: str, endpoint_id: str, version: int) -> str:
    """Associated data of a sealed signing secret."""
    return f"{tenant}|{endpoint_id}|{version}"


def load_master_key(settings: Settings) -> bytes:
    """Read the master key from its setting or file; SettingsError says what is wrong, never the key."""
    if settings.master_key is not None:
        text, source = settings.master_key.get_secret_value(), "HOOKLOG_MASTER_KEY"
    elif settings.master_key_file is not None:
        source = f"HOOKLOG_MASTER_KEY_FILE={settings.master_key_file}"
        try:
            text = settings.master_key_file.read_text("ascii", errors="replace")
        except OSError as error:
            raise SettingsError(f"{source}: {error.strerror}") from None
    else:
        raise SettingsError(
            "no master key: set HOOKLOG_MASTER_KEY_FILE to a file with 32 random bytes in base64"
        )
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:  # binascii.Error, and what is not ASCII
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(f"{source}: must be {KEY_BYTES} bytes in base64")
    return key


class AesVault:
    """ports.Vault: AES-256-GCM under one master key."""

    def __init__(self, master_key: bytes) -> None:
        self._master = AESGCM(master_key)
        self.master_key_id = sha256(b"hooklog master key id" + master_key).hexdigest()[:16]
        self.command_key = HKDF(SHA256(), KEY_BYTES, None, b"hooklog command key").derive(master_key)

    def __repr__(self) -> str:
        return f"AesVault(master_key_id={self.master_key_id!r})"

    def wrap(self, data_key_id: str, data_key: bytes) -> Sealed:
        """Wrap a tenant's data key by the master key."""
        nonce = os.urandom(NONCE_BYTES)
        return Sealed(nonce, self._master.encrypt(nonce, data_key, data_key_id.encode()))

    def unwrap(self, data_key_id: str, sealed: Sealed) -> bytes:
        """Unwrap a tenant's data key."""
        return _decrypt(self._master, sealed, data_key_id)

    def seal(self, data_key: bytes, context: str, secret: str) -> Sealed:
        """Seal a secret; `context` is authenticated, not stored."""
        nonce = os.urandom(NONCE_BYTES)
        return Sealed(nonce, AESGCM(data_key).encrypt(nonce, secret.encode(), context.encode()))

    def open(self, data_key: bytes, context: str, sealed: Sealed) -> str:
        """Open a secret; ValueError if the key or the context is another."""
        return _decrypt(AESGCM(data_key), sealed, context).decode()


def _decrypt(cipher: AESGCM, sealed: Sealed, context: str) -> bytes:
    try:
        return cipher.decrypt(sealed.nonce, sealed.ciphertext, context.encode())
    except InvalidTag:
        raise ValueError(
            f"cannot open what is sealed for {context!r}: another key or another place"
        ) from None


def new_data_key(vault: AesVault, data_key_id: str, tenant: str, now: int) -> DataKey:
    """Make a tenant's data key, wrapped."""
    sealed = vault.wrap(data_key_id, os.urandom(KEY_BYTES))
    return DataKey(data_key_id, tenant, vault.master_key_id, sealed.nonce, sealed.ciphertext, now)


class Keyring:
    """Opens and seals secrets of endpoints by their tenants' data keys."""

    def __init__(self, vault: AesVault) -> None:
        self._vault = vault
        self._wrapped: dict[str, DataKey] = {}
        self._opened: dict[str, tuple[DataKey, bytes]] = {}
        """Unwrapped keys, each with what it was unwrapped from: one thread puts while another opens."""

    def put(self, key: DataKey) -> None:
        """Take in a data key from `directory`."""
        self._wrapped[key.id] = key

    def forget(self, data_key_id: str) -> None:
        """Shred a data key: what it sealed opens no more."""
        self._wrapped.pop(data_key_id, None)
        self._opened.pop(data_key_id, None)

    def of_tenant(self, tenant: str) -> DataKey | None:
        """Return the tenant's data key, if it has one."""
        return next((key for key in reversed(self._wrapped.values()) if key.tenant == tenant), None)

    def opens(self, endpoint: Endpoint) -> bool:
        """Whether the data keys of all its secrets are here."""
        return all(secret.data_key_id in self._wrapped for secret in endpoint.secrets)

    def open(self, tenant: str, endpoint_id: str, secret: SealedSecret) -> str:
        """Open a secret; ValueError if it is not for this endpoint, KeyError if its data key is gone."""
        sealed = Sealed(secret.nonce, secret.ciphertext)
        context = secret_context(tenant, endpoint_id, secret.version)
        return self._vault.open(self._data_key(secret.data_key_id), context, sealed)

    def seal(
        self, data_key_id: str, place: tuple[str, str], secret: SealedSecret, clear: str
    ) -> SealedSecret:
        """Seal `clear` for (tenant, endpoint) under a data key, as the version that `secret` has."""
        context = secret_context(*place, secret.version)
        sealed = self._vault.seal(self._data_key(data_key_id), context, clear)
        return replace(secret, data_key_id=data_key_id, nonce=sealed.nonce, ciphertext=sealed.ciphertext)

    def _data_key(self, data_key_id: str) -> bytes:
        if data_key_id == COMMAND_KEY_ID:
            return self._vault.command_key
        wrapped, known = self._wrapped[data_key_id], self._opened.get(data_key_id)
        if known is not None and known[0] is wrapped:
            return known[1]
        opened = self._vault.unwrap(data_key_id, Sealed(wrapped.nonce, wrapped.wrapped))
        self._opened[data_key_id] = wrapped, opened
        return opened
