"""A slide viewer in a page, used by mouse, with places told by its own tiles.

Where a level-0 pixel lies on the screen is worked out from a loaded tile's address and
its box, so nothing here trusts the viewer's own arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from playwright.sync_api import Locator, Page

Point = tuple[float, float]


@dataclass(frozen=True)
class Placement:
    """Where level-0 pixel (0, 0) lies in the window, and CSS pixels a level-0 pixel."""

    left: float
    top: float
    scale: float

    def screen(self, point: Point) -> Point:
        return self.left + point[0] * self.scale, self.top + point[1] * self.scale

    def l0(self, screen: Point) -> Point:
        x, y = screen
        return (x - self.left) / self.scale, (y - self.top) / self.scale


@dataclass(frozen=True)
class SlideOnPage:
    """One viewer among those of a page; `tile` and `top_z` are the image's own."""

    page: Page
    viewer: Locator
    tile: int
    top_z: int

    def placement(self) -> Placement:
        """Where the slide lies now; waits until one level is shown, and all of it."""
        container = self.viewer.locator(".leaflet-container")
        container.scroll_into_view_if_needed()
        handle = container.element_handle()
        self.page.wait_for_function(
            """(container) => {
                const tiles = [...container.querySelectorAll("img.leaflet-tile")];
                const levels = new Set(tiles.map((tile) => tile.src.split("/").at(-3)));
                const box = JSON.stringify(
                    tiles.map((tile) => tile.getBoundingClientRect()));
                const still = container.theatrumTestBox === box;
                container.theatrumTestBox = box;
                return still && levels.size === 1 && tiles.every((tile) =>
                    tile.naturalWidth && getComputedStyle(tile).opacity === "1");
            }""",
            arg=handle,
            polling=100,
        )
        z, column, row, left, top, width = container.evaluate(
            """(container) => {
                const tile = container.querySelector("img.leaflet-tile-loaded");
                const box = tile.getBoundingClientRect();
                const place = tile.src.split("/").slice(-3).map(Number);
                return [...place, box.left, box.top, box.width];
            }"""
        )
        l0_side = self.tile * 2 ** (self.top_z - z)
        scale = width / l0_side
        return Placement(
            left - column * l0_side * scale, top - row * l0_side * scale, scale
        )

    def approach(self, point: Point, scale: float) -> None:
        """Turn the wheel over a level-0 point until it is shown at `scale` or more."""
        self.viewer.locator(".leaflet-container").focus()
        while (placement := self.placement()).scale < scale * 0.99:
            self.page.mouse.move(*placement.screen(point))
            self.page.mouse.wheel(0, -200)
            self.page.wait_for_timeout(300)

    def tool(self, name: str) -> None:
        self.viewer.locator(f"[data-tool={name}]").click()

    def click(self, *points: Point) -> list[Point]:
        """Click at level-0 points; returns where that was, to a whole mouse pixel."""
        placement = self.placement()
        clicked = []
        for point in points:
            x, y = placement.screen(point)
            place = round(x), round(y)
            self.page.mouse.move(*place)
            self.page.mouse.click(*place)
            self.page.wait_for_timeout(60)
            clicked.append(placement.l0(place))
        return clicked

    def mark_point(self, point: Point) -> Point:
        self.tool("point")
        return self.click(point)[0]

    def draw_polygon(self, corners: Sequence[Point]) -> list[Point]:
        """Draw by clicking the corners, and the first one again to close."""
        self.tool("polygon")
        return self.click(*corners, corners[0])[:-1]
