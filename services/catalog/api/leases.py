"""Steps of flows that a program outside does, by a lease that runs out.

    POST /leases {"served": "draw-axon", "worker": "desk 3"}   -> the step, or 204
    POST /leases/RUN/heartbeat                                 -> until when it is held
    PUT  /leases/RUN/outputs/mask                              a zip of OME-Zarr
    POST /leases/RUN/complete {"outputs": {"line": [[1, 2], [8, 9]]}}
    POST /leases/RUN/fail     {"reason": "too dark"}

A lease that is not renewed goes to whoever asks next, and what its old holder sends
then is refused (409). It is its holder's alone: who it is follows from the token.
Pixels are read by the addresses that come with it; arrays are sent before the step is
completed, and read by the limited processes that read every image here.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, Field
from theatrum.catalog.arrays import labelled
from theatrum.catalog.engine.work import Ref
from theatrum.catalog.errors import BadRecord, CatalogError
from theatrum.catalog.flows import external
from theatrum.catalog.flows.external import Lease
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.receiving import PACKED_BYTES, _unpack
from theatrum.catalog.record import recording
from theatrum.node import Line, Polygon, Table

from services.catalog.api.here import Here, Service
from services.catalog.api.rights import Right, Running
from services.catalog.api.tagged import tagged
from services.catalog.api.work import Key, local, one_run
from services.catalog.errors import TooLargeError
from services.catalog.going_on import want_again

router = APIRouter(prefix="/leases", tags=["work"])
SHORTEST_S: Final = 5.0
LONGEST_S: Final = 3600.0
TAKEN: Final = frozenset({"array", "number", "text", "line", "polygon", "table"})
"""Kinds of outputs that can come back over HTTP."""
Port = Annotated[str, InPath(max_length=64, pattern=r"^[A-Za-z_]\w*$")]
Worker = Annotated[str, Query(max_length=60, description="Which of your programs")]
_ZIP: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/zip": {"schema": {"type": "string", "format": "binary"}}
        },
    }
}


class Claim(BaseModel):
    """What a program offers to do."""

    model_config = ConfigDict(extra="forbid")
    served: str = Field(min_length=1, max_length=120, description="The step's name")
    worker: str = Field("", max_length=60, description="Which of your programs it is")
    seconds: float = Field(
        external.LEASE_S, ge=SHORTEST_S, le=LONGEST_S, description="How long it is held"
    )


class Beat(BaseModel):
    """That a program is still at it."""

    model_config = ConfigDict(extra="forbid")
    worker: str = Field("", max_length=60)
    seconds: float = Field(external.LEASE_S, ge=SHORTEST_S, le=LONGEST_S)


class Given(BaseModel):
    """What a step gives."""

    model_config = ConfigDict(extra="forbid")
    worker: str = Field("", max_length=60)
    # Any: what each port takes
    outputs: dict[str, Any] = Field(
        {},
        description="By port a number, a text, points of a line, a GeoJSON polygon, a "
        'table: {"columns": {...}, "units": {...}}; arrays were sent before',
    )


class Failed(BaseModel):
    """Why a step gave nothing."""

    model_config = ConfigDict(extra="forbid")
    worker: str = Field("", max_length=60)
    reason: str = Field(min_length=1, max_length=2000)


class GaveNothing(CatalogError):
    """Who served a step says that it failed."""


@router.post("", responses={204: {"description": "Nothing waits under that name"}})
def claim(request: Request, service: Here, right: Running, body: Claim) -> Response:
    """Take the oldest step that waits under a name, for so many seconds."""
    holder = _holder(right, body.worker)
    work = external.lease(_mine(service, right), body.served, holder, body.seconds)
    if work is None:
        return Response(status_code=204)
    # What another holder sent, whose lease ran out, is not this one's.
    shutil.rmtree(_folder(service, work), ignore_errors=True)
    return tagged(request, _told(service, work))


@router.post("/{key}/heartbeat")
def keep_lease(
    request: Request, service: Here, right: Running, key: Key, body: Beat
) -> Response:
    """Hold a step for so many more seconds."""
    work = _held(service, right, key, body.worker)
    work.renew(body.seconds)
    return tagged(request, _told(service, work))


@router.put("/{key}/outputs/{port}", status_code=204, openapi_extra=_ZIP)
async def send_array(
    request: Request,
    service: Here,
    right: Running,
    key: Key,
    port: Port,
    worker: Worker = "",
) -> Response:
    """Send an array that a step gives, a zip of OME-Zarr; sent again it replaces."""
    work = await run_in_threadpool(_held, service, right, key, worker)
    if _kind(work, port) != "array":
        raise BadRecord(f"{port} is no array: hand it in with the others")
    folder = _folder(service, work)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    most = min(PACKED_BYTES, service.settings.catalog_upload_bytes)
    with tempfile.NamedTemporaryFile(suffix=".zip", dir=folder) as package:
        size = 0
        async for block in request.stream():
            size += len(block)
            if size > most:
                raise TooLargeError(f"an array has {most >> 20} MiB at most")
            await run_in_threadpool(package.write, block)
        package.flush()
        await run_in_threadpool(
            _take_array, service, Path(package.name), folder / f"{port}.ome.zarr"
        )
    return Response(status_code=204)


@router.post("/{key}/complete")
def complete_lease(
    request: Request, service: Here, right: Running, key: Key, body: Given
) -> Response:
    """Hand in what a step gives, each of its outputs by name."""
    work = _held(service, right, key, body.worker)
    made = {
        name: _value(name, _kind(work, name), value)
        for name, value in body.outputs.items()
    }
    folder = _folder(service, work)
    for name in work.gives:
        if name not in made and (folder / f"{name}.ome.zarr").is_dir():
            made[name] = _array(service, folder / f"{name}.ome.zarr")
    work.finish(**made)
    shutil.rmtree(folder, ignore_errors=True)
    _go_on(service, right, work)
    return tagged(request, one_run(service, right, key))


@router.post("/{key}/fail")
def fail_lease(
    request: Request, service: Here, right: Running, key: Key, body: Failed
) -> Response:
    """Say that a step gave nothing, and why; its item ends there."""
    work = _held(service, right, key, body.worker)
    work.renew()
    work.fail(GaveNothing(body.reason))
    shutil.rmtree(_folder(service, work), ignore_errors=True)
    _go_on(service, right, work)
    return tagged(request, one_run(service, right, key))


def _mine(service: Service, right: Right) -> LocalBackend:
    """The catalogue as far as the asker may work in it: a lease is work."""
    seen = local(service, right)
    allowed = (seen.projects or frozenset()) & (seen.writable or frozenset())
    return replace(seen, projects=allowed)


def _holder(right: Right, worker: str) -> str:
    """Who holds a lease: no other person can say that they are this one."""
    return f"{right.person.name}/{worker}"


def _held(service: Service, right: Right, key: str, worker: str) -> Lease:
    run = one_run(service, right, key)
    return external.held(local(service, right), run["id"], _holder(right, worker))


def _go_on(service: Service, right: Right, work: Lease) -> None:
    with recording(service.database, right.person.name) as book:
        want_again(book, work.batch_id)


# Any here and below: JSON, and values of ports of any kind
def _told(service: Service, work: Lease) -> dict[str, Any]:
    return {
        "run": work.run_id,
        "batch": work.batch_id,
        "item": work.item,
        "step": work.step,
        "inputs": {name: _input(service, ref) for name, ref in work.refs.items()},
        "gives": dict(work.gives),
        "until": datetime.fromtimestamp(work.until, UTC),
    }


def _input(service: Service, ref: Ref) -> dict[str, Any]:
    return {
        "kind": ref.kind,
        "id": ref.id,
        "name": ref.name,
        "zarr": f"{service.api}/images/{ref.id}/zarr/",
    }


def _folder(service: Service, work: Lease) -> Path:
    """Where arrays of a step lie until it is completed."""
    return service.home.cache / "leases" / work.run_id


def _kind(work: Lease, port: str) -> str:
    if port not in work.gives:
        known = ", ".join(work.gives) or "nothing"
        raise BadRecord(f"the step has no output {port!r}: it gives {known}")
    return work.gives[port]


def _take_array(service: Service, package: Path, place: Path) -> None:
    """Unpack an array, and put it in place once it was read as one."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".coming-") as staging:
        group = Path(staging, "image.ome.zarr")
        group.mkdir()
        _unpack(package, group)
        _array(service, group)
        shutil.rmtree(place, ignore_errors=True)
        group.rename(place)


def _array(service: Service, group: Path) -> Any:
    return labelled(service.apart.scene(str(group), 0))


def _value(name: str, kind: str, value: Any) -> Any:
    match kind, value:
        case "number", int() | float() if not isinstance(value, bool):
            if math.isfinite(value):
                return value
        case "text", str():
            return value
        case "line", {"type": "LineString", "coordinates": list(points)} | list(points):
            return Line(points)
        case "polygon", {"type": "Polygon", "coordinates": [list(), *_]}:
            return Polygon.from_geojson(value)
        case "table", {"columns": dict(columns)}:
            units: Any = value.get("units", {})
            if _is_table(columns, units):
                return Table(columns, units)
    if kind == "array":
        raise BadRecord(f"{name} is an array: send it first, PUT .../outputs/{name}")
    if kind not in TAKEN:
        raise BadRecord(f"a {kind} cannot be handed in over HTTP: use the library")
    raise BadRecord(f"{name} is to be a {kind}, as the documentation says")


def _is_table(columns: Mapping[str, Any], units: Any) -> bool:
    plain = str | int | float | bool | None
    return (
        isinstance(units, dict)
        and all(isinstance(unit, str) for unit in units.values())
        and all(
            isinstance(column, list) and all(isinstance(one, plain) for one in column)
            for column in columns.values()
        )
    )
