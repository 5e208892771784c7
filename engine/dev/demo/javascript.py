"""`JSON.parse` and `JSON.stringify` as ECMAScript has them, for receivers that verify what Node would."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from itertools import chain
from typing import Any

_INDEX = re.compile(r"0|[1-9][0-9]{0,9}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_LARGEST_INDEX = 2**32 - 2


def parse(text: bytes) -> Any:
    """Every number is a double; of a key that comes twice the last value counts."""
    return json.loads(text, parse_int=float)


def stringify(value: Any) -> str:
    """Print what `parse` gave the way `JSON.stringify` prints it."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case float():
            return _number(value)
        case str():
            return _string(value)
        case list():
            return "[" + ",".join(map(stringify, value)) + "]"
    return "{" + ",".join(f"{_string(k)}:{stringify(value[k])}" for k in _keys(value)) + "}"


def _string(text: str) -> str:
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", json.dumps(text, ensure_ascii=False))


def _keys(value: dict[str, Any]) -> chain[str]:
    """Array indices first, ascending; the others as they came."""
    indices = [k for k in value if _INDEX.fullmatch(k) and int(k) <= _LARGEST_INDEX]
    return chain(sorted(indices, key=int), (k for k in value if k not in set(indices)))


def _number(value: float) -> str:
    """ECMA-262, Number::toString: the same shortest digits as Python's repr, laid out by other rules."""
    if not math.isfinite(value):
        return "null"
    if value == 0:
        return "0"
    decimal = Decimal(repr(abs(value))).normalize().as_tuple()
    digits = "".join(map(str, decimal.digits))
    point = len(digits) + int(decimal.exponent)
    return ("-" if value < 0 else "") + _lay_out(digits, point)


def _lay_out(digits: str, point: int) -> str:
    """Digits with the decimal point before index `point`, in positional or exponent form."""
    if len(digits) <= point <= 21:
        return digits.ljust(point, "0")
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    fraction = f".{digits[1:]}" if digits[1:] else ""
    return f"{digits[0]}{fraction}e{point - 1:+d}"
