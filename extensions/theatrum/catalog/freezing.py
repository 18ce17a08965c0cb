"""Versions of a dataset: what a query found at one moment, kept for ever.

The manifest is a Parquet file of ids and checksums in the order of ids; its own
checksum stands in the row. A version is never changed: freezing the same name and
version again is refused.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theatrum.catalog.errors import BadRecord, Gone, NotAllowed
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.record import recording
from theatrum.catalog.remote import RemoteBackend
from theatrum.catalog.rows import Row
from theatrum.catalog.tables import DatasetVersion, new_id
from theatrum.catalog.writing import _data, _refusing, project_for

if TYPE_CHECKING:
    import pyarrow

    from theatrum.catalog.connection import Catalog
    from theatrum.catalog.query.lazy import Query

COLUMNS = ("id", "name", "path", "scene", "checksum", "version")


# Any: handles of images
def freeze(
    catalog: Catalog, query: Query[Any], named: tuple[str, str], project: str
) -> Row:
    """Write the manifest and its row; see `Catalog.freeze`."""
    backend = catalog.backend
    if query.spec.of != "images":
        raise BadRecord("a version is of images")
    name, version = named
    if isinstance(backend, RemoteBackend):
        asked = {"project": project, "name": name, "version": version}
        said = backend.create("versions", {**asked, "query": query.to_json()})
        return Row(backend, said, "versions")
    if not isinstance(backend, LocalBackend):
        raise NotAllowed("this catalogue cannot freeze versions")
    import pyarrow.parquet as parquet

    table = query.order_by("id").values(*COLUMNS).to_arrow()
    folder = backend.files / "versions"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{new_id()}.parquet"
    staging = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with staging.open("wb") as file:
        parquet.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())
    staging.rename(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        with _refusing(), recording(backend.database, backend.user) as book:
            row = book.add(
                DatasetVersion(
                    id=new_id(),
                    project_id=project_for(backend, book, project).id,
                    name=name,
                    version=version,
                    query=query.to_json(),
                    manifest_uri=str(path),
                    sha256=digest,
                    row_count=table.num_rows,
                    frozen_by=backend.user,
                )
            )
            columns = _data(row)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Row(backend, columns, "versions")


def manifest(version: Row) -> pyarrow.Table:
    """A version's ids and checksums; Gone where the file is not what was written."""
    import pyarrow.parquet as parquet

    backend = version._backend
    if isinstance(backend, RemoteBackend):
        import pyarrow

        return parquet.read_table(pyarrow.BufferReader(backend.manifest(version.id)))
    path = Path(version.manifest_uri)
    if not path.is_file() or (
        hashlib.sha256(path.read_bytes()).hexdigest() != version.sha256
    ):
        raise Gone(f"the manifest of {version.name} {version.version} is damaged")
    return parquet.read_table(path)
