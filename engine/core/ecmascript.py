"""JSON as JavaScript writes it.

Receivers written in Node often verify `JSON.stringify(req.body)` instead of the
bytes they got, so those bytes must be a fixed point of `JSON.stringify(JSON.parse(…))`
(ECMA-262, sections 25.5 and 6.1.6.1.20).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import NoReturn

_MAX_INDEX = 4_294_967_294
"""Largest array index (2^32 - 2): keys up to it, in canonical form, are enumerated first."""

_index = re.compile("0|[1-9][0-9]{0,9}").fullmatch
_quote = json.JSONEncoder(ensure_ascii=False).encode


class Number(str):
    """A number, written as it shall stand in the text."""

    __slots__ = ()


def canonical(text: bytes) -> bytes:
    """`JSON.stringify(JSON.parse(text))`; ValueError if the text is no JSON in UTF-8."""
    return stringify(parse(text))


def parse(text: bytes) -> object:
    """JSON -> dict, list, str, Number, bool, None; a duplicate key keeps its first place and last value."""
    return _decode(text.decode())


def stringify(value: object) -> bytes:
    """What `parse` returned -> compact JSON in UTF-8."""
    pieces: list[str] = []
    _write(value, pieces.append)
    # Only lone surrogates cannot be encoded; the handler writes them as \ud800, as JSON.stringify does.
    return "".join(pieces).encode("utf-8", "backslashreplace")


def number(text: str) -> Number:
    """A JSON number, rounded to a double and printed by Number::toString; infinity becomes null."""
    digits = repr(float(text))
    if digits.endswith(".0"):
        return Number("0" if digits == "-0.0" else digits[:-2])
    if "e" in digits:
        return Number(_with_exponent(digits))
    return Number("null" if digits.endswith("inf") else digits)


def _with_exponent(digits: str) -> str:
    """Python's `1.5e-07` -> ECMAScript's `1.5e-7`: both find the same digits and place them differently."""
    mantissa, _, exponent = digits.partition("e")
    sign, mantissa = ("-", mantissa[1:]) if mantissa[0] == "-" else ("", mantissa)
    significant, point = mantissa.replace(".", ""), int(exponent) + 1
    if 0 < point <= 21:
        return sign + significant.ljust(point, "0")
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + significant
    return f"{sign}{mantissa}e{point - 1:+d}"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_decode = json.JSONDecoder(parse_float=number, parse_int=number, parse_constant=_refuse).decode


def _write(value: object, out: Callable[[str], None]) -> None:
    # One frame a level: 500 levels stay far below Python's recursion limit.
    if isinstance(value, Number):
        out(value)
    elif isinstance(value, str):
        out(_quote(value))
    elif isinstance(value, dict):
        opening = "{"
        for key, item in _ordered(value).items():
            out(f"{opening}{_quote(key)}:")
            _write(item, out)
            opening = ","
        out("{}" if opening == "{" else "}")
    elif isinstance(value, list):
        opening = "["
        for item in value:
            out(opening)
            _write(item, out)
            opening = ","
        out("[]" if opening == "[" else "]")
    else:
        out("null" if value is None else "true" if value else "false")


def _ordered(members: dict[str, object]) -> Mapping[str, object]:
    """Array indexes first, ascending; the others as they came."""
    indexes = [key for key in members if _index(key) and int(key) <= _MAX_INDEX]
    if not indexes:
        return members
    return {key: members[key] for key in sorted(indexes, key=int)} | members
