"""The catalogue's work on its database: register, find what may be seen, share.

A person sees the collections that name one of their groups. A course's grading
server sees what the course's teachers see, for it runs the students' notebooks.

Files are looked at by the workers of a `Prober`, never here: one that crashes a reader,
or keeps it busy for ever, is refused like any other that cannot be read.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session
from theatrum.catalog.database import open_database, teach_case
from theatrum.catalog.facts import facts_of_view
from theatrum.catalog.tables import Image, Project, ProjectGroup, Result

from hub.database import open_engine
from hub.home import Home
from hub.signin import Person
from services.catalog.errors import BadNameError, ImageGoneError
from tile_server.errors import TileServerError
from tile_server.probing import Prober, ProbeSettings
from tile_server.readers.imports import IMPORTS
from tile_server.versions import file_version

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NOT_IN_NAME = re.compile(r"[^a-z0-9._-]+")


def open_prober(home: Home) -> Prober:
    """What looks at files for the catalogue; the caller closes it.

    Pictures that have to be imported first are imported where the tile service finds
    them again.
    """
    return Prober(ProbeSettings(imports=home.cache / "tiles" / IMPORTS))


def open_store(home: Home) -> Engine:
    """The catalogue's database, with the newest schema."""
    open_database(home).close()
    engine = open_engine(home.catalog_db)
    teach_case(engine)
    return engine


def groups_of(person: Person) -> frozenset[str]:
    """The groups whose collections the asker may see."""
    if person.kind == "service":
        return frozenset({f"formgrade-{person.name}"})
    return person.groups


def results_of(session: Session, image: Image) -> Sequence[Result]:
    """What analyses found on an image, the newest first."""
    query = select(Result).where(Result.image_id == image.id)
    return session.scalars(
        query.order_by(Result.created.desc(), Result.id.desc())
    ).all()


def refresh(session: Session, image: Image, *, prober: Prober | None = None) -> None:
    """Take note of a file that was replaced: its version and geometry.

    `prober` looks at the file; without it one is started for this call.

    Raises
    ------
    ImageGoneError
        Where the file is missing or no longer readable.
    """
    path = Path(image.path)
    try:
        version = file_version(path)
        if version == image.version:
            return
        image.geometry = _geometry(path, version, prober)
    except (OSError, TileServerError) as err:
        log.warning("image %s cannot be read: %s", image.id, type(err).__name__)
        raise ImageGoneError(
            f"the file of image {image.id} is missing or cannot be read"
        ) from err
    image.version = version
    session.commit()


def add_image(
    session: Session,
    collection: Project,
    path: Path,
    *,
    title: str = "",
    prober: Prober | None = None,
) -> Image:
    """Register a slide, or take note of a change where it is registered already.

    The title is the file's name by default and never what the file says of itself:
    that can be a patient's name. `prober` looks at the file; without it one is started
    for this call, which takes about a second.

    Raises
    ------
    TileServerError
        Where the file is no slide that can be read; nothing is registered then.
    """
    path = path.resolve()
    version = file_version(path)
    geometry = _geometry(path, version, prober)
    image = session.scalar(
        select(Image).where(
            Image.project_id == collection.id,
            Image.path == str(path),
            Image.scene == 0,
            Image.deleted_at.is_(None),
        )
    )
    if image is None:
        image = Image(
            project=collection,
            path=str(path),
            name=_free_name(session, collection, path),
            title=title or path.stem.replace("_", " "),
        )
        session.add(image)
    image.version = version
    image.geometry = geometry
    for column, fact in facts_of_view(geometry).items():
        setattr(image, column, fact)
    session.commit()
    return image


def _geometry(path: Path, version: str, prober: Prober | None) -> dict[str, Any]:
    """What the view says of a slide, with the names of all its associated images."""
    if prober is None:
        with Prober(ProbeSettings(workers=1)) as own:
            return _geometry(path, version, own)
    finding = prober.probe(path, version)
    return finding.view | {"associated": list(finding.associated)}


def _free_name(session: Session, collection: Project, path: Path) -> str:
    """A name for the file's image that the collection does not use yet."""
    stem = _NOT_IN_NAME.sub("-", path.stem.lower()).strip("-._")[:48] or "image"
    used = set(
        session.scalars(select(Image.name).where(Image.project_id == collection.id))
    )
    number = 2
    name = stem
    while name in used:
        name = f"{stem}-{number}"
        number += 1
    return name


def ensure_collection(
    session: Session, name: str, groups: Sequence[str] = ()
) -> Project:
    """The collection of that name, made where missing, open to `groups` as well."""
    if not _NAME.fullmatch(name):
        raise BadNameError(
            f"{name!r} cannot name a collection: use up to 64 small letters, digits, "
            "dots, hyphens and underscores, a letter or digit first"
        )
    collection = session.scalar(select(Project).where(Project.name == name))
    if collection is None:
        collection = Project(name=name)
        session.add(collection)
    known = {entry.group for entry in collection.groups}
    collection.groups.extend(
        ProjectGroup(group=group) for group in groups if group not in known
    )
    session.commit()
    return collection


def close_collection(session: Session, name: str, groups: Sequence[str]) -> None:
    """Take the right to see a collection from `groups`.

    Raises
    ------
    BadNameError
        Where there is no such collection: a slip of the pen must not pass for done.
    """
    collection = session.scalar(select(Project).where(Project.name == name))
    if collection is None:
        raise BadNameError(
            f"there is no collection {name!r}: `theatrum collections list` shows all"
        )
    collection.groups = [
        entry for entry in collection.groups if entry.group not in set(groups)
    ]
    session.commit()
