"""Full-text search: the words of an image, kept as one line, found alike everywhere.

Words are folded before they are stored and before they are looked for: small letters,
no accents, everything that is neither letter nor digit between words. So neither
database's own idea of a word matters, and SQLite's FTS5 and PostgreSQL's `tsvector`
find the same images.

The line follows whatever is written through the ORM: a listener of all sessions sees
which rows of the tables below were flushed and writes the lines of their images anew.
Rows that are written in bulk are taken up by `reindex`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    cast,
    column,
    delete,
    event,
    func,
    insert,
    literal_column,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlalchemy.orm import Session, UOWTransaction

from theatrum.catalog.errors import BadQuery
from theatrum.catalog.tables import (
    Acquisition,
    Annotation,
    Channel,
    CohortGroup,
    Experiment,
    Image,
    ImageText,
    Sample,
    Subject,
)

MOST_WORDS = 64
"""In one search."""
_LONGEST = 64
_WORD = re.compile(r"[^\W_]+")
_TERM = re.compile(r'(-?)(?:"([^"]*)"|(\S+))')
_AT_ONCE = 400
# A word that nobody looks for stands between two texts: no phrase spans them.
_BETWEEN = "0z0z0"
_FTS = table("image_words", column("rowid"))


def words(text: str) -> list[str]:
    """The words of a text, folded."""
    plain = unicodedata.normalize("NFKD", text)
    kept = "".join(char for char in plain if not unicodedata.combining(char))
    return [word[:_LONGEST] for word in _WORD.findall(kept.lower())]


def matches(wanted: str, dialect: str) -> ColumnElement[bool]:
    """The condition on an image's line of words.

    All words must be there; `"two words"` beside each other, `begin*` as the beginning
    of a word, `-word` not at all.
    """
    terms = _terms(wanted)
    if not terms:
        raise BadQuery("there is no word to look for: give letters or digits")
    found: ColumnElement[bool] | None = None
    for absent, phrase, begins in terms:
        one = _term(phrase, begins=begins, dialect=dialect)
        one = one.is_not(True) if absent else one
        found = one if found is None else found & one
    assert found is not None  # noqa: S101  (there is a term)
    return found


def _terms(wanted: str) -> list[tuple[bool, list[str], bool]]:
    terms: list[tuple[bool, list[str], bool]] = []
    for minus, quoted, bare in _TERM.findall(wanted):
        phrase = words(quoted or bare)
        if phrase:
            terms.append((bool(minus), phrase, bare.endswith("*")))
    if sum(len(phrase) for _, phrase, _ in terms) > MOST_WORDS:
        raise BadQuery(f"a search has {MOST_WORDS} words at most")
    return terms


def _term(phrase: Sequence[str], *, begins: bool, dialect: str) -> ColumnElement[bool]:
    """The lines that hold the words one after the other."""
    if dialect == "sqlite":
        # Folded words hold no quotation mark.
        query = f'"{" ".join(phrase)}"' + (" *" if begins else "")
        return ImageText.id.in_(
            select(_FTS.c.rowid).where(column("image_words").op("MATCH")(query))
        )
    lexemes = [f"'{word}'" for word in phrase]
    if begins:
        lexemes[-1] += ":*"
    # Written as the index is (0009_words), so that it is used.
    line = func.array_to_tsvector(
        func.string_to_array(ImageText.body, literal_column("' '"))
    )
    found = line.bool_op("@@")(cast(" & ".join(lexemes), TSQUERY))
    if len(phrase) == 1:
        return found
    beside = f"% {' '.join(phrase)}{'' if begins else ' '}%"
    return and_(found, (" " + ImageText.body + " ").like(beside))


def reindex(session: Session, image_ids: Iterable[str] | None = None) -> None:
    """Write the lines of some images anew, of all where none are named."""
    ids = session.scalars(select(Image.id)).all() if image_ids is None else [*image_ids]
    for begin in range(0, len(ids), _AT_ONCE):
        _write_lines(session, ids[begin : begin + _AT_ONCE])


def _write_lines(session: Session, ids: Sequence[str]) -> None:
    connection = session.connection()
    lines = _lines(session, ids)
    connection.execute(delete(ImageText).where(ImageText.image_id.in_(ids)))
    if lines:
        connection.execute(
            insert(ImageText),
            [{"image_id": key, "body": body} for key, body in lines.items()],
        )


def _lines(session: Session, ids: Sequence[str]) -> dict[str, str]:
    connection = session.connection()
    subject = func.coalesce(Image.subject_id, Sample.subject_id, Acquisition.subject_id)
    rows = connection.execute(
        select(
            Image.id,
            *(Image.name, Image.title, Image.description, Image.kind, Image.format),
            *(Image.modality, Image.plane),
            *(Acquisition.description, Acquisition.modality, Acquisition.body_part),
            *(Acquisition.manufacturer, Acquisition.model),
            *(Sample.name, Sample.kind, Sample.stain, Sample.marker),
            *(Subject.label, Subject.species, Subject.diagnosis),
            *(Experiment.name, Experiment.description, CohortGroup.name),
        )
        .outerjoin(Acquisition, _own(Acquisition, Image.acquisition_id))
        .outerjoin(Sample, _own(Sample, Image.sample_id))
        .outerjoin(Subject, _own(Subject, subject))
        .outerjoin(
            Experiment,
            _own(
                Experiment,
                func.coalesce(Sample.experiment_id, Subject.experiment_id),
            ),
        )
        .outerjoin(
            CohortGroup,
            _own(CohortGroup, func.coalesce(Sample.group_id, Subject.group_id)),
        )
        .where(Image.id.in_(ids))
    )
    found = {row[0]: [str(part) for part in row[1:] if part] for row in rows}
    channels = select(Channel.image_id, Channel.name, Channel.marker, Channel.fluor)
    notes = (
        select(Annotation.target_id, Annotation.key, Annotation.text)
        .join(Image, Image.id == Annotation.target_id)
        .where(
            Annotation.target_kind == "image",
            Annotation.deleted_at.is_(None),
            Annotation.project_id == Image.project_id,
        )
    )
    for query, owner in (
        (channels, Channel.image_id),
        (notes, Annotation.target_id),
    ):
        for row in connection.execute(query.where(owner.in_(ids))):
            if row[0] in found:
                found[row[0]] += [str(part) for part in row[1:] if part]
    return {
        key: f" {_BETWEEN} ".join(" ".join(words(part)) for part in parts)
        for key, parts in found.items()
    }


# Any: a column of an id
def _own(table: Any, key: Any) -> ColumnElement[bool]:
    """The row of that id, where it is of the image's project: who may find an image by
    a word may also see where the word stands."""
    found: ColumnElement[bool] = and_(
        table.id == key, table.project_id == Image.project_id
    )
    return found


def _touched(session: Session) -> set[str]:
    """The images whose words a flush may have changed."""
    images: set[str] = set()
    owners: dict[str, set[str]] = {}
    for row in {*session.new, *session.dirty, *session.deleted}:
        match row:
            case Image():
                images.add(row.id)
            case Channel():
                images.add(row.image_id)
            case Annotation() if row.target_kind == "image":
                images.add(row.target_id)
            case Acquisition() | Sample() | Subject() | Experiment() | CohortGroup():
                if row not in session.new:
                    owners.setdefault(type(row).__tablename__, set()).add(row.id)
            case _:
                pass
    if owners:
        images.update(_images_of(session, owners))
    return images


def _images_of(session: Session, owners: dict[str, set[str]]) -> Sequence[str]:
    some = {name: owners.get(name, set()) for name in _OWNERS}
    samples = select(Sample.id).where(
        Sample.id.in_(some["sample"])
        | Sample.subject_id.in_(some["subject"])
        | Sample.experiment_id.in_(some["experiment"])
        | Sample.group_id.in_(some["cohort_group"])
    )
    subjects = select(Subject.id).where(
        Subject.id.in_(some["subject"])
        | Subject.experiment_id.in_(some["experiment"])
        | Subject.group_id.in_(some["cohort_group"])
    )
    acquisitions = select(Acquisition.id).where(
        Acquisition.id.in_(some["acquisition"]) | Acquisition.subject_id.in_(subjects)
    )
    return (
        session.connection()
        .execute(
            select(Image.id).where(
                Image.sample_id.in_(samples)
                | Image.subject_id.in_(subjects)
                | Image.acquisition_id.in_(acquisitions)
            )
        )
        .scalars()
        .all()
    )


_OWNERS = ("acquisition", "sample", "subject", "experiment", "cohort_group")
_KEPT = "theatrum images whose words changed"


def keep_words() -> None:
    """Let the lines follow every session of this process; once is enough."""
    if event.contains(Session, "after_flush", _note):
        return
    event.listen(Session, "after_flush", _note)
    event.listen(Session, "after_flush_postexec", _follow)


def _note(session: Session, _context: UOWTransaction) -> None:
    touched = _touched(session)
    if touched:
        session.info.setdefault(_KEPT, set()).update(touched)


def _follow(session: Session, _context: UOWTransaction) -> None:
    touched = session.info.pop(_KEPT, None)
    if touched:
        reindex(session, sorted(touched))
