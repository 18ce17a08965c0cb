"""The one way into the catalogue: rows, what made them, and what is told of it.

    with recording(database, "erika") as book:
        project = book.project("mouse-brains")
        file = book.source_file(project, uri="/data/a.tif", sha256=digest, size=4096)
        sample = book.sample(project, name="slide 3", stain="HE")
        image = book.image(
            project, name="slide-3", path="/data/a.tif", sample_id=sample.id,
            channels=[{"name": "DAPI", "emission_nm": 461.0}], px_x=0.0005, px_y=0.0005,
        )
        run = book.run(project, node="threshold", params={"level": 3})
        book.input(run, "image", image)
        mask = book.image(project, name="mask", path=..., kind="label", run=run)

All of a block is one transaction. What is registered twice is one row: files by their
checksum, acquisitions by their series, images by path and scene, the rest by name. Each
new or changed row is told in the feed of changes, by names of columns, never contents.
Files are in their place before their row is: written under another name, synced,
renamed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session

from hub.durable.database import Database
from theatrum.catalog.boundaries import refuse_strangers
from theatrum.catalog.errors import BadRecord, NoHuman, NotFound, near
from theatrum.catalog.facts import axes_of, box_of, digest_of, in_digits, spacing_of
from theatrum.catalog.feed import QUIET, tell
from theatrum.catalog.naming import free_name
from theatrum.catalog.parts import add_members, set_channels
from theatrum.catalog.tables import (
    Acquisition,
    Annotation,
    Asset,
    Base,
    CohortGroup,
    Experiment,
    Image,
    Label,
    Measurement,
    NodeDef,
    Project,
    Roi,
    Run,
    RunEvent,
    RunInput,
    RunOutput,
    Sample,
    SourceFile,
    Subject,
    Visit,
    finite,
    new_id,
    now,
)

DERIVED = frozenset({"derived", "crop", "label", "probability", "thumbnail"})
"""Kinds of images that nothing but a run makes."""

_PROJECT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
Row = TypeVar("Row", bound=Base)
# Any: columns of whatever table
Fields = Any


@contextmanager
def recording(
    database: Database, actor: str, *, on_behalf_of: str | None = None
) -> Iterator[Book]:
    """Open the book for one transaction: all of it is written, or nothing.

    `actor` is the human for whom it is done, `on_behalf_of` the service's account where
    one works for them.
    """
    if not actor:
        raise NoHuman("say for whom this is recorded: a user's name")
    with database.writing() as session:
        yield Book(session, actor, on_behalf_of=on_behalf_of)
        session.flush()


class Book:
    """The catalogue while it is written to; see `recording`."""

    def __init__(
        self, session: Session, actor: str, *, on_behalf_of: str | None = None
    ) -> None:
        self.session = session
        self.actor = actor
        self.on_behalf_of = on_behalf_of

    # Any row

    def add(self, row: Row) -> Row:
        """Write a new row and tell of it."""
        self.add_all([row])
        return row

    def add_all(self, rows: Sequence[Base]) -> None:
        """Write new rows that do not point at each other; faster than one by one."""
        for row in rows:
            if isinstance(row, Image) and row.kind in DERIVED and row.run_id is None:
                raise BadRecord(
                    f"{row.name} is {row.kind}: give the run that made it, as run="
                )
        refuse_strangers(self.session, rows)
        self.session.add_all(rows)
        self.session.flush()
        for row in rows:
            if not isinstance(row, QUIET):
                tell(self.session, self.actor, row, "create", [])

    def change(self, row: Row, **fields: Fields) -> Row:
        """Set columns of a row; what is the same already changes nothing."""
        columns = inspect(type(row)).columns.keys()
        for name in fields:
            if name not in columns:
                kind = type(row).__tablename__
                raise BadRecord(f"{kind} has no column {name}.{near(name, columns)}")
            if name == "project_id" and fields[name] != row.project_id:  # type: ignore[attr-defined]
                raise BadRecord("a row stays in its project")
        changed = [name for name, new in fields.items() if getattr(row, name) != new]
        for name in changed:
            setattr(row, name, fields[name])
        if changed:
            try:
                refuse_strangers(self.session, [row], changed)
            except BadRecord:
                self.session.expire(row, changed)
                raise
            self.session.flush()
            if not isinstance(row, QUIET):
                tell(self.session, self.actor, row, "update", changed)
        return row

    def delete(self, row: Base) -> None:
        """Take a row out of sight; where the table keeps none such, for good."""
        if "deleted_at" in inspect(type(row)).columns:
            row.deleted_at = now()  # type: ignore[attr-defined]
        else:
            self.session.delete(row)
        self.session.flush()
        if not isinstance(row, QUIET):
            tell(self.session, self.actor, row, "delete", [])

    def get(self, table: type[Row], key: Any) -> Row:
        """The row with that id; raises NotFound."""
        row = self.session.get(table, key)
        if row is None or getattr(row, "deleted_at", None) is not None:
            raise NotFound(f"there is no {table.__tablename__} {key}")
        return row

    # Who and what

    def project(self, name: str, **fields: Fields) -> Project:
        """The project of that name, made where missing."""
        if not _PROJECT_NAME.fullmatch(name):
            raise BadRecord(
                f"{name!r} cannot name a project: use up to 64 small letters, digits, "
                "dots, hyphens and underscores, a letter or digit first"
            )
        return self._one(Project, {"name": name}, fields)

    def experiment(self, project: Project, name: str, **fields: Fields) -> Experiment:
        """The experiment of that name, made where missing."""
        return self._one(Experiment, {"project_id": project.id, "name": name}, fields)

    def group(
        self,
        project: Project,
        name: str,
        experiment: Experiment | None = None,
        **fields: Fields,
    ) -> CohortGroup:
        """The cohort's group of that name, made where missing."""
        known = {
            "project_id": project.id,
            "name": name,
            "experiment_id": experiment.id if experiment else None,
        }
        return self._one(CohortGroup, known, fields)

    def subject(self, project: Project, label: str, **fields: Fields) -> Subject:
        """The subject of that label, made where missing."""
        return self._one(Subject, {"project_id": project.id, "label": label}, fields)

    def visit(self, subject: Subject, label: str, **fields: Fields) -> Visit:
        """The subject's visit of that label, made where missing."""
        known = {
            "project_id": subject.project_id,
            "subject_id": subject.id,
            "label": label,
        }
        return self._one(Visit, known, fields)

    def sample(self, project: Project, name: str, **fields: Fields) -> Sample:
        """The sample of that name, made where missing."""
        return self._one(Sample, {"project_id": project.id, "name": name}, fields)

    # What came from outside

    def source_file(
        self, project: Project, *, sha256: str, uri: str, **fields: Fields
    ) -> SourceFile:
        """The original with that checksum, registered where it is new."""
        known = {"project_id": project.id, "sha256": sha256}
        found = self._find(SourceFile, known)
        if found is not None:
            return found
        return self.add(SourceFile(id=new_id(), **known, uri=uri, **fields))

    def acquisition(
        self, project: Project, *, series_uid: str | None = None, **fields: Fields
    ) -> Acquisition:
        """The acquisition of that series; without a series always a new one."""
        known = {"project_id": project.id, "series_uid": series_uid}
        if series_uid is None:
            return self.add(Acquisition(id=new_id(), **known, **fields))
        return self._one(Acquisition, known, fields)

    def members(
        self, acquisition: Acquisition, files: Iterable[Mapping[str, Any]]
    ) -> None:
        """Say which files an acquisition consists of: `source_file_id` and more each.

        Those that are known already stay as they are.
        """
        add_members(self, acquisition, files)

    # Images

    def image(
        self,
        project: Project,
        *,
        path: str,
        scene: int = 0,
        name: str = "",
        run: Run | None = None,
        channels: Sequence[Mapping[str, Any]] | None = None,
        **fields: Fields,
    ) -> Image:
        """The image at that path, registered where it is new.

        Parameters
        ----------
        project
            Where it belongs.
        path, scene
            The file or folder, and which image of it; a row of before is brought up to
            date.
        name
            As people call it, made free of what a name cannot hold; where another image
            has it, a number is put behind.
        run
            What made it; needed for what is derived.
        channels
            Columns of `channel`, in order; None leaves them as they are.
        fields
            Columns of `image`; `spacing` follows from the voxel's lengths.
        """
        for step in ("px_x", "px_y", "px_z", "px_t"):
            if step in fields:  # as it is kept: what is the same changes nothing
                fields[step] = in_digits(fields[step])
        if {"px_x", "px_y", "px_z"} & fields.keys():
            fields["spacing"] = spacing_of(
                fields.get("px_x"), fields.get("px_y"), fields.get("px_z")
            )
        if run is not None:
            fields["run_id"] = run.id
        known = {"project_id": project.id, "path": path, "scene": scene}
        image = self._find(Image, known)
        if image is None:
            free = self.free_name(project, name or fields.get("title") or "image")
            title = fields.pop("title", "") or name or free
            image = Image(id=new_id(), **known, name=free, title=title, **fields)
            self.add(image)
        else:
            self.change(image, **fields)
        if run is not None:
            self.output(run, "image", image)
        if channels is not None:
            set_channels(self, image, channels)
        return image

    def free_name(self, project: Project, wanted: str) -> str:
        """A name like the one that is wanted, that no image of the project has."""
        return free_name(self.session, project.id, wanted)

    def asset(self, owner: Base, *, role: str, uri: str, **fields: Fields) -> Asset:
        """The owner's file in that role at that place, registered where it is new."""
        known = {
            "project_id": self.project_of(owner),
            "owner_kind": owner.__tablename__,
            "owner_id": str(owner.id),  # type: ignore[attr-defined]
            "role": role,
            "uri": uri,
        }
        return self._one(Asset, known, fields)

    # What people say

    def tag(self, row: Base, word: str) -> Annotation:
        """Tag a row with a word, once."""
        return self._note(row, {"kind": "tag", "key": word}, {"text": word})

    def untag(self, row: Base, word: str) -> None:
        """Take a tag away; nothing happens where it is not there."""
        found = self._find(Annotation, self._target(row) | {"kind": "tag", "key": word})
        if found is not None:
            self.delete(found)

    def value(
        self, row: Base, key: str, value: Any, *, unit: str | None = None
    ) -> Annotation:
        """Set a row's value for a key; a value of before is replaced."""
        number = value if isinstance(value, int | float) else None
        said = {
            "value": value,
            "text": value if isinstance(value, str) else json.dumps(value),
            "number": None if isinstance(value, bool) else number,
            "unit": unit,
        }
        return self._note(row, {"kind": "value", "key": key}, said)

    def comment(self, row: Base, text: str) -> Annotation:
        """Add a comment to a row."""
        said = {"kind": "comment", "key": "", "text": text, "author": self.actor}
        return self.add(Annotation(id=new_id(), **self._target(row), **said))

    def label(
        self, name: str, *, vocabulary: str = "local", code: str = "", **fields: Fields
    ) -> Label:
        """The term of a vocabulary, made where missing."""
        known = {
            "vocabulary": vocabulary,
            "code": code or name,
            "project_id": fields.pop("project_id", None),
        }
        return self._one(Label, known, {"name": name} | fields)

    def roi(
        self, image: Image, *, kind: str, run: Run | None = None, **fields: Fields
    ) -> Roi:
        """Register a region; `geometry` is GeoJSON-like, in pixels of level 0.

        Without `axes` a coordinate is x and y, and z where all points have a third.
        """
        geometry = fields.get("geometry") or {}
        fields["axes"] = fields.get("axes") or axes_of(geometry)
        row = Roi(
            id=new_id(),
            project_id=image.project_id,
            image_id=image.id,
            kind=kind,
            author=self.actor,
            run_id=run.id if run else None,
            **(box_of(geometry, fields["axes"]) | fields),
        )
        self.add(row)
        if run is not None:
            self.output(run, "roi", row)
        return row

    def measurements(
        self,
        image: Image,
        run: Run,
        numbers: Mapping[str, float | str],
        *,
        roi: Roi | None = None,
        units: Mapping[str, str] | None = None,
    ) -> list[Measurement]:
        """Register what a run found: a number or a word for each name.

        What is not finite, such as the mean of nothing, is kept as the word for it.
        """
        numbers = {
            name: found
            if isinstance(found, str) or math.isfinite(found)
            else str(found)
            for name, found in numbers.items()
        }
        rows = [
            Measurement(
                id=new_id(),
                project_id=image.project_id,
                image_id=image.id,
                roi_id=roi.id if roi else None,
                run_id=run.id,
                name=name,
                value=None if isinstance(found, str) else float(found),
                text=found if isinstance(found, str) else None,
                unit=(units or {}).get(name),
            )
            for name, found in numbers.items()
        ]
        self.add_all(rows)
        for row in rows:
            self.output(run, "measurement", row)
        return rows

    # What was done

    def node_def(self, *, name: str, def_hash: str, **fields: Fields) -> NodeDef:
        """The definition with that hash, registered where it is new."""
        known = {
            "name": name,
            "def_hash": def_hash,
            "version": fields.pop("version", ""),
            "namespace": fields.pop("namespace", ""),
            "project_id": fields.pop("project_id", None),
        }
        found = self._find(NodeDef, known)
        return found or self.add(NodeDef(id=new_id(), **known, **fields))

    def run(
        self,
        project: Project | int,
        *,
        node: NodeDef | str,
        params: Mapping[str, Any] | None = None,
        state: str = "succeeded",
        **fields: Fields,
    ) -> Run:
        """Register a run; a node's name alone stands for what a person did by hand.

        `requested_by` is the book's actor unless it is given: the human, never a
        service.
        """
        project_id = project if isinstance(project, int) else project.id
        if isinstance(node, str):
            node = self.node_def(
                name=node,
                project_id=project_id,
                def_hash=digest_of({"manual": node}),
                kind="manual",
                pure=False,
            )
        asked_by = fields.pop("requested_by", self.actor)
        if not asked_by:
            raise NoHuman("say for whom the run is, as requested_by=")
        params = dict(params or {})
        moment = now()
        ended = state in ("succeeded", "failed", "cancelled", "skipped", "cached")
        times = {
            "started_at": None if state == "queued" else moment,
            "ended_at": moment if ended else None,
        }
        row = Run(
            id=fields.pop("id", None) or new_id(),
            project_id=project_id,
            node_def_id=node.id,
            params=params,
            params_hash=digest_of(params),
            state=state,
            requested_by=asked_by,
            on_behalf_of=fields.pop("on_behalf_of", self.on_behalf_of),
            **(times | fields),
        )
        return self.add(row)

    def input(
        self, run: Run, port: str, row: Base, *, position: int = 0, checksum: str = ""
    ) -> None:
        """Say that a row went into a run; told twice it is one."""
        self._link(RunInput, run, port, row, position, checksum)

    def output(
        self,
        run: Run,
        port: str,
        row: Base,
        *,
        position: int | None = None,
        checksum: str = "",
    ) -> None:
        """Say that a row came out of a run; BadRecord where it came out of another."""
        kind, key = row.__tablename__, str(row.id)  # type: ignore[attr-defined]
        known = self.session.scalar(
            select(RunOutput).where(
                RunOutput.object_kind == kind, RunOutput.object_id == key
            )
        )
        if known is not None:
            if known.run_id != run.id:
                raise BadRecord(
                    f"{kind} {key} came out of run {known.run_id}: what another run "
                    "makes is another row"
                )
            return
        if getattr(row, "run_id", run.id) is None:
            row.run_id = run.id  # type: ignore[attr-defined]
        if position is None:
            taken = select(RunOutput.position).where(
                RunOutput.run_id == run.id, RunOutput.port == port
            )
            position = max(self.session.scalars(taken), default=-1) + 1
        self._link(RunOutput, run, port, row, position, checksum)

    def run_event(
        self, run: Run, kind: str, message: str = "", **fields: Fields
    ) -> None:
        """Append to what happened during a run."""
        seqs = select(RunEvent.seq).where(RunEvent.run_id == run.id)
        last = self.session.scalar(seqs.order_by(RunEvent.seq.desc()).limit(1))
        seq = 0 if last is None else last + 1
        said = finite(fields)  # progress of nothing is no number
        self.add(RunEvent(run_id=run.id, seq=seq, kind=kind, message=message, **said))

    # The book's own

    def project_of(self, row: Base) -> int:
        """The number of the project that a row belongs to."""
        if isinstance(row, Project):
            return row.id
        own = getattr(row, "project_id", None)
        if isinstance(own, int):
            return own
        if (image_id := getattr(row, "image_id", None)) is not None:
            return self.get(Image, image_id).project_id
        raise BadRecord(f"a {row.__tablename__} belongs to no project")

    def _one(
        self, table: type[Row], known: Mapping[str, Any], fields: Mapping[str, Any]
    ) -> Row:
        """The row that is known by some columns, with the other columns as given."""
        found = self._find(table, known)
        if found is not None:
            return self.change(found, **fields)
        row = table(**known, **fields)
        if table is not Project:
            row.id = new_id()  # type: ignore[attr-defined]
        return self.add(row)

    def _find(self, table: type[Row], known: Mapping[str, Any]) -> Row | None:
        query = select(table).filter_by(**known)
        if "deleted_at" in inspect(table).columns:
            query = query.filter_by(deleted_at=None)
        return self.session.scalars(query).first()

    def _target(self, row: Base) -> dict[str, Any]:
        return {
            "project_id": self.project_of(row),
            "target_kind": row.__tablename__,
            "target_id": str(row.id),  # type: ignore[attr-defined]
        }

    def _note(
        self, row: Base, known: Mapping[str, Any], said: Mapping[str, Any]
    ) -> Annotation:
        fields = {"author": self.actor} | dict(said)
        return self._one(Annotation, self._target(row) | dict(known), fields)

    def _link(
        self,
        table: type[RunInput] | type[RunOutput],
        run: Run,
        port: str,
        row: Base,
        position: int,
        checksum: str,
    ) -> None:
        if self.session.get(table, (run.id, port, position)) is not None:
            return
        own = getattr(row, "checksum", None) or getattr(row, "sha256", None) or ""
        self.add(
            table(
                run_id=run.id,
                port=port,
                position=position,
                object_kind=row.__tablename__,
                object_id=str(row.id),  # type: ignore[attr-defined]
                checksum=checksum or own,
            )
        )
