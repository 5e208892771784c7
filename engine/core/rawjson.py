"""JSON whose parts keep the text they were written in, so that a payload passes through unchanged.

A payload is parsed once, to be sure that it is JSON, and sent as the very
bytes that came: `1.0` stays `1.0`, and integers keep all their digits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeVar

from engine.core.payload import MAX_DEPTH, depth

T = TypeVar("T")
_BOM = b"\xef\xbb\xbf"
_DIGITS_MAX = 300
_SPACE = re.compile(r"[ \t\n\r]*")


class Part(NamedTuple):
    """A value, and the text it was written in."""

    value: object
    text: str


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number in JSON")


# Numbers may have any length: float() takes what int() refuses beyond 4,300 digits.
_DECODER = json.JSONDecoder(parse_int=float, parse_constant=_refuse)


def parse(body: bytes, wrapped: int) -> dict[str, Part]:
    """Members of an object; ValueError in words. `wrapped`: how deep a payload lies in it."""
    text = _text(body, MAX_DEPTH, wrapped)
    found, end = _members(text, _skip(text, 0))
    if _skip(text, end) != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return found


def values(body: bytes, depth_max: int) -> dict[str, object]:
    """Values of an object, read more strictly than a payload: ValueError in words.

    At no depth is a name there twice, a number out of range or half a
    surrogate pair, which UTF-8 cannot write.
    """
    text = _text(body, depth_max, 0)
    _expect(text, _skip(text, 0), "{")
    found = _STRICT.decode(text)
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds half a surrogate pair") from None
    assert isinstance(found, dict)
    return found


def _text(body: bytes, depth_max: int, wrapped: int) -> str:
    if body.startswith(_BOM):
        raise ValueError("it starts with a byte order mark; JSON must not")
    if body.count(b"[") + body.count(b"{") > depth_max and depth(body) > depth_max + wrapped:
        raise ValueError(f"nested deeper than {depth_max}")
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not valid UTF-8 at byte {error.start}") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{json.dumps(name)} is there twice")
        found[name] = value
    return found


def _whole(text: str) -> int:
    if len(text) > _DIGITS_MAX:
        raise ValueError(f"a number has more than {_DIGITS_MAX} digits")
    return int(text)


def _finite(text: str) -> float:
    if len(text) > _DIGITS_MAX or math.isinf(number := float(text)):
        raise ValueError("a number is out of range")
    return number


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_whole, parse_float=_finite, parse_constant=_refuse
)


def objects(text: str) -> list[dict[str, Part] | str]:
    """Items of an array that `parse` has seen, each cut into its members, or what is wrong with it."""
    found: list[dict[str, Part] | str] = []

    def item(text: str, at: int) -> int:
        try:
            part, end = _members(text, at)
        except ValueError as error:
            value, end = _part(text, at)
            found.append(str(error) if isinstance(value.value, dict) else "it is no object")
            return end
        found.append(part)
        return end

    _sequence(text, 0, "[]", item)
    return found


def _members(text: str, at: int) -> tuple[dict[str, Part], int]:
    found: dict[str, Part] = {}

    def member(text: str, at: int) -> int:
        name, end = _part(text, at)
        if not isinstance(name.value, str):
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        if name.value in found:
            raise ValueError(f"{json.dumps(name.value)} is there twice")
        at = _expect(text, _skip(text, end), ":")
        found[name.value], end = _part(text, _skip(text, at))
        return end

    return found, _sequence(text, at, "{}", member)


def _sequence(text: str, at: int, brackets: str, element: Callable[[str, int], int]) -> int:
    at = _skip(text, _expect(text, at, brackets[0]))
    if text[at : at + 1] == brackets[1]:
        return at + 1
    while True:
        at = _skip(text, element(text, _skip(text, at)))
        if text[at : at + 1] == brackets[1]:
            return at + 1
        at = _expect(text, at, ",")


def _part(text: str, at: int) -> tuple[Part, int]:
    value, end = _DECODER.raw_decode(text, at)
    return Part(value, text[at:end]), end


def _expect(text: str, at: int, character: str) -> int:
    if text[at : at + 1] != character:
        raise json.JSONDecodeError(f"Expecting {character!r}", text, at)
    return at + 1


def _skip(text: str, at: int) -> int:
    if text[at : at + 1] > " ":  # nearly always: JSON is sent without spaces
        return at
    space = _SPACE.match(text, at)
    return at if space is None else space.end()
