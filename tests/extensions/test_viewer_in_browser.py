"""The viewer as a person has it: JupyterLab, a browser, a slide in its folder.

Where something lies on the slide is told by the tiles themselves (which tile an <img>
holds, and where it is on the screen), not by the map that is under test.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile
from playwright.sync_api import expect

from tests.browser import (
    Lab,
    Notebook,
    Traffic,
    browser,
    jupyter_lab,
    require_chromium,
    write_notebook,
)
from tests.slides import SlideSpec, damage_tile, displacement, picture, write_slide

pytestmark = pytest.mark.browser

TILE = 256
SPEC = SlideSpec(width=3000, height=2000, downsamples=(1, 4), tile=TILE, mpp=0.5)
TOP_Z = 4  # 3000 pixels in tiles of 256: sixteen times coarser they fit one tile


EXPIRE = """
import dataclasses
from tile_server import tokens
from theatrum.local import tile_service
key, url = tile_service().key, viewer._tiles.url
token = url.split("/s/")[1].split("/")[0]
old = dataclasses.replace(tokens.unseal(key, token, 0), expires=1)
viewer._tiles.url = url.replace(token, tokens.seal(key, old))
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    require_chromium()
    folder = tmp_path_factory.mktemp("notebooks")
    write_slide(folder / "slide.svs", SPEC)
    with jupyter_lab(folder, tmp_path_factory.mktemp("lab")) as running:
        yield running


@dataclass(frozen=True)
class Shown:
    """A notebook with a viewer in its first cell."""

    notebook: Notebook
    traffic: Traffic
    sent: list[str]
    """What the page sent to the kernel."""

    @property
    def page(self) -> Any:  # Playwright's; Any keeps the lines below short
        return self.notebook.page

    def marks(self) -> list[dict[str, Any]]:
        """The marks as the kernel has them."""
        printed = self.notebook.execute("import json; print(json.dumps(viewer.marks))")
        features: list[dict[str, Any]] = json.loads(printed)["features"]
        return features

    def corner(self) -> tuple[int, int]:
        """The map's top-left corner in the window, in whole pixels."""
        box = self.page.locator(".leaflet-container").bounding_box()
        return round(box["x"]), round(box["y"])

    def click(self, *points: tuple[int, int]) -> None:
        left, top = self.corner()
        for x, y in points:
            self.page.mouse.move(left + x, top + y)
            self.page.mouse.click(left + x, top + y)
            self.page.wait_for_timeout(50)

    def drag(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        left, top = self.corner()
        self.page.mouse.move(left + start[0], top + start[1])
        self.page.mouse.down()
        self.page.mouse.move(left + end[0], top + end[1], steps=6)
        self.page.mouse.up()

    def tool(self, name: str) -> None:
        self.page.locator(f"[data-tool={name}]").click()

    def zoom_to(self, label: str) -> None:
        """Press a magnification button and wait until its tiles are there."""
        button = self.page.get_by_role("button", name=f"Magnification {label}")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        self.wait_for_tiles()

    def wait_for_tiles(self) -> None:
        """Wait until one level is shown, and all of it."""
        self.page.wait_for_function(
            """() => {
                const tiles = [...document.querySelectorAll("img.leaflet-tile")];
                const levels = new Set(tiles.map((tile) => tile.src.split("/").at(-3)));
                return levels.size === 1 && tiles.every((tile) => tile.naturalWidth
                    && tile.classList.contains("leaflet-tile-loaded")
                    && getComputedStyle(tile).opacity === "1");
            }"""
        )

    def l0_pixel(self, x: int, y: int) -> tuple[float, float]:
        """The level-0 pixel under a point of the map, as the tile there tells it."""
        left, top = self.corner()
        place = self.page.evaluate(
            """([x, y]) => {
                const tile = [
                    ...document.querySelectorAll("img.leaflet-tile-loaded")
                ].find((found) => {
                    const {left, right, top, bottom} = found.getBoundingClientRect();
                    return left <= x && x < right && top <= y && y < bottom;
                });
                if (!tile) return null;
                const box = tile.getBoundingClientRect();
                const [z, column, row] = tile.src.split("/").slice(-3).map(Number);
                return {z, x: column + (x - box.left) / box.width,
                        y: row + (y - box.top) / box.height};
            }""",
            [left + x, top + y],
        )
        assert place is not None, f"no tile at {x}, {y}"
        scale = TILE * 2.0 ** (TOP_Z - place["z"])
        return place["x"] * scale, place["y"] * scale

    def l0_per_screen_pixel(self) -> float:
        return (self.l0_pixel(500, 300)[0] - self.l0_pixel(400, 300)[0]) / 100


@contextmanager
def shown(lab: Lab, tmp_path: Path, *sources: str) -> Iterator[Shown]:
    """A fresh browser on a notebook whose first cell shows a viewer."""
    first, *others = sources or ("viewer = SlideViewer('slide.svs')",)
    write_notebook(
        lab.folder / "slide.ipynb",
        [f"from theatrum import SlideViewer\n{first}\nviewer", *others],
    )
    with browser(tmp_path / "profile") as context:
        traffic, sent = Traffic.of(context), []
        page = context.pages[0]
        page.on(
            "websocket",
            lambda socket: socket.on(
                "framesent", lambda frame: sent.append(str(frame))
            ),
        )
        notebook = Notebook.open(page, lab.url, "slide.ipynb", lab.token)
        notebook.run(0)
        assert notebook.error(0) is None
        viewer = Shown(notebook, traffic, sent)
        ready = viewer.page.locator(".leaflet-container[data-theatrum-drawing=ready]")
        ready.wait_for()
        viewer.wait_for_tiles()
        yield viewer
        notebook.shut_down()


def test_the_first_view_is_whole_in_place_and_within_its_origin(
    lab: Lab, tmp_path: Path
) -> None:
    with shown(lab, tmp_path) as viewer:
        answers = viewer.traffic.tiles()
        assert {answer.status for answer in answers} == {200}
        assert not [a.url for a in answers if a.request.redirected_from]
        # The whole slide, as large as whole zooms allow: at 1/4 it is 750 x 500.
        at_a_quarter = {a.url for a in answers if f"/{TOP_Z - 2}/" in a.url}
        assert len(at_a_quarter) == 3 * 2
        assert viewer.traffic.outside(lab.url) == []
        ground = viewer.page.locator(".leaflet-container").evaluate(
            "(map) => getComputedStyle(map).backgroundColor"
        )
        assert ground == "rgb(255, 255, 255)"
        left, top = viewer.corner()

        viewer.page.mouse.move(left + 300, top + 300)
        viewer.page.wait_for_timeout(300)
        viewer.sent.clear()
        viewer.page.mouse.move(left + 500, top + 400, steps=20)
        viewer.page.wait_for_timeout(300)
        assert not [frame for frame in viewer.sent if "mousemove" in frame]
        viewer.click((500, 400))
        assert [frame for frame in viewer.sent if "mousedown" in frame]

        viewer.zoom_to("20×")
        x, y = viewer.l0_pixel(300, 200)
        clip = {"x": left + 300, "y": top + 200, "width": 160, "height": 120}
        png = PIL.Image.open(io.BytesIO(viewer.page.screenshot(clip=clip)))
        seen = np.asarray(png.convert("RGB"))
        full = picture(SPEC.width, SPEC.height)
        wanted = full[round(y) : round(y) + 120, round(x) : round(x) + 160]
        assert displacement(seen, wanted) == (0, 0)
        assert np.abs(seen.astype(int) - wanted).mean() < 6
        assert {answer.status for answer in viewer.traffic.tiles()} == {200}


def test_a_polygon_drawn_by_mouse_is_read_within_a_pixel_and_edits_keep_its_id(
    lab: Lab, tmp_path: Path
) -> None:
    with shown(lab, tmp_path) as viewer:
        viewer.zoom_to("20×")
        corners = [(300, 150), (520, 170), (560, 330), (320, 380)]
        truth = [viewer.l0_pixel(*corner) for corner in corners]
        viewer.tool("polygon")
        viewer.click(*corners, corners[0])
        viewer.page.wait_for_timeout(500)
        (mark,) = viewer.marks()
        drawn = mark["geometry"]["coordinates"][0]
        assert drawn[0] == drawn[-1]
        assert np.abs(np.array(drawn[:-1]) - truth).max() <= 1
        assert mark["properties"] == {"kind": "polygon"}

        viewer.tool("rectangle")
        viewer.click((620, 200), (700, 260))
        viewer.tool("point")
        viewer.click((650, 420))
        viewer.page.keyboard.press("Escape")
        viewer.page.wait_for_timeout(500)
        before = viewer.marks()
        kinds = [mark["properties"]["kind"] for mark in before]
        assert kinds == ["polygon", "rectangle", "point"]

        viewer.tool("edit")
        viewer.page.wait_for_timeout(200)  # Geoman shows the corners after 100 ms
        viewer.drag((520, 170), (540, 120))
        viewer.page.wait_for_timeout(500)
        after = viewer.marks()
        assert [mark["id"] for mark in after] == [mark["id"] for mark in before]
        moved = after[0]["geometry"]["coordinates"][0][1]
        assert np.abs(np.subtract(moved, viewer.l0_pixel(540, 120))).max() <= 1
        assert after[1:] == before[1:]

        viewer.drag((700, 260), (740, 300))
        viewer.page.wait_for_timeout(500)
        _, rectangle, _ = viewer.marks()
        assert rectangle["id"] == before[1]["id"]
        assert rectangle["properties"]["kind"] == "rectangle"
        xs, ys = np.transpose(rectangle["geometry"]["coordinates"][0])
        assert (
            np.abs(np.subtract((max(xs), max(ys)), viewer.l0_pixel(740, 300))).max()
            <= 1
        )
        assert (
            np.abs(np.subtract((min(xs), min(ys)), viewer.l0_pixel(620, 200))).max()
            <= 1
        )

        viewer.tool("move")
        viewer.drag((650, 405), (600, 455))
        viewer.page.wait_for_timeout(500)
        point = viewer.marks()[2]
        assert point["id"] == before[2]["id"]
        shift = np.subtract(
            point["geometry"]["coordinates"], before[2]["geometry"]["coordinates"]
        )
        assert np.abs(shift - (-50, 50)).max() <= 1

        viewer.tool("delete")
        viewer.click((420, 250))
        viewer.page.wait_for_timeout(500)
        assert [mark["id"] for mark in viewer.marks()] == [
            before[1]["id"],
            before[2]["id"],
        ]
        viewer.page.get_by_role("button", name="Undo").click()
        viewer.page.wait_for_timeout(500)
        assert [mark["id"] for mark in viewer.marks()] == [
            mark["id"] for mark in before
        ]
        viewer.page.get_by_role("button", name="Redo").click()
        viewer.page.wait_for_timeout(500)
        assert len(viewer.marks()) == 2


def test_the_kernel_draws_and_keeps_only_as_many_marks_as_allowed(
    lab: Lab, tmp_path: Path
) -> None:
    one = "viewer = SlideViewer('slide.svs', tools=['point'], max_marks=1)"
    with shown(lab, tmp_path, one) as viewer:
        assert viewer.page.locator("[data-tool=polygon]").count() == 0
        viewer.notebook.execute(
            "point = {'type': 'Point', 'coordinates': [1500, 1000]}\n"
            "mark = {'type': 'Feature', 'id': 'mine', 'geometry': point}\n"
            "viewer.marks = {'type': 'FeatureCollection', 'features': [mark]}"
        )
        pin = viewer.page.locator("img.leaflet-marker-icon")
        expect(pin).to_have_count(1)
        box = pin.bounding_box()
        left, top = viewer.corner()
        tip = (
            round(box["x"] + box["width"] / 2) - left,
            round(box["y"] + box["height"]) - top,
        )
        error = np.subtract(viewer.l0_pixel(*tip), (1500, 1000))
        assert np.abs(error).max() <= viewer.l0_per_screen_pixel()

        viewer.tool("point")
        viewer.click((300, 300), (350, 320))
        expect(pin).to_have_count(2)  # the second follows the mouse until Escape
        viewer.page.wait_for_timeout(500)
        (mark,) = viewer.marks()
        assert mark["id"] != "mine"
        error = np.subtract(mark["geometry"]["coordinates"], viewer.l0_pixel(350, 320))
        assert np.abs(error).max() <= viewer.l0_per_screen_pixel()


def test_the_scale_bar_is_right_within_one_percent_at_each_zoom(
    lab: Lab, tmp_path: Path
) -> None:
    with shown(lab, tmp_path) as viewer:
        labels = []
        bar = viewer.page.locator(".theatrum-scale-label")
        viewer.zoom_to("20×")
        for step in ("in", "in", "out", "out", "out", "out", "out"):
            before = bar.inner_text()
            viewer.page.get_by_role("button", name=f"Zoom {step}").click()
            expect(bar).not_to_have_text(before)
            viewer.page.wait_for_timeout(300)  # the zoom's own movement
            viewer.wait_for_tiles()
            line = viewer.page.locator(".theatrum-scale-line").bounding_box()
            label = bar.inner_text()
            length, unit = label.split(" ")
            said_um = float(length) * {"µm": 1, "mm": 1000}[unit]
            true_um = line["width"] * viewer.l0_per_screen_pixel() * SPEC.mpp
            assert said_um == pytest.approx(true_um, rel=0.01), label
            labels.append(label)
        assert len(set(labels)) == 6


def test_tiles_and_marks_work_while_a_cell_runs(lab: Lab, tmp_path: Path) -> None:
    gate = lab.folder / "gate"
    os.mkfifo(gate)
    blocks = "open('gate').read()"  # until the test writes into it
    with shown(lab, tmp_path, "viewer = SlideViewer('slide.svs')", blocks) as viewer:
        viewer.notebook.run(1, wait=False)
        viewer.page.wait_for_function(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.session"
            ".kernel.status === 'busy'"
        )
        before = viewer.page.locator(".theatrum-scale-label").inner_text()
        seen = len(viewer.traffic.tiles())
        viewer.zoom_to("20×")
        fresh = viewer.traffic.tiles()[seen:]
        assert fresh
        assert {answer.status for answer in fresh} == {200}
        assert viewer.page.locator(".theatrum-scale-label").inner_text() != before
        for x in (300, 450):
            viewer.tool("rectangle")
            viewer.click((x, 200), (x + 60, 260))
        viewer.tool("edit")
        viewer.page.wait_for_timeout(200)
        viewer.drag((510, 260), (540, 280))
        gate.write_text("go on")
        viewer.notebook.wait_until_run(1)
        viewer.page.wait_for_timeout(500)
        first, second = viewer.marks()
        assert first["id"] != second["id"]
        xs, _ = np.transpose(second["geometry"]["coordinates"][0])
        assert max(xs) - min(xs) == pytest.approx(90, abs=1)
    gate.unlink()


def test_a_slide_that_goes_missing_is_told_and_comes_back_by_reload(
    lab: Lab, tmp_path: Path
) -> None:
    slide = shutil.copy(lab.folder / "slide.svs", lab.folder / "lost.svs")
    with shown(lab, tmp_path, "viewer = SlideViewer('lost.svs')") as viewer:
        away = Path(slide).rename(lab.folder / "away")
        viewer.page.wait_for_timeout(1100)  # the service looks at most once a second
        viewer.page.get_by_role("button", name="Magnification 20×").click()
        notice = viewer.page.locator(".theatrum-notice")
        expect(notice).to_contain_text("file is gone")
        assert notice.get_attribute("role") == "alert"
        reload = notice.get_by_role("button", name="Reload the slide")
        reload.click()
        expect(notice).to_contain_text("There is no file lost.svs here")
        away.rename(slide)
        reload.click()
        expect(notice).to_have_count(0)
        viewer.wait_for_tiles()

        viewer.notebook.execute(EXPIRE)
        viewer.zoom_to("5×")  # renews by itself
        expect(notice).to_have_count(0)
        assert 403 in {answer.status for answer in viewer.traffic.tiles()}

        viewer.notebook.execute("gone = SlideViewer('gone.svs')")
        message = viewer.notebook.execute("print(gone.children[0].value)")
        assert "gone.svs" in message
        assert 'role="alert"' in message


@pytest.mark.parametrize("known_to_the_service", [True, False])
def test_a_damaged_tile_is_told_and_leaves_the_rest_of_the_slide(
    lab: Lab, tmp_path: Path, known_to_the_service: bool
) -> None:
    slide = write_slide(lab.folder / "damaged.svs", SPEC)
    middle = 5 + 12 * 3  # columns and rows of tiles before the slide's middle
    with tifffile.TiffFile(slide) as tiff:
        start = tiff.pages[0].dataoffsets[middle]
        head = slide.read_bytes()[start : start + 2]
    damage_tile(slide, page=0, number=middle)
    if not known_to_the_service:
        # It still begins as a JPEG does: only who decodes it finds that it is none.
        with slide.open("r+b") as file:
            file.seek(start)
            file.write(head)
    with shown(lab, tmp_path, "viewer = SlideViewer('damaged.svs')") as viewer:
        viewer.page.get_by_role("button", name="Magnification 20×").click()
        notice = viewer.page.locator(".theatrum-notice")
        expect(notice).to_contain_text("damaged")
        loaded = viewer.page.locator("img.leaflet-tile-loaded[src*='/4/']")
        expect(loaded.nth(5)).to_be_visible()
        notice.get_by_role("button", name="Close this message").click()
        expect(notice).to_have_count(0)


def test_the_wheel_zooms_only_with_the_focus_and_keys_do_everything(
    lab: Lab, tmp_path: Path
) -> None:
    with shown(lab, tmp_path) as viewer:
        keyboard = viewer.page.keyboard
        container = viewer.page.locator(".leaflet-container")
        position = viewer.page.locator(".theatrum-position")
        left, top = viewer.corner()
        viewer.page.mouse.move(left + 400, top + 300)
        viewer.page.mouse.wheel(0, -300)  # the page's, until the map has the focus
        expect(viewer.page.locator(".theatrum-hint")).to_have_class(re.compile("shown"))
        viewer.page.wait_for_timeout(300)
        expect(position).to_contain_text("5×")
        viewer.click((400, 300))
        viewer.page.mouse.wheel(0, -300)
        expect(position).not_to_contain_text("5×")
        keyboard.press("0")
        expect(position).to_contain_text("5×")

        keyboard.press("p")
        expect(viewer.page.locator("[data-tool=polygon]")).to_have_attribute(
            "aria-pressed", "true"
        )
        keyboard.press("Enter")
        for key in ("ArrowRight", "ArrowDown"):
            keyboard.press(key)
            viewer.page.wait_for_timeout(500)  # the map glides
            keyboard.press("Enter")
        keyboard.press("Enter")  # the same place again ends the polygon
        viewer.page.wait_for_timeout(500)
        (mark,) = viewer.marks()
        a, b, c, _ = mark["geometry"]["coordinates"][0]
        assert b[0] > a[0]
        assert b[1] == a[1]
        assert c[0] == b[0]
        assert c[1] > b[1]

        container.focus()
        keyboard.press("p")
        keyboard.press("Escape")
        assert container.get_attribute("data-theatrum-tool") == ""
        # JupyterLab's keys (x cuts the cell, 00 restarts the kernel) must not be heard.
        for key in ("x", "x", "d", "d", "0", "0"):
            keyboard.press(key)
        assert viewer.page.locator(".jp-Dialog").count() == 0
        assert (
            viewer.page.evaluate(
                "() => window.jupyterapp.shell.currentWidget.content.model.cells.length"
            )
            == 1
        )
        viewer.page.locator("path[aria-label^='Mark 1 of 1']").focus()
        keyboard.press("Delete")
        viewer.page.wait_for_timeout(500)
        assert viewer.marks() == []
        keyboard.press("Control+z")
        viewer.page.wait_for_timeout(500)
        assert len(viewer.marks()) == 1
        for button in container.locator("button, a[role=button]").all():
            assert button.get_attribute("aria-label")
            assert button.get_attribute("title")
