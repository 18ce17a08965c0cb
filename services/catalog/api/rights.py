"""Who may do what: the role of one's groups in a project, narrowed by the token.

A project names hub groups and their roles; `@name` in a group's place is one person.
A role carries scopes. A token that a person asked the hub for may carry fewer, and then
those only count. What one may not see answers as what is not there; only where one sees
a thing and may not change it is that said.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated

from fastapi import Security
from fastapi.security import APIKeyHeader, SecurityScopes
from sqlalchemy import or_, select
from sqlalchemy.orm import Session
from theatrum.catalog.errors import NotAllowed
from theatrum.catalog.tables import ROLES, Project, ProjectGroup

from hub.scopes import CATALOG
from hub.signin import Asker, Person
from hub.wiring import RESEARCHERS
from services.catalog.api.here import Here, Service
from services.catalog.api.limits import READ as READING
from services.catalog.api.limits import WRITE as WRITING
from services.catalog.api.wire import OverTheWire
from services.catalog.store import groups_of

READ = "catalog:read"
PIXELS = "pixels:read"
WRITE = "catalog:write"
ANNOTATE = "annot:write"
RUN = "runs:write"
CANCEL = "runs:cancel"
EXPORT = "export"
ADMIN = "admin"

_VIEWER = frozenset({READ, PIXELS, EXPORT})
_EDITOR = _VIEWER | {WRITE, ANNOTATE, RUN, CANCEL}
SCOPES = MappingProxyType(
    {"viewer": _VIEWER, "editor": _EDITOR, "maintainer": frozenset(CATALOG)}
)
"""What a role may do in its project."""

HUB_ADMIN = "admin:users"
"""A scope of the hub's own that administrators have, and their tokens by default."""
OPEN = ("internal", "public")
"""Projects that everybody with an account may look at."""


@dataclass(frozen=True)
class Right:
    """An asker with what the route that they ask needs."""

    person: Person
    scope: str

    def projects(self, session: Session, scope: str | None = None) -> frozenset[str]:
        """The names of the projects in which the asker may do what the route does.

        `scope`: something else that they may do there.
        """
        scope = scope or self.scope
        if not carried(self.person, scope):
            return frozenset()
        enough = [role for role in ROLES if scope in SCOPES[role]]
        given = select(ProjectGroup.project_id).where(
            ProjectGroup.group.in_(names_of(self.person)),
            ProjectGroup.role.in_(enough),
        )
        allowed = [Project.id.in_(given)]
        if scope in SCOPES["viewer"] and self.person.kind == "user":
            allowed.append(Project.visibility.in_(OPEN))
        return frozenset(session.scalars(select(Project.name).where(or_(*allowed))))

    def check(self, service: Service, project_id: int) -> None:
        """Go on only where the asker may do it in a project that they see.

        Raises
        ------
        NotAllowed
            Where their role does not reach so far.
        """
        with service.database.reading() as session:
            name = session.scalar(select(Project.name).where(Project.id == project_id))
            if name in self.projects(session):
                return
        raise NotAllowed(
            f"your role in this project does not carry {self.scope!r}: ask one of its "
            "maintainers for a higher one"
        )

    def backend(self, service: Service) -> OverTheWire:
        """The catalogue as the asker may use it for what the route does."""
        with service.database.reading() as session:
            seen = self.projects(session, READ)
            writable = self.projects(session)
        narrowed = seen & writable if self.scope in SCOPES["viewer"] else seen
        return OverTheWire(
            database=service.database,
            files=service.home.root,
            user=self.person.name,
            projects=narrowed,
            writable=writable,
            scenes=service.apart.scene,
        )


def names_of(person: Person) -> frozenset[str]:
    """The names under which a project may have a role for the asker."""
    own = {f"@{person.name}"} if person.kind == "user" else set()
    return groups_of(person) | own


def carried(person: Person, scope: str) -> bool:
    """Whether the asker's token may be used for a scope."""
    return f"custom:{scope}" in person.scopes


def administers(person: Person) -> bool:
    """Whether somebody administers the hub, and sends a token that carries this."""
    return HUB_ADMIN in person.scopes


def refuse_but_administrators(person: Person) -> None:
    """Raise NotAllowed for all but administrators of the hub."""
    if not administers(person):
        raise NotAllowed(
            "this is for administrators of the hub, with a token of theirs that is not "
            "narrowed: ask one of them"
        )


def may_make_projects(person: Person) -> bool:
    """Whether somebody may begin a project of their own."""
    return RESEARCHERS in person.groups and carried(person, WRITE)


_token = APIKeyHeader(
    name="Authorization",
    scheme_name="hub",
    description="`token ` and a token of the hub that carries the scope",
    auto_error=False,
)


def asked(
    wanted: SecurityScopes,
    service: Here,
    person: Asker,
    _sent: Annotated[str | None, Security(_token)] = None,
) -> Right:
    """The asker, with a token that carries the route's scope, not too often."""
    (scope,) = wanted.scopes
    # A question that is posted only reads, too.
    reads = scope in _VIEWER
    service.limiter.take(person.name, READING if reads else WRITING)
    if not carried(person, scope):
        raise NotAllowed(
            f"this token does not carry {scope!r}: ask the hub for one that does"
        )
    return Right(person, scope)


Reading = Annotated[Right, Security(asked, scopes=[READ])]
Pixels = Annotated[Right, Security(asked, scopes=[PIXELS])]
Writing = Annotated[Right, Security(asked, scopes=[WRITE])]
Annotating = Annotated[Right, Security(asked, scopes=[ANNOTATE])]
Running = Annotated[Right, Security(asked, scopes=[RUN])]
Cancelling = Annotated[Right, Security(asked, scopes=[CANCEL])]
Exporting = Annotated[Right, Security(asked, scopes=[EXPORT])]
Administering = Annotated[Right, Security(asked, scopes=[ADMIN])]
"""What a route declares: the asker, and which scope it needs; OpenAPI tells it."""
