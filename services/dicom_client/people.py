"""Who may do what: hub groups are roles, and roles are rights.

Each role may what those before it may not, and only viewers, planners and
administrators see patients: a template editor needs none. Nobody reads a mapping here
at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Request

from hub.signin import Asker, Person
from services.dicom_client.errors import NotAllowed


class Right(StrEnum):
    """One thing that a person may do."""

    SEE = "see"
    """Series, patients, time lines, previews, statistics."""
    PLAN = "plan"
    """Start, retry, cancel, hold and override; rate and compare."""
    EDIT = "edit"
    """Templates and rules, with dry runs."""
    ADMINISTER = "administer"
    """Settings, secrets, nodes, and the audit log."""


ROLES: dict[str, frozenset[Right]] = {
    "dicom-viewers": frozenset({Right.SEE}),
    "dicom-planners": frozenset({Right.SEE, Right.PLAN}),
    "dicom-template-editors": frozenset({Right.EDIT}),
    "dicom-administrators": frozenset(Right),
}
"""The hub's groups, and what each may."""


def rights_of(person: Person) -> frozenset[Right]:
    """What a person may do by all of their groups."""
    return frozenset(
        right for group in person.groups for right in ROLES.get(group, frozenset())
    )


def require(person: Person, *any_of: Right) -> Person:
    """The person, if any of the rights is theirs; else NotAllowed."""
    if not rights_of(person) & set(any_of):
        raise NotAllowed(
            "your groups do not allow this: ask an administrator of the client for "
            f"{' or '.join(any_of)}"
        )
    return person


def _asking(*any_of: Right) -> Callable[[Request, Person], Awaitable[Person]]:
    async def person(_request: Request, asker: Asker) -> Person:
        return require(asker, *any_of)

    return person


# What a route of the API declares.
Anybody = Annotated[Person, Depends(_asking(*Right))]
Seer = Annotated[Person, Depends(_asking(Right.SEE))]
Planner = Annotated[Person, Depends(_asking(Right.PLAN))]
Editor = Annotated[Person, Depends(_asking(Right.EDIT))]
Chooser = Annotated[Person, Depends(_asking(Right.EDIT, Right.PLAN))]
Administrator = Annotated[Person, Depends(_asking(Right.ADMINISTER))]
