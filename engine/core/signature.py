"""Secrets, the keys made from them, and signatures (HMAC-SHA256)."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.core.profile_table import Table
from engine.core.template import HEADER_FIELDS, header_value, is_printable, template

PREFIX_MAX = 64

KeyKind = Literal["base64", "text"]
SecretKind = Literal["base64", "base64url", "hex"]
Digest = Literal["base64", "hex"]


@dataclass(frozen=True, slots=True)
class SecretRule:
    """How secrets look.

    `key` base64: the key is what the part after `prefix` decodes to. text: it is
    the UTF-8 bytes of the whole secret. `generate`: how 32 random bytes are
    written after `prefix`.
    """

    prefix: str
    generate: SecretKind
    key: KeyKind


@dataclass(frozen=True, slots=True)
class SignatureRule:
    """What is signed (`before`, body, `after`) and how each of `headers` shows it.

    `before`, `after` and `value` are templates. Only a list (space-separated)
    can hold several signatures.
    """

    headers: tuple[str, ...]
    value: str
    digest: Digest
    is_list: bool
    before: str
    after: str


def read_signature(table: Table) -> SignatureRule:
    """Check a profile's `[signature]`."""
    table.only("headers", "value", "list", "signs")
    value, is_list = header_value(table, "value", ("base64", "hex")), table.flag("list")
    if value.count("{") != 1:
        raise table.wrong("value", "must hold either {base64} or {hex}, once")
    if is_list and " " in value:
        raise table.wrong("value", "must hold no space, since spaces separate the list")
    signs = template(table.text("signs"), table.where("signs"), (*HEADER_FIELDS, "body"))
    before, *rest = signs.split("{body}")
    if len(rest) != 1:
        raise table.wrong("signs", "must hold {body} once")
    headers = table.texts("headers")
    if not headers:
        raise table.wrong("headers", "must name at least one header")
    return SignatureRule(headers, value, "hex" if "{hex}" in value else "base64", is_list, before, rest[0])


def read_secret(table: Table) -> SecretRule:
    """Check a profile's `[secret]`."""
    table.only("prefix", "generate", "key")
    prefix = table.text("prefix")
    if prefix and (not is_printable(prefix, spaces=False) or len(prefix) > PREFIX_MAX):
        raise table.wrong("prefix", f"must be at most {PREFIX_MAX} printable ASCII characters without spaces")
    return SecretRule(
        prefix,
        table.choice("generate", ("base64", "base64url", "hex")),
        table.choice("key", ("base64", "text")),
    )


def sign(rule: SignatureRule, key: bytes, signed: bytes) -> str:
    """One signature, as the header shows it."""
    digest = hmac.digest(key, signed, "sha256")
    if rule.digest == "hex":
        return rule.value.format(hex=digest.hex())
    return rule.value.format(base64=b64encode(digest).decode())


def signatures(rule: SignatureRule, keys: Sequence[bytes], signed: bytes) -> str:
    """The header's value, newest key first; ValueError without a key, since nothing goes out unsigned."""
    if not keys:
        raise ValueError("there is no key to sign with")
    if not rule.is_list:
        return sign(rule, keys[0], signed)
    return " ".join([sign(rule, key, signed) for key in keys])


def signed_bytes(rule: SignatureRule, fields: Mapping[str, str], body: bytes) -> bytes:
    """What the signature covers."""
    return rule.before.format_map(fields).encode() + body + rule.after.format_map(fields).encode()


def matches(rule: SignatureRule, expected: str, shown: str) -> bool:
    """Whether a header shows the expected signature, compared in constant time."""
    candidates = shown.split(" ") if rule.is_list else [shown]
    wanted = expected.encode()
    found = [hmac.compare_digest(wanted, candidate.encode("utf-8", "replace")) for candidate in candidates]
    return any(found)


def generate(rule: SecretRule, entropy: bytes) -> str:
    """A new secret out of 32 random bytes."""
    if len(entropy) != 32:
        raise ValueError(f"a secret is made of 32 random bytes, not {len(entropy)}")
    match rule.generate:
        case "base64":
            return rule.prefix + b64encode(entropy).decode()
        case "base64url":
            return rule.prefix + urlsafe_b64encode(entropy).rstrip(b"=").decode()
        case "hex":
            return rule.prefix + entropy.hex()


def check(rule: SecretRule, secret: str) -> None:
    """ValueError saying what to do about a secret that cannot be used; the secret is not in it."""
    if rule.key == "base64":
        _base64_key(rule, secret)
    elif not 8 <= len(secret) <= 255 or not secret.isprintable():
        raise ValueError("the secret must be 8 to 255 printable characters: choose another one")


def key_of(rule: SecretRule, secret: str) -> bytes:
    """The HMAC key; ValueError as `check` raises it."""
    if rule.key == "base64":
        return _base64_key(rule, secret)
    check(rule, secret)
    return secret.encode()


def _base64_key(rule: SecretRule, secret: str) -> bytes:
    text = secret.removeprefix(rule.prefix)
    try:
        key = b64decode(text, validate=True)
    except (Base64Error, ValueError):  # ValueError: not ASCII
        key = b""
    # Compared with what encoding gives: libraries differ on stray padding bits, and some fail in silence.
    if b64encode(key).decode() != text or not 24 <= len(key) <= 64:
        raise ValueError(
            f"the secret must be {rule.prefix} and 24 to 64 random bytes in base64, standard alphabet, "
            "with padding: encode it so, or leave it out to have one generated"
        )
    return key
