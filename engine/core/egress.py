"""Where requests may go: the rules for an endpoint's URL (gate A of two; the other one is at every dial)."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from engine.core.address import PORTS, Network, is_denied

URL_MAX = 2_048

_VISIBLE_ASCII = re.compile(r"[!-~]+")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
_BRACKETED = re.compile(r"\[[^\[\]]*\](:[0-9]*)?")
_HOST_MAX = 253
_LOCAL = frozenset({"localhost", "local", "internal"})
"""Last labels of names that are somebody's own (RFC 6761, RFC 6762, ICANN 2024)."""


def check_url(
    url: str, *, allow_http: bool, private: bool = False, allowed: tuple[Network, ...] = ()
) -> None:
    """ValueError in words if an endpoint may not have this URL.

    `private` allows numeric, local and single-label hosts and any port, as in `hooklog dev`;
    with `allowed`, of the numeric ones only those that the second gate would let through.
    """
    _check_text(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is no URL: its host or port cannot be read") from None
    _check_scheme(parts, allow_http=allow_http)
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password: use a custom header instead")
    if port == 0 or not (private or port is None or port in PORTS):
        raise ValueError(f"port {port} is not allowed: use one of {', '.join(map(str, sorted(PORTS)))}")
    host = parts.hostname or ""
    if "[" in parts.netloc and not (_BRACKETED.fullmatch(parts.netloc) and ":" in host):
        raise ValueError("must name a host: brackets are for IPv6 addresses")
    _check_host(host, private=private, allowed=allowed)


def _check_text(url: str) -> None:
    if len(url) > URL_MAX:
        raise ValueError(f"must be at most {URL_MAX} characters")
    if not _VISIBLE_ASCII.fullmatch(url) or "\\" in url:
        raise ValueError(
            "must be ASCII without spaces, control characters or backslashes: "
            "percent-encode the path, write the host in its xn-- form"
        )
    if "#" in url:
        raise ValueError("must not have a fragment (#…): it is never sent")


def _check_scheme(parts: SplitResult, *, allow_http: bool) -> None:
    if parts.scheme not in ("https", "http"):
        raise ValueError("must begin with https://")
    if parts.scheme == "http" and not allow_http:
        raise ValueError("must begin with https://: http is not allowed here")


def _check_host(host: str, *, private: bool, allowed: tuple[Network, ...]) -> None:
    labels = host.removesuffix(".").split(".")
    numeric = ":" in host or bool(_NUMBER.fullmatch(labels[-1]))
    if numeric and not private:
        raise ValueError("must name a host: numeric addresses are not allowed")
    if numeric:
        _check_address(host, allowed)
    elif len(host) > _HOST_MAX or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("must name a host, such as example.com")
    elif len(labels) == 1 and not private:
        raise ValueError("must name a host with a domain, such as hooks.example.com")
    elif labels[-1] in _LOCAL and not private:
        raise ValueError(f"must name a public host: .{labels[-1]} is a private network's")


def _check_address(host: str, allowed: tuple[Network, ...]) -> None:
    """Short, octal and hexadecimal forms (127.1, 0x7f000001) are refused everywhere."""
    try:
        ip_address(host)
    except ValueError:
        raise ValueError("is no IP address in its usual form") from None
    if allowed and is_denied(host, allowed):
        raise ValueError("is an address that requests may not go to")
