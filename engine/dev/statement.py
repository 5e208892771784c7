"""What the store must know about a statement: where its data begins, and whether it answers with rows."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"""\s+ | --[^\n]* | /\*.*?\*/
    | '(?:[^'\\]|\\.|'')*' | `(?:[^`\\]|\\.)*` | "(?:[^"\\]|\\.)*" | \w+ | .""",
    re.DOTALL | re.VERBOSE,
)
_FORMAT_NAME = re.compile(rb"\s*(\w+)[ \t]*;?(?:\r?\n|[ \t]*)")
_TRAILING_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)
_ROWS = {b"SELECT", b"WITH", b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN", b"CHECK", b"FROM", b"("}


@dataclass(frozen=True, slots=True)
class Insert:
    """`INSERT … FORMAT x` with its data: from `data_at` on in the text that was parsed."""

    target: bytes  # INSERT INTO table (columns)
    settings: bytes  # SETTINGS …, or nothing
    format: bytes
    data_at: int

    def from_file(self, name: str) -> bytes:
        """The same statement, reading its data from a file."""
        quoted = name.replace("\\", "\\\\").replace("'", "\\'").encode()
        return b"%s FROM INFILE '%s' %s FORMAT %s" % (self.target, quoted, self.settings, self.format)


def insert_with_data(text: bytes) -> Insert | None:
    """None if the statement is no insert, or one whose rows are part of it (VALUES, SELECT)."""
    if first_word(text) != b"INSERT":
        return None
    depth, settings_at = 0, None
    for token in _TOKEN.finditer(text):
        word = token[0].upper()
        depth += {b"(": 1, b")": -1}.get(word, 0)
        if depth:
            continue
        if word in (b"VALUES", b"SELECT", b"WITH", b"FROM"):
            return None
        if word == b"SETTINGS":
            settings_at = token.start()
        if word == b"FORMAT":
            return _insert(text, token, settings_at)
    return None


def _insert(text: bytes, keyword: re.Match[bytes], settings_at: int | None) -> Insert | None:
    name = _FORMAT_NAME.match(text, keyword.end())
    if name is None:
        return None
    end = keyword.start()
    target_end = end if settings_at is None else settings_at
    return Insert(text[:target_end].rstrip(), text[target_end:end].rstrip(), name[1], name.end())


def first_word(text: bytes) -> bytes:
    """In upper case, comments skipped; empty if there is none."""
    for token in _TOKEN.finditer(text):
        word = token[0]
        if not word.isspace() and not word.startswith((b"--", b"/*")):
            return word.upper()
    return b""


def rows_format(text: bytes, default: str) -> str | None:
    """The format of the rows it answers with; None if it answers with none."""
    if first_word(text) not in _ROWS:
        return None
    named = _TRAILING_FORMAT.search(text)
    return named[1].decode() if named else default
