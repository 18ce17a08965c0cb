"""Downloads: what the words of an address find, as a zip, as JSON, as Parquet.

A zip is sent as it is made: nothing of it is held, its first byte comes at once, and
where it stopped a download goes on (`Range`). What would take too long is made by a job
instead (202), as is what is asked for with `Prefer: respond-async` (RFC 7240).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from theatrum.catalog.errors import BadQuery, NotFound
from theatrum.catalog.exchange import exporting, slices
from theatrum.catalog.exchange.zips import MEDIA_TYPE, Archive, of_file
from theatrum.catalog.query.fields import table_of
from theatrum.catalog.query.spec import Spec, spec_from_json
from theatrum.catalog.tables import Batch, Project

from services.catalog.api import limits, listing
from services.catalog.api.blocks import span_of
from services.catalog.api.here import Here, Service
from services.catalog.api.images import presented
from services.catalog.api.rights import EXPORT, Exporting, Right
from services.catalog.api.tables_out import PARQUET
from services.catalog.api.tagged import encoded, tagged
from services.catalog.api.wire import OverTheWire
from services.catalog.errors import ConflictError
from services.catalog.export_jobs import Exports, Order

router = APIRouter(tags=["exports"])
What = Literal["originals", "bundle", "bids", "slices"]

STREAMED_BYTES: Final = 8 * 2**30
"""Of originals and bundles that are sent at once; larger ones are made by a job."""
DRAWN_BYTES: Final = 256 * 2**20
"""Of slices and NIfTI files, which take more work for each byte."""
BYTES_PER_S: Final[Mapping[str, float]] = {
    "originals": 100e6, "bundle": 80e6, "bids": 30e6, "slices": 2e6,
}  # fmt: skip
"""What one download gets, roughly: measured by benchmarks.catalog.export, below it."""
_AT_ONCE: Final = 2000
_SAMPLE: Final = 500
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "The file"},
    202: {"description": "It is being made: Location says where to look"},
    206: {"description": "The part that Range names"},
    304: {"description": "As it was"},
    416: {"description": "There is no such part"},
}
ZIPPED = RESPONSES | {200: {"description": "The archive", "content": {MEDIA_TYPE: {}}}}
TABLED = RESPONSES | {200: {"description": "The table", "content": {PARQUET: {}}}}


@dataclass(frozen=True)
class Wanted:
    """What an address asks to have exported."""

    spec: Spec
    what: str
    # Any: words of an address, or JSON
    options: Mapping[str, Any]
    name: str


@router.get("/images/export.zip", response_class=StreamingResponse, responses=ZIPPED)
def export_zip(
    request: Request,
    service: Here,
    right: Exporting,
    what: What = "originals",  # noqa: ARG001 (read from the address, for saved queries)
) -> Response:
    """What the words find as a zip: originals, a bundle, a BIDS data set, slices."""
    return archived(request, service, right, _wanted(request))


@router.get("/images/export.json", responses=RESPONSES)
def export_json(request: Request, service: Here, right: Exporting) -> Response:
    """All rows that the words find, as one JSON document."""
    spec = _wanted(request).spec
    return as_json(service, right, spec, "images")


@router.get("/images/export.parquet", responses=TABLED)
def export_parquet(request: Request, service: Here, right: Exporting) -> Response:
    """All rows that the words find, as a Parquet file."""
    spec = _wanted(request).spec
    return as_parquet(request, service, right, spec, "images")


@router.get("/images/export")
def estimate_export(request: Request, service: Here, right: Exporting) -> Response:
    """How much each kind of download would be: images, bytes, seconds."""
    backend = right.backend(service)
    return tagged(request, estimate(backend, _wanted(request).spec, {}))


@router.get("/exports")
def list_exports(request: Request, service: Here, right: Exporting) -> Response:
    """Your exports that are made or being made, the newest first."""
    jobs = jobs_of(request).of(right.person.name)
    return tagged(
        request, {"items": [_told(service, job) for job in jobs], "next": None}
    )


class NewExport(BaseModel):
    """An export of what a question finds."""

    model_config = ConfigDict(extra="forbid")
    # Any: the query language's JSON
    query: dict[str, Any] = Field(description='{"of": "images", "where": [...]}')
    what: What = "bundle"
    options: dict[str, str | int | float | list[str] | list[float]] = Field(
        {}, description="How slices are chosen"
    )


@router.post("/exports", status_code=202)
def order_export(
    request: Request, service: Here, right: Exporting, body: NewExport
) -> Response:
    """Have what any question finds made into a zip, by a job; fetched when it is made.

    A question that no words of an address can ask is asked so; notebooks do.
    """
    service.limiter.take(right.person.name, limits.EXPORT)
    spec = spec_from_json(body.query)
    backend = right.backend(service)
    backend.count(spec)  # refuses what stays inside
    members = exporting.members(backend, spec, body.what, body.options)
    told = {"what": body.what, "options": body.options}
    tag, size = exporting.tag_of(members, told), Archive(members).size
    jobs = jobs_of(request)
    job = _made(jobs, right.person.name, tag) or _job(
        service, right, jobs, Wanted(spec, body.what, body.options, "images"), tag, size
    )
    answer = tagged(request, _told(service, job), status=202)
    answer.headers["Location"] = f"{service.api}/exports/{job.id}"
    return answer


@router.get("/exports/{key}")
def get_export(request: Request, service: Here, right: Exporting, key: str) -> Response:
    """How far an export of yours is."""
    job = jobs_of(request).find(key, right.person.name)
    return tagged(request, _told(service, job))


@router.delete("/exports/{key}", status_code=204)
def cancel_export(request: Request, right: Exporting, key: str) -> Response:
    """Stop an export of yours, and forget what was made of it."""
    jobs_of(request).cancel(key, right.person.name)
    return Response(status_code=204)


@router.get(
    "/exports/{key}/download", response_class=StreamingResponse, responses=ZIPPED
)
def download_export(
    request: Request, service: Here, right: Exporting, key: str
) -> Response:
    """The file of an export that is made; with `Range` a part of it."""
    jobs = jobs_of(request)
    job = jobs.find(key, right.person.name)
    still = project_ids(service, right)
    if not set(job.params["projects"]) <= still:
        raise NotFound("you may no longer export all that is in it: ask anew")
    path = jobs.path(key)
    if job.state != "succeeded" or not path.is_file():
        raise ConflictError(f"the export is {job.state}: there is nothing to fetch")
    return _file(request, path, job.engine["tag"], f"{job.params['what']}.zip")


# What saved queries share


def archived(
    request: Request, service: Service, right: Right, wanted: Wanted
) -> Response:
    """A zip at once, a part of it, the one that a job made, or a new job."""
    service.limiter.take(right.person.name, limits.EXPORT)
    backend = right.backend(service)
    members = exporting.members(backend, wanted.spec, wanted.what, wanted.options)
    archive = Archive(members)
    tag = exporting.tag_of(
        members, {"what": wanted.what, "options": dict(wanted.options)}
    )
    if f'"{tag}"' in request.headers.get("If-None-Match", ""):
        return Response(status_code=304, headers={"ETag": f'"{tag}"'})
    jobs = jobs_of(request)
    made = _made(jobs, right.person.name, tag)
    name = f"{wanted.name}-{wanted.what}.zip"
    if made is not None:
        return _file(request, jobs.path(made.id), tag, name)
    if _is_long(backend, wanted, archive) or "respond-async" in request.headers.get(
        "Prefer", ""
    ):
        job = _job(service, right, jobs, wanted, tag, archive.size)
        answer = tagged(request, _told(service, job), status=202)
        answer.headers["Location"] = f"{service.api}/exports/{job.id}"
        answer.headers["Retry-After"] = "5"
        return answer
    return _sent(request, archive.size, archive.stream, tag, name)


def _made(jobs: Exports, person: str, tag: str) -> Batch | None:
    """Somebody's job that made just this already."""
    return next(
        (
            job
            for job in jobs.of(person)
            if job.engine["tag"] == tag
            and job.state == "succeeded"
            and jobs.path(job.id).is_file()
        ),
        None,
    )


def _job(
    service: Service,
    right: Right,
    jobs: Exports,
    wanted: Wanted,
    tag: str,
    size: int | None,
) -> Batch:
    ids = project_ids(service, right)
    if not ids:
        raise NotFound("there is no project that you may export from")
    order = Order(
        wanted.spec, wanted.what, wanted.options, sorted(ids), right.person.name
    )
    return jobs.order(order, tag, size)


def as_json(service: Service, right: Right, spec: Spec, name: str) -> Response:
    """All rows of a question as one JSON document, sent as they are read."""
    service.limiter.take(right.person.name, limits.EXPORT)
    backend = right.backend(service)
    backend.count(spec)  # refuses what cannot be asked, before an answer begins

    def blocks() -> Iterator[bytes]:
        yield b'{"items":['
        before = b""
        for rows in _batches(service, backend, spec):
            yield before + b",".join(encoded(row) for row in rows)
            before = b","
        yield b"]}"

    headers = {"Content-Disposition": f'attachment; filename="{name}.json"'}
    return StreamingResponse(blocks(), 200, headers, "application/json")


def as_parquet(
    request: Request, service: Service, right: Right, spec: Spec, name: str
) -> Response:
    """All rows of a question as Parquet; written on disk first, for its end tells of
    its beginning."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    service.limiter.take(right.person.name, limits.EXPORT)
    backend = right.backend(service)
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        schema = None if spec.values else _schema(spec.of)
        writer = None
        for rows in _batches(service, backend, spec, plain=True):
            flat = [_flat(row) for row in rows]
            table = pa.Table.from_pylist(flat, schema=schema)
            schema = table.schema
            writer = writer or pq.ParquetWriter(file.name, schema)
            writer.write_table(table)
        if writer is None:
            empty = schema or pa.schema([(one, pa.string()) for one in spec.values])
            writer = pq.ParquetWriter(file.name, empty)
        writer.close()
        body = Path(file.name).read_bytes()
    headers = {"Content-Disposition": f'attachment; filename="{name}.parquet"'}
    del request
    return Response(body, 200, headers, PARQUET)


def estimate(
    backend: OverTheWire, spec: Spec, options: Mapping[str, str]
) -> dict[str, Any]:
    """Images, and for each kind of download about how many bytes and seconds.

    Up to `_SAMPLE` images every one counts; of more a sample does.
    """
    count = backend.count(spec)
    how = slices.chosen(options)
    # Ids are drawn by lot: the first ones in their order are as good as any.
    sample = backend.inside(
        Spec(spec.of, spec.where, order=("id",), values=_SIDES, limit=_SAMPLE)
    )
    scale = count / len(sample) if sample else 0
    files = scale * sum(row["size_bytes"] or _volume(row) for row in sample)
    drawn = scale * sum(slices.estimated_bytes(row, how) for row in sample)
    told = {"originals": files, "bundle": files, "bids": files, "slices": drawn}
    return {
        "count": count,
        "kinds": {
            what: {
                "bytes": int(size),
                "seconds": round(0.5 + size / BYTES_PER_S[what], 1),
            }
            for what, size in told.items()
        },
    }


_SIDES: Final = ("n_x", "n_y", "n_z", "n_c", "n_t", "size_bytes")


def _volume(row: Mapping[str, Any]) -> int:
    size = 2
    for name in ("n_x", "n_y", "n_z", "n_c", "n_t"):
        size *= max(row[name] or 1, 1)
    return size


def jobs_of(request: Request) -> Exports:
    """The jobs of the running service."""
    jobs: Exports = request.app.state.exports
    return jobs


def project_ids(service: Service, right: Right) -> set[int]:
    """The projects that the asker may export from now."""
    with service.database.reading() as session:
        names = right.projects(session, EXPORT)
        return set(session.scalars(select(Project.id).where(Project.name.in_(names))))


def split(words: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The words that say how slices are chosen, and the others."""
    options = {name: words[name] for name in exporting.OPTIONS & words.keys()}
    return options, {name: words[name] for name in words.keys() - options.keys()}


def _wanted(request: Request) -> Wanted:
    said = request.query_params.multi_items()
    words = dict(said)
    if len(words) < len(said):
        raise BadQuery("a word is said twice: use __in=a,b")
    what = words.pop("what", "originals")
    options, conditions = split(words)
    spec = listing.spec_of("images", conditions.items())
    if what != "slices" and options and request.url.path.endswith(".zip"):
        raise BadQuery(f"{min(options)} is for what=slices")
    return Wanted(spec, what, options, "images")


def _is_long(backend: OverTheWire, wanted: Wanted, archive: Archive) -> bool:
    if archive.size is not None:
        return archive.size > STREAMED_BYTES
    guess = estimate(
        backend, wanted.spec, wanted.options if wanted.what == "slices" else {}
    )
    return int(guess["kinds"][wanted.what]["bytes"]) > DRAWN_BYTES


def _batches(
    service: Service, backend: OverTheWire, spec: Spec, *, plain: bool = False
) -> Iterator[list[dict[str, Any]]]:
    held: list[dict[str, Any]] = []
    whole = spec.of == "images" and not spec.values and not plain

    def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return presented(service, backend, rows) if whole else rows

    for row in backend.each(spec):
        held.append(row)
        if len(held) == _AT_ONCE:
            yield shown(held)
            held = []
    if held:
        yield shown(held)


def _schema(resource: str) -> Any:
    """A resource's columns for Arrow, the same whatever the first rows hold."""
    import pyarrow as pa
    from sqlalchemy import JSON, BigInteger, Boolean, Float, Integer
    from theatrum.catalog.tables.base import Moment

    from services.catalog.api.wire import INSIDE

    kinds = (
        (Moment, pa.timestamp("us", "UTC")), (Boolean, pa.bool_()),
        (BigInteger, pa.int64()), (Integer, pa.int64()), (Float, pa.float64()),
        (JSON, pa.string()),
    )  # fmt: skip
    fields = []
    for column in table_of(resource).columns:
        if column.name not in INSIDE:
            kind = next(
                (made for of, made in kinds if isinstance(column.type, of)), pa.string()
            )
            fields.append((column.name, kind))
    return pa.schema(fields)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in row.items()
    }


def _file(request: Request, path: Path, tag: str, name: str) -> Response:
    member = of_file(name, path)

    def stream(first: int = 0, last: int | None = None) -> Iterator[bytes]:
        left = (member.size or 0) - first if last is None else last - first + 1
        for block in member.blocks(first):
            if left <= 0:
                return
            yield block[:left]
            left -= len(block)

    return _sent(request, member.size, stream, tag, name)


def _sent(
    request: Request,
    size: int | None,
    stream: Callable[..., Iterator[bytes]],
    tag: str,
    name: str,
) -> Response:
    """The whole, or the part that Range names where it is still the same."""
    headers = {
        "ETag": f'"{tag}"',
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "private, no-cache",
    }
    if size is None:
        return StreamingResponse(stream(), 200, headers, MEDIA_TYPE)
    headers["Accept-Ranges"] = "bytes"
    condition = request.headers.get("If-Range", f'"{tag}"')
    wanted = request.headers.get("Range") if condition == f'"{tag}"' else None
    span = span_of(wanted, size)
    if span is None:
        headers["Content-Length"] = str(size)
        return StreamingResponse(stream(), 200, headers, MEDIA_TYPE)
    first, last = span
    if first > last:
        headers["Content-Range"] = f"bytes */{size}"
        return Response(status_code=416, headers=headers)
    headers["Content-Length"] = str(last - first + 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return StreamingResponse(stream(first, last), 206, headers, MEDIA_TYPE)


def _told(service: Service, job: Batch) -> dict[str, Any]:
    """A job as its owner is told of it."""
    address = f"{service.api}/exports/{job.id}"
    return {
        "id": job.id,
        "what": job.params["what"],
        "options": job.params["options"],
        "state": job.state,
        "bytes": job.counts.get("bytes", 0),
        "of": job.counts.get("of"),
        "reason": job.counts.get("reason", ""),
        "created_at": job.created_at,
        "ended_at": job.ended_at,
        "download": f"{address}/download" if job.state == "succeeded" else None,
    }
