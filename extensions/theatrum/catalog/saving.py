"""Arrays of images: opened where they lie, shown small, and new ones kept.

A new array is written as OME-Zarr under a name of its own, whole and synced, before its
row is: whatever stops in between leaves a folder that nobody points at, never a row
without pixels.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theatrum.catalog.backend import PLANE, RowData
from theatrum.catalog.display import columns_of
from theatrum.catalog.errors import (
    BadRecord,
    CatalogError,
    Gone,
    NotFound,
    NotOpened,
)
from theatrum.catalog.facts import facts_of_array, in_millimetres
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.record import DERIVED, Book, recording
from theatrum.catalog.tables import Image, Project, new_id
from theatrum.catalog.writing import project_for

if TYPE_CHECKING:
    import PIL.Image
    import xarray

    from theatrum.catalog.formats.scene import Scene
    from theatrum.catalog.local import LocalBackend

KINDS = DERIVED | {"initial"}


def opened(
    image: RowData, level: int, scenes: Callable[[str, int], Scene] | None = None
) -> xarray.DataArray:
    """An image's array at a level, not yet read; its name and id go along.

    `scenes` opens the file: this process does, where nothing else is said.
    """
    from theatrum.catalog.arrays import level_of, open_scene

    found = (scenes or open_scene)(image["path"], image["scene"])
    array = level_of(found, level, Path(image["path"]).name)
    return array.rename(image["name"]).assign_attrs(id=image["id"])


def thumbnail(backend: LocalBackend, image: RowData, size: int) -> bytes:
    """A JPEG: the one that is kept, else drawn from the coarsest level."""
    import PIL.Image

    picture: PIL.Image.Image
    where = Q(owner_kind="image", owner_id=image["id"], role="thumbnail")
    assets = backend.rows(Spec("assets", (where,), limit=1))
    kept = Path(assets[0]["uri"]) if assets else None
    if kept is not None and kept.is_file():
        with PIL.Image.open(kept) as stored:
            picture = stored.convert("RGB")
    else:
        picture = _drawn(backend, image)
    picture.thumbnail((size, size))
    jpeg = io.BytesIO()
    picture.convert("RGB").save(jpeg, "JPEG", quality=85)
    return jpeg.getvalue()


def _drawn(backend: LocalBackend, image: RowData) -> PIL.Image.Image:
    from theatrum.catalog.picture import draw

    try:
        return draw(backend.array(image, -1), plane=image["plane"] or "ax")
    except (CatalogError, NotImplementedError):
        raise
    except Exception as err:
        # The boundary to readers of any format: a picture is never worth a table.
        raise NotOpened(f"{image['name']} cannot be drawn: {err}") from err


def planes(backend: LocalBackend, image: RowData) -> list[RowData]:
    """What the file of an image said of its planes; empty where it said nothing."""
    found = backend.rows(asset_of_planes(image["id"]))
    return read_planes(Path(found[0]["uri"])) if found else []


def asset_of_planes(image_id: str) -> Spec:
    """The question for the Parquet file of an image's planes."""
    return Spec("assets", (Q(plane_tables__image_id=image_id),), limit=1)


def read_planes(path: Path) -> list[RowData]:
    """The rows of a Parquet file of planes; raises Gone where it is not there."""
    import pyarrow.parquet as pq

    if not path.is_file():
        raise Gone("the table of the image's planes is gone: ingest the image again")
    rows: list[RowData] = pq.read_table(path).to_pylist()
    return [dict.fromkeys(PLANE) | row for row in rows]


def keep(
    backend: LocalBackend, array: xarray.DataArray, kept: Mapping[str, Any]
) -> RowData:
    """Write an array and register it, with the run that made it; see `Backend.keep`."""
    from theatrum.catalog.zarr_store import write_image

    kind = kept.get("kind", "derived")
    if kind not in KINDS:
        raise BadRecord(f"an array is kept as {', '.join(sorted(KINDS))}, not {kind}")
    inputs = _inputs(backend, kept.get("inputs") or ())
    project_name = kept.get("project") or _project_of(backend, inputs)
    with recording(backend.database, backend.user) as book:
        # Refused before anything is written.
        _project(backend, book, project_name)
    key = new_id()
    array = in_millimetres(array)
    path = backend.files / "derived" / f"{key}.ome.zarr"
    written = write_image(path, array)
    try:
        with recording(
            backend.database, backend.user, on_behalf_of=backend.on_behalf_of
        ) as book:
            project = _project(backend, book, project_name)
            run = book.run(
                project,
                node=kept.get("node") or "notebook",
                params=dict(kept.get("params") or {}),
                code_version=str(kept.get("code_version", "")),
            )
            sources = [book.get(Image, one["id"]) for one in inputs]
            for position, source in enumerate(sources):
                book.input(run, "image", source, position=position)
            # A file that knows no modality calls it OT: what went in knows better.
            fields = (
                facts_of_array(array)
                | _inherited(inputs, project.id)
                | dict(kept.get("fields") or {})
            )
            image = book.image(
                project,
                path=str(path),
                name=str(kept.get("name") or array.name or "image"),
                title=str(kept.get("title") or ""),
                run=run,
                kind=kind,
                format="ome-zarr",
                checksum=written.sha256_tree,
                size_bytes=written.bytes,
                n_levels=written.levels,
                chunks=list(written.chunk),
                channels=columns_of(written.channels),
                **fields,
            )
            return {
                column.key: getattr(image, column.key)
                for column in Image.__table__.columns
            }
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _inputs(backend: LocalBackend, ids: Any) -> list[RowData]:
    wanted = tuple(str(one) for one in ids)
    if not wanted:
        return []
    found = {
        row["id"]: row for row in backend.rows(Spec("images", (Q(id__in=wanted),)))
    }
    missing = [one for one in wanted if one not in found]
    if missing:
        raise NotFound(f"there is no image {missing[0]} that you may see")
    return [found[one] for one in wanted]


def _project(backend: LocalBackend, book: Book, name: str) -> Project:
    """The project that an array goes to; who may write to all makes it by naming it."""
    if backend.projects is None and backend.writable is None:
        return book.project(name)
    return project_for(backend, book, name)


def _project_of(backend: LocalBackend, inputs: list[RowData]) -> str:
    if not inputs:
        raise BadRecord("say which project it belongs to, as project=")
    where = Q(id=inputs[0]["project_id"])
    name: str = backend.rows(Spec("projects", (where,)))[0]["name"]
    return name


def _inherited(inputs: list[RowData], project_id: int) -> dict[str, Any]:
    """What all that went in agree on: whose it is, and how it was taken.

    Of images of another project only how: nothing points out of a project.
    """
    columns = ["modality"]
    if all(one["project_id"] == project_id for one in inputs):
        columns += ["acquisition_id", "sample_id", "subject_id"]
    return {
        column: inputs[0][column]
        for column in columns
        if inputs and inputs[0][column] and len({one[column] for one in inputs}) == 1
    }
