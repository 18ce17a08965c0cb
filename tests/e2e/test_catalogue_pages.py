"""The catalogue's pages behind a real sign-in, for a student and for a researcher."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import Traffic, browser
from tests.hub_process import RunningHub

pytestmark = [pytest.mark.hub]


def _sign_in(page: Page, hub: RunningHub, name: str) -> None:
    page.goto(f"{hub.url}services/catalog/")
    page.fill("#username_input", name)
    page.fill("#password_input", hub.passwords[name])
    page.click("#login_submit")


@pytest.mark.parametrize("name", ["student1", "researcher"])
def test_the_front_page_is_there_for_whoever_signed_in(
    hub: RunningHub, profile: Path, name: str
) -> None:
    with browser(profile) as context:
        traffic = Traffic.of(context)
        page = context.new_page()
        _sign_in(page, hub, name)
        expect(page.locator(".visitor")).to_have_text(name)
        expect(page.locator("#count")).to_have_text(re.compile(r"[1-9]\d* images?"))
        picture = page.locator(".grid img").first
        assert picture.evaluate("one => one.decode().then(() => one.naturalWidth)") > 10
        page.locator("a.open").first.click()
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        page.get_by_role("link", name="Inbox").click()
        expect(page.get_by_text("You edit no project")).to_be_visible()
        page.get_by_role("link", name="Batches").click()
        expect(page.get_by_role("heading", name="Batches")).to_be_visible()
        assert traffic.outside(hub.url) == []
