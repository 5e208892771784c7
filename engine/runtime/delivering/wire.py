"""What a connection takes in: so many bytes an answer, whatever they are.

The library bounds a line, a header's size and their number, not what comes
between: interim answers, blank lines, padding and chunk extensions may go on
for as long as the deadline allows, at the speed of the network.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

import aiohttp
from aiohttp import TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_parser import RawResponseMessage
from aiohttp.streams import StreamReader

HEAD_MAX = 64 << 10
"""Bytes before the head of the final answer is complete."""
ANSWER_MAX = 1 << 20
"""Bytes in all: 16 KiB of body in chunks of one byte are a tenth of it."""
_PIECE = 16 << 10
"""A flood of interim answers is parsed in pieces, so that it ends before others have waited."""


class BoundedHandler(ResponseHandler):
    """The client's end of a connection; an answer that is too long on the wire breaks it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._taken = 0
        self._is_headed = False

    def set_response_params(self, **params: Any) -> None:
        """Begin the next answer."""
        self._taken, self._is_headed = 0, False
        super().set_response_params(**params)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Note when the head of an answer that is no interim one has come."""
        self._is_headed |= data[0].code >= 200
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        """Take in what there is room for."""
        if len(data) <= _PIECE:
            self._take(data)
            return
        for start in range(0, len(data), _PIECE):
            self._take(data[start : start + _PIECE])

    def _take(self, piece: bytes) -> None:
        if self.exception() is not None:
            return
        self._taken += len(piece)
        limit = ANSWER_MAX if self._is_headed else HEAD_MAX
        if self._taken > limit:
            self._break(f"more than {limit} bytes came, and no end of the {self._part}")
        else:
            super().data_received(piece)

    @property
    def _part(self) -> str:
        return "answer" if self._is_headed else "answer's head"

    def _break(self, reason: str) -> None:
        error = aiohttp.ClientPayloadError(reason)
        if self._payload is not None:
            self._payload.set_exception(error)
        self.set_exception(error)
        if self.transport is not None:
            self.transport.abort()


class BoundedConnector(TCPConnector):
    """A connector whose connections are bounded."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # The library has no public place for this; tests/runtime/test_bad_receivers.py tells if it moves.
        self._factory = cast("partial[ResponseHandler]", partial(BoundedHandler, self._loop))
