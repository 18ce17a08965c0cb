"""The words by which an image is found: one line of plain words for each image.

SQLite searches it by FTS5, PostgreSQL by a `tsvector`; the migrations make both. Words
are folded before they are stored (see `theatrum.catalog.query.text`), so that both find
the same.
"""

from __future__ import annotations

from sqlalchemy import ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from theatrum.catalog.tables.base import Base


class ImageText(Base):
    """An image's words: its name, its sample's, its tags, its channels, ..."""

    __tablename__ = "image_text"

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[str] = mapped_column(
        ForeignKey("image.id", ondelete="CASCADE"), unique=True
    )
    body: Mapped[str] = mapped_column(Text, default="")
