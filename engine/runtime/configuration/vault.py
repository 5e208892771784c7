"""Envelope encryption of signing secrets and of header values (docs/adr/0011).

master key -> data key per tenant (wrapped, in `directory`) -> secret
(AES-256-GCM, NIST SP 800-38D, 96-bit random nonces). The associated data
binds a ciphertext to its place, so it opens nowhere else. What is on its way to
`control` before its tenant has a data key is sealed by the command key, which is
derived from the master key.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from engine.core.change import EndpointSettings, SealedHeaders, SealedSecret
from engine.core.directory import DataKey
from engine.core.endpoint import Endpoint
from engine.ports import Sealed, Vault
from engine.runtime import telemetry
from engine.runtime.settings import PREFIX, Settings, SettingsError

KEY_BYTES = 32
NONCE_BYTES = 12
COMMAND_KEY_ID = "command"


def secret_context(tenant: str, endpoint_id: str, version: int) -> str:
    """Associated data of a sealed signing secret."""
    return f"{tenant}|{endpoint_id}|{version}"


def headers_context(tenant: str, endpoint_id: str) -> str:
    """Associated data of sealed header values, which differs from that of any secret."""
    return f"{tenant}|{endpoint_id}|headers"


def load_master_keys(settings: Settings) -> tuple[bytes, ...]:
    """Read the master key and the previous, if there is one; SettingsError says what is wrong, not a key."""
    current = _load_key(settings.master_key, settings.master_key_file, "MASTER_KEY")
    if current is None:
        raise SettingsError(
            "no master key: set HOOKLOG_MASTER_KEY_FILE to a file with 32 random bytes in base64"
        )
    previous = _load_key(
        settings.previous_master_key, settings.previous_master_key_file, "PREVIOUS_MASTER_KEY"
    )
    return (current,) if previous is None else (current, previous)


def _load_key(given: SecretStr | None, file: Path | None, name: str) -> bytes | None:
    if given is not None:
        text, source = given.get_secret_value(), PREFIX + name
    elif file is not None:
        source = f"{PREFIX}{name}_FILE={file}"
        try:
            text = file.read_text("ascii", errors="replace")
        except OSError as error:
            raise SettingsError(f"{source}: {error.strerror}") from None
    else:
        return None
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:  # binascii.Error, and what is not ASCII
        key = b""
    if len(key) != KEY_BYTES:
        raise SettingsError(f"{source}: must be {KEY_BYTES} bytes in base64")
    return key


class AesVault:
    """ports.Vault: AES-256-GCM; wraps by the master key, unwraps by it and by others that are known."""

    def __init__(self, master_key: bytes, *others: bytes) -> None:
        keys = (master_key, *others)
        self._masters = {master_key_id(key): AESGCM(key) for key in keys}
        self.master_key_id = master_key_id(master_key)
        self.command_keys = tuple(_command_key(key) for key in keys)
        """The command keys, the one to seal with first."""

    def __repr__(self) -> str:
        return f"AesVault(master_key_id={self.master_key_id!r})"

    @property
    def command_key(self) -> bytes:
        """What commands' secrets are sealed by."""
        return self.command_keys[0]

    def wrap(self, data_key_id: str, data_key: bytes) -> Sealed:
        """Wrap a tenant's data key by the master key."""
        nonce = os.urandom(NONCE_BYTES)
        master = self._masters[self.master_key_id]
        return Sealed(nonce, master.encrypt(nonce, data_key, data_key_id.encode()))

    def unwrap(self, data_key_id: str, sealed: Sealed, master_key_id: str) -> bytes:
        """Unwrap a tenant's data key; ValueError if the master key it is wrapped by is not here."""
        master = self._masters.get(master_key_id)
        if master is None:
            raise ValueError(
                f"data key {data_key_id} is wrapped by the master key with the id {master_key_id}, "
                f"and here is {' and '.join(self._masters)}: set HOOKLOG_PREVIOUS_MASTER_KEY to it"
            )
        return _decrypt(master, sealed, data_key_id)

    def knows(self, master_key_id: str) -> bool:
        """Whether the master key of that id is here."""
        return master_key_id in self._masters

    def seal(self, data_key: bytes, context: str, secret: str) -> Sealed:
        """Seal a secret; `context` is authenticated, not stored."""
        nonce = os.urandom(NONCE_BYTES)
        return Sealed(nonce, AESGCM(data_key).encrypt(nonce, secret.encode(), context.encode()))

    def open(self, data_key: bytes, context: str, sealed: Sealed) -> str:
        """Open a secret; ValueError if the key or the context is another."""
        return _decrypt(AESGCM(data_key), sealed, context).decode()


def master_key_id(master_key: bytes) -> str:
    """Return what a master key is called in data keys; tells nothing of it."""
    return sha256(b"hooklog master key id" + master_key).hexdigest()[:16]


def _command_key(master_key: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, None, b"hooklog command key").derive(master_key)


def _decrypt(cipher: AESGCM, sealed: Sealed, context: str) -> bytes:
    try:
        return cipher.decrypt(sealed.nonce, sealed.ciphertext, context.encode())
    except InvalidTag:
        raise ValueError(
            f"cannot open what is sealed for {context!r}: another key or another place"
        ) from None


def new_data_key(vault: Vault, data_key_id: str, tenant: str, now: int) -> DataKey:
    """Make a tenant's data key, wrapped."""
    sealed = vault.wrap(data_key_id, os.urandom(KEY_BYTES))
    return DataKey(data_key_id, tenant, vault.master_key_id, sealed.nonce, sealed.ciphertext, now)


def _by_name(clear: str) -> Mapping[str, str]:
    """Header values by name, out of the JSON that was sealed."""
    values: dict[str, str] = orjson.loads(clear)
    return values


@contextmanager
def _counted(sealed: str) -> Iterator[None]:
    """Count what cannot be opened."""
    try:
        yield
    except ValueError:
        telemetry.DECRYPT_FAILURES.labels(sealed).inc()
        raise


def _data_keys_of(endpoint: Endpoint) -> list[str]:
    """Ids of the data keys that open its secrets and its headers."""
    sealed = endpoint.settings.sealed_headers
    ids = [secret.data_key_id for secret in endpoint.secrets]
    return ids if sealed is None else [*ids, sealed.data_key_id]


class Keyring:
    """Opens and seals secrets of endpoints by their tenants' data keys."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._wrapped: dict[str, DataKey] = {}
        self._locked: set[str] = set()
        """Ids of those whose master key is not here."""
        self._opened: dict[str, tuple[DataKey, bytes]] = {}
        """Unwrapped keys, each with what it was unwrapped from: one thread puts while another opens."""

    @property
    def data_keys(self) -> Mapping[str, DataKey]:
        """The wrapped data keys, by id."""
        return MappingProxyType(self._wrapped)

    def put(self, key: DataKey) -> None:
        """Take in a data key from `directory`."""
        self._locked.discard(key.id)
        if not self._vault.knows(key.master_key_id):
            self._locked.add(key.id)
            telemetry.DECRYPT_FAILURES.labels("data_key").inc()  # before a delivery needs it
        self._wrapped[key.id] = key

    def forget(self, data_key_id: str) -> None:
        """Shred a data key: what it sealed opens no more."""
        self._wrapped.pop(data_key_id, None)
        self._locked.discard(data_key_id)
        self._opened.pop(data_key_id, None)

    def of_tenant(self, tenant: str) -> DataKey | None:
        """Return the tenant's data key, if it has one."""
        return next((key for key in reversed(list(self._wrapped.values())) if key.tenant == tenant), None)

    def master_key_of(self, data_key_id: str) -> str | None:
        """Return the id of the master key that a data key is wrapped by; None if it is not here."""
        key = self._wrapped.get(data_key_id)
        return None if key is None else key.master_key_id

    def rewrapped(self, key: DataKey) -> DataKey:
        """Wrap a data key by the master key of now; ValueError if it cannot be unwrapped."""
        sealed = self._vault.wrap(key.id, self._unwrapped(key))
        return replace(
            key, master_key_id=self._vault.master_key_id, nonce=sealed.nonce, wrapped=sealed.ciphertext
        )

    def is_same(self, other: DataKey) -> bool:
        """Whether another wrapping holds the same data key as ours of its id."""
        try:
            return hmac.compare_digest(self._unwrapped(other), self._unwrapped(self._wrapped[other.id]))
        except ValueError:
            return False

    def opens(self, endpoint: Endpoint) -> bool:
        """Whether the data keys of all its secrets, and of its headers, are here, with their master keys."""
        return all(id in self._wrapped and id not in self._locked for id in _data_keys_of(endpoint))

    def is_locked(self, endpoint: Endpoint) -> bool:
        """Whether one of them is here, and its master key is not: waiting for the view is of no use."""
        return bool(self._locked) and any(id in self._locked for id in _data_keys_of(endpoint))

    @property
    def opens_nothing(self) -> bool:
        """Whether there are data keys, and no master key of any."""
        return 0 < len(self._wrapped) == len(self._locked)

    def open(self, tenant: str, endpoint_id: str, secret: SealedSecret) -> str:
        """Open a secret; ValueError if it is not for this endpoint, KeyError if its data key is gone."""
        with _counted("secret"):
            return self._open_by(secret_context(tenant, endpoint_id, secret.version), secret)

    def seal(
        self, data_key_id: str, place: tuple[str, str], secret: SealedSecret, clear: str
    ) -> SealedSecret:
        """Seal `clear` for (tenant, endpoint) under a data key, as the version that `secret` has."""
        context = secret_context(*place, secret.version)
        sealed = self._vault.seal(self._data_key(data_key_id), context, clear)
        return replace(secret, data_key_id=data_key_id, nonce=sealed.nonce, ciphertext=sealed.ciphertext)

    def seal_command(self, tenant: str, endpoint_id: str, version: int, clear: str) -> SealedSecret:
        """Seal a secret for a command: by the tenant's data key; while it has none, by the command key."""
        key = self.of_tenant(tenant)
        unsealed = SealedSecret(version, "", b"", b"")
        return self.seal(key.id if key else COMMAND_KEY_ID, (tenant, endpoint_id), unsealed, clear)

    def open_command(self, tenant: str, endpoint_id: str, secret: SealedSecret) -> str:
        """Open a command's secret; ValueError if no key here does."""
        return self._opened_command(tenant, secret_context(tenant, endpoint_id, secret.version), secret)

    def headers(self, place: tuple[str, str], settings: EndpointSettings) -> Mapping[str, str]:
        """Return the header values of (tenant, endpoint), by name; ValueError and KeyError as of `open`."""
        if settings.sealed_headers is None:
            return settings.headers
        with _counted("headers"):
            return _by_name(self._open_by(headers_context(*place), settings.sealed_headers))

    def seal_headers(
        self, data_key_id: str, place: tuple[str, str], settings: EndpointSettings
    ) -> EndpointSettings:
        """Seal header values that are in the clear; of sealed ones, or none, nothing changes."""
        if settings.sealed_headers is not None or not settings.headers:
            return settings
        clear = orjson.dumps(dict(settings.headers)).decode()
        sealed = self._vault.seal(self._data_key(data_key_id), headers_context(*place), clear)
        names = dict.fromkeys(settings.headers, "")
        held = SealedHeaders(data_key_id, sealed.nonce, sealed.ciphertext)
        return replace(settings, headers=names, sealed_headers=held)

    def seal_command_headers(self, place: tuple[str, str], settings: EndpointSettings) -> EndpointSettings:
        """Seal header values for a command: by the key that its secret would be sealed by."""
        key = self.of_tenant(place[0])
        return self.seal_headers(key.id if key else COMMAND_KEY_ID, place, settings)

    def open_command_headers(self, place: tuple[str, str], settings: EndpointSettings) -> EndpointSettings:
        """Return a command's settings with header values in the clear; ValueError if no key opens them."""
        sealed = settings.sealed_headers
        if sealed is None:
            return settings
        clear = _by_name(self._opened_command(place[0], headers_context(*place), sealed))
        return replace(settings, headers=clear, sealed_headers=None)

    def _opened_command(self, tenant: str, context: str, held: SealedSecret | SealedHeaders) -> str:
        """Open what a command carries, by the tenant's data key or a command key of now or before."""
        key, sealed = self.of_tenant(tenant), Sealed(held.nonce, held.ciphertext)
        if key is not None and held.data_key_id == key.id:
            with _counted("secret"):
                return self._open_by(context, held)
        for previous in self._vault.command_keys[1:]:
            with suppress(ValueError):
                return self._vault.open(previous, context, sealed)
        with _counted("command"):
            return self._vault.open(self._vault.command_key, context, sealed)

    def _open_by(self, context: str, held: SealedSecret | SealedHeaders) -> str:
        key = self._data_key(held.data_key_id)
        return self._vault.open(key, context, Sealed(held.nonce, held.ciphertext))

    def _data_key(self, data_key_id: str) -> bytes:
        if data_key_id == COMMAND_KEY_ID:
            return self._vault.command_key
        wrapped, known = self._wrapped[data_key_id], self._opened.get(data_key_id)
        if known is not None and known[0] is wrapped:
            return known[1]
        opened = self._unwrapped(wrapped)
        self._opened[data_key_id] = wrapped, opened
        return opened

    def _unwrapped(self, key: DataKey) -> bytes:
        return self._vault.unwrap(key.id, Sealed(key.nonce, key.wrapped), key.master_key_id)
