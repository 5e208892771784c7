"""What `lanes` says of an endpoint: its circuit, and whether its backlog waits on the log."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

from engine.core.lane import Lane
from engine.ports import Log, Record
from engine.runtime.configuration.views import View
from schemas.codec import Codec

_WAIT_S = 0.02


class Circuits:
    """A view of `lanes`, made at first use and brought up to date when asked; safe from several threads."""

    def __init__(self, log: Log, codec: Codec) -> None:
        self._log = log
        self._codec = codec
        self._lock = Lock()
        self._view: View | None = None
        self._lanes: dict[str, Lane] = {}

    def of(self, endpoint_id: str) -> Lane:
        """The endpoint's lane; one that the topic lacks is open to all and has no backlog on the log."""
        return self.among([endpoint_id])[endpoint_id]

    def among(self, endpoint_ids: Iterable[str]) -> dict[str, Lane]:
        """The lanes of several endpoints, likewise, by their ids; the log is asked once."""
        with self._lock:
            if self._view is None:
                self._view = View(self._log, ("lanes",), self._fold)
                self._view.load()
            while self._view.advance(_WAIT_S):
                pass
            return {id: self._lanes.get(id) or Lane(id) for id in endpoint_ids}

    def _fold(self, record: Record) -> None:
        endpoint_id = (record.key or b"").decode()
        if record.value is None:
            self._lanes.pop(endpoint_id, None)
        else:
            self._lanes[endpoint_id] = self._codec.decode_as(Lane, record.value)

    def close(self) -> None:
        """Let go of the log."""
        with self._lock:
            if self._view is not None:
                self._view.close()
