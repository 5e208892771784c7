"""Failed, Replay and Audit in a real browser, with every group on threads and a real receiver."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from engine.dev.process import wait_until
from engine.runtime.history.clickhouse import History
from tests.dashboard.axe import faults, faults_in_both_themes
from tests.dashboard.browser import browser_page, chromium, serving
from tests.dashboard.test_dashboard_browser import log_in
from tests.integration.api_fixtures import Api
from tests.integration.history_fixtures import Store
from tests.integration.whole import (
    LIMIT_S,
    Receiver,
    api_with_groups,
    attempts,
    endpoint,
    project,
    publish,
    receiver,
    wait_attempts,
)

__all__ = ["api_with_groups", "browser_page", "chromium", "receiver"]
pytestmark = pytest.mark.integration


@pytest.fixture
def api(api_with_groups: Api) -> Api:
    """In place of the one without groups."""
    return api_with_groups


@pytest.fixture
def served(api: Api, receiver: Receiver, store: Store, history: History) -> Iterator[str]:
    """Four deliveries of acme have failed, and the history knows; the receiver is well again."""
    receiver.status = 500
    endpoint(api, receiver)
    publish(api, 3)
    publish(api, 1, "room.started")
    wait_attempts(api, 4)
    project(api, store)
    receiver.status = 200
    with serving(api.context, history) as url:
        yield f"{url}/dashboard"


def test_a_walk_through_failed(browser_page: Page, api: Api, receiver: Receiver) -> None:
    """Filter, retry one, then the ticked; each is delivered once."""
    page = browser_page
    log_in(page)
    page.get_by_role("navigation").get_by_role("link", name="Failed").click()
    expect(page.locator("table.log tbody tr")).to_have_count(4)
    assert faults_in_both_themes(page) == []
    page.get_by_label("Event type").fill("room.started")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("table.log tbody tr")).to_have_count(1)
    page.get_by_role("button", name=re.compile("^Retry room.started")).click()
    expect(page.get_by_role("status").first).to_contain_text("It is made again")
    assert len(wait_attempts(api, 1, "resend")) == 1
    page.get_by_role("link", name="Clear").click()
    page.get_by_label("Tick all of this page").check()
    page.get_by_label(re.compile("^Tick room.started")).uncheck()
    page.get_by_role("button", name="Retry the ticked").click()
    expect(page.get_by_role("status").first).to_contain_text("3 deliveries are made again")
    assert len(wait_attempts(api, 4, "resend")) == 4
    assert len(receiver.bodies) == 8


def test_a_walk_through_a_replay(browser_page: Page, api: Api, receiver: Receiver) -> None:
    """Count, start with a double click, watch it end without a reload, and look at the list."""
    page = browser_page
    log_in(page)
    page.get_by_role("navigation").get_by_role("link", name="Replay").click()
    assert faults_in_both_themes(page) == []
    page.get_by_role("main").get_by_role("link", name="New replay").first.click()
    assert faults_in_both_themes(page) == []
    page.locator("#f-tenant2").select_option("acme")
    page.get_by_label("Event types").fill("room.ended")
    page.get_by_label("At most so many a second").fill("2")
    page.get_by_role("radio", name="All").check()
    page.get_by_role("button", name="Count first").click()
    start = page.get_by_role("button", name="Start: make 3 deliveries")
    expect(start).to_be_visible()
    assert faults_in_both_themes(page) == []
    start.dblclick()
    expect(page.get_by_role("heading", name="Progress")).to_be_visible()
    marked = page.evaluate("window.isSamePage = true")
    assert faults(page) == []
    expect(page.get_by_text("3 of 3 deliveries made")).to_be_visible(timeout=30_000)
    expect(page.get_by_role("button", name="Cancel the replay")).to_have_count(0)
    expect(page.locator("#told")).to_have_text("The replay is finished")
    assert page.evaluate("window.isSamePage") == marked
    assert len(wait_attempts(api, 3, "replay")) == 3
    page.get_by_role("navigation").get_by_role("link", name="Replay").click()
    expect(page.locator("table.log tbody tr")).to_have_count(1)
    assert [each.trigger for each in attempts(api)].count("replay") == 3
    assert len(receiver.bodies) == 7


def test_a_replay_is_cancelled_by_the_keyboard(browser_page: Page, api: Api) -> None:
    """From all that match of a tenant's failures on, without a mouse."""
    page = browser_page
    log_in(page)

    def counted() -> bool:
        page.goto("failed?tenant=acme")
        page.get_by_role("button", name="Retry all that match").press("Enter")
        return page.get_by_role("button", name="Start: make 4 deliveries").count() == 1

    assert wait_until(counted, LIMIT_S, 0.05)
    page.get_by_role("link", name="Change it").press("Enter")
    page.get_by_label("At most so many a second").fill("0.1")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Start: make 4 deliveries").press("Enter")
    expect(page.get_by_role("heading", name="Replay: failed, acme")).to_be_visible()
    page.get_by_role("button", name="Cancel the replay").press("Enter")
    expect(page.get_by_role("status").first).to_contain_text("The replay is cancelled")
    expect(page.get_by_role("main").get_by_text("Cancelled", exact=False).first).to_be_visible()
    assert faults_in_both_themes(page) == []


def test_a_walk_through_the_audit(browser_page: Page) -> None:
    """The accounts, the filters, and to what was changed."""
    page = browser_page
    log_in(page)
    page.get_by_role("navigation").get_by_role("link", name="Audit").click()
    expect(page.get_by_role("heading", name="Everything is accounted for")).to_be_visible()
    assert faults_in_both_themes(page) == []
    page.get_by_label("Kind", exact=True).select_option("endpoint")
    page.get_by_role("button", name="Show").click()
    expect(page).to_have_url(re.compile("subject=endpoint"))


def test_nothing_needs_scripts(served: str, browser_page: Page, api: Api) -> None:
    """The same forms work in a browser that runs none."""
    browser = browser_page.context.browser
    assert browser is not None
    context = browser.new_context(base_url=f"{served}/", java_script_enabled=False)
    page = context.new_page()
    log_in(page)
    page.get_by_role("navigation").get_by_role("link", name="Failed").click()
    page.get_by_label(re.compile("^Tick room.started")).check()
    page.get_by_role("button", name="Retry the ticked").click()
    expect(page.get_by_role("status").first).to_contain_text("It is made again")
    page.goto("replays/new?tenant=acme&only=all&rate=0.1")
    page.get_by_role("button", name="Count first").click()
    page.get_by_role("button", name=re.compile("^Start")).click()
    page.get_by_role("button", name="Cancel the replay").click()
    expect(page.get_by_role("status").first).to_contain_text("The replay is cancelled")
    context.close()


def test_on_a_phone_these_pages_fit(browser_page: Page) -> None:
    """Nothing is wider than 360 pixels, and nothing serious is wrong there either."""
    page = browser_page
    page.set_viewport_size({"width": 360, "height": 740})
    log_in(page)
    for path in ("failed", "failed?tenant=acme", "replays", "replays/new", "audit"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        assert faults(page) == [], path
