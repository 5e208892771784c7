"""A request of ClickHouse's HTTP interface: its parameters and body, read into a Query."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, Protocol

from engine.dev.statement import Insert, insert_with_data

MAX_BODY = 256 << 20  # bytes, inflated
# Parameters of the HTTP interface itself; every other one is a setting of the engine.
_TRANSPORT = frozenset(
    {
        "query", "database", "default_format", "query_id", "session_id", "session_timeout", "session_check",
        "user", "password", "quota_key", "role", "compress", "decompress", "wait_end_of_query", "buffer_size",
        "client_protocol_version", "enable_http_compression", "send_progress_in_http_headers",
        "http_headers_progress_interval_ms", "cancel_http_readonly_queries_on_client_close",
    }
)  # fmt: skip


class RequestError(ValueError):
    """The request is not one of ClickHouse's HTTP interface, or too large."""


class _Decompressor(Protocol):
    """What lz4's, zstd's and zlib's have in common."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes | None: ...


_LZ4: Any = import_module("lz4.frame")  # neither has types
_ZSTD: Any = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
_DECOMPRESSORS: Mapping[str, Callable[[], _Decompressor]] = {
    "lz4": _LZ4.LZ4FrameDecompressor,
    "zstd": _ZSTD.ZstdDecompressor,
    "gzip": partial(zlib.decompressobj, 47),  # 47: a gzip or a zlib header
    "deflate": partial(zlib.decompressobj, 47),
}


@dataclass(frozen=True, slots=True)
class Query:
    """One request. `parameters` are the values of `{name:Type}`."""

    text: bytes
    data: bytes | None
    insert: Insert | None
    database: str
    format: str
    settings: Mapping[str, str]
    parameters: Mapping[str, str]


def inflate(body: bytes, encoding: str) -> bytes:
    """Undo a Content-Encoding, of one or more frames; RequestError if it is unknown, damaged or too large."""
    if encoding in ("", "identity"):
        return body
    if encoding not in _DECOMPRESSORS:
        raise RequestError(f"Content-Encoding {encoding} is not supported: use {', '.join(_DECOMPRESSORS)}")
    parts: list[bytes] = []
    left, room = body, MAX_BODY
    while left:
        frame = _DECOMPRESSORS[encoding]()
        try:
            parts.append(frame.decompress(left, room))
        except (zlib.error, RuntimeError, _ZSTD.ZstdError) as error:
            raise RequestError(f"the body is not {encoding}: {error}") from None
        room -= len(parts[-1])
        if not frame.eof or room <= 0:
            raise RequestError(f"the body is cut short, or larger than {MAX_BODY} bytes")
        left = frame.unused_data or b""
    return b"".join(parts)


def parse(parameters: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Query:
    """One request of ClickHouse's HTTP interface; RequestError if it asks for what the store cannot do."""
    if parameters.get("compress", "0") not in ("0", "false") or parameters.get("decompress", "0") != "0":
        raise RequestError("ClickHouse's own block compression (compress, decompress) is not supported")
    content = inflate(body, headers.get("Content-Encoding", ""))
    in_url = parameters.get("query", "").encode()
    text = in_url + b"\n" + content if in_url else content
    insert = insert_with_data(text)
    return Query(
        text=text if insert is None else b"",
        data=None if insert is None else text[insert.data_at :],
        insert=insert,
        database=parameters.get("database", headers.get("X-ClickHouse-Database", "")),
        format=parameters.get("default_format", headers.get("X-ClickHouse-Format", "TabSeparated")),
        settings=_settings(parameters),
        parameters={name[6:]: value for name, value in parameters.items() if name.startswith("param_")},
    )


def _settings(parameters: Mapping[str, str]) -> dict[str, str]:
    named = {n: v for n, v in parameters.items() if n not in _TRANSPORT and not n.startswith("param_")}
    for name in named:
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise RequestError(f"{name!r} is no name of a setting")
    return named
