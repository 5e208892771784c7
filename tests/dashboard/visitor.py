"""Somebody who looks at the dashboard through httpx: with a cookie, forms and tokens, and no scripts."""

from __future__ import annotations

import html
import re
from http.cookies import SimpleCookie
from urllib.parse import urlencode

import httpx

from tests.integration.api_fixtures import KEY, Api, Ask

_TOKEN = re.compile(r'name="csrf" value="([^"]+)"')
_FORM = "application/x-www-form-urlencoded"


class Visitor:
    """Asks the dashboard's pages of an API; redirects are answers like any other."""

    def __init__(self, api: Api, key: str = "") -> None:
        """With a key: logged in by it."""
        self.api = api
        self.cookies: dict[str, str] = {}
        self.token = ""
        if key:
            answer = self.log_in(key)
            assert answer.status_code == 303, answer.text

    def get(self, path: str, **headers: str) -> httpx.Response:
        """One page, by its path below /dashboard; `hx_request="true"` is the header hx-request."""
        return self._ask(Ask("GET", f"/dashboard/{path}", headers=self._headers(headers)))

    def post(self, path: str, fields: object = None, **headers: str) -> httpx.Response:
        """Send a form with the token of the page seen last, unless `fields` has one."""
        assert fields is None or isinstance(fields, dict | list)
        pairs = list(fields.items()) if isinstance(fields, dict) else list(fields or [])
        if self.token and not any(name == "csrf" for name, _ in pairs):
            pairs.append(("csrf", self.token))
        named = {"content-type": _FORM, **self._headers(headers)}
        content = urlencode(pairs).encode()
        return self._ask(Ask("POST", f"/dashboard/{path}", content=content, headers=named))

    def log_in(self, key: str = KEY, next: str = "") -> httpx.Response:
        """Get the form, and send it."""
        self.get("login")
        answer = self.post("login", {"key": key, "next": next})
        if answer.status_code == 303:
            self.get("endpoints/none")  # a page that asks the history for nothing: the session's own token
        return answer

    def _headers(self, given: dict[str, str]) -> dict[str, str]:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items()) or "none=1"
        named = {name.replace("_", "-"): value for name, value in given.items()}
        return {"Cookie": cookie, "Authorization": "", **named}

    def _ask(self, ask: Ask) -> httpx.Response:
        answer = self.api.together(ask)[0]
        for line in answer.headers.get_list("set-cookie"):
            self._keep(line)
        if found := _TOKEN.search(answer.text):
            self.token = html.unescape(found[1])
        return answer

    def _keep(self, line: str) -> None:
        for name, morsel in SimpleCookie(line).items():
            if morsel.value and morsel["max-age"] != "0":
                self.cookies[name] = morsel.value
            else:
                self.cookies.pop(name, None)
