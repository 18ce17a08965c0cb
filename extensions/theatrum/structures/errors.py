"""What can be wrong with a series or with a structure set."""

from __future__ import annotations


class StructureError(ValueError):
    """Base of all errors of this part."""


class BadGeometry(StructureError):
    """The images of a series do not form one volume; the message says in what way."""


class BadStructures(StructureError):
    """A structure set cannot be read, or does not fit its images."""
