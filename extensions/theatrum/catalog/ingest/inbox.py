"""The inbox: what came in waits here until a person lets it into a project.

An item of the inbox is one file, or one series, moved or copied into a folder of its
own in the home. It is looked at at once: its format, modality and findings, and what
the rules of its project say it is (the *proposal*), which whoever reviews it may edit.
Accepted, it is taken in like anything else; rejected, its files are removed, at once or
after a time in which it can be undone, and the row keeps the reason.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from hub.durable.database import Database
from hub.home import Home
from theatrum.catalog.formats import FormatError
from theatrum.catalog.ingest.errors import IngestError, NoSuchItem
from theatrum.catalog.ingest.fields import require_known
from theatrum.catalog.ingest.items import Item
from theatrum.catalog.ingest.pipeline import Run, ingest_into, opened
from theatrum.catalog.ingest.place import check
from theatrum.catalog.ingest.report import Entry, Report
from theatrum.catalog.ingest.rules import classify
from theatrum.catalog.ingest.sources import Gathered
from theatrum.catalog.ingest.wishes import Progress, Wishes
from theatrum.catalog.ingest.workers import Workers
from theatrum.catalog.record import recording
from theatrum.catalog.tables import InboxItem, Project, now

FOLDER: Final = ".inbox"
"""Below the home's folder of images."""
PENDING: Final = "pending"


def collect(
    database: Database,
    home: Home,
    sources: Sequence[str],
    wishes: Wishes,
    *,
    progress: Progress = lambda _step: None,
    workers: Workers | None = None,
) -> Report:
    """Put everything that the sources hold into the inbox of a project.

    What is known by its checksum is not put there again: what waits there already, what
    was let in before, and what was rejected, with the reason as a warning.
    """
    return ingest_into(
        database, home, sources, wishes, _waiting, progress=progress, workers=workers
    )


def _waiting(
    run: Run, item: Item, found: Gathered, staging: Path, entry: Entry
) -> Entry:
    """One item into the inbox."""
    if item.refusal:
        return replace(entry, reason=item.refusal)
    original = item
    item, told_before = run.given_out(item, staging)
    checked = check(item.every)
    entry = replace(entry, size=checked.size)
    images = run.known(checked)
    if images is not None:
        return replace(entry, status="known", images=images)
    before = _before(run, checked.digest)
    if before is not None:
        return replace(entry, status="known", warnings=before)
    scenes: list[dict[str, Any]] = []
    try:
        planes = staging / secrets.token_hex(4)
        scenes = run.looker.describe(
            item.paths, item.format, planes=planes, key=run.key
        )
    except FormatError as error:
        return replace(entry, reason=str(error))
    folder = run.home.images / FOLDER / secrets.token_hex(8)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FormatError):  # a picture is only worth having
        run.looker.draw(item.paths, item.format, thumbnail_of(folder), key=run.key)
    try:
        name = _folder_name(run.name_of(original, scenes))
        _moved(item, folder / name, move=found.ours or item is not original)
        about = scenes[0]["acquisition"]
        rule, told = classify(run.rules, entry.files[0], about)
        findings = told_before
        findings += [text for scene in scenes for text in scene["warnings"]]
        with recording(run.database, run.wishes.actor) as book:
            book.add(
                InboxItem(
                    project_id=run.project_id,
                    title=entry.files[0][:255],
                    path=str(folder),
                    sha256=checked.digest,
                    modality=str(about["modality"]),
                    format=item.format,
                    n_files=len(checked.files),
                    size=checked.size,
                    proposal={**told, **run.wishes.fields},
                    rule=rule,
                    findings=list(dict.fromkeys(findings)),
                    received_from=run.wishes.received_from[:255],
                )
            )
    except BaseException:
        _remove(folder)
        raise
    return replace(
        entry,
        status="waiting",
        warnings=tuple(dict.fromkeys(findings)),
    )


def _before(run: Run, digest: str) -> tuple[str, ...] | None:
    """What there is to tell of an item that waits or was kept out; None for a new one.

    One that was let in and whose images somebody removed is new again.
    """
    query = select(InboxItem).where(
        InboxItem.project_id == run.project_id,
        InboxItem.sha256 == digest,
        InboxItem.state.in_((PENDING, "failed", "rejected")),
    )
    with run.database.reading() as session:
        found = session.scalars(query.order_by(InboxItem.state)).all()
    if not found:
        return None
    if any(one.state != "rejected" for one in found):
        return ()
    reason = found[0].reason or "without a reason"
    return (
        f"It was rejected before: {reason}. Restore it in the inbox, or take it in "
        "without the inbox.",
    )


def _folder_name(name: str) -> str:
    """A name as a folder's: what waits is named by it when it is let in."""
    plain = "".join("-" if one in "/\\\0" or ord(one) < 32 else one for one in name)
    short = plain.encode()[:120].decode(errors="ignore").strip(" .")
    return short or "image"


def _moved(item: Item, folder: Path, *, move: bool) -> None:
    """The files of an item into the folder, in the places that they have to another."""
    tops = {path.parent for path in item.paths}
    top = tops.pop() if len(tops) == 1 else item.root
    for path in item.every:
        inside = path.relative_to(top) if path.is_relative_to(top) else Path(path.name)
        target = folder / inside
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if move:
            shutil.move(path, target)
        else:
            shutil.copyfile(path, target)


def waiting(
    database: Database, projects: frozenset[str] | None = None, *, state: str = PENDING
) -> list[InboxItem]:
    """What waits, the oldest first; of some projects, or of all."""
    with database.reading() as session:
        query = select(InboxItem).where(InboxItem.state == state)
        if projects is not None:
            names = select(Project.id).where(Project.name.in_(sorted(projects)))
            query = query.where(InboxItem.project_id.in_(names))
        return list(session.scalars(query.order_by(InboxItem.created_at, InboxItem.id)))


def edit(
    database: Database, item_id: str, proposal: Mapping[str, Any], *, actor: str
) -> InboxItem:
    """Say what an item is; the names are those of rules. Raises BadRule."""
    require_known(proposal)
    with recording(database, actor) as book:
        item = _pending(book.session.get(InboxItem, item_id), item_id)
        merged = {**item.proposal, **proposal}
        wanted = {name: one for name, one in merged.items() if one not in (None, "")}
        return book.change(item, proposal=wanted)


def reject(
    database: Database,
    item_id: str,
    *,
    actor: str,
    reason: str = "",
    keep_files: bool = False,
) -> InboxItem:
    """Keep an item out: the row stays with the reason, and its files are removed.

    `keep_files`: they stay for `restore`, until `forget` removes them.
    """
    with recording(database, actor) as book:
        item = _pending(book.session.get(InboxItem, item_id), item_id)
        folder = Path(item.path)
        book.change(
            item,
            state="rejected",
            reason=reason[:2000],
            decided_by=actor,
            decided_at=now(),
        )
    if not keep_files:
        _remove(folder)
    return item


def restore(database: Database, item_id: str, *, actor: str) -> InboxItem:
    """Undo a rejection; raises NoSuchItem where the files were removed."""
    with recording(database, actor) as book:
        item = book.session.get(InboxItem, item_id)
        if item is None or item.state != "rejected":
            raise NoSuchItem(f"Item {item_id} is not rejected.")
        if not Path(item.path).exists():
            raise NoSuchItem(
                "Its files were removed meanwhile: send it again, without the inbox."
            )
        return book.change(
            item, state=PENDING, reason="", decided_by=None, decided_at=None
        )


def forget(database: Database, home: Home, after: timedelta) -> int:
    """Remove the files of what was rejected so long ago; of how many items."""
    with database.reading() as session:
        query = select(InboxItem.path).where(
            InboxItem.state == "rejected", InboxItem.decided_at < now() - after
        )
        folders = [Path(one) for one in session.scalars(query)]
    inside = home.images / FOLDER
    gone = [one for one in folders if one.parent == inside and one.exists()]
    for folder in gone:
        _remove(folder)
    return len(gone)


def thumbnail_of(folder: str | Path) -> Path:
    """Where the picture of an item lies, if one could be drawn of it."""
    return Path(folder).with_suffix(".jpg")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    thumbnail_of(folder).unlink(missing_ok=True)


def accept(
    database: Database,
    home: Home,
    item_id: str,
    *,
    actor: str,
    wishes: Wishes | None = None,
    workers: Workers | None = None,
) -> Report:
    """Take an item into its project, as its proposal says.

    Its row is `accepted` then, or `failed` with the reason where it could not be taken.
    Accepted twice at once it is taken in once: its files are known by their checksums.
    """
    with database.reading() as session:
        item = _pending(session.get(InboxItem, item_id), item_id)
        project = session.get(Project, item.project_id)
    if project is None:
        raise IngestError("Say first which project it belongs to.")
    asked = replace(
        wishes or Wishes(project.name, actor),
        project=project.name,
        actor=actor,
        fields=dict(item.proposal),
        received_from=item.received_from,
    )
    report = Report(project.name)
    folder = Path(item.path)
    staging = folder.with_name(folder.name + ".work")
    staging.mkdir(mode=0o700, exist_ok=True)
    inside = [*folder.iterdir()] if folder.is_dir() else []
    # Older items lie in their folder as they are.
    named = len(inside) == 1 and inside[0].is_dir() and inside[0].suffix != ".zarr"
    root = inside[0] if named else folder
    try:
        with opened(database, home, asked, report, workers=workers) as run:
            run.named = root.name if named else ""
            run.found(Gathered(root, True, item.title), staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    good = not report.refused
    with recording(database, actor) as book:
        row = book.get(InboxItem, item_id)
        book.change(
            row,
            state="accepted" if good else "failed",
            reason=" ".join(one.reason for one in report.refused)[:2000],
            decided_by=actor,
            decided_at=now(),
        )
    if good:
        _remove(folder)
    return report


def _pending(item: InboxItem | None, item_id: str) -> InboxItem:
    if item is None:
        raise NoSuchItem(f"There is no item {item_id} in the inbox.")
    if item.state not in (PENDING, "failed"):
        raise NoSuchItem(f"Item {item_id} was {item.state} already.")
    return item
