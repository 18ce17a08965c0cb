"""What can go wrong in the catalogue, as one tree; each message says what to do.

The service answers these over HTTP by one table, `services.catalog.errors.STATUS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CatalogError(Exception):
    """Base of all errors of the catalogue."""


class NotConnected(CatalogError):
    """No catalogue is known, or the one that is does not answer."""


class NotFound(CatalogError):
    """A row is absent, or in a project that the asker may not see: both alike."""


class SeveralFound(CatalogError):
    """One row was asked for, and the query finds more."""


class BadQuery(CatalogError, ValueError):
    """A query cannot be understood."""


class UnknownField(BadQuery):
    """A query names a field, a relation or a lookup that is not there."""


class BadRecord(CatalogError, ValueError):
    """A row cannot be written as it is; nothing was written."""


class NoHuman(BadRecord):
    """A run does not say for whom it was."""


class NotAllowed(CatalogError):
    """The asker's role in the project does not reach so far."""


class Gone(CatalogError):
    """The row is there, and the file that it names is not."""


class NotOpened(CatalogError):
    """The file of an image cannot be opened as an array."""


class BadArray(CatalogError, ValueError):
    """An array or a region of it does not fit what was asked."""


def near(wrong: str, right: Iterable[str]) -> str:
    """A sentence with the names that were perhaps meant; empty where none is near."""
    names = sorted(set(right))
    found = difflib.get_close_matches(wrong, names, n=4, cutoff=0.5)
    if not found:
        found = [name for name in names if wrong in name or name in wrong][:4]
    return f" Did you mean {' or '.join(found)}?" if found else ""
