"""Somebody who looks at the dashboard."""

from __future__ import annotations

import re
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from urllib.parse import urlencode

from engine.dev.bench.scenario import BenchError

_TOKEN = re.compile(r'name="csrf" value="([^"]+)"')
_FORM = "application/x-www-form-urlencoded"


class Visitor:
    """A browser without a screen: one connection, a session, no cache. Blocks."""

    def __init__(self, host: str, port: int) -> None:
        self._http = HTTPConnection(host, port, timeout=60)
        self._cookies: SimpleCookie = SimpleCookie()

    def log_in(self, key: str) -> None:
        """Begin a session with an API key; BenchError if it is refused."""
        found = _TOKEN.search(self._ask("GET", "login", 200).decode())
        if found is None:
            raise BenchError("the login has no form")
        self._ask("POST", "login", 303, urlencode({"key": key, "csrf": found[1]}))

    def get(self, path: str, **headers: str) -> bytes:
        """Return a page by its path below /dashboard; BenchError if it is no success."""
        return self._ask("GET", path, 200, **headers)

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()

    def _ask(self, method: str, path: str, expected: int, body: str | None = None, **headers: str) -> bytes:
        headers |= {"Cookie": "; ".join(f"{n}={each.value}" for n, each in self._cookies.items())}
        if body is not None:
            headers["Content-Type"] = _FORM
        self._http.request(method, f"/dashboard/{path}", body, headers)
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status != expected:
            raise BenchError(f"{method} {path} answered {answer.status}: {content[:200]!r}")
        for line in answer.msg.get_all("set-cookie", []):
            self._cookies.load(line)
        return content
