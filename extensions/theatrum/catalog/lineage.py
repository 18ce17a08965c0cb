"""Where a row comes from: the runs that made it, what went into them, and so on back.

One recursive query walks from outputs to inputs, on SQLite and PostgreSQL alike; from
images without a run the way goes on over their acquisition to the original files. Rows
that the asker may not see are left out with all that is said of them.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import String, and_, cast, literal, select

from theatrum.catalog.errors import NotFound
from theatrum.catalog.query.fields import RESOURCE_OF
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.tables import Image, Project, RunInput, RunOutput, SeriesMember
from theatrum.catalog.tables.images import DISCARDED

if TYPE_CHECKING:
    from theatrum.catalog.local import LocalBackend

Key = tuple[str, str]
"""A table's name and a row's id."""

_NAMES = ("name", "label", "title", "id")


@dataclass(frozen=True)
class Made:
    """A run with what went in and came out, as far as it belongs to the lineage."""

    id: str
    node: str
    version: str
    requested_by: str
    on_behalf_of: str | None
    state: str
    params: Mapping[str, Any]
    started_at: str | None
    ended_at: str | None
    used: tuple[tuple[str, Key], ...]
    """(port, what)"""
    made: tuple[tuple[str, Key], ...]


@dataclass(frozen=True)
class Lineage:
    """A row, everything that it came from, and the runs between."""

    root: Key
    things: Mapping[Key, Mapping[str, Any]]
    """`name` and `checksum` of each."""
    runs: tuple[Made, ...]
    sources: tuple[tuple[Key, Key], ...] = field(default=())
    """(what, the original that it was read from)"""

    def to_json(self) -> dict[str, Any]:
        """The lineage as JSON; `lineage_from_json` reads it back."""
        return {
            "root": list(self.root),
            "things": [
                {"kind": kind, "id": key, **said}
                for (kind, key), said in self.things.items()
            ],
            "runs": [
                vars(run)
                | {
                    name: [[port, *what] for port, what in getattr(run, name)]
                    for name in ("used", "made")
                }
                for run in self.runs
            ],
            "sources": [[*what, *original] for what, original in self.sources],
        }

    def originals(self) -> list[Key]:
        """The things that no run made: originals, and what was only registered."""
        made = {what for run in self.runs for _, what in run.made}
        read = {what for what, _ in self.sources}
        return [key for key in self.things if key not in made and key not in read]

    def people(self) -> list[str]:
        """The humans who asked for the runs."""
        return sorted({run.requested_by for run in self.runs})

    def to_prov(self) -> dict[str, Any]:
        """PROV-JSON (W3C member submission of 24 April 2013)."""
        entities = {
            _entity(key): {
                "prov:label": said["name"],
                "prov:type": f"theatrum:{key[0]}",
            }
            | ({"theatrum:checksum": said["checksum"]} if said["checksum"] else {})
            for key, said in self.things.items()
        }
        agents = {
            f"theatrum:person/{name}": {"prov:type": "prov:Person", "prov:label": name}
            for name in self.people()
        }
        agents |= {
            f"theatrum:software/{run.on_behalf_of}": {
                "prov:type": "prov:SoftwareAgent",
                "prov:label": run.on_behalf_of,
            }
            for run in self.runs
            if run.on_behalf_of
        }
        document: dict[str, Any] = {
            "prefix": {"theatrum": "urn:theatrum:"},
            "entity": entities,
            "activity": {_activity(run): _activity_json(run) for run in self.runs},
            "agent": agents,
        }
        document |= self._relations()
        return {name: said for name, said in document.items() if said}

    def _relations(self) -> dict[str, dict[str, Any]]:
        used: dict[str, Any] = {}
        made: dict[str, Any] = {}
        associated: dict[str, Any] = {}
        acted: dict[str, Any] = {}
        derived: dict[str, Any] = {}
        for run in self.runs:
            activity = _activity(run)
            person = f"theatrum:person/{run.requested_by}"
            associated[f"_:a{len(associated)}"] = {
                "prov:activity": activity,
                "prov:agent": person,
            }
            if run.on_behalf_of:
                acted[f"_:b{len(acted)}"] = {
                    "prov:delegate": f"theatrum:software/{run.on_behalf_of}",
                    "prov:responsible": person,
                    "prov:activity": activity,
                }
            for port, what in run.used:
                used[f"_:u{len(used)}"] = {
                    "prov:activity": activity,
                    "prov:entity": _entity(what),
                    "prov:role": port,
                }
            for port, what in run.made:
                made[f"_:g{len(made)}"] = {
                    "prov:entity": _entity(what),
                    "prov:activity": activity,
                    "prov:role": port,
                }
        for what, original in self.sources:
            derived[f"_:d{len(derived)}"] = {
                "prov:generatedEntity": _entity(what),
                "prov:usedEntity": _entity(original),
            }
        return {
            "used": used,
            "wasGeneratedBy": made,
            "wasAssociatedWith": associated,
            "actedOnBehalfOf": acted,
            "wasDerivedFrom": derived,
        }

    # For people

    def way(self) -> list[Step]:
        """The way back as a tree's lines: each thing, and the run that made it."""
        return [*self._steps(self.root, 0, set())]

    def _steps(self, key: Key, depth: int, told: set[Key]) -> Iterator[Step]:
        """The lines from a thing on; what was told before is named, and not gone on.

        Where images go into several runs the ways back join again and again: told along
        each way, twenty steps would be a million lines.
        """
        name = f"{key[0].replace('_', ' ')} {self.things[key]['name']}"
        if key in told:
            yield Step(depth, f"{name} (see above)", key)
            return
        yield Step(depth, name, key)
        told.add(key)
        for run in self.runs:
            if any(what == key for _, what in run.made):
                said = ", ".join(f"{n}={v}" for n, v in run.params.items())
                yield Step(depth + 1, f"{run.node}({said}) for {run.requested_by}", run)
                for _, what in run.used:
                    yield from self._steps(what, depth + 2, told)
        originals = [original for what, original in self.sources if what == key]
        for original in originals[:_MOST]:
            yield from self._steps(original, depth + 1, told)
        if len(originals) > _MOST:
            rest = len(originals) - _MOST
            yield Step(depth + 1, f"... and {rest} more files", None)

    def tree(self) -> str:
        """The lineage as lines, each a step further back."""
        return "\n".join(
            f"{'  ' * one.depth}{'by ' if isinstance(one.of, Made) else ''}{one.text}"
            for one in self.way()
        )

    def __repr__(self) -> str:
        return self.tree()

    def _repr_html_(self) -> str:
        return _picture(self.way())


_MOST = 5
"""Original files that a picture shows of one image: a series has hundreds."""


@dataclass(frozen=True)
class Step:
    """A line of the way back."""

    depth: int
    text: str
    of: Key | Made | None
    """The thing, or the run; None for what is too much to tell."""


def lineage_from_json(said: Mapping[str, Any]) -> Lineage:
    """Read what `to_json` wrote."""
    kind, key = said["root"]
    return Lineage(
        root=(kind, key),
        things={
            (one["kind"], one["id"]): {
                "name": one["name"],
                "checksum": one["checksum"],
            }
            for one in said["things"]
        },
        runs=tuple(
            Made(
                **{
                    **run,
                    "used": tuple((port, (k, i)) for port, k, i in run["used"]),
                    "made": tuple((port, (k, i)) for port, k, i in run["made"]),
                }
            )
            for run in said["runs"]
        ),
        sources=tuple(((a, b), (c, d)) for a, b, c, d in said["sources"]),
    )


def trace(backend: LocalBackend, kind: str, key: str) -> Lineage:
    """The lineage of a row; NotFound where the asker may not see it."""
    reached = _reached(backend, kind, key)
    things = _things(backend, reached)
    if (kind, key) not in things:
        raise NotFound(f"there is no {kind} {key} that you may see")
    sources = _sources(backend, things)
    originals = {original for _, original in sources} - things.keys()
    things |= _things(backend, originals)
    return Lineage(
        root=(kind, key),
        things={one: _said(row) for one, row in things.items()},
        runs=_runs(backend, things),
        sources=tuple(pair for pair in sources if pair[1] in things),
    )


def _reached(backend: LocalBackend, kind: str, key: str) -> set[Key]:
    """The row and all inputs of the runs that made it, of theirs, and so on."""
    walk = select(
        cast(literal(kind), String).label("kind"),
        cast(literal(key), String).label("id"),
    ).cte("walk", recursive=True)
    walk = walk.union(  # of equal rows one: a circle ends
        select(RunInput.object_kind, RunInput.object_id)
        .join(RunOutput, RunOutput.run_id == RunInput.run_id)
        .join(
            walk,
            and_(
                RunOutput.object_kind == walk.c.kind, RunOutput.object_id == walk.c.id
            ),
        )
    )
    with backend.database.reading() as session:
        return {(one.kind, one.id) for one in session.execute(select(walk))}


def _things(backend: LocalBackend, keys: set[Key]) -> dict[Key, dict[str, Any]]:
    """The rows of those that the asker may see."""
    found: dict[Key, dict[str, Any]] = {}
    for kind in sorted({kind for kind, _ in keys}):
        resource = RESOURCE_OF.get(kind)
        if resource is None:
            continue
        ids = tuple(sorted(key for one, key in keys if one == kind))
        for row in backend.rows(Spec(resource, (Q(id__in=ids),))):
            found[kind, str(row["id"])] = row
    return found | _not_kept(backend, keys - found.keys())


def _not_kept(backend: LocalBackend, keys: set[Key]) -> dict[Key, dict[str, Any]]:
    """Arrays in between that a flow did not keep: they explain what was made of them.

    What a person took away stays out of sight.
    """
    ids = [key for kind, key in keys if kind == "image"]
    query = (
        select(Image.id, Image.name, Image.checksum, Image.run_id, Project.name)
        .join(Project, Project.id == Image.project_id)
        .where(Image.id.in_(ids), Image.state == DISCARDED)
    )
    if not ids:
        return {}
    with backend.database.reading() as session:
        rows = session.execute(query).all()
    seen = backend.projects
    return {
        ("image", key): {
            "name": f"{name} (not kept)",
            "checksum": checksum,
            "run_id": run_id,
            "acquisition_id": None,
        }
        for key, name, checksum, run_id, project in rows
        if seen is None or project in seen
    }


def _said(row: Mapping[str, Any]) -> dict[str, Any]:
    name = next(str(row[one]) for one in _NAMES if row.get(one))
    return {"name": name, "checksum": row.get("checksum") or row.get("sha256") or ""}


def _sources(
    backend: LocalBackend, things: Mapping[Key, Mapping[str, Any]]
) -> list[tuple[Key, Key]]:
    """Of images that no run made: the originals of their acquisition."""
    read = {
        row["acquisition_id"]: key
        for key, row in things.items()
        if key[0] == "image" and row["run_id"] is None and row["acquisition_id"]
    }
    if not read:
        return []
    query = (
        select(SeriesMember.acquisition_id, SeriesMember.source_file_id)
        .where(SeriesMember.acquisition_id.in_(read))
        .order_by(SeriesMember.instance_uid, SeriesMember.source_file_id)
    )
    with backend.database.reading() as session:
        pairs = session.execute(query).all()
    return [
        (key, ("source_file", file))
        for key, row in things.items()
        if key[0] == "image" and row["run_id"] is None
        for acquisition, file in pairs
        if acquisition == row["acquisition_id"]
    ]


def _runs(
    backend: LocalBackend, things: Mapping[Key, Mapping[str, Any]]
) -> tuple[Made, ...]:
    """The runs that made things of the lineage, the latest first."""
    ids = {key for _, key in things}
    with backend.database.reading() as session:
        outputs = [
            one
            for one in session.scalars(
                select(RunOutput).where(RunOutput.object_id.in_(ids))
            )
            if (one.object_kind, one.object_id) in things
        ]
        run_ids = {one.run_id for one in outputs}
        inputs = session.scalars(
            select(RunInput)
            .where(RunInput.run_id.in_(run_ids))
            .order_by(RunInput.port, RunInput.position)
        ).all()
    runs = backend.rows(
        Spec("runs", (Q(id__in=tuple(run_ids)),), order=("-created_at",))
    )
    wanted = tuple({run["node_def_id"] for run in runs if run["node_def_id"]})
    nodes = {
        node["id"]: node for node in backend.rows(Spec("nodes", (Q(id__in=wanted),)))
    }
    return tuple(
        Made(
            id=run["id"],
            node=str(nodes.get(run["node_def_id"], {}).get("name", run["node_key"])),
            version=str(nodes.get(run["node_def_id"], {}).get("version", "")),
            requested_by=run["requested_by"],
            on_behalf_of=run["on_behalf_of"],
            state=run["state"],
            params=run["params"],
            started_at=_iso(run["started_at"]),
            ended_at=_iso(run["ended_at"]),
            used=tuple(
                (one.port, (one.object_kind, one.object_id))
                for one in inputs
                if one.run_id == run["id"]
                and (one.object_kind, one.object_id) in things
            ),
            made=tuple(
                (one.port, (one.object_kind, one.object_id))
                for one in outputs
                if one.run_id == run["id"]
            ),
        )
        for run in runs
    )


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _entity(key: Key) -> str:
    return f"theatrum:{key[0]}/{key[1]}"


def _activity(run: Made) -> str:
    return f"theatrum:run/{run.id}"


def _activity_json(run: Made) -> dict[str, Any]:
    said = {"prov:label": run.node, "theatrum:state": run.state}
    if run.started_at:
        said["prov:startTime"] = run.started_at
    if run.ended_at:
        said["prov:endTime"] = run.ended_at
    if run.version:
        said["theatrum:version"] = run.version
    return said


def _picture(steps: list[Step]) -> str:
    """The steps as an SVG, read downwards: a box for each thing, a round one a run."""
    row, inset, width = 34, 26, 760
    parts = []
    places: dict[int, int] = {}
    for at, step in enumerate(steps):
        x, y = 10 + step.depth * inset, 8 + at * row
        parent = places.get(step.depth - 1)
        if parent is not None:
            left = x - inset + 8
            parts.append(
                f'<path d="M{left} {parent + 26}V{y + 13}H{x}" fill="none" '
                'stroke="#667"/>'
            )
        places[step.depth] = y
        text = html.escape(step.text if len(step.text) < 90 else step.text[:88] + "…")
        corner, fill = (13, "#ffffff") if isinstance(step.of, Made) else (4, "#eef4fb")
        box = (
            f'<rect x="{x}" y="{y}" width="{width - x - 10}" height="26" '
            f'rx="{corner}" fill="{fill}" stroke="#446"/>'
        )
        parts.append(
            f'{box}<text x="{x + 10}" y="{y + 17}" font-size="12" fill="#112" '
            f'font-family="sans-serif">{text}</text>'
        )
    height = 16 + len(steps) * row
    title = html.escape(steps[0].text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'role="img" aria-label="Where {title} comes from">{"".join(parts)}</svg>'
    )
