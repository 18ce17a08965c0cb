"""The pixels of images: as pictures, as numbers about them, and all of them as Zarr.

Whatever an image lies in, `/zarr/` below it is an OME-Zarr 0.5 group: one that is kept
so is sent as it lies, another is read block by block where a program asks for blocks.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from theatrum.catalog import picture
from theatrum.catalog.arrays import labelled
from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import BadArray, CatalogError, NotOpened
from theatrum.catalog.formats.scene import Scene
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.saving import asset_of_planes, read_planes

from services.catalog.api import blocks, images
from services.catalog.api.here import Here
from services.catalog.api.rights import Pixels, Reading
from services.catalog.api.tagged import UNCHANGED, tag_of_pixels, tagged, unchanged

router = APIRouter(prefix="/images/{image_id}", tags=["pixels"])
Kind = Literal["jpg", "png", "webp"]
FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
MEDIA = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
BINS = 256
SAMPLED = 4_000_000
"""Values that a histogram is made of at most: of a larger image a coarser level."""
AT_ONCE = 4
"""Images that are read at the same time: each can take a hundred megabytes."""

_reading = asyncio.Semaphore(AT_ONCE)
Made = TypeVar("Made")


@router.get("/slice.{kind}", response_class=Response, responses=UNCHANGED)
async def get_slice(
    request: Request,
    service: Here,
    right: Pixels,
    image_id: str,
    kind: Kind,
    plane: Annotated[str, Query(max_length=16)] = "ax",
    index: Annotated[
        int | None, Query(description="Which plane, as level 0 counts them")
    ] = None,
    mm: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    project: Annotated[str | None, Query(max_length=16)] = None,
    channels: Annotated[str | None, Query(max_length=400)] = None,
    window: Annotated[
        str, Query(max_length=60, description="auto, full, or black,white")
    ] = "auto",
    t: int = 0,
    size: Annotated[int, Query(ge=16, le=2000)] = 1024,
    quality: Annotated[int, Query(ge=1, le=100)] = 90,
) -> Response:
    """A plane as a picture; with nothing else than `plane`, the one in the middle."""
    backend = right.backend(service)
    row = backend.whole("images", image_id)
    headers = _tagged(request, row, kind)
    if (known := unchanged(request, headers)) is not None:
        return known

    def make() -> bytes:
        levels = service.apart.scene(row["path"], row["scene"]).levels
        sizes = [{str(dim): n for dim, n in one.sizes.items()} for one in levels]
        drawn = picture.draw(
            backend.array(row, picture.level_for(sizes, max(size, 512))),
            plane=plane,
            at=_place(index, mm),
            project=project,
            channels=_channels(channels),
            window=_window(window),
            t=t,
            whole=sizes[0],
        )
        drawn.thumbnail((size, size))
        out = io.BytesIO()
        mode = drawn if kind != "jpg" else drawn.convert("RGB")
        mode.save(out, FORMATS[kind], quality=quality)
        return out.getvalue()

    return Response(await made(row, make), 200, headers, MEDIA[kind])


@router.get("/info")
async def get_info(
    request: Request, service: Here, right: Reading, image_id: str
) -> Response:
    """The array: dimensions, levels, blocks, spacing, affine, channels."""
    row = right.backend(service).whole("images", image_id)

    def make() -> RowData:
        scene = service.apart.scene(row["path"], row["scene"])
        first = scene.levels[0]
        return {
            "id": row["id"],
            "dims": [str(dim) for dim in first.dims],
            "dtype": str(first.dtype),
            "levels": [
                {"shape": list(one.shape), "blocks": blocks.of(one)}
                for one in scene.levels
            ],
            "spacing_mm": {
                dim: row[f"px_{dim}"] for dim in "xyz" if row[f"px_{dim}"] is not None
            },
            "affine": row["affine"],
            "orientation": row["orientation"],
            "channels": [one.name for one in scene.channels],
        }

    return tagged(request, await made(row, make))


@router.get("/stats")
async def get_stats(
    request: Request, service: Here, right: Pixels, image_id: str
) -> Response:
    """Smallest, largest, mean, spread and percentiles of the values, by channel."""
    row = right.backend(service).whole("images", image_id)

    def make() -> RowData:
        level, planes = _sampled(service.apart.scene(row["path"], row["scene"]))
        return {"level": level, "channels": [_stats(name, v) for name, v in planes]}

    return tagged(request, await made(row, make))


@router.get("/histogram")
async def get_histogram(
    request: Request,
    service: Here,
    right: Pixels,
    image_id: str,
    bins: Annotated[int, Query(ge=2, le=4096)] = BINS,
) -> Response:
    """How often values occur, by channel; the edges have one number more."""
    row = right.backend(service).whole("images", image_id)

    def make() -> RowData:
        level, planes = _sampled(service.apart.scene(row["path"], row["scene"]))
        found = []
        for name, values in planes:
            counts, edges = np.histogram(values[np.isfinite(values)], bins)
            found.append(
                {"name": name, "counts": counts.tolist(), "edges": edges.tolist()}
            )
        return {"level": level, "channels": found}

    return tagged(request, await made(row, make))


@router.get("/channels")
def get_channels(
    request: Request, service: Here, right: Reading, image_id: str
) -> Response:
    """The channels of an image, in order."""
    backend = right.backend(service)
    backend.whole("images", image_id)
    rows = backend.rows(Spec("channels", (Q(image_id=image_id),), order=("index",)))
    return tagged(request, {"items": rows, "next": None})


@router.get("/planes")
async def get_planes(
    request: Request, service: Here, right: Reading, image_id: str
) -> Response:
    """Where and when each plane was taken, where its file says it."""
    backend = right.backend(service)
    row = backend.whole("images", image_id)

    def make() -> list[RowData]:
        asset = backend.inside(asset_of_planes(image_id))
        return read_planes(Path(asset[0]["uri"])) if asset else []

    return tagged(request, {"items": await made(row, make), "next": None})


@router.get("/tile/{level}/{x}/{y}", response_class=RedirectResponse)
def get_tile(
    service: Here, right: Pixels, image_id: str, level: int, x: int, y: int
) -> Response:
    """A tile of a slide: where the tile service has it, for a day."""
    view = images.view_image(service, right, image_id)
    address = str(view["tiles"]).format(z=level, x=x, y=y)
    return RedirectResponse(address, 307)


@router.get("/tile.dzi", response_class=RedirectResponse)
def get_deep_zoom(service: Here, right: Pixels, image_id: str) -> Response:
    """A slide's Deep Zoom descriptor: where the tile service has it, for a day."""
    view = images.view_image(service, right, image_id)
    below = str(view["tiles"]).removesuffix("{z}/{x}/{y}")
    return RedirectResponse(f"{below}dzi/slide.dzi", 307)


@router.get(
    "/zarr/{key:path}",
    response_class=Response,
    responses=UNCHANGED
    | {206: {"description": "The part that Range names"}, 416: {"description": "None"}},
)
async def get_zarr(
    request: Request, service: Here, right: Pixels, image_id: str, key: str
) -> Response:
    """A document or a block of the image as an OME-Zarr 0.5 group."""
    row = right.backend(service).whole("images", image_id)
    headers = _tagged(request, row, key)
    if (known := unchanged(request, headers)) is not None:
        return known
    if Path(row["path"], "zarr.json").is_file():
        answer = blocks.lying(Path(row["path"]), key, request.headers.get("Range"))
        answer.headers["ETag"] = headers["ETag"]
        return answer

    def make() -> bytes:
        return blocks.computed(service.apart.scene(row["path"], row["scene"]), key)

    body = await made(row, make)
    media = "application/json" if key.endswith(".json") else "application/octet-stream"
    return Response(body, 200, headers, media)


async def made(row: RowData, make: Callable[[], Made]) -> Made:
    """What a thread makes of an image, not too many at once.

    Raises
    ------
    NotOpened
        Where the image's reader fails, whatever it fails with.
    """
    async with _reading:
        try:
            return await run_in_threadpool(make)
        except CatalogError:
            raise
        except Exception as err:
            # The boundary to readers of any format.
            raise NotOpened(
                f"{row['name']} cannot be read ({type(err).__name__}): tell whoever "
                "keeps the images"
            ) from err


def _tagged(request: Request, row: RowData, what: str) -> dict[str, str]:
    """Headers of what is made of an image for this address: kept, and compared."""
    asked = sorted(request.query_params.multi_items())
    tag = tag_of_pixels(row, what, asked)
    return {"ETag": tag, "Cache-Control": "private, max-age=3600"}


def _place(index: int | None, mm: float | None) -> picture.At:
    if index is not None and mm is not None:
        raise BadArray("give index or mm, not both")
    if index is not None:
        return index
    return "center" if mm is None else mm


def _channels(said: str | None) -> list[str | int] | None:
    if not said:
        return None
    return [int(one) if one.isdigit() else one for one in said.split(",")]


def _window(said: str) -> picture.Window:
    if "," not in said:
        return said
    try:
        low, high = (float(one) for one in said.split(","))
    except ValueError as err:
        raise BadArray("a window is auto, full, or two numbers: 0,500") from err
    return low, high


# Any: arrays of any values
def _sampled(scene: Scene) -> tuple[int, list[tuple[str, Any]]]:
    """The finest level that is small enough, as the values of each channel."""
    sizes = [int(np.prod(one.shape)) for one in scene.levels]
    small = [level for level, size in enumerate(sizes) if size <= SAMPLED]
    level = small[0] if small else len(sizes) - 1
    array = labelled(scene, level)
    steps = {}
    if sizes[level] > SAMPLED:  # one level, and a large one: every nth plane and line
        step = int(np.ceil((sizes[level] / SAMPLED) ** (1 / 3)))
        steps = {
            dim: slice(None, None, step) for dim in array.dims if str(dim) in "zyx"
        }
    array = array.isel(steps)
    if "c" not in array.dims:
        return level, [("", array.to_numpy().astype(float).ravel())]
    names = (
        [str(one) for one in array.coords["c"].values] if "c" in array.coords else []
    )
    values = array.transpose("c", ...).to_numpy().astype(float)
    return level, [
        (names[at] if at < len(names) else str(at), values[at].ravel())
        for at in range(len(values))
    ]


def _stats(name: str, values: Any) -> RowData:
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise BadArray("the image has no number in it that is finite")
    p01, p50, p99 = np.percentile(finite, (1, 50, 99))
    return {
        "name": name,
        "min": float(finite.min()),
        "max": float(finite.max()),
        "mean": float(finite.mean()),
        "std": float(finite.std()),
        "p01": float(p01),
        "p50": float(p50),
        "p99": float(p99),
        "values": int(values.size),
    }
