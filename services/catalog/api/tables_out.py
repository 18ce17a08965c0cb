"""Listings as tables for other programs: CSV and Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from fastapi import Request, Response
from theatrum.catalog.backend import RowData

from services.catalog.api.tagged import tag_of, unchanged

CSV = "text/csv"
PARQUET = "application/vnd.apache.parquet"


def accepted(header: str) -> str:
    """`csv`, `parquet` or `json`, as the Accept header wants first."""
    for part in header.split(","):
        match part.split(";")[0].strip():
            case "text/csv":
                return "csv"
            case "application/vnd.apache.parquet":
                return "parquet"
            case "application/json" | "*/*":
                return "json"
    return "json"


def answer(
    request: Request,
    name: str,
    rows: Sequence[RowData],
    wanted: str,
    following: str | None = None,
) -> Response:
    """The rows as a file, or 304; the next page's cursor is in a header."""
    headers = {
        "Content-Disposition": f'attachment; filename="{name}.{wanted}"',
        "Vary": "Accept",
        "ETag": tag_of([wanted, rows, following]),
        "Cache-Control": "private, no-cache",
    }
    if following:
        headers["X-Next-Cursor"] = following
    if (known := unchanged(request, headers)) is not None:
        return known
    body = _csv(rows) if wanted == "csv" else _parquet(rows)
    return Response(body, 200, headers, CSV if wanted == "csv" else PARQUET)


def _csv(rows: Sequence[RowData]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return out.getvalue().encode()


def _cell(value: object) -> object:
    """A value for a spreadsheet: none that it would take for a formula (CWE-1236)."""
    if isinstance(value, dict | list):
        return json.dumps(value)
    if isinstance(value, str) and value[:1] in "=+-@\t\r":
        return f"'{value}"
    return value


def _parquet(rows: Sequence[RowData]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = [
        {
            name: json.dumps(value) if isinstance(value, dict | list) else value
            for name, value in row.items()
        }
        for row in rows
    ]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(plain), out)
    return out.getvalue()
