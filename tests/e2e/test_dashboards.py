"""Dashboards: from our own origin only, and with the rights of who looks at them."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from tests.browser import Traffic, browser
from tests.hub_process import RunningHub

pytestmark = [pytest.mark.hub, pytest.mark.browser]

CODE = """
import json, os
from theatrum import images
tokens = [name for name in os.environ if name == "JUPYTERHUB_API_TOKEN"]
print(json.dumps([[image.name for image in images.list()], tokens]))
"""


@pytest.fixture
def probe(hub: RunningHub) -> str:
    """A dashboard that prints what its kernel may see."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(CODE)],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, hub.home / "dashboards" / "probe.ipynb")
    return f"{hub.url}services/voila/voila/render/probe.ipynb"


@pytest.mark.parametrize(("name", "seen"), [("student1", ["ihc"]), ("nobody1", [])])
def test_a_dashboard_shows_what_its_viewer_may_see_and_holds_no_service_token(
    hub: RunningHub, probe: str, tmp_path: Path, name: str, seen: list[str]
) -> None:
    passwords = dict(hub.passwords) | {"nobody1": "without-any-group"}
    (hub.home / "demo-accounts.json").write_text(json.dumps(passwords))
    with browser(tmp_path) as context:
        traffic = Traffic.of(context)
        page = context.pages[0]
        page.goto(f"{hub.url}hub/login")
        page.fill("#username_input", name)
        page.fill("#password_input", passwords[name])
        page.click("#login_submit")
        page.wait_for_url(lambda url: "login" not in url)
        page.goto(probe)
        expect(page.get_by_text(json.dumps([seen, []]))).to_be_visible(timeout=60_000)
        page.goto(f"{hub.url}services/voila/")
        expect(page.get_by_role("link", name="Slide atlas")).to_be_visible()
        page.goto(f"{hub.url}services/voila/voila/render/absent.ipynb")
        expect(page.get_by_role("heading")).to_contain_text("404")
        assert traffic.outside(hub.url) == []
