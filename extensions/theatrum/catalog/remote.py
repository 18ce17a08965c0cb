"""A catalogue behind a service: the same questions, asked over HTTP.

Questions travel as the JSON of `answers.py`, rows come back as JSON with moments in ISO
8601. Pixels are read block by block, as Zarr over HTTP, when they are computed. What a
user may see and do the service decides by the token; nothing is asked twice.
"""

from __future__ import annotations

import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from theatrum.catalog.answers import MOST_ROWS
from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import (
    BadQuery,
    BadRecord,
    CatalogError,
    Gone,
    NotAllowed,
    NotConnected,
    NotFound,
    NotOpened,
)
from theatrum.catalog.facts import in_millimetres
from theatrum.catalog.query.facets import Facet
from theatrum.catalog.query.fields import table_of
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.query.sql import Compiler
from theatrum.catalog.query.tables import type_at
from theatrum.catalog.tables.base import Moment

if TYPE_CHECKING:
    import xarray

TIMEOUT_S = 60.0
"""For one answer; a facet over millions of rows takes seconds."""

LONGEST_PAUSE_S = 30.0
"""That one waits when one asked too often; a larger one is told as an error."""

BY_STATUS: dict[int, type[CatalogError]] = {
    400: BadQuery,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    410: Gone,
    415: NotOpened,
    422: BadRecord,
    503: NotConnected,
}


@dataclass(frozen=True)
class RemoteBackend:
    """A service, as the token's owner sees it."""

    url: str
    """Of the catalogue's service, such as `https://hub/services/catalog`."""
    token: str | None = field(default=None, repr=False)

    @property
    def user(self) -> str:
        """See `Backend`: whoever the token belongs to."""
        return str(self.json("GET", "me")["name"])

    # Questions

    def rows(self, spec: Spec) -> list[RowData]:
        """See `Backend`."""
        return [*self.each(spec)]

    def each(self, spec: Spec) -> Iterator[RowData]:
        """See `Backend`; asked page by page: the service gives so many at once."""
        cursor: str | None = ""
        while cursor is not None and (spec.limit is None or spec.limit > 0):
            # Distinct values are sorted by themselves: they have no cursors.
            paged = {} if spec.distinct else {"cursor": cursor}
            said = self._search(spec, rows=True, **paged)
            part = said["rows"]
            yield from (_read(row, spec) for row in part)
            left = None if spec.limit is None else spec.limit - len(part)
            offset = spec.offset + len(part) if spec.distinct else 0
            full = "" if len(part) == MOST_ROWS else None
            cursor = full if spec.distinct else said["next"]
            spec = replace(spec, offset=offset, limit=left)

    def count(self, spec: Spec) -> int:
        """See `Backend`."""
        return int(self._search(spec, count=True)["count"])

    # Any: a facet's value is whatever its column holds
    def facets(
        self, spec: Spec, facets: Sequence[Facet]
    ) -> dict[str, list[tuple[Any, int]]]:
        """See `Backend`."""
        asked = [
            {"field": one.field, "limit": one.limit, "edges": list(one.edges)}
            for one in facets
        ]
        found = self._search(spec, facets=asked)["facets"]
        return {
            name: [(one["value"], one["count"]) for one in values]
            for name, values in found.items()
        }

    def sql(self, spec: Spec) -> str:
        """See `Backend`: the service's SQL."""
        return str(self._search(spec, sql=True)["sql"])

    def _search(self, spec: Spec, **wanted: Any) -> Any:
        # What is misspelt is told here, with the names that are near.
        Compiler("sqlite").rows(spec)
        said = {"query": spec.to_json(), **wanted}
        try:
            return self.json("POST", "search", json=said)
        except BadRecord as err:  # what cannot be processed is here the question
            raise BadQuery(str(err)) from err

    # Writing

    def create(self, resource: str, values: Mapping[str, Any]) -> RowData:
        """See `Backend`."""
        row = self.json("POST", _address(resource), json=dict(values))
        return _read(row, Spec(resource))

    def change(self, resource: str, key: str, values: Mapping[str, Any]) -> RowData:
        """See `Backend`."""
        row = self.json("PATCH", _address(resource, key), json=dict(values))
        return _read(row, Spec(resource))

    def remove(self, resource: str, key: str) -> None:
        """See `Backend`."""
        self.ask("DELETE", _address(resource, key))

    def manifest(self, version: str) -> bytes:
        """The manifest of a version as Parquet; see `theatrum.catalog.freezing`."""
        route = f"versions/{quote(version, safe='')}/manifest"
        parquet: bytes = self.ask("GET", route, params={"format": "parquet"}).content
        return parquet

    # Images

    def lineage(self, kind: str, key: str) -> dict[str, Any]:
        """See `Backend`; of images."""
        if kind != "image":
            raise BadQuery(f"the service tells where images come from, not a {kind}")
        lineage: dict[str, Any] = self.json("GET", f"images/{quote(key)}/lineage")
        return lineage

    def array(self, image: RowData, level: int) -> xarray.DataArray:
        """See `Backend`: Zarr over HTTP, read block by block."""
        from theatrum.catalog.zarr_http import opened

        spec = Spec("channels", (Q(image_id=image["id"]),), order=("index",))
        channels = self.rows(spec)
        address = f"{self._api}/images/{quote(image['id'])}/zarr"
        return opened(address, self._headers, image, level, channels)

    def thumbnail(self, image: RowData, size: int) -> bytes:
        """See `Backend`."""
        route = f"images/{quote(image['id'])}/thumbnail"
        try:
            jpeg: bytes = self.ask("GET", route, params={"size": size}).content
        except BadRecord as err:
            raise NotOpened(str(err)) from err
        return jpeg

    def keep(self, array: xarray.DataArray, kept: Mapping[str, Any]) -> RowData:
        """See `Backend`: written here as OME-Zarr, sent as one zip."""
        from theatrum.catalog.zarr_store import write_image

        with tempfile.TemporaryDirectory(prefix="theatrum-save-") as folder:
            group = Path(folder, "image.ome.zarr")
            write_image(group, in_millimetres(array))
            package = Path(folder, "image.zip")
            _zipped(group, package)
            with package.open("rb") as file:
                said = {"kept": _dumped(kept)}
                row = self.json(
                    "POST",
                    "images",
                    data=said,
                    files={"array": ("image.ome.zarr.zip", file, "application/zip")},
                )
        return _read(row, Spec("images"))

    def planes(self, image: RowData) -> list[RowData]:
        """See `Backend`."""
        route = f"images/{quote(image['id'])}/planes"
        rows: list[RowData] = self.json("GET", route)["items"]
        return rows

    def close(self) -> None:
        """See `Backend`: nothing is held."""

    # HTTP

    @contextmanager
    def streamed(
        self, method: str, route: str, headers: Mapping[str, str]
    ) -> Iterator[httpx.Response]:
        """An answer that is read as it comes; NotConnected where the line is cut.

        The status 416 is the asker's to understand.
        """
        try:
            with (
                httpx.Client(
                    trust_env=False, timeout=TIMEOUT_S, headers=self._headers
                ) as client,
                client.stream(
                    method, f"{self._api}/{route}", headers=dict(headers)
                ) as answer,
            ):
                if not answer.is_success and answer.status_code != 416:
                    answer.read()
                    raise _refusal(
                        answer, BY_STATUS.get(answer.status_code, CatalogError)
                    )
                yield answer
        except httpx.HTTPError as err:
            raise _away(err) from None

    @property
    def _api(self) -> str:
        return f"{self.url.rstrip('/')}/api/v1"

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"token {self.token}"} if self.token else {}

    # Any: JSON
    def json(self, method: str, route: str, **more: Any) -> Any:
        """What a route answers; see `ask`."""
        return self.ask(method, route, **more).json()

    def ask(
        self,
        method: str,
        route: str,
        *,
        conflict: type[CatalogError] = BadRecord,
        **more: Any,
    ) -> httpx.Response:
        """Ask, and raise a refusal in the service's own words.

        `conflict`: what 409 means here.

        Never through a proxy of the environment, which could not reach the hub.
        """
        try:
            with httpx.Client(
                trust_env=False, timeout=TIMEOUT_S, headers=self._headers
            ) as client:
                answer = client.request(method, f"{self._api}/{route}", **more)
                # Nothing was done yet: whoever asks too often is told when to go on.
                while answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    time.sleep(_pause_s(answer))
                    answer = client.request(method, f"{self._api}/{route}", **more)
        except httpx.HTTPError as err:
            raise _away(err) from None
        if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
            return answer
        if answer.status_code == httpx.codes.CONFLICT:
            raise _refusal(answer, conflict)
        raise _refusal(answer, BY_STATUS.get(answer.status_code, CatalogError))


def _away(err: httpx.HTTPError) -> NotConnected:
    return NotConnected(
        f"The catalogue did not answer ({type(err).__name__}): try again, and tell "
        "whoever runs the hub if it stays so."
    )


def _pause_s(answer: httpx.Response) -> float:
    """How long the service asks one to wait; NotConnected where that is too long."""
    said = answer.headers.get("Retry-After", "1")
    pause_s = float(said) if said.replace(".", "", 1).isdigit() else 1.0
    if pause_s > LONGEST_PAUSE_S:
        raise NotConnected(
            f"The catalogue asks to wait {pause_s:.0f} s: ask less often."
        )
    return max(pause_s, 0.05)


def _refusal(answer: httpx.Response, error: type[CatalogError]) -> CatalogError:
    try:
        problem = answer.json()
        detail = str(problem.get("detail") or problem.get("title") or "")
    except (ValueError, AttributeError):
        detail = ""
    return error(detail or f"The catalogue answered {answer.status_code}.")


def _address(resource: str, key: str = "") -> str:
    return f"{resource}/{quote(key, safe='')}" if key else resource


def _read(row: Mapping[str, Any], spec: Spec) -> RowData:
    """A row as a database gives it: all of its columns, moments with their zone.

    What the service keeps to itself (where a file lies) is None, and what it adds for
    those who have no library is left out.
    """
    root = table_of(spec.of)
    if not spec.values:
        return {
            column.name: _moment(row.get(column.name), column.type)
            for column in root.columns
        }
    return {
        path: _moment(row.get(path), type_at(root.name, path)) for path in spec.values
    }


def _moment(value: Any, type_: object) -> Any:
    if isinstance(type_, Moment) and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value


def _dumped(kept: Mapping[str, Any]) -> str:
    import json

    return json.dumps(dict(kept))


def _zipped(group: Path, package: Path) -> None:
    """Put a group's files into a zip, stored: its blocks are compressed already."""
    with zipfile.ZipFile(package, "x", zipfile.ZIP_STORED) as archive:
        for file in _files(group):
            archive.write(file, file.relative_to(group).as_posix())


def _files(group: Path) -> Iterator[Path]:
    return (one for one in sorted(group.rglob("*")) if one.is_file())
