"""The page of classification rules: written, tried, put in order, taken away, undone.

A rule says of a name what it is (`theatrum.catalog.ingest.rules`). Trying changes
nothing: of each item that waits the page shows what the rule would say of it, and
whether another rule comes first. What is taken away can be brought back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from sqlalchemy import select
from sqlalchemy.orm import Session
from theatrum.catalog.errors import BadQuery, CatalogError, NotFound
from theatrum.catalog.ingest.fields import COLUMNS, PLAIN
from theatrum.catalog.ingest.rules import CRITERIA, Rule, parse
from theatrum.catalog.record import recording
from theatrum.catalog.tables import FileRule, Project, new_id

from hub.forms import own_xsrf
from hub.signin import Person
from services.catalog.api import inbox, rights
from services.catalog.api.here import Here, Service
from services.catalog.pages.acting import Actor, Fields, Form, Looker, one
from services.catalog.pages.rendering import page

router = APIRouter(include_in_schema=False)
KNOWN: Final = sorted(
    {
        *PLAIN,
        *(f"{table}__{name}" for table, names in COLUMNS.items() for name in names),
    }
)
"""The fields that a rule can say."""
HEADER: Final = (
    "modality", "description", "body_part", "device.maker", "device.model",
    "device.field_strength_t", "protocol.echo_time_ms", "protocol.repetition_time_ms",
)  # fmt: skip
"""What of a header a rule is asked for on the page; by HTTP it may be anything."""
MODALITIES: Final = ("MR", "CT", "PT", "NM", "US", "SM", "FM", "OT")
ROWS: Final = 3
"""Empty rows for more fields, and for more of the header."""
STEP: Final = 10
"""Between the priorities of two rules, so that others can be put between by hand."""
SAID: Final = {
    "kept": "The rule is kept",
    "moved": "The order is changed",
    "removed": "The rule is taken away",
    "restored": "The rule is back",
}


@dataclass(frozen=True)
class Typed:
    """A rule as it stands in the form."""

    key: str
    project: str
    name: str
    pattern: str
    fields: Sequence[tuple[str, str]]
    criteria: Sequence[tuple[str, str]]

    def said(self) -> dict[str, Any]:
        """The fields as a row of `file_rule` holds them."""
        said: dict[str, Any] = dict(self.fields)
        if self.criteria:
            said[CRITERIA] = dict(self.criteria)
        return said


@router.get("/inbox/rules")
def rules_page(request: Request, service: Here, visitor: Looker) -> Response:
    """The rules of the projects that the visitor edits."""
    return _page(request, service, visitor)


@router.post("/inbox/rules")
def act(request: Request, service: Here, visitor: Actor, form: Form) -> Response:
    """Try or keep what is typed; move, take away or bring back what is there."""
    right = rights.Right(visitor, rights.WRITE)
    what, _, key = one(form, "act").partition(":")
    typed = _typed(form)
    done, more = "", ""
    try:
        if what == "try":
            tried = _tried(service, right, typed)
            return _page(request, service, visitor, typed=typed, tried=tried)
        if what == "keep":
            key, told = _keep(service, right, typed, also=bool(one(form, "also")))
            done, more = "kept", f"&told={told}"
        elif what in ("up", "down"):
            _move(service, right, key, -1 if what == "up" else 1)
            done = "moved"
        elif what == "remove":
            _remove(service, right, key)
            done, more = "removed", f"&undo={key}"
        elif what == "restore":
            _remove(service, right, key, back=True)
            done = "restored"
    except CatalogError as err:
        return _page(request, service, visitor, typed=typed, problem=str(err))
    address = f"{service.prefix}inbox/rules?done={done}{more}"
    return RedirectResponse(f"{address}#rule-{key}", 303)


def _page(
    request: Request,
    service: Service,
    visitor: Person,
    *,
    typed: Typed | None = None,
    tried: Sequence[Mapping[str, Any]] | None = None,
    problem: str = "",
) -> Response:
    right = rights.Right(visitor, rights.WRITE)
    words = request.query_params
    with service.database.reading() as session:
        projects = sorted(right.projects(session))
        rules = [_shown(row, name) for row, name in _rows(session, right)]
    if typed is None:
        begun = next(
            (rule for rule in rules if rule["id"] == words.get("change")), None
        )
        typed = _begun(begun, projects)
    told = words.get("told", "")
    return page(
        service,
        visitor,
        "rules.html",
        status=409 if problem else 200,
        xsrf=own_xsrf(request),
        projects=projects,
        rules=rules,
        typed=typed,
        fields=[*typed.fields, *[("", "")] * ROWS],
        criteria=[*typed.criteria, *[("", "")] * ROWS],
        known=KNOWN,
        header=HEADER,
        modalities=MODALITIES,
        tried=tried,
        problem=problem,
        done=SAID.get(words.get("done", ""), ""),
        told=int(told) if told.isdigit() and len(told) < 5 else 0,
        undo=words.get("undo", "")[:64],
    )


# Any: columns of rows, for the template
def _shown(row: FileRule, project: str) -> dict[str, Any]:
    fields = {name: one for name, one in row.fields.items() if name != CRITERIA}
    try:
        rule = parse(row.name, row.pattern, row.fields, row.priority)
        fields, fault = dict(rule.templates), ""
    except CatalogError as err:
        fault = str(err)
    return {
        "id": row.id,
        "project": project,
        "name": row.name,
        "pattern": row.pattern,
        "fields": [(name, str(one)) for name, one in fields.items()],
        "criteria": [*row.fields.get(CRITERIA, {}).items()],
        "fault": fault,
    }


def _begun(rule: Mapping[str, Any] | None, projects: Sequence[str]) -> Typed:
    """What the form begins with: a rule that is to be changed, or an example."""
    if rule is not None:
        return Typed(
            rule["id"],
            rule["project"],
            rule["name"],
            rule["pattern"],
            rule["fields"],
            rule["criteria"],
        )
    example = (("subject__label", "{animal}"), ("sample__stain", "{stain}"))
    pattern = r"(?P<animal>m\d+)_(?P<stain>[a-z]+)"
    return Typed("", projects[0] if projects else "", "", pattern, example, ())


def _typed(form: Fields) -> Typed:
    def pairs(mark: str) -> list[tuple[str, str]]:
        names, values = form.get(f"{mark}.name", []), form.get(f"{mark}.value", [])
        said = zip(names, values, strict=False)
        return [(name.strip(), value.strip()) for name, value in said if name and value]

    return Typed(
        one(form, "key"),
        one(form, "project"),
        one(form, "name"),
        one(form, "pattern"),
        pairs("field"),
        pairs("criterion"),
    )


def _tried(service: Service, right: rights.Right, typed: Typed) -> list[dict[str, Any]]:
    """Of each item that waits what the rule would say, and which rule comes first."""
    said = {
        row["id"]: row["fields"]
        for row in inbox.tried(
            service, right, typed.project, typed.pattern, typed.said()
        )
    }
    first = _before(service, right, typed)
    return [
        {
            "id": item["id"],
            "title": item["title"],
            "fields": said.get(item["id"]),
            "first": _first(first, item),
            "now": item["proposal"],
            "coming": item["coming"],
        }
        for item in inbox.items(service, right, project=typed.project)
    ]


def _first(rules: Sequence[Rule], item: Mapping[str, Any]) -> str:
    """The rule that decides before; "" where there is none."""
    header = {"modality": item["modality"]}
    return next(
        (rule.name for rule in rules if rule.fields(item["title"], header) is not None),
        "",
    )


def _before(service: Service, right: rights.Right, typed: Typed) -> list[Rule]:
    """The rules that are asked before the one in the form."""
    found: list[Rule] = []
    with service.database.reading() as session:
        for row, project in _rows(session, right):
            if row.id == typed.key:
                break
            if project == typed.project:
                found.append(parse(row.name, row.pattern, row.fields, row.priority))
    return found


def _keep(
    service: Service, right: rights.Right, typed: Typed, *, also: bool
) -> tuple[str, int]:
    """Write the rule; its id, and of how many that wait it was said as well."""
    if not typed.name or not typed.fields:
        raise BadQuery("Give the rule a name, and say at least one thing by it.")
    parse(typed.name, typed.pattern, typed.said())
    with service.database.reading() as session:
        if typed.project not in right.projects(session):
            raise NotFound("there is no such project that you may edit")
    waiting = _tried(service, right, typed) if also else []
    with recording(service.database, right.person.name) as book:
        if typed.key:
            row = _mine(book.session, right, typed.key)
            book.change(
                row, name=typed.name, pattern=typed.pattern, fields=typed.said()
            )
        else:
            last = [
                one for one, name in _rows(book.session, right) if name == typed.project
            ]
            project = book.session.scalar(
                select(Project.id).where(Project.name == typed.project)
            )
            row = book.add(
                FileRule(
                    id=new_id(),
                    project_id=project,
                    name=typed.name,
                    pattern=typed.pattern,
                    fields=typed.said(),
                    priority=(last[-1].priority if last else 0) + STEP,
                )
            )
        key = str(row.id)
    told = 0
    for item in waiting:
        if item["fields"] and not item["first"] and not item["coming"]:
            inbox.edit(service, right, item["id"], item["fields"])
            told += 1
    return key, told


def _move(service: Service, right: rights.Right, key: str, by: int) -> None:
    """Ask a rule one place earlier, or later, than it was."""
    with recording(service.database, right.person.name) as book:
        row = _mine(book.session, right, key)
        rows = [
            one
            for one, _ in _rows(book.session, right)
            if one.project_id == row.project_id
        ]
        place = rows.index(row)
        rows.insert(min(max(place + by, 0), len(rows) - 1), rows.pop(place))
        for at, one in enumerate(rows, 1):
            book.change(one, priority=at * STEP)


def _remove(
    service: Service, right: rights.Right, key: str, *, back: bool = False
) -> None:
    with recording(service.database, right.person.name) as book:
        row = _mine(book.session, right, key, gone=back)
        if back:
            book.change(row, deleted_at=None)
        else:
            book.delete(row)


def _mine(
    session: Session, right: rights.Right, key: str, *, gone: bool = False
) -> FileRule:
    """A rule that the visitor may change; raises NotFound."""
    for row, _ in _rows(session, right, gone=gone):
        if row.id == key:
            return row
    raise NotFound("there is no such rule that you may change")


def _rows(
    session: Session, right: rights.Right, *, gone: bool = False
) -> list[tuple[FileRule, str]]:
    """The rules of the projects that the visitor edits, in the order of asking."""
    there = FileRule.deleted_at.is_not(None) if gone else FileRule.deleted_at.is_(None)
    query = (
        select(FileRule, Project.name)
        .join(Project, Project.id == FileRule.project_id)
        .where(Project.name.in_(right.projects(session)), there)
        .order_by(Project.name, FileRule.priority, FileRule.id)
    )
    return [(row, name) for row, name in session.execute(query)]
