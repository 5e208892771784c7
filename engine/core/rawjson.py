"""JSON whose parts keep the text they were written in, so that a payload passes through unchanged.

A payload is parsed once, to be sure that it is JSON, and sent as the very
bytes that came: `1.0` stays `1.0`, and integers keep all their digits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeVar

from engine.core.payload import MAX_DEPTH, depth

T = TypeVar("T")
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
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and depth(body) > MAX_DEPTH + wrapped:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not valid UTF-8 at byte {error.start}") from None
    found, end = _members(text, _skip(text, 0))
    if _skip(text, end) != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return found


def members(text: str) -> dict[str, Part]:
    """Members of an object that `parse` has seen as part of another; ValueError if it is none."""
    return _members(text, 0)[0]


def items(text: str) -> list[Part]:
    """Items of an array that `parse` has seen; ValueError if it is none."""
    found: list[Part] = []

    def item(text: str, at: int) -> int:
        part, end = _part(text, at)
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
            raise ValueError(f"{name.text} is there twice")
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
    space = _SPACE.match(text, at)
    return at if space is None else space.end()
