"""What a IIIF Image API address asks for, in both versions; no pixels here.

Region, size, rotation and quality are text in the address. They are turned into one
frozen value, whose canonical text is the same for all addresses of the same picture.

Planes: regions are whole level-0 pixels; sizes are pixels of the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from tile_server.errors import BadRequest
from tile_server.regions import MOST_PIXELS, Box

QUALITIES = ("default", "color", "gray", "bitonal")
_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})"
_WHOLE = r"(\d{1,9})"
_PIXELS = re.compile(rf"{_WHOLE},{_WHOLE},{_WHOLE},{_WHOLE}", re.ASCII)
_PERCENTS = re.compile(rf"pct:{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}", re.ASCII)
_SCALE = re.compile(rf"pct:{_NUMBER}", re.ASCII)
_SIZE = re.compile(r"(!?)(\d{0,9}),(\d{0,9})", re.ASCII)
_ROTATION = re.compile(rf"(!?){_NUMBER}", re.ASCII)

Size = tuple[int, int]


@dataclass(frozen=True)
class Picture:
    """One picture of a slide.

    Attributes
    ----------
    slide
        Width and height of the slide.
    box
        What of the slide, in whole level-0 pixels, inside it.
    size
        Of the answer before it is turned.
    enlarges
        True where the address asked for more pixels than there are.
    mirrored, degrees
        Mirrored left to right first, then turned clockwise.
    quality
        One of `QUALITIES`, never "color", which is the default.
    """

    slide: Size
    box: Box
    size: Size
    enlarges: bool
    mirrored: bool
    degrees: float
    quality: str

    @property
    def is_plain(self) -> bool:
        """True where it is a part of the slide, only smaller."""
        return not (self.mirrored or self.degrees) and self.quality == "default"

    def canonical(self, version: int, form: str) -> str:
        """The one address of this picture, after the identifier."""
        box, (width, height) = self.box, self.size
        whole = (box.x, box.y, box.width, box.height) == (0, 0, *self.slide)
        region = f"{box.x:.0f},{box.y:.0f},{box.width:.0f},{box.height:.0f}"
        most = fitting(box, None)
        if version == 2:
            if self.size == (int(box.width), int(box.height)):
                size = "full"
            elif height == _other(width, box.width, box.height):
                size = f"{width},"
            else:
                size = f"{width},{height}"
        elif self.size == most:
            size = "max"
        else:
            size = f"{'^' if self.enlarges else ''}{width},{height}"
        turn = f"{'!' if self.mirrored else ''}{self.degrees:.9g}"
        return f"{'full' if whole else region}/{size}/{turn}/{self.quality}.{form}"


def parse(version: int, slide: Size, parts: tuple[str, str, str, str]) -> Picture:
    """The picture that an address asks for; `version` is 2 or 3.

    `parts` are region, size, rotation and quality. Raises BadRequest.
    """
    region, size, rotation, quality = parts
    if quality not in QUALITIES:
        raise BadRequest(f"The quality must be one of {', '.join(QUALITIES)}.")
    box = _box(region, slide)
    pixels = _size(version, size, box)
    if min(pixels) < 1:
        raise BadRequest("This size leaves no pixel: ask for a larger one.")
    if pixels[0] * pixels[1] > MOST_PIXELS:
        raise BadRequest(f"This size has more than {MOST_PIXELS} pixels (maxArea).")
    enlarges = pixels[0] > box.width or pixels[1] > box.height
    if version == 3 and enlarges and not size.startswith("^"):
        raise BadRequest("This size is larger than the region: write ^ before it.")
    turn = _ROTATION.fullmatch(rotation)
    if turn is None or float(turn[2]) > 360:
        raise BadRequest("The rotation must be from 0 to 360, after ! mirrored.")
    degrees = float(turn[2]) % 360
    mirrored = bool(turn[1])
    quality = "default" if quality == "color" else quality
    return Picture(slide, box, pixels, enlarges, mirrored, degrees, quality)


def fitting(box: Box, wish: Size | None) -> Size:
    """The largest size within the limit, and within `wish`, that keeps the shape."""
    width, height = box.width, box.height
    scale = 1.0 if wish is None else min(wish[0] / width, wish[1] / height)
    if wish is None and width * height > MOST_PIXELS:
        scale = (MOST_PIXELS / (width * height)) ** 0.5
        return max(1, int(width * scale)), max(1, int(height * scale))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _box(region: str, slide: Size) -> Box:
    """A region cut to the slide."""
    width, height = slide
    if region == "full":
        return Box(0, 0, width, height)
    if region == "square":
        edge = min(slide)
        return Box((width - edge) // 2, (height - edge) // 2, edge, edge)
    if found := _PIXELS.fullmatch(region):
        left, top, across, down = (int(part) for part in found.groups())
    elif found := _PERCENTS.fullmatch(region):
        shares = [float(part) / 100 for part in found.groups()]
        left, top = round(shares[0] * width), round(shares[1] * height)
        across, down = round(shares[2] * width), round(shares[3] * height)
    else:
        raise BadRequest("The region must be full, square, x,y,w,h or pct:x,y,w,h.")
    right, bottom = min(left + across, width), min(top + down, height)
    if right <= left or bottom <= top:
        raise BadRequest("This region holds nothing of the image.")
    return Box(left, top, right - left, bottom - top)


def _size(version: int, size: str, box: Box) -> Size:
    if version == 3:
        size = size.removeprefix("^")
    if size == "max":
        return fitting(box, None)
    if size == "full" and version == 2:
        return int(box.width), int(box.height)
    if found := _SCALE.fullmatch(size):
        scale = float(found[1]) / 100
        return round(box.width * scale), round(box.height * scale)
    found = _SIZE.fullmatch(size)
    if found is None or not (found[2] or found[3]):
        raise BadRequest("The size must be max, w,h, w, or ,h, pct:n or !w,h.")
    width, height = int(found[2] or 0), int(found[3] or 0)
    if found[1]:
        if not (width and height):
            raise BadRequest("!w,h needs both numbers, and more than 0.")
        return fitting(box, (width, height))
    if not found[3]:
        return width, _other(width, box.width, box.height)
    if not found[2]:
        return _other(height, box.height, box.width), height
    return width, height


def _other(side: int, of_side: float, of_other: float) -> int:
    """The other side of a picture that keeps its shape; 0 only of 0."""
    return max(1, round(side * of_other / of_side)) if side else 0
