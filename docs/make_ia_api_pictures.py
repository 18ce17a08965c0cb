"""Makes the two pictures of `ia_api.md` anew: `python docs/make_ia_api_pictures.py`.

Starts a hub with the IA-API service in a folder that is thrown away, and a pathology
server that asks it for analyses; photographs the administrator's pages.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Page, expect  # noqa: E402

from tests.browser import browser  # noqa: E402
from tests.hub_process import RunningHub, running_hub  # noqa: E402
from tests.pathology_server import (  # noqa: E402
    PathologyServer,
    Viewer,
    synthetic_slide,
)

PICTURES = ROOT / "docs" / "pictures"
LOOK: Any = {"type": "jpeg", "quality": 82}
APPS = ("tissue-area", "focus-map")


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        PathologyServer() as server,
        running_hub(Path(folder) / "home", THEATRUM_IA_API=_settings(server)) as hub,
        browser(Path(folder) / "profile") as context,
    ):
        page = context.pages[0]
        page.set_viewport_size({"width": 1280, "height": 820})
        sign_in(hub, page)
        for app in APPS:
            ask(hub, server, app)
        page.goto(f"{hub.url}services/ia-api/jobs")
        rows = page.locator("tbody tr")
        expect(rows.filter(has_text="Succeeded").nth(3)).to_be_visible(timeout=120_000)
        page.screenshot(path=PICTURES / "ia_api_jobs.jpg", **LOOK)
        page.goto(f"{hub.url}services/ia-api/")
        page.screenshot(path=PICTURES / "ia_api_overview.jpg", **LOOK)


def _settings(server: PathologyServer) -> str:
    apps = {name: {"node": _node(name), "needs": "tiles"} for name in APPS}
    table = {
        "enabled": True,
        "allow_callback": [server.origin],
        "public_url": "https://hub.example.org/services/ia-api",
        "min_free_bytes": 0,
        "attempts": 2,
        "apps": apps,
    }
    return json.dumps(table)


def _node(app: str) -> str:
    return f"theatrum.nodes:{app.replace('-', '_')}"


def sign_in(hub: RunningHub, page: Page) -> None:
    page.goto(f"{hub.url}services/ia-api/")
    page.fill("#username_input", "teacher")
    page.fill("#password_input", hub.passwords["teacher"])
    page.click("#login_submit")
    page.wait_for_url(f"{hub.url}services/ia-api/")


def ask(hub: RunningHub, server: PathologyServer, app: str) -> None:
    """A user asks for the app on six slides."""
    with Viewer(server, f"{hub.url}services/ia-api/apps/{app}") as viewer:
        viewer.register()
        for number in range(6):
            slide = synthetic_slide(f"{app}-{number}", width=6000 + number, height=4000)
            server.add(slide)
            viewer.create(slide.slide_id)


if __name__ == "__main__":
    main()
