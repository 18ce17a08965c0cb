"""Rows that are part of another: the channels of an image, the files of a series."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from theatrum.catalog.tables import Acquisition, Channel, Image, SeriesMember, new_id

if TYPE_CHECKING:
    from theatrum.catalog.record import Book


# Any, here and below: columns of any type
def set_channels(book: Book, image: Image, rows: Sequence[Mapping[str, Any]]) -> None:
    """Make these the channels of an image, in this order; others go."""
    query = select(Channel).where(Channel.image_id == image.id)
    old = {row.index: row for row in book.session.scalars(query)}
    for index, columns in enumerate(rows):
        given = {"index": index} | dict(columns)
        channel = old.pop(given["index"], None)
        if channel is not None:
            book.change(channel, **given)
        else:
            book.add(Channel(id=new_id(), image_id=image.id, **given))
    for gone in old.values():
        book.session.delete(gone)


def add_members(
    book: Book, acquisition: Acquisition, files: Iterable[Mapping[str, Any]]
) -> None:
    """Say which files an acquisition consists of; those that are known stay."""
    query = select(SeriesMember).where(SeriesMember.acquisition_id == acquisition.id)
    known = {
        (one.source_file_id, one.scene_index, one.instance_uid)
        for one in book.session.scalars(query)
    }
    fresh = [
        SeriesMember(id=new_id(), acquisition_id=acquisition.id, **one)
        for one in files
        if (
            one["source_file_id"],
            one.get("scene_index", 0),
            one.get("instance_uid", ""),
        )
        not in known
    ]
    book.add_all(fresh)
