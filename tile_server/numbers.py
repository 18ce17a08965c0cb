"""The file's own numbers, as an array or a picture of 16 bits, for whoever asks.

A picture for the eye has 8 bits, after window and gamma. `bits=16` asks for the numbers
themselves, at any scale: those of one channel as grey, or red, green and blue together
where the image is in colour. PNG holds whole numbers from 0 to 65535 and no others.
`numbers=1` gives all channels as an array in the file's own type, floats untouched.
"""

from __future__ import annotations

import numpy as np

from tile_server.answers import Handler
from tile_server.errors import BadRequest, RegionTooLarge
from tile_server.pyramid import Pyramid
from tile_server.readers.planes import Numbers, Plane, rgb_channels
from tile_server.readers.protocol import Reader
from tile_server.readers.rendering import plane_facts
from tile_server.regions import MOST_PIXELS, Box, read_numbers

_RGB = [channel.colour for channel in rgb_channels()]
_KINDS = ("uint8", "uint16")


def depth_of(query: Handler) -> int:
    """How many bits a number of the answer is to have: 8 or 16."""
    if query.get_query_argument("bits", None) is None:
        return 8
    bits = query.whole_number("bits", range(8, 17), 8)
    if bits not in (8, 16):
        raise BadRequest("bits must be 8 or 16.")
    return bits


def planes_asked_for(query: Handler, reader: Reader) -> tuple[Plane, ...]:
    """The planes that the query's channel, z and t name; without channel all of RGB.

    Raises BadRequest, also for numbers that no PNG can hold.
    """
    facts = plane_facts(reader)
    if facts.dtype not in _KINDS:
        raise BadRequest(
            f"The numbers of this image are {facts.dtype}, which 16 bits of a PNG "
            "cannot hold: take them from zarr/."
        )
    z = query.whole_number("z", range(facts.depths), facts.depths // 2)
    t = query.whole_number("t", range(facts.times), 0)
    in_colour = [channel.colour for channel in facts.channels] == _RGB
    if in_colour and query.get_query_argument("channel", None) is None:
        return tuple(Plane(channel, z, t) for channel in range(len(_RGB)))
    return (Plane(query.whole_number("channel", range(len(facts.channels)), 0), z, t),)


def numbers_of(
    pyramid: Pyramid, box: Box, scale: tuple[float, float], planes: tuple[Plane, ...]
) -> Numbers:
    """The numbers of planes in a box at a scale, as 16 bits; raises as `read_numbers`.

    Numbers of 8 bits stay what they are: 255 of them is 255.
    """
    parts = [read_numbers(pyramid, box, scale, plane) for plane in planes]
    together = parts[0] if len(parts) == 1 else np.stack(parts, axis=2)
    return together.astype(np.uint16)


def raw_planes(query: Handler, reader: Reader) -> tuple[Plane, ...]:
    """The planes of the query's z and t: every channel, or the one that it names.

    Raises BadRequest.
    """
    facts = plane_facts(reader)
    z = query.whole_number("z", range(facts.depths), facts.depths // 2)
    t = query.whole_number("t", range(facts.times), 0)
    channels = range(len(facts.channels))
    if query.get_query_argument("channel", None) is not None:
        one = query.whole_number("channel", channels, 0)
        channels = range(one, one + 1)
    return tuple(Plane(channel, z, t) for channel in channels)


def raw_numbers(
    pyramid: Pyramid, box: Box, scale: tuple[float, float], planes: tuple[Plane, ...]
) -> Numbers:
    """The file's own numbers, (plane, height, width), in the file's own type.

    Raises RegionTooLarge and DamagedTile.
    """
    width, height = box.width / scale[0], box.height / scale[1]
    if width * height * len(planes) > MOST_PIXELS:
        raise RegionTooLarge(
            f"That is {width:.0f} x {height:.0f} pixels of {len(planes)} channels, "
            f"more than {MOST_PIXELS} numbers at once. Ask for one channel, a coarser "
            "level or several smaller regions."
        )
    return np.stack([read_numbers(pyramid, box, scale, plane) for plane in planes])
