"""Names of images: made of what people write, each once in its project."""

from __future__ import annotations

import re

from sqlalchemy import select
from sqlalchemy.orm import Session

from theatrum.catalog.tables import Image

_NOT_IN_NAME = re.compile(r"[^a-z0-9._-]+")


def free_name(session: Session, project_id: int, wanted: str) -> str:
    """A name like the one that is wanted, that no image of the project has.

    Numbers are tried by doubling and halving: of a hundred thousand images that are
    called alike, each new one asks seventeen times, and no row is looked at in turn.
    """
    stem = _NOT_IN_NAME.sub("-", wanted.lower()).strip("-._")[:100] or "image"

    def taken(name: str) -> bool:
        lives = {"project_id": project_id, "deleted_at": None, "name": name}
        return session.scalar(select(Image.id).filter_by(**lives)) is not None

    if not taken(stem):
        return stem
    last, free = 1, 2
    while taken(f"{stem}-{free}"):
        last, free = free, free * 2
    while free - last > 1:
        middle = (last + free) // 2
        if taken(f"{stem}-{middle}"):
            last = middle
        else:
            free = middle
    return f"{stem}-{free}"
