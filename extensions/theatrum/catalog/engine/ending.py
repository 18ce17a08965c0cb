"""What came of runs, written down: many in one transaction, each whole, and once.

Numbers and texts, which most runs of a large batch give, are written table by table.
Files are moved to where they stay before their rows are written: killed in between, the
run is not ended, is done again, and puts its files over those that nobody points at.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from theatrum.catalog.engine import keys
from theatrum.catalog.engine.entering import changed, next_events, rows_of
from theatrum.catalog.engine.harvest import Kept
from theatrum.catalog.engine.wanted import Wanted
from theatrum.catalog.engine.work import Done, Ref, Source
from theatrum.catalog.record import Book
from theatrum.catalog.tables import (
    Asset,
    Base,
    DataTable,
    Image,
    Measurement,
    Project,
    Run,
    RunEvent,
    RunOutput,
    new_id,
    now,
)

if TYPE_CHECKING:
    from theatrum.catalog.engine.ledger import Ledger

FINAL = frozenset({"succeeded", "failed", "cancelled", "skipped", "cached"})
GOOD = frozenset({"succeeded", "cached"})


def end(ledger: Ledger, book: Book, ended: Sequence[tuple[Wanted, Done]]) -> None:
    """Write what came of runs; of those that ended before, nothing."""
    session = book.session
    with session.no_autoflush:
        ids = [wanted.run_id for wanted, _ in ended]
        rows = rows_of(book, ids)
        seqs = next_events(book, ids)
        images = _images_of(book, [wanted for wanted, _ in ended])
        found: list[Measurement] = []
        beside: list[Base] = []
        for wanted, done in ended:
            row = rows.get(wanted.run_id)
            if row is None or row.state in FINAL:
                continue  # told twice: the first time counts
            sources = _refs(wanted.inputs)
            image = images.get(sources[0].id) if sources else None
            told = _ended(ledger, book, row, wanted, done)
            for number, (kind, text, level) in enumerate(told, seqs.get(row.id, 0)):
                beside.append(
                    RunEvent(
                        run_id=row.id, seq=number, kind=kind, message=text, level=level
                    )
                )
            for one in done.outputs:
                if one.form not in ("number", "text"):
                    _keep(ledger, book, row, wanted, one, image)
                elif image is not None and image.project_id == row.project_id:
                    found.append(_measured(row, image, one))
        beside += [
            RunOutput(
                run_id=one.run_id,
                port="measurement",
                position=position,
                object_kind="measurement",
                object_id=one.id,
                checksum="",
            )
            for one, position in _numbered(found)
        ]
        book.add_all(found)
        book.add_all(beside)


def _numbered(found: Sequence[Measurement]) -> list[tuple[Measurement, int]]:
    """Each with its place among those of its run."""
    count: dict[str | None, int] = {}
    numbered = []
    for one in found:
        numbered.append((one, count.get(one.run_id, 0)))
        count[one.run_id] = count.get(one.run_id, 0) + 1
    return numbered


def _measured(row: Run, image: Image, one: Kept) -> Measurement:
    text = one.value if isinstance(one.value, str) else None
    return Measurement(
        id=new_id(),
        project_id=image.project_id,
        image_id=image.id,
        run_id=row.id,
        name=one.port,
        value=None if text is not None else float(one.value),
        text=text,
        unit=one.facts.get("unit") or "",
    )


def _ended(
    ledger: Ledger, book: Book, row: Run, wanted: Wanted, done: Done
) -> list[tuple[str, str, str]]:
    """Set a run's columns; returns what is told of it: kind, text and level."""
    numbers = {
        one.port: one.value for one in done.outputs if one.form in ("number", "text")
    }
    error = None
    if done.failure is not None:
        error = {
            "class": done.failure.kind,
            "message": done.failure.message,
            "traceback": done.failure.trace,
            "poison": done.failure.died,
        }
    environment = done.env_hash or row.env_hash
    key = row.cache_key
    if key and environment != row.env_hash:
        # The worker's packages are others than the driver's: found by those only.
        code = ledger.code_of(wanted.node)
        key = keys.cache_key(code, row.params_hash, row.input_hash, environment)
    moment = now()
    changed(
        book,
        row,
        state=done.state,
        started_at=_moment(done.began) or moment,
        ended_at=_moment(done.ended) or moment,
        host=done.host,
        attempt=wanted.attempt,
        error=error,
        env_hash=environment,
        cache_key=key,
        metrics={**done.metrics, **({"numbers": numbers} if numbers else {})},
    )
    told = [("state", str(done.state), "info")]
    if done.failure is not None:
        told.insert(0, ("log", done.failure.message, "error"))
    return told


def _images_of(book: Book, wanted: Sequence[Wanted]) -> dict[str, Image]:
    """The first image of each run, which its results are about."""
    ids = {refs[0].id for one in wanted if (refs := _refs(one.inputs))}
    rows = book.session.scalars(select(Image).where(Image.id.in_(ids)))
    return {row.id: row for row in rows}


def _keep(
    ledger: Ledger,
    book: Book,
    row: Run,
    wanted: Wanted,
    one: Kept,
    image: Image | None,
) -> None:
    if one.form == "shape":
        if image is not None:
            kinds = {"Polygon": "polygon", "LineString": "polyline"}
            book.roi(
                image,
                kind=kinds[one.value["type"]],
                run=row,
                geometry=one.value,
                status="draft",
            )
        return
    if one.path is None:
        raise ValueError(f"{one.port} has no file")
    if one.form == "array":
        _keep_array(ledger, book, row, wanted, one, image)
    elif one.form == "table":
        place = _moved(ledger, row, one, f"{row.id}-{one.port}.parquet")
        table = DataTable(
            id=new_id(),
            project_id=row.project_id,
            name=_named(wanted, one, _refs(wanted.inputs)),
            uri=str(place),
            schema=dict(one.facts["schema"]),
            row_count=one.facts["row_count"],
            sha256=one.checksum,
            run_id=row.id,
        )
        book.add(table)
        book.output(row, one.port, table, position=one.position)
    else:
        place = _moved(ledger, row, one, f"{row.id}-{one.port}/{one.path.name}")
        asset = Asset(
            id=new_id(),
            project_id=row.project_id,
            owner_kind="run" if image is None else "image",
            owner_id=row.id if image is None else image.id,
            role=one.facts["role"],
            media_type=one.facts["media_type"],
            uri=str(place),
            size=one.size,
            sha256=one.checksum,
            run_id=row.id,
        )
        book.add(asset)
        book.output(row, one.port, asset, position=one.position)


def _keep_array(
    ledger: Ledger,
    book: Book,
    row: Run,
    wanted: Wanted,
    one: Kept,
    image: Image | None,
) -> None:
    told = one.value
    place = _moved(ledger, row, one, f"{row.id}-{one.port}-{one.position}.ome.zarr")
    kind = wanted.kind or ("crop" if wanted.node.name == "crop" else "derived")
    columns: dict[str, Any] = {}
    if image is not None:
        # Nothing points out of a project, whoever sees several.
        names = ["modality"]
        if image.project_id == row.project_id:
            names += ["acquisition_id", "sample_id", "subject_id"]
        columns = {name: getattr(image, name) for name in names}
    columns |= {name: value for name, value in one.facts.items() if value is not None}
    if told.get("plane"):
        columns["plane"] = told["plane"]
    made = book.image(
        book.get(Project, row.project_id),
        path=str(place),
        name=_named(wanted, one, _refs(wanted.inputs)),
        # Not as run=: the book would call the port "image", and flows go by ports.
        run_id=row.id,
        kind="label" if told["is_label"] else kind,
        checksum=one.checksum,
        size_bytes=one.size,
        channels=told["channels"] or None,
        **columns,
    )
    book.output(row, one.port, made, position=one.position)


def _moved(ledger: Ledger, row: Run, one: Kept, name: str) -> Path:
    """Put an output where it stays; what a killed driver left there goes."""
    assert one.path is not None  # noqa: S101  (asked by the caller; for mypy)
    place = ledger.derived / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if one.path.exists():
        if place.is_dir():
            shutil.rmtree(place)
        one.path.rename(place)
    elif not place.exists():
        raise FileNotFoundError(f"run {row.id} wrote no {one.path.name}")
    beside = one.path.with_name(f"{one.path.name}.sha256")
    if beside.exists():
        beside.rename(place.with_name(f"{place.name}.sha256"))
    return place


def _refs(inputs: Mapping[str, Source | tuple[Source, ...]]) -> list[Ref]:
    """The images among what goes in."""
    found: list[Ref] = []
    for sources in inputs.values():
        several = sources if isinstance(sources, tuple) else (sources,)
        found += [
            one for one in several if isinstance(one, Ref) and one.kind == "image"
        ]
    return found


def _named(wanted: Wanted, one: Kept, sources: Sequence[Ref]) -> str:
    stem = sources[0].name if sources else wanted.item_key
    if one.form == "array" and one.value.get("part"):
        return f"{stem}-{one.value['part']}"  # a part with a name: a channel
    port = "" if one.port == "result" else f"-{one.port}"
    number = f"-{one.position + 1}" if one.position else ""
    return f"{stem}-{wanted.node_key or wanted.node.name}{port}{number}"


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None
