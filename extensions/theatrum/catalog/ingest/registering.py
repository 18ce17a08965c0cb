"""One item in the catalogue: its files, its acquisition, its images; all or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from theatrum.catalog.ingest.fields import Belonging
from theatrum.catalog.ingest.place import Checked
from theatrum.catalog.record import Book
from theatrum.catalog.tables import (
    Acquisition,
    Image,
    PlaneTable,
    Project,
    SeriesMember,
    SourceFile,
    finite,
    new_id,
)

COPY_NODE = "copy to OME-Zarr"


@dataclass(frozen=True)
class Shown:
    """How the tile service shows a scene.

    Attributes
    ----------
    path
        What it opens: the original, or a copy.
    written
        What `zarr_store.write` said of a copy; None where the original is shown.
    """

    path: Path
    version: str
    geometry: Mapping[str, Any]
    written: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Prepared:
    """Everything that is known of an item, with its files in their places.

    Attributes
    ----------
    kept
        Where each file lies now.
    name
        What images are named after; of a person's it tells nothing.
    scenes
        As `describing.described` says.
    shown
        Of each scene.
    planes
        Of each scene the table of its planes, in its place, or None.
    fields
        What rules say.
    """

    checked: Checked
    kept: Mapping[Path, Path]
    name: str
    names: Mapping[Path, str]
    format: str
    scenes: Sequence[Mapping[str, Any]]
    shown: Sequence[Shown]
    planes: Sequence[Path | None]
    fields: Mapping[str, Any] = field(default_factory=dict)
    sidecars: Sequence[Path] = ()
    deidentified: bool = False
    received_from: str = ""


def known_images(
    session: Session, project_id: int, digests: Sequence[str]
) -> list[str] | None:
    """Names of the images that these files are already; None where one is new."""
    files: dict[str, str] = {}
    wanted = sorted(set(digests))
    for at in range(0, len(wanted), 500):
        query = select(SourceFile.sha256, SourceFile.id).where(
            SourceFile.project_id == project_id,
            SourceFile.sha256.in_(wanted[at : at + 500]),
            SourceFile.deleted_at.is_(None),
        )
        files.update((digest, key) for digest, key in session.execute(query))
    if len(files) < len(wanted) or not wanted:
        return None
    found = _images_of(session, project_id, list(files.values()))
    # Files whose images somebody removed, or moved away, come in anew.
    if not found or any(not Path(one.path).exists() for one in found):
        return None
    return sorted(one.name for one in found)


def _images_of(
    session: Session, project_id: int, source_files: Sequence[str]
) -> list[Image]:
    """The images that came in with some source files, the oldest first."""
    query = (
        select(Image)
        .join(SeriesMember, SeriesMember.acquisition_id == Image.acquisition_id)
        .where(
            SeriesMember.source_file_id.in_(source_files[:500]),
            Image.project_id == project_id,
            Image.deleted_at.is_(None),
            Image.kind.in_(("original", "initial")),
        )
        .distinct()
        .order_by(Image.created_at, Image.id)
    )
    return list(session.scalars(query))


def register(book: Book, project: Project, item: Prepared) -> list[Image]:
    """Write an item's rows; the images, in the order of its scenes."""
    belonging = Belonging(book, project, _fields(item))
    about = item.scenes[0]["acquisition"]
    acquisition = book.acquisition(
        project,
        series_uid=about["series_uid"] or None,
        **belonging.keys,
        **_acquired(about, item),
    )
    sources = {
        path: book.source_file(
            project,
            sha256=digest,
            uri=str(item.kept[path]),
            name=item.names[path][:255],
            size=item.kept[path].stat().st_size,
            media_type="application/dicom"
            if item.format == "dicom"
            else _media_type(path),
            reader=item.format,
            deidentified=item.deidentified,
            received_from=item.received_from[:255],
        )
        for path, digest in item.checked.files.items()
    }
    _tell_of_a_series_that_grew(book, acquisition, item, list(sources.values()))
    book.members(
        acquisition,
        [
            {
                "source_file_id": source.id,
                "scene_index": int(scene["index"]),
                "scene_name": str(scene["name"])[:255],
            }
            for scene in item.scenes
            for source in {one.id: one for one in sources.values()}.values()
        ],
    )
    _found_again(book, project, item, list(sources.values()))
    images = []
    for scene, shown, planes in zip(item.scenes, item.shown, item.planes, strict=True):
        run = None
        if shown.written is not None:
            run = book.run(project, node=COPY_NODE, params={"scene": scene["index"]})
            for position, source in enumerate(sources.values()):
                book.input(run, "file", source, position=position)
        image = book.image(
            project,
            path=str(shown.path),
            name=_name(item, belonging, scene),
            run=run,
            channels=finite(scene["channels"]),
            **_columns(item, scene, shown),
            kind=belonging.image.get(
                "kind", "original" if shown.written is None else "initial"
            ),
            acquisition_id=acquisition.id,
            subject_id=belonging.keys.get("subject_id"),
            sample_id=belonging.keys.get("sample_id"),
        )
        if planes is not None:
            _plane_table(book, image, planes, int(scene["planes"]["rows"]))
        for sidecar in item.sidecars:
            book.asset(
                image,
                role="sidecar",
                uri=str(item.kept[sidecar]),
                media_type=_media_type(sidecar),
                size=item.kept[sidecar].stat().st_size,
                sha256=item.checked.files[sidecar],
            )
        images.append(image)
    return images


def _tell_of_a_series_that_grew(
    book: Book, series: Acquisition, item: Prepared, sources: Sequence[SourceFile]
) -> None:
    """Say that some of these files are an image already: it may have been cut off."""
    members = select(SeriesMember.source_file_id).where(
        SeriesMember.acquisition_id == series.id
    )
    ids = {one.id for one in sources}
    known = ids.intersection(book.session.scalars(members))
    if known and known != ids:
        there = _images_of(book.session, series.project_id, sorted(known))
        names = ", ".join(one.name for one in there) or "an image"
        item.scenes[0]["warnings"].append(
            f"Some of these {len(sources)} files are {names} already: the series has "
            "grown since. Both are kept; delete the one that is not whole."
        )


def _found_again(
    book: Book, project: Project, item: Prepared, sources: Sequence[SourceFile]
) -> None:
    """Let the rows of files that were moved say where they are now."""
    for source, path in zip(sources, item.checked.files, strict=True):
        if not Path(source.uri).exists():
            book.change(source, uri=str(item.kept[path]))
    known = _images_of(book.session, project.id, [one.id for one in sources])
    lost = [one for one in known if not Path(one.path).exists()]
    if len(lost) == len(item.shown):
        for image, shown in zip(lost, item.shown, strict=True):
            book.change(image, path=str(shown.path), scene=0)


def _fields(item: Prepared) -> dict[str, Any]:
    """What rules say, and for the subject what the scans themselves tell."""
    fields = dict(item.fields)
    patient = str(item.scenes[0]["acquisition"]["patient"])
    if patient:
        fields.setdefault("subject__label", patient)
    return fields


def _acquired(about: Mapping[str, Any], item: Prepared) -> dict[str, Any]:
    """The columns of the acquisition."""
    device = dict(about["device"])
    told = item.fields
    said = {
        "modality": str(told.get("modality") or about["modality"]),
        "acquired_at": _moment(str(about["acquired_at"])),
        "manufacturer": _short(device.get("maker"), 128),
        "model": _short(device.get("model"), 128),
        "field_strength": _number(device.get("field_strength_t")),
        "device": device,
        "study_uid": about["study_uid"] or None,
        "series_number": item.scenes[0]["attrs"].get("series_number") or None,
        "description": about["description"],
        "body_part": _short(told.get("body_part") or about["body_part"], 64),
        "laterality": _short(told.get("laterality") or about["laterality"], 16),
        "protocol": dict(about["protocol"]),
        # An item that waited in the inbox may have been looked at by an older version.
        "raw_meta": dict(about.get("raw_meta") or {}),
    }
    told_by_file: dict[str, Any] = finite(said)
    return told_by_file


def _columns(item: Prepared, scene: Mapping[str, Any], shown: Shown) -> dict[str, Any]:
    """The columns of an image that are not about whose it is."""
    columns: dict[str, Any] = finite(scene["image"])
    columns["modality"] = str(item.fields.get("modality") or columns["modality"])
    columns["version"] = shown.version
    columns["geometry"] = dict(shown.geometry)
    columns["attrs"] = finite(scene["attrs"])
    if any(None in row for row in columns["affine"] or ()):
        columns["affine"] = None  # of a place that is not known nothing is left
    columns["checksum"] = item.checked.digest
    columns["size_bytes"] = scene["bytes"]
    columns["state"] = "ready"
    if shown.written is not None:
        columns["attrs"] |= {"original_format": columns["format"]}
        columns["format"] = "ome-zarr"
        columns["checksum"] = shown.written["sha256_tree"]
        columns["n_levels"] = shown.written["levels"]
        columns["chunks"] = list(shown.written["chunk"])
    return columns


def _name(item: Prepared, belonging: Belonging, scene: Mapping[str, Any]) -> str:
    name = str(belonging.image.get("name") or item.name)
    if len(item.scenes) > 1:
        name += f"-{scene['name'] or int(scene['index']) + 1}"
    return name[:100]


def _plane_table(book: Book, image: Image, file: Path, rows: int) -> None:
    asset = book.asset(
        image,
        role="planes",
        uri=str(file),
        media_type="application/vnd.apache.parquet",
        size=file.stat().st_size,
    )
    query = select(PlaneTable).where(PlaneTable.image_id == image.id)
    known = book.session.scalar(query)
    if known is None:
        book.add(
            PlaneTable(id=new_id(), image_id=image.id, asset_id=asset.id, n_planes=rows)
        )
    else:
        book.change(known, asset_id=asset.id, n_planes=rows)


_MEDIA_TYPES = {
    ".dcm": "application/dicom",
    ".json": "application/json",
    ".nii": "application/x-nifti",
    ".gz": "application/gzip",
    ".zip": "application/zip",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jp2": "image/jp2",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".svs": "image/tiff",
}


def _media_type(path: Path) -> str:
    return _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _short(value: Any, length: int) -> str | None:
    text = "" if value is None else str(value).strip()
    return text[:length] or None


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
