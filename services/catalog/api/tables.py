"""Tables: those that analyses made, row by row, and those that people hand in.

A table that is handed in is written here as Parquet, with a run by hand that says who
did it and from which images: whatever is in the catalogue has a run behind it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from theatrum.catalog.errors import BadRecord, Gone, NotFound
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.record import recording
from theatrum.catalog.tables import DataTable, Image, new_id
from theatrum.catalog.writing import project_for

from services.catalog.api import listing, tables_out
from services.catalog.api.here import Here, Service
from services.catalog.api.rights import Reading, Right, Writing
from services.catalog.api.tagged import tagged
from services.catalog.api.work import Key, local

router = APIRouter(prefix="/tables", tags=["tables"])
Cell = bool | int | float | str | None
MOST_CELLS: Final = 1_000_000
"""Of a table that is handed in; longer ones come as the output of a run."""
MOST_COLUMNS: Final = 1000


class NewTable(BaseModel):
    """A table, column by column."""

    model_config = ConfigDict(extra="forbid")
    project: str = Field(max_length=64)
    name: str = Field(min_length=1, max_length=255)
    columns: dict[str, list[Cell]] = Field(description="Of one length, by name")
    units: dict[str, str] = Field({}, description="Of those columns that have one")
    links: dict[str, Literal["image", "roi", "label", "subject", "sample"]] = Field(
        {}, description="Which columns hold ids of what"
    )
    description: str = Field("", max_length=100_000)
    images: list[str] = Field([], max_length=10_000, description="It was made of these")


@router.post("", status_code=201)
def make_table(
    request: Request, service: Here, right: Writing, body: NewTable
) -> Response:
    """Hand in a table; who did it, and from which images, is kept as a run."""
    _check(body)
    backend = local(service, right)
    found = backend.rows(Spec("images", (Q(id__in=tuple(body.images)),)))
    if len(found) < len(set(body.images)):
        raise NotFound("one of the images is not there, or not yours to see")
    with recording(service.database, right.person.name) as book:
        project_for(backend, book, body.project)
    path, digest, schema = _written(service, body)
    try:
        with recording(service.database, right.person.name) as book:
            project = project_for(backend, book, body.project)
            run = book.run(project, node="table by hand", on_behalf_of="catalog")
            for position, one in enumerate(found):
                book.input(run, "image", book.get(Image, one["id"]), position=position)
            row = book.add(
                DataTable(
                    id=new_id(),
                    project_id=project.id,
                    name=body.name,
                    uri=str(path),
                    schema=schema,
                    row_count=len(next(iter(body.columns.values()))),
                    links=dict(body.links),
                    sha256=digest,
                    description=body.description,
                    run_id=run.id,
                )
            )
            book.output(run, "table", row)
            key = row.id
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    answer = tagged(request, _row(service, right, key), status=201)
    answer.headers["Location"] = f"{service.api}/tables/{key}"
    return answer


@router.get(
    "/{key}/rows",
    responses={
        200: {
            "content": {tables_out.CSV: {}, tables_out.PARQUET: {}},
            "description": "A page of rows; a file holds all of them",
        }
    },
)
def get_rows(
    request: Request,
    service: Here,
    right: Reading,
    key: Key,
    limit: Annotated[int, Query(ge=1, le=listing.MOST)] = listing.USUAL,
    cursor: Annotated[
        int, Query(ge=0, le=2**40, description="How many rows come before")
    ] = 0,
    format: Literal["json", "csv", "parquet"] | None = None,
) -> Response:
    """The rows of a table: a page, or all of them as a file. They never change."""
    import pyarrow
    import pyarrow.parquet as parquet

    row = right.backend(service).whole("tables", key)
    path = Path(row["uri"])
    if not path.is_file():
        raise Gone(f"the file of {row['name']} is gone: tell whoever keeps the images")
    wanted = format or tables_out.accepted(request.headers.get("Accept", ""))
    try:
        if wanted != "json":
            every = _plain_rows(parquet.read_table(path))
            return tables_out.answer(request, "table", every, wanted)
        items = _page(parquet.ParquetFile(path), cursor, limit)
    except pyarrow.ArrowException as err:
        raise Gone(f"the file of {row['name']} cannot be read any more") from err
    following = cursor + limit
    more = following < row["row_count"]
    return tagged(request, {"items": items, "next": str(following) if more else None})


# Any here: Parquet, JSON
def _page(file: Any, begin: int, count: int) -> list[dict[str, Any]]:
    """Some rows; of the file only those groups are read in which they are."""
    rows: list[dict[str, Any]] = []
    at = 0
    for number in range(file.num_row_groups):
        size = file.metadata.row_group(number).num_rows
        if at < begin + count and begin < at + size:
            group = file.read_row_group(number)
            first = max(begin - at, 0)
            rows += _plain_rows(group.slice(first, begin + count - at - first))
        at += size
    return rows


def _plain_rows(table: Any) -> list[dict[str, Any]]:
    return [
        {name: _plain(value) for name, value in row.items()}
        for row in table.to_pylist()
    ]


def _plain(value: Any) -> Any:
    """A cell as JSON can hold it: what is no number there is none."""
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return None
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _check(body: NewTable) -> None:
    lengths = {len(column) for column in body.columns.values()}
    cells = sum(len(column) for column in body.columns.values())
    strange = sorted((body.units.keys() | body.links.keys()) - body.columns.keys())
    if len(lengths) != 1 or lengths == {0}:
        raise BadRecord("a table has columns of one length, one row at least")
    if cells > MOST_CELLS or len(body.columns) > MOST_COLUMNS:
        raise BadRecord(f"a table has {MOST_CELLS:,} cells at most")
    if strange:
        raise BadRecord(f"there is no column {strange[0]!r}")


def _written(service: Service, body: NewTable) -> tuple[Path, str, dict[str, Any]]:
    """The table as a file in its place, its checksum and its columns."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        table = pyarrow.table(body.columns)
    except (pyarrow.ArrowException, OverflowError) as err:
        raise BadRecord(
            "a column holds values of one kind: numbers, texts, or true and false"
        ) from err
    fields = [
        one.with_metadata({"unit": body.units[one.name]})
        if one.name in body.units
        else one
        for one in table.schema
    ]
    folder = service.home.derived
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{new_id()}-table.parquet"
    staging = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with staging.open("wb") as file:
        parquet.write_table(table.cast(pyarrow.schema(fields)), file)
        file.flush()
        os.fsync(file.fileno())
    staging.rename(path)
    schema = {
        one.name: {"type": str(one.type), "unit": body.units.get(one.name, "")}
        for one in fields
    }
    return path, hashlib.sha256(path.read_bytes()).hexdigest(), schema


def _row(service: Service, right: Right, key: str) -> dict[str, Any]:
    found = right.backend(service).rows(Spec("tables", (Q(id=key),)))
    return found[0]
