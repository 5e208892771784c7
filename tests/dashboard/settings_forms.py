"""Forms of the settings, filled in as a person would: what the page holds, changed here and there."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import httpx

from tests.dashboard.visitor import Visitor


class _Form(HTMLParser):
    """Collects what a browser would send of the biggest form on a page; buttons do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[list[tuple[str, str]]] = []
        self._open = False
        self._select = self._area = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an input."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._open = given.get("method") == "post"
            if self._open:
                self.forms.append([])
        if not self._open:
            return
        if tag == "input" and given.get("name") and self._is_sent(given):
            self.forms[-1].append((given["name"], given.get("value", "")))
        self._select = given.get("name", "") if tag == "select" else self._select
        self._area = given.get("name", "") if tag == "textarea" else ""

    def _is_sent(self, given: dict[str, str]) -> bool:
        return given.get("type") not in ("checkbox", "radio") or "checked" in given

    def handle_data(self, data: str) -> None:
        """Note the text of a textarea, without the line break that begins it."""
        if self._open and self._area:
            self.forms[-1].append((self._area, data.removeprefix("\n")))
            self._area = ""

    def handle_endtag(self, tag: str) -> None:
        """Forms end."""
        if tag == "form":
            self._open = False


def fields_of(page: httpx.Response) -> list[tuple[str, str]]:
    """What the page's main form would send, selects apart."""
    parser = _Form()
    parser.feed(page.text)
    found = max(parser.forms, key=len)
    chosen = re.search(r'<select id="f-(profile|event_type)".*?</select>', page.text, re.DOTALL)
    if chosen and (option := re.search(r"<option selected>([^<]*)<", chosen[0])):
        found.append((chosen[1], html.unescape(option[1])))
    return found


def filled(page: httpx.Response, **changed: str | list[str] | None) -> list[tuple[str, str]]:
    """The same with other values: None leaves a field out, a list sends it several times."""
    kept = [(name, value) for name, value in fields_of(page) if name not in changed]
    for name, given in changed.items():
        values = [given] if isinstance(given, str) else given or []
        kept += [(name, value) for value in values]
    return kept


def send(visitor: Visitor, path: str, **changed: str | list[str] | None) -> httpx.Response:
    """Open a form, change it and send it."""
    page = visitor.get(path)
    assert page.status_code == 200, page.text
    return visitor.post(path, filled(page, **changed))


def secret_of(page: httpx.Response) -> str:
    """What is shown this once; empty if nothing is."""
    found = re.search(r'class="secret"[^>]*><span>([^<]*)</span>', page.text)
    return html.unescape(found[1]) if found else ""
