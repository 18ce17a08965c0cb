"""Steps of flows that a program outside does, by a lease that runs out.

    POST /leases {"served": "draw-axon", "worker": "desk 3"}   -> the step, or 204
    POST /leases/RUN/heartbeat                                 -> until when it is held
    POST /leases/RUN/complete   outputs={"line": [[1, 2], [8, 9]]}
    POST /leases/RUN/fail       {"reason": "too dark"}

A lease that is not renewed goes to whoever asks next, and what its old holder sends
then is refused (409). It is its holder's alone: who it is follows from the token.
Pixels are read by the addresses that come with it, and arrays come back as zips of
OME-Zarr.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field
from theatrum.catalog.arrays import open_array
from theatrum.catalog.engine.work import Ref
from theatrum.catalog.errors import BadRecord, CatalogError
from theatrum.catalog.flows import external
from theatrum.catalog.flows.external import Lease
from theatrum.catalog.receiving import PACKED_BYTES, _unpack
from theatrum.catalog.record import recording
from theatrum.node import Line, Polygon, Table

from services.catalog.api.here import Here, Service
from services.catalog.api.rights import Right, Running
from services.catalog.api.tagged import tagged
from services.catalog.api.work import Key, local, one_run
from services.catalog.going_on import want_again

router = APIRouter(prefix="/leases", tags=["work"])
SHORTEST_S: Final = 5.0
LONGEST_S: Final = 3600.0
MOST_ARRAYS: Final = 64
TAKEN: Final = frozenset({"array", "number", "text", "line", "polygon", "table"})
"""Kinds of outputs that can come back over HTTP."""


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
    return tagged(request, _told(service, work))


@router.post("/{key}/heartbeat")
def keep_lease(
    request: Request, service: Here, right: Running, key: Key, body: Beat
) -> Response:
    """Hold a step for so many more seconds."""
    work = _held(service, right, key, body.worker)
    work.renew(body.seconds)
    return tagged(request, _told(service, work))


@router.post("/{key}/complete")
def complete_lease(
    request: Request,
    service: Here,
    right: Running,
    key: Key,
    outputs: Annotated[
        str,
        Form(
            max_length=10_000_000,
            description="JSON: by port a number, a text, points of a line, a GeoJSON "
            'polygon, or a table: {"columns": {...}, "units": {...}}',
        ),
    ] = "{}",
    worker: Annotated[str, Form(max_length=60)] = "",
    arrays: Annotated[
        Sequence[UploadFile],
        File(description="Zips of OME-Zarr groups, each called like its port"),
    ] = (),
) -> Response:
    """Hand in what a step gives, each of its outputs by name."""
    work = _held(service, right, key, worker)
    with _read(work, outputs, arrays) as made:
        work.finish(**made)
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
    _go_on(service, right, work)
    return tagged(request, one_run(service, right, key))


def _mine(service: Service, right: Right) -> Any:
    """The catalogue as far as the asker may work in it: a lease is work."""
    seen = local(service, right)
    allowed = (seen.projects or frozenset()) & (seen.writable or frozenset())
    return type(seen)(**{**vars(seen), "projects": allowed})


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


@contextmanager
def _read(
    work: Lease, outputs: str, arrays: Sequence[UploadFile]
) -> Iterator[dict[str, Any]]:
    """The values that were sent, by port; arrays are there within the block."""
    try:
        said = json.loads(outputs)
    except (ValueError, RecursionError) as err:
        raise BadRecord("outputs is no JSON") from err
    if not isinstance(said, dict):
        raise BadRecord("outputs is an object: each output by the name of its port")
    if len(arrays) > MOST_ARRAYS:
        raise BadRecord(f"a step gives {MOST_ARRAYS} arrays at most")
    sent = {(one.filename or "").removesuffix(".zip"): one for one in arrays}
    for name in (*said, *sent):
        kind = work.gives.get(name)
        if kind is None:
            known = ", ".join(work.gives) or "nothing"
            raise BadRecord(f"the step has no output {name!r}: it gives {known}")
        if (kind == "array") != (name in sent):
            raise BadRecord(f"send {name} {_ZIP if kind == 'array' else 'in outputs'}")
    made = {name: _value(name, work.gives[name], value) for name, value in said.items()}
    with tempfile.TemporaryDirectory(prefix="theatrum-lease-") as folder:
        for number, (name, file) in enumerate(sent.items()):
            place = Path(folder, str(number))
            place.mkdir()
            made[name] = _array(file, place)
        yield made


_ZIP: Final = "as a file: a zip of an OME-Zarr group that is called like the port"


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


def _array(file: UploadFile, folder: Path) -> Any:
    if file.size is None or file.size > PACKED_BYTES:
        raise BadRecord(f"an array has {PACKED_BYTES >> 20} MiB at most")
    package = folder / "array.zip"
    with package.open("xb") as target:
        shutil.copyfileobj(file.file, target)
    group = folder / "image.ome.zarr"
    group.mkdir()
    _unpack(package, group)
    return open_array(group)
