"""Pictures of each page of the dashboard, light and dark, on a desktop and on a phone.

`python -m engine.dev.screenshots --url http://127.0.0.1:8080 --key hl_… FOLDER`, against a running stack
with something in it, such as that of `hooklog demo --keep`. Needs Chromium on PATH, and the extra `test`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import httpx

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Scheme = Literal["light", "dark"]
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
_SCHEMES: tuple[Scheme, ...] = ("light", "dark")
_DEADLINE_MS = 15_000
_CUT = 4_000
_SETTLED_MS = 300
"""Fonts and charts are drawn by then."""


class ShotError(Exception):
    """There can be no pictures; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A page to take a picture of; `path` is below /dashboard.

    Before that, fields (by id) are filled and boxes ticked, and then the button is pressed that says `press`.
    """

    name: str
    path: str
    fills: Sequence[tuple[str, str]] = ()
    ticks: Sequence[str] = ()
    press: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """How it is looked at; sizes in pixels."""

    size: str
    scheme: Scheme
    cut: int = _CUT
    """Height at which a longer page is cut."""

    @property
    def viewport(self) -> tuple[int, int]:
        """Width and height."""
        return _SIZES[self.size]


VIEWS = tuple(View(size, scheme) for size in _SIZES for scheme in _SCHEMES)
_FIXED = (
    Shot("overview", "overview"),
    Shot("deliveries", "deliveries"),
    Shot("failed", "failed"),
    Shot("replays", "replays"),
    Shot("replay-new", "replays/new"),
    Shot("webhooks", "webhooks"),
    Shot("webhook-new", "webhooks/new"),
    Shot("webhook-refused", "webhooks/new", [("#f-url", "nowhere")], press="Add the endpoint"),
    Shot(
        "webhook-made",
        "webhooks/new",
        [("#f-url", "https://example.com/webhooks"), ("#f-owner", "pictures")],
        press="Add the endpoint",
    ),
    Shot("keys", "keys"),
    Shot("key-new", "keys/new"),
    Shot("key-made", "keys/new", [("#f-description", "pictures")], ["read"], "Make the key"),
    Shot("event-types", "event-types"),
    Shot("event-type-new", "event-types/new"),
    Shot("audit", "audit"),
    Shot("nothing-found", "deliveries?event_type=none"),
    Shot("wrong-filter", "failed?since=yesterday"),
    Shot("missing", "nowhere"),
)


def found(url: str, key: str) -> list[Shot]:
    """Pages about what the stack has: an endpoint that fails, a message's story, a replay."""
    with httpx.Client(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {key}"}) as http:
        failed = _first(http, "deliveries", status="failed")
        replay = _first(http, "replays")
    shots = []
    if failed:
        of, settings = f"tenant={failed['tenant']}", f"webhooks/{failed['endpoint_id']}"
        shots += [
            Shot("endpoint", f"endpoints/{failed['endpoint_id']}"),
            Shot("story", f"message?id={failed['message_id']}&{of}"),
            Shot("webhook-edit", f"{settings}/edit"),
            Shot("rotate", f"{settings}/rotate"),
            Shot("rotated", f"{settings}/rotate", press="Rotate"),
            Shot("test", f"{settings}/test"),
            Shot("tested", f"{settings}/test", press="Send"),
            Shot("disable", f"{settings}/disable"),
            Shot("delete", f"{settings}/delete"),
            Shot("replay-preview", f"replays/new?{of}&only=failed", press="Count first"),
        ]
    if replay:
        shots.append(Shot("replay", f"replays/{replay['id']}"))
    return shots


def _first(http: httpx.Client, what: str, **asked: str) -> dict[str, str]:
    """The first of a list of the API; empty without any."""
    answer = http.get(f"/{what}", params=asked)
    if answer.status_code != httpx.codes.OK:
        raise ShotError(
            f"{answer.url.host} answers {answer.status_code} at {answer.url.path}: is the key right?"
        )
    rows = answer.json()["data"]
    return dict(rows[0]) if rows else {}


def take(
    url: str, key: str, folder: Path, shots: Sequence[Shot], views: Sequence[View] = VIEWS
) -> list[Path]:
    """Take a picture of each page in each view; the files, each `NAME-SIZE-SCHEME.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with _browser() as browser:
        for view in views:
            with _page(browser, view) as page:
                made.append(_shot(page, Shot("login", "login"), view, (url, folder)))
                _log_in(page, url, key)
                made += [_shot(page, shot, view, (url, folder)) for shot in shots]
    return made


@contextmanager
def _browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  only these pictures need it

    path = next((at for name in _BROWSERS if (at := shutil.which(name))), None)
    if path is None:
        raise ShotError("there is no Chromium on PATH: install one, such as the package chromium")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@contextmanager
def _page(browser: Browser, view: View) -> Iterator[Page]:
    width, height = view.viewport
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=view.scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(_DEADLINE_MS)
    yield page
    context.close()


def _log_in(page: Page, url: str, key: str) -> None:
    page.goto(f"{url}/dashboard/login")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Log in").click()
    if page.get_by_role("alert").count():
        raise ShotError(f"the dashboard does not let us in: {page.get_by_role('alert').inner_text()}")


def _shot(page: Page, shot: Shot, view: View, where: tuple[str, Path]) -> Path:
    url, folder = where
    page.goto(f"{url}/dashboard/{shot.path}")
    for field, text in shot.fills:
        page.locator(field).fill(text)
    for value in shot.ticks:
        page.locator(f"input[value='{value}']").check()
    if shot.press:
        page.get_by_role("button", name=shot.press, exact=True).click()
    page.wait_for_timeout(_SETTLED_MS)
    width, height = view.viewport
    whole = int(page.evaluate("document.documentElement.scrollHeight"))
    file = folder / f"{shot.name}-{view.size}-{view.scheme}.png"
    height = min(max(whole, height), view.cut)
    page.screenshot(path=file, full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})
    return file


def main() -> int:
    """Take them from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="of the API of a running stack")
    parser.add_argument("--key", default=os.environ.get("HOOKLOG_API_KEY", ""), help="else HOOKLOG_API_KEY")
    parser.add_argument("--cut", type=int, default=_CUT, help="height at which longer pages are cut")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="just these pages")
    chosen = parser.parse_args()
    try:
        shots = [s for s in (*_FIXED, *found(chosen.url, chosen.key)) if s.name in (chosen.only or [s.name])]
        views = [replace(view, cut=chosen.cut) for view in VIEWS]
        for file in take(chosen.url, chosen.key, chosen.folder, shots, views):
            print(f"{file} {file.stat().st_size // 1024} KiB")
    except (ShotError, httpx.HTTPError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
