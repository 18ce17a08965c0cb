"""Registering slides from the command line: a bad file never stops the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from services.catalog import store
from services.catalog.errors import BadNameError
from tile_server.errors import TileServerError
from tile_server.probing import Prober
from tile_server.readers.dicom_series import is_series_folder
from tile_server.readers.ome_zarr import is_zarr
from tile_server.versions import file_version


def register(
    engine: Engine,
    paths: Sequence[Path],
    collection: str,
    groups: Sequence[str],
    console: Console,
    errors: Console,
) -> int:
    """Register each readable slide; the exit code is 1 where one was refused."""
    files = list(_files(paths))
    added = 0
    refused: list[str] = []
    with Session(engine) as session, Prober() as prober:
        try:
            target = store.ensure_collection(session, collection, groups)
        except BadNameError as err:
            errors.print(str(err), markup=False)
            return 2
        looked = track(files, "Registering", console=console, transient=True)
        for path in _one_of_each(looked, prober, refused):
            try:
                image = store.add_image(session, target, path, prober=prober)
            except (OSError, TileServerError) as err:
                refused.append(_reason(path.name, err))
                continue
            added += 1
            console.print(
                f'{path.name}: images["{target.name}/{image.name}"]',
                markup=False,
                soft_wrap=True,
            )
        visible = sorted(entry.group for entry in target.groups)
    for reason in refused:
        errors.print(f"refused: {reason}", markup=False, soft_wrap=True)
    console.print(f"{added} registered in {collection}, {len(refused)} refused.")
    if not visible:
        console.print(
            f"Nobody may see {collection} yet: "
            f"theatrum collections grant {collection} GROUP"
        )
    return 1 if refused or not files else 0


def _one_of_each(
    files: Iterable[Path], prober: Prober, refused: list[str]
) -> list[Path]:
    """The files to register: of a slide of many files (DICOM) its largest.

    The reasons of those that are no slides go to `refused`.
    """
    found: dict[tuple[Path, str], tuple[int, Path]] = {}
    for path in files:
        try:
            real = path.resolve()
            series = prober.probe(real, file_version(real)).series
            size = path.stat().st_size
        except (OSError, TileServerError) as err:
            refused.append(_reason(path.name, err))
            continue
        slide = (real.parent, series) if series else (real, "")
        if slide not in found or size > found[slide][0]:
            found[slide] = size, path
    return [path for _, path in found.values()]


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files named, and those below the folders named, each once.

    An OME-Zarr folder is one image, and so is a folder of one scan.
    """
    seen: set[Path] = set()
    for path in paths:
        for file in _below(path):
            if file.name.startswith(".") or file in seen:
                continue
            seen.add(file)
            yield file


def _below(path: Path) -> Iterator[Path]:
    """A file, or a folder that is one image, or whatever such there are below it."""
    if not path.is_dir() or is_zarr(path) or is_series_folder(path):
        yield path
        return
    for inner in sorted(path.iterdir()):
        # A link to a folder could lead in circles.
        if not (inner.is_dir() and inner.is_symlink()):
            yield from _below(inner)


def _reason(name: str, err: OSError | TileServerError) -> str:
    """A sentence with the file's name; the reader's own sentences hold it already."""
    if isinstance(err, OSError):
        return f"{name}: {(err.strerror or 'it cannot be read').lower()}"
    return str(err)
