"""What can go wrong while images come in; a bad item is a refusal, never an error."""

from __future__ import annotations

from theatrum.catalog.errors import CatalogError


class IngestError(CatalogError):
    """The base of everything below; the text says what to do."""


class HostileArchive(IngestError):
    """An archive holds what none should: paths that lead out, links, a bomb."""


class SourceFailed(IngestError):
    """A place where images should come from does not answer, or not as it should."""


class BadRule(IngestError):
    """A classification rule cannot be understood."""


class BadUpload(IngestError):
    """A part of an upload is not what it should be."""


class NoSuchItem(IngestError):
    """There is no such item in the inbox, or it was decided before."""
