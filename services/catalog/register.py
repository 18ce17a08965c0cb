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
    added, refused = 0, []
    with Session(engine) as session, Prober() as prober:
        try:
            target = store.ensure_collection(session, collection, groups)
        except BadNameError as err:
            errors.print(str(err), markup=False)
            return 2
        for path in track(files, "Registering", console=console, transient=True):
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


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files named, and those below the folders named, each once."""
    seen: set[Path] = set()
    for path in paths:
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in found:
            if file.is_dir() or file.name.startswith(".") or file in seen:
                continue
            seen.add(file)
            yield file


def _reason(name: str, err: OSError | TileServerError) -> str:
    """A sentence with the file's name; the reader's own sentences hold it already."""
    if isinstance(err, OSError):
        return f"{name}: {(err.strerror or 'it cannot be read').lower()}"
    return str(err)
