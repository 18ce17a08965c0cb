"""Makes the README's three pictures anew: `python docs/make_pictures.py`.

Starts a hub with the demo in a folder that is thrown away, and photographs it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from playwright.sync_api import Page  # noqa: E402

from hub.demo_slide import STRUCTURES  # noqa: E402
from tests.browser import Notebook, browser  # noqa: E402
from tests.hub_process import RunningHub, running_hub  # noqa: E402
from tests.slide_on_page import SlideOnPage  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
LOOK: Any = {"type": "jpeg", "quality": 78}
WORK = "histology101/slide1/slide1.ipynb"
(VESSEL,) = [one for one in STRUCTURES if one.kind == "vessel"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with running_hub(home) as hub, browser(Path(folder) / "profile") as context:
            page = context.pages[0]
            page.set_viewport_size({"width": 1280, "height": 860})
            sign_in(hub, page)
            assignment(hub, page)
            page.goto(f"{hub.url}services/voila/voila/render/slide_atlas.ipynb")
            page.wait_for_function(
                "() => document.querySelector('.theatrum-frame img')?.naturalWidth > 99"
            )
            page.screenshot(path=PICTURES / "atlas.jpg", **LOOK)


def sign_in(hub: RunningHub, page: Page) -> None:
    page.goto(hub.url)
    page.fill("#username_input", "student1")
    page.fill("#password_input", hub.passwords["student1"])
    page.click("#login_submit")
    page.wait_for_function(
        "() => window.jupyterapp?.shell?.currentWidget?.context?.isReady"
    )


def assignment(hub: RunningHub, page: Page) -> None:
    """Fetch the assignment, explore the slide, answer one question."""
    page.evaluate(
        "() => window.jupyterapp.restored.then(() =>"
        " window.jupyterapp.commands.execute('nbgrader:open-assignment-list'))"
    )
    page.get_by_role("button", name="Fetch").click()
    page.get_by_role("button", name="Submit").wait_for()
    notebook = Notebook.open(page, f"{hub.url}user/student1/", WORK)
    notebook.run(1)
    slide(page, 1).approach((4750, 3650), 1 / 16)
    page.screenshot(path=PICTURES / "slide.jpg", **LOOK)
    notebook.run(13)
    vessel = slide(page, 13)
    vessel.approach((13300, 5200), 1 / 4)
    vessel.draw_polygon(VESSEL.outline[::4])
    page.locator(".theatrum-state", has_text="Saved").wait_for()
    page.screenshot(path=PICTURES / "question.jpg", **LOOK)


def slide(page: Page, cell: int) -> SlideOnPage:
    output = page.locator(".jp-NotebookPanel .jp-Cell").nth(cell)
    output.evaluate("(node) => node.scrollIntoView({block: 'start'})")
    return SlideOnPage(page, output, tile=240, top_z=7)


if __name__ == "__main__":
    main()
