"""What a payload must be: strict JSON in UTF-8, nested no deeper than 500."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import NoReturn

MAX_DEPTH = 500

_BOM = b"\xef\xbb\xbf"
# The closing quote is optional, so that an unterminated string is passed over only once.
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class InvalidPayloadError(ValueError):
    """A payload (or its time) cannot be sent; the message says which rule it breaks."""


def check_payload(payload: bytes) -> None:
    """Refuse what is no strict JSON; an empty payload stands for `{}`."""
    if not payload:
        return
    if payload.startswith(_BOM):
        raise InvalidPayloadError("payload starts with a byte order mark; JSON must not")
    # Brackets inside strings count here too: this only spares most payloads the exact measure.
    if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH and depth(payload) > MAX_DEPTH:
        raise InvalidPayloadError(f"payload is nested deeper than {MAX_DEPTH}")
    try:
        _decode(payload.decode())
    except UnicodeDecodeError as error:
        raise InvalidPayloadError(f"payload is not valid UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidPayloadError(f"payload is not JSON: {error.msg} (character {error.pos})") from None


def depth(payload: bytes) -> int:
    """How deep arrays and objects are nested, without recursion."""
    brackets = _STRING.sub(b"", payload).translate(None, _NOT_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def _refuse(constant: str) -> NoReturn:
    raise InvalidPayloadError(f"payload is not JSON: {constant} is no number")


# Numbers of any length are JSON; int() would refuse more than 4,300 digits, float() does not.
_decode = json.JSONDecoder(parse_int=float, parse_constant=_refuse).decode
