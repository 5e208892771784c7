"""The dashboard in a real browser: what only a browser can tell."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from engine.dev.process import wait_until
from tests.dashboard.browser import browser_page, chromium, served
from tests.dashboard.world import World
from tests.integration.api_fixtures import KEY, LIMIT_S

__all__ = ["browser_page", "chromium", "served"]
pytestmark = pytest.mark.integration
NOTE_WHAT_IT_SAYS = """element => {
    window.noted = [];
    const note = () => window.noted.push(element.textContent);
    new MutationObserver(note).observe(element, {childList: true, characterData: true, subtree: true});
}"""
"""For what is shown for a moment only, which may be over before a busy machine looks."""


@pytest.fixture
def told(world: World) -> World:
    """A message that was answered 503, and one that arrived."""
    world.publish("acme", b'{"room":"<b>blue</b>"}')
    world.attempt("acme", 0, error_class="http_5xx", response_body=b"<script>alert(1)</script>")
    world.publish("other")
    world.attempt("other", 1)
    return world


def log_in(page: Page) -> None:
    """As the admin."""
    page.goto("overview")
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Log in").click()


def test_a_walk_from_login_to_a_messages_story(told: World, browser_page: Page) -> None:
    """By links alone; times are told in the reader's zone, and UTC on hover."""
    page = browser_page
    log_in(page)
    expect(page.get_by_role("heading", name="Some endpoints are failing")).to_be_visible()
    page.get_by_role("navigation").get_by_role("link", name="Deliveries").click()
    page.get_by_label("Status").select_option("pending")
    page.get_by_role("button", name="Show").click()
    rows = page.locator("table.log tbody tr")
    expect(rows).to_have_count(1)
    time = rows.first.locator("time").first
    expect(time.locator("small")).to_contain_text("ago")
    assert (time.get_attribute("title") or "").endswith(" UTC")
    rows.first.get_by_role("link", name="m0").click()
    expect(page.get_by_text("because it answered 503").first).to_be_visible()
    expect(page.get_by_label("Body of the answer")).to_have_text("<script>alert(1)</script>")
    copy = page.get_by_role("button", name="Copy as curl")
    copy.evaluate(NOTE_WHAT_IT_SAYS)
    copy.click()
    assert wait_until(lambda: page.evaluate("window.noted.some(text => text.includes('Copied'))"), LIMIT_S)
    assert page.evaluate("navigator.clipboard.readText()").startswith("curl \\\n  --globoff -X POST")
    page.get_by_role("heading", name="hooks.example.com/in").get_by_role("link").click()
    expect(page.get_by_role("heading", name="Health over time")).to_be_visible()


def test_the_theme_is_remembered(told: World, browser_page: Page) -> None:
    """On the next page and after a reload."""
    page = browser_page
    page.emulate_media(color_scheme="light")
    log_in(page)
    page.get_by_role("button", name="Switch between dark and light").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.goto("deliveries")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_the_log_is_live_without_a_reload(told: World, browser_page: Page) -> None:
    """A delivery that comes meanwhile shows by itself."""
    page = browser_page
    log_in(page)
    page.goto("deliveries?live=1")
    expect(page.locator("table.log tbody tr")).to_have_count(2)
    told.publish("acme")
    expect(page.locator("table.log tbody tr")).to_have_count(3)


def test_on_a_phone_nothing_is_wider_than_the_screen(told: World, browser_page: Page) -> None:
    """Every page, at 360 pixels."""
    page = browser_page
    page.set_viewport_size({"width": 360, "height": 740})
    log_in(page)
    for path in ("overview", "deliveries", "message?id=m0", f"endpoints/{told.endpoints['acme']}"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
