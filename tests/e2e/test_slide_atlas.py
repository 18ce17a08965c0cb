"""The dashboard that ships with the product, in a browser, through a real hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser import Traffic, browser
from tests.hub_process import RunningHub

pytestmark = [pytest.mark.hub, pytest.mark.browser]

ATLAS = "services/voila/voila/render/slide_atlas.ipynb"


@pytest.fixture
def page(hub: RunningHub, profile: Path) -> Iterator[Page]:
    """A browser that has never been here, signed in as a student."""
    with browser(profile) as context:
        page = context.pages[0]
        page.goto(f"{hub.url}hub/login")
        page.fill("#username_input", "student1")
        page.fill("#password_input", hub.passwords["student1"])
        page.click("#login_submit")
        page.wait_for_url(lambda url: "login" not in url)
        yield page


def test_a_student_picks_a_slide_views_it_and_comes_back(
    hub: RunningHub, page: Page
) -> None:
    traffic = Traffic.of(page.context)
    page.goto(f"{hub.url}{ATLAS}")
    tile = page.get_by_role("button", name="histology101/ihc")
    expect(tile).to_contain_text("20 480 × 15 360 px · 10.2 × 7.7 mm")
    page.wait_for_function(
        "() => document.querySelector('.theatrum-frame img')?.naturalWidth > 100"
    )

    tile.focus()
    page.keyboard.press("Enter")
    back = page.get_by_role("button", name="All slides")
    expect(back).to_be_focused()
    expect(page.locator(".theatrum-facts")).to_contain_text("0.5 µm")
    expect(page.locator(".theatrum-facts")).to_contain_text("20×")
    page.wait_for_function(
        "() => { const tiles = [...document.querySelectorAll('img.leaflet-tile')];"
        " return tiles.length > 0 && tiles.every((tile) => tile.naturalWidth > 0); }"
    )
    expect(tile).to_be_hidden()
    assert traffic.tiles()
    assert {answer.status for answer in traffic.tiles()} == {200}
    assert traffic.outside(hub.url) == []

    page.keyboard.press("Enter")
    expect(tile).to_be_focused()
    expect(page.locator(".leaflet-container")).to_have_count(0)


def test_the_filter_says_what_it_found(hub: RunningHub, page: Page) -> None:
    page.goto(f"{hub.url}{ATLAS}")
    expect(page.get_by_role("status")).to_have_text("1 slide")
    page.get_by_label("Filter").fill("histo IHC")
    expect(page.locator(".theatrum-tile")).to_be_visible()
    page.get_by_label("Filter").fill("lung")
    expect(page.locator(".theatrum-tile")).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text("0 of 1 slide")
    expect(page.get_by_text("No slide matches “lung”.")).to_be_visible()
