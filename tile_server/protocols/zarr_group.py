"""A slide as a Zarr group over HTTP: OME-Zarr 0.5 (Zarr 3), and 0.4 (Zarr 2).

There is an array for each stored level, of axes t, c, z, y and x, with the file's own
numbers; a chunk is a tile of the map's grid, all of red, green and blue or one channel
of planes, without compression. Channels have their names, colours and windows
(`omero`). Nothing is written: metadata and chunks are made when they are asked for.

Planes: `l_` pixels of a stored level. Scales are micrometres where the slide knows
them, else pixels.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from tornado import web
from tornado.routing import URLSpec

from tile_server.answers import Handler
from tile_server.errors import OutsideTheGrid
from tile_server.ladder import Rung
from tile_server.pyramid import Pyramid
from tile_server.readers.planes import Plane
from tile_server.readers.protocol import Reader
from tile_server.readers.rendering import Rendered, plane_facts, planes_of
from tile_server.readers.style import hexadecimal

_AXES = ("t", "c", "z", "y", "x")
_SAMPLES = 3
_KINDS = {"t": "time", "c": "channel"}
Chunk = tuple[int, int, int, int, int]


def zarr_routes(base: str) -> list[URLSpec]:
    """The routes under `base`, which starts and ends with a slash."""
    below = f"{re.escape(base)}s/([A-Za-z0-9_-]+)/(zarr2?)"
    chunk = "/".join([r"(\d{1,9})"] * 5)
    return [
        web.url(rf"{below}/(zarr\.json|\.zgroup|\.zattrs|\.zmetadata)", GroupHandler),
        web.url(rf"{below}/(\d{{1,3}})/(zarr\.json|\.zarray|\.zattrs)", ArrayHandler),
        web.url(rf"{below}/(\d{{1,3}})/(?:c/)?{chunk}", ChunkHandler),
    ]


@dataclass(frozen=True)
class Shape:
    """The shape of one array and of its chunks, by `_AXES`."""

    array: Chunk
    chunk: Chunk


class GroupHandler(Handler):
    async def get(self, token: str, kind: str, name: str) -> None:
        capability = self.service.capability(token)
        async with self.service.slides.hold(capability) as slide:
            tag = f"{slide.version}-{kind}-{name}"
            if self.unchanged(tag, changed_s=slide.changed_s):
                return
            told = group(slide.pyramid, kind, name)
        self.give(json.dumps(told).encode(), "application/json")


class ArrayHandler(Handler):
    async def get(self, token: str, kind: str, number: str, name: str) -> None:
        capability = self.service.capability(token)
        async with self.service.slides.hold(capability) as slide:
            tag = f"{slide.version}-{kind}-{number}-{name}"
            if self.unchanged(tag, changed_s=slide.changed_s):
                return
            told = array(slide.pyramid, kind, int(number), name)
        self.give(json.dumps(told).encode(), "application/json")


class ChunkHandler(Handler):
    async def get(self, token: str, kind: str, number: str, *place: str) -> None:
        capability = self.service.capability(token)
        at = tuple(int(part) for part in place)
        what = f"{kind}-{number}-{'-'.join(map(str, at))}"
        async with self.service.slides.hold(capability) as slide:
            pyramid = slide.pyramid
            shape = shape_of(pyramid, stored_rung(pyramid, int(number)))
            counts = zip(shape.array, shape.chunk, at, strict=True)
            if any(part * step >= whole for whole, step, part in counts):
                raise OutsideTheGrid("The array has no such chunk.")
            tag = f"{slide.version}-{what}"
            if self.unchanged(tag, changed_s=slide.changed_s):
                return
            body = await self.while_wanted(
                self.service.made_body(
                    slide, what, lambda: numbers(pyramid, int(number), at)
                )
            )
        self.kind = "made"
        self.give(body, "application/octet-stream")


def stored_rung(pyramid: Pyramid, number: int) -> Rung:
    """The rung of an array; raises OutsideTheGrid."""
    rungs = _rungs(pyramid)
    if number >= len(rungs):
        raise OutsideTheGrid(f"There is no array {number}; there are {len(rungs)}.")
    return rungs[number]


def shape_of(pyramid: Pyramid, rung: Rung) -> Shape:
    """The shape of a stored rung's array."""
    facts, edge = plane_facts(pyramid.reader), pyramid.ladder.tile
    assert rung.level is not None  # noqa: S101 - `_rungs` are stored ones; for mypy
    level = pyramid.reader.levels[rung.level]
    count = len(facts.channels)
    together = _SAMPLES if _is_colour(pyramid.reader) else 1
    return Shape(
        (facts.times, count, facts.depths, level.height, level.width),
        (1, together, 1, edge, edge),
    )


def numbers(pyramid: Pyramid, number: int, at: tuple[int, ...]) -> bytes:
    """The little-endian numbers of a chunk; raises DamagedTile."""
    rung, edge = stored_rung(pyramid, number), pyramid.ladder.tile
    assert rung.level is not None  # noqa: S101 - `_rungs` are stored ones; for mypy
    time, channel, depth, row, column = at
    reader, place = pyramid.reader, (column * edge, row * edge)
    facts, together = plane_facts(reader), _SAMPLES if _is_colour(reader) else 1
    if together == len(facts.channels) == _SAMPLES and facts.depths == 1:
        # One look for all three colours.
        pixels = reader.read(rung.level, *place, (edge, edge))
        return pixels.transpose(2, 0, 1).tobytes()
    planes = planes_of(reader)
    found = np.stack(
        [
            planes.read_plane(
                rung.level, *place, (edge, edge), plane=Plane(one, depth, time)
            )
            for one in range(channel * together, (channel + 1) * together)
        ]
    )
    return found.astype(found.dtype.newbyteorder("<")).tobytes()


def _is_colour(reader: Reader) -> bool:
    """True where channels are red, green and blue, perhaps of several pictures."""
    return not isinstance(reader, Rendered)


def group(pyramid: Pyramid, kind: str, name: str) -> dict[str, Any]:
    """The metadata of the group; raises OutsideTheGrid for another version's name."""
    if kind == "zarr" and name == "zarr.json":
        ome = {
            "version": "0.5",
            "multiscales": [_multiscale(pyramid)],
            "omero": _omero(pyramid.reader),
        }
        arrays = {
            str(number): array(pyramid, kind, number, name)
            for number in range(len(_rungs(pyramid)))
        }
        return {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"ome": ome},
            # HTTP cannot list a folder, so the group says what it holds.
            "consolidated_metadata": {
                "kind": "inline",
                "must_understand": False,
                "metadata": arrays,
            },
        }
    if kind == "zarr2" and name == ".zgroup":
        return {"zarr_format": 2}
    if kind == "zarr2" and name == ".zattrs":
        return {
            "multiscales": [_multiscale(pyramid) | {"version": "0.4"}],
            "omero": _omero(pyramid.reader) | {"version": "0.4"},
        }
    if kind == "zarr2" and name == ".zmetadata":
        # HTTP cannot list a folder, so the group says what it holds.
        own = {one: group(pyramid, kind, one) for one in (".zgroup", ".zattrs")}
        arrays = {
            f"{number}/{one}": array(pyramid, kind, number, one)
            for number in range(len(_rungs(pyramid)))
            for one in (".zarray", ".zattrs")
        }
        return {"zarr_consolidated_format": 1, "metadata": own | arrays}
    raise OutsideTheGrid(f"This group has no {name}.")


def array(pyramid: Pyramid, kind: str, number: int, name: str) -> dict[str, Any]:
    """The metadata of one array; raises OutsideTheGrid."""
    shape = shape_of(pyramid, stored_rung(pyramid, number))
    dtype = plane_facts(pyramid.reader).number_type
    if kind == "zarr2" and name == ".zarray":
        return {
            "zarr_format": 2,
            "shape": shape.array,
            "chunks": shape.chunk,
            "dtype": np.dtype(dtype).newbyteorder("<").str,
            "compressor": None,
            "filters": None,
            "fill_value": 0,
            "order": "C",
            "dimension_separator": "/",
        }
    if kind == "zarr" and name == "zarr.json":
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": shape.array,
            "data_type": dtype.name,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": shape.chunk},
            },
            "chunk_key_encoding": {
                "name": "default",
                "configuration": {"separator": "/"},
            },
            "fill_value": 0,
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "attributes": {},
            "dimension_names": _AXES,
        }
    if kind == "zarr2" and name == ".zattrs":
        # How xarray finds the names of axes, which Zarr 2 has no place for.
        return {"_ARRAY_DIMENSIONS": list(_AXES)}
    raise OutsideTheGrid(f"This array has no {name}.")


def _rungs(pyramid: Pyramid) -> list[Rung]:
    return [rung for rung in pyramid.ladder.rungs if rung.level is not None]


def _omero(reader: Reader) -> dict[str, Any]:
    """How the channels are shown, as viewers of OME-Zarr expect it."""
    planes = plane_facts(reader)
    dtype = planes.number_type
    channels = []
    for channel in planes.channels:
        low, high = channel.window or (0.0, 1.0)
        least, most = min(low, high), max(low, high)
        if dtype.kind in "iu":
            least, most = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
        channels.append(
            {
                "label": channel.name,
                "color": hexadecimal(channel.colour).removeprefix("#").upper(),
                "active": channel.shown,
                "window": {"min": least, "max": most, "start": low, "end": high},
            }
        )
    middle = {"defaultZ": planes.depths // 2, "defaultT": 0, "model": "color"}
    return {"channels": channels, "rdefs": middle}


def _multiscale(pyramid: Pyramid) -> dict[str, Any]:
    facts, planes = pyramid.reader.facts, plane_facts(pyramid.reader)
    known = facts.mpp_x is not None and facts.mpp_y is not None
    axes: list[dict[str, str]] = []
    for axis in _AXES:
        told = {"name": axis, "type": _KINDS.get(axis, "space")}
        if axis in "yx" and known:
            told["unit"] = "micrometer"
        axes.append(told)
    if planes.z_step_um is not None:
        axes[2]["unit"] = "micrometer"
    if planes.t_step_s is not None:
        axes[0]["unit"] = "second"
    datasets = []
    step_x, step_y = facts.mpp_x or 1.0, facts.mpp_y or 1.0
    for number, rung in enumerate(_rungs(pyramid)):
        down = rung.downsample
        others = [planes.t_step_s or 1.0, 1.0, planes.z_step_um or 1.0]
        scale = [*others, step_y * down, step_x * down]
        # A coarse pixel's centre lies between those of the pixels that it is made of.
        centre = (down - 1) / 2
        shift = [0.0, 0.0, 0.0, step_y * centre, step_x * centre]
        moves = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": shift},
        ]
        datasets.append({"path": str(number), "coordinateTransformations": moves})
    return {"name": "slide", "axes": axes, "datasets": datasets}
