"""What can be wrong with a file that is to be taken in, as one tree.

A message names files by their name only, and holds no value of a header: messages go
into reports and logs.
"""

from __future__ import annotations

from theatrum.catalog.errors import CatalogError


class FormatError(CatalogError):
    """The base of everything below; its text says what to do next."""


class NotAnImage(FormatError):
    """The file is of no format that holds pixels, or of none that is known."""


class Damaged(FormatError):
    """The file says what it is, and is not: cut off, contradictory, or too large."""


class NoVolume(FormatError):
    """The files are images each, and together they form none."""


class FileChanged(FormatError):
    """The file is no longer the one that was opened, or is gone."""
