"""The feed of changes: every new, changed or deleted row is told in the order it came.

What is told is which row and which of its columns, never their contents: who follows
the feed asks for the row, and sees what their rights let them see.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from theatrum.catalog.tables import (
    Annotation,
    Base,
    Channel,
    Event,
    Image,
    Measurement,
    Project,
    Roi,
    Run,
    RunEvent,
    RunInput,
    RunOutput,
    SeriesMember,
)

QUIET = (Channel, SeriesMember, RunInput, RunOutput, RunEvent, Event)
"""Told with the run, the image or the acquisition that they are part of."""


def tell(session: Session, actor: str, row: Base, op: str, changed: list[str]) -> None:
    """Append to the feed that a row came (`create`), changed (`update`) or went."""
    key = getattr(row, "id", "")
    project_id = None
    if isinstance(row, Project):
        project_id = row.id
    elif getattr(row, "project_id", None) is not None:
        project_id = row.project_id  # type: ignore[attr-defined]
    session.add(
        Event(
            project_id=project_id,
            topic=_topic(row, project_id),
            kind=row.__tablename__,
            op=op,
            object_id=str(key),
            changed=changed,
            actor=actor,
        )
    )


def _topic(row: Base, project_id: int | None) -> str:
    """What one subscribes to: the narrowest thing that the row is about."""
    match row:
        case Run(batch_id=str(batch)):
            return f"batch/{batch}"
        case Annotation(target_kind="image", target_id=str(image)):
            return f"image/{image}"
        case Roi(image_id=image) | Measurement(image_id=image):
            return f"image/{image}"
        case Image(id=image):
            return f"image/{image}"
        case _:
            return f"project/{project_id}" if project_id is not None else "catalog"
