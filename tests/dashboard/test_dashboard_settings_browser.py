"""The settings in a real browser that runs no scripts: plain forms are enough."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, Page, expect

from tests.dashboard.browser import chromium, served
from tests.dashboard.world import World
from tests.integration.api_fixtures import KEY

__all__ = ["chromium", "served"]
pytestmark = pytest.mark.integration


@pytest.fixture
def catalogued(world: World) -> World:
    """A catalogue of one event type."""
    answer = world.api.ask("PUT", "/v1/event-types/room.ended", {"example": {"room": "blue"}})
    assert answer.status_code == 200
    return world


@pytest.fixture
def plain_page(catalogued: World, served: str, chromium: Browser) -> Iterator[Page]:
    """A page without scripts, logged in as the admin."""
    context = chromium.new_context(base_url=f"{served}/", java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.goto("webhooks")
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Log in").click()
    yield page
    context.close()


def test_an_endpoint_is_added_changed_and_deleted_without_scripts(plain_page: Page) -> None:
    """The first error has the focus, what was typed stays, and a reload shows the secret no second time."""
    page = plain_page
    page.get_by_role("link", name="Add an endpoint").click()
    form = page.locator("form.settings")
    form.get_by_label("Tenant").fill("acme")
    form.get_by_label("URL").fill("ftp://new.example.com/")
    form.get_by_label("Only these").check()
    form.get_by_label("room.ended").check()
    form.get_by_label("Name of header 1").fill("X-Token")
    form.get_by_label("Value of header 1").fill("abc")
    form.get_by_label("Description").fill("kept")
    form.get_by_label("URL").press("Enter")
    expect(form.get_by_label("URL")).to_be_focused()
    expect(form.get_by_label("URL")).to_have_accessible_description(
        "Where messages are sent by POST. must begin with https://"
    )
    expect(form.get_by_label("Description")).to_have_value("kept")
    expect(form.get_by_label("room.ended")).to_be_checked()
    expect(form.get_by_label("Value of header 1")).to_have_value("abc")
    form.get_by_label("URL").fill("https://new.example.com/")
    page.get_by_role("button", name="Add the endpoint").click()
    expect(page.get_by_role("heading", name="The endpoint is added")).to_be_visible()
    secret = page.locator(".secret span").first.inner_text()
    assert secret.startswith("whsec_")
    page.reload()
    expect(page.get_by_text("This was done before")).to_be_visible()
    assert secret not in page.content()
    page.get_by_role("link", name="To the endpoint").click()
    page.get_by_role("link", name="Edit").click()
    expect(form.get_by_label("Value of X-Token")).to_have_value("")
    form.get_by_label("Enabled").uncheck()
    page.get_by_role("button", name="Save", exact=True).last.click()
    expect(page.get_by_text("The changes are saved.")).to_be_visible()
    page.get_by_role("button", name="Enable").click()
    expect(page.get_by_text("The endpoint is enabled.")).to_be_visible()
    page.get_by_role("link", name="Delete").click()
    page.get_by_label("Type delete to go on").fill("delete")
    page.get_by_role("button", name="Delete it").click()
    expect(page.locator("main").get_by_role("status").first).to_contain_text("is deleted.")
    expect(page.get_by_role("link", name="new.example.com")).to_have_count(0)


def test_going_back_to_a_secret_shows_none(plain_page: Page, catalogued: World) -> None:
    """The browser has kept no copy, and asks before it sends the form again, which would show none either."""
    page = plain_page
    page.goto(f"webhooks/{catalogued.endpoints['acme']}/rotate")
    page.get_by_role("button", name="Rotate").click()
    secret = page.locator(".secret span").first.inner_text()
    page.goto("webhooks")
    with pytest.raises(Error, match="ERR_CACHE_MISS"):  # what Chromium says of a form's answer that it lacks
        page.go_back()
    expect(page).to_have_url(re.compile("^chrome-error:"))  # its own page, which comes after the failure
    page.wait_for_load_state()
    expect(page.get_by_text(secret)).to_have_count(0)
