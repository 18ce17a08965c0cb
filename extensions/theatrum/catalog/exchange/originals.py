"""The files of images as they came, with a list of which is whose.

PROJECT/IMAGE/...     the files as they came, also where a copy of them is shown here;
                      of what was made here its OME-Zarr
images.csv            every image with what is known of it, and its files
missing.txt           images whose files are not here any more
LICENCE.txt           of each project, with its DOI
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import BadRecord
from theatrum.catalog.exchange.places import files_of
from theatrum.catalog.exchange.zips import Member, of_bytes, of_file
from theatrum.catalog.ingest.registering import COPY_NODE
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.spec import Q, Spec

_COLUMNS: Final = (
    "id", "name", "title", "kind", "modality", "plane", "format", "dtype", "px_x",
    "px_y", "px_z", "checksum",
)  # fmt: skip
_AT_ONCE: Final = 400


def members(backend: LocalBackend, spec: Spec) -> list[Member]:
    """What a download of originals consists of; nothing of them is read."""
    if spec.of != "images":
        raise BadRecord(f"what is exported are images, not {spec.of}")
    rows = LocalBackend.rows(
        backend, Spec(spec.of, spec.where, spec.order, spec.offset, spec.limit)
    )
    projects = _by_id(backend, "projects", {row["project_id"] for row in rows})
    sources = _sources(backend, rows)
    copies = _copies(backend, rows)
    listed: dict[str, Path] = {}
    placed: dict[Path, str] = {}
    table: list[list[object]] = []
    missing: list[str] = []
    for row in rows:
        project = projects[row["project_id"]]["name"]
        folder = PurePosixPath(project, row["name"])
        names: list[str] = []
        paths = [one for one in sources.get(row["acquisition_id"], []) if one.exists()]
        own = Path(row["path"])
        came = row["run_id"] is None or row["run_id"] in copies
        if not came or (row["run_id"] is None and not paths):
            paths = [own] if own.exists() else []
        if not paths:
            missing.append(f"{project}/{row['name']}")
        top = _common(paths)
        for path in paths:
            for one in files_of(path):
                # Images of one file share it: it is sent once.
                if one not in placed:
                    placed[one] = str(folder / PurePosixPath(*_below(one, top)))
                    listed[placed[one]] = one
                names.append(placed[one])
        first = names[0] if names else ""
        table.append(
            [project, *(row[one] for one in _COLUMNS), len(dict.fromkeys(names)), first]
        )
    about = {"images.csv": _csv(table), "LICENCE.txt": _licences(projects)}
    if missing:
        about["missing.txt"] = "".join(f"{one}\n" for one in missing)
    return [
        *(of_bytes(name, text.encode()) for name, text in sorted(about.items())),
        *(of_file(name, path) for name, path in listed.items()),
    ]


def _sources(backend: LocalBackend, rows: list[RowData]) -> dict[str, list[Path]]:
    """The original files of each acquisition that lie on this machine."""
    keys = {row["acquisition_id"] for row in rows if row["acquisition_id"]}
    found: dict[str, list[Path]] = {}
    for chunk in _chunks(keys):
        listed = LocalBackend.rows(
            backend,
            Spec(
                "members",
                (Q(acquisition_id__in=chunk),),
                values=("acquisition_id", "source_file__uri"),
            ),
        )
        for one in listed:
            uri = one["source_file__uri"]
            if uri and "://" not in uri:
                paths = found.setdefault(one["acquisition_id"], [])
                if Path(uri) not in paths:
                    paths.append(Path(uri))
    return {key: sorted(paths) for key, paths in found.items()}


def _copies(backend: LocalBackend, rows: list[RowData]) -> set[str]:
    """The runs that only copied files which came in, for viewers to read."""
    keys = {row["run_id"] for row in rows if row["run_id"]}
    return {
        one["run_id"]
        for chunk in _chunks(keys)
        for one in LocalBackend.rows(
            backend,
            Spec(
                "run_inputs",
                (Q(run_id__in=chunk, run__node__name=COPY_NODE),),
                values=("run_id",),
            ),
        )
    }


def _by_id(
    backend: LocalBackend, resource: str, keys: set[object]
) -> dict[object, RowData]:
    return {
        row["id"]: row
        for chunk in _chunks(keys)
        for row in LocalBackend.rows(backend, Spec(resource, (Q(id__in=chunk),)))
    }


def _chunks(keys: set[object]) -> Iterator[tuple[object, ...]]:
    listed = sorted(keys, key=str)
    for begin in range(0, len(listed), _AT_ONCE):
        yield tuple(listed[begin : begin + _AT_ONCE])


def _common(paths: list[Path]) -> Path | None:
    parents = {path.parent for path in paths}
    if not parents:
        return None
    top = min(parents, key=lambda one: len(one.parts))
    while not all(one.is_relative_to(top) for one in parents):
        top = top.parent
    return top


def _below(path: Path, top: Path | None) -> tuple[str, ...]:
    return path.relative_to(top).parts if top is not None else (path.name,)


def _csv(table: list[list[object]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["project", *_COLUMNS, "files", "first_file"])
    writer.writerows(
        # What a spreadsheet would take for a formula stays text (CWE-1236).
        [f"'{one}" if str(one)[:1] in ("=", "+", "-", "@") else one for one in row]
        for row in table
    )
    return out.getvalue()


def _licences(projects: dict[object, RowData]) -> str:
    lines = []
    for row in sorted(projects.values(), key=lambda one: str(one["name"])):
        licence = row["licence"] or "none named: ask the maintainers before reuse"
        cited = f"\ncite: {row['doi']}" if row["doi"] else ""
        lines.append(f"{row['title'] or row['name']}\nlicence: {licence}{cited}\n")
    return "\n".join(lines)
