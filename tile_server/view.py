"""What a viewer has to know of a slide, as JSON."""

from __future__ import annotations

from typing import Any

from tile_server import icc
from tile_server.ladder import Ladder, Rung, build
from tile_server.readers.protocol import Reader
from tile_server.readers.rendering import plane_facts
from tile_server.readers.style import hexadecimal

# Both photographs can show the label, and a label can carry a name.
SHOW_THE_LABEL = frozenset({"label", "macro"})


def associated_names(reader: Reader, *, label: bool) -> list[str]:
    """The associated images that may be seen; with `label` all of them."""
    names = reader.facts.associated
    return [name for name in names if label or name not in SHOW_THE_LABEL]


def describe(reader: Reader, *, label: bool = False) -> dict[str, Any]:
    """The slide's geometry and optics; every value is plain JSON.

    `levels` is the ladder, full resolution first: sizes in the level's own pixels, z as
    in a tile's address. `z` and `t` are how many depths and times there are; a
    channel's colour and window are how it is shown without a style. `label` lists the
    images that can show the slide's label, too.
    """
    facts, ladder = reader.facts, build(reader.levels)
    full, planes = ladder.rungs[0], plane_facts(reader)
    return {
        "width": full.width,
        "height": full.height,
        "levels": [_level(ladder, rung) for rung in ladder.rungs],
        "mpp_x": facts.mpp_x,
        "mpp_y": facts.mpp_y,
        "objective": facts.objective,
        "channels": [
            {
                "index": index,
                "name": channel.name,
                "color": hexadecimal(channel.colour),
                "window": list(channel.window or ()),
            }
            for index, channel in enumerate(planes.channels)
        ],
        "z": planes.depths,
        "t": planes.times,
        "dtype": planes.dtype,
        "z_step_um": planes.z_step_um,
        "t_step_s": planes.t_step_s,
        "unit": planes.unit,
        "affine_lps": planes.affine_lps,
        "format": facts.format,
        "associated": associated_names(reader, label=label),
        "background": "#{:02x}{:02x}{:02x}".format(*facts.background),
        "icc": icc.describe(facts.profile),
    }


def _level(ladder: Ladder, rung: Rung) -> dict[str, Any]:
    return {
        "z": ladder.z(rung),
        "width": rung.width,
        "height": rung.height,
        "tile_width": ladder.tile,
        "tile_height": ladder.tile,
        "downsample": rung.downsample,
        "stored": rung.stored,
    }
