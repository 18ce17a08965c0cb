"""What can go wrong while de-identifying, as one tree.

No message holds a value of a data set: messages go to logs and reports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from theatrum.deidentify.elements import Element


class DeidentifyError(Exception):
    """The base of everything below."""


class ProfileError(DeidentifyError):
    """The profile cannot be used; the message names the field and what it wants."""


class KeyFileError(DeidentifyError):
    """The key file is missing or too short to be a secret."""


class FolderError(DeidentifyError):
    """The folder to read or to write to cannot be used as asked."""


class MappingError(DeidentifyError):
    """A job's mapping exists already, is damaged, or is opened with another key."""


class ReidentificationError(DeidentifyError):
    """A returned file does not belong to the job, or would come out wrong."""


class NotGivenOut(DeidentifyError):
    """A file that stays inside. `reason` is a stable word, the message explains it."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(detail)


class Refused(NotGivenOut):
    """The file cannot be de-identified: it is no DICOM, cut off, or not supported."""

    before: tuple[Element, ...] = ()
    """What could be read before the damage: enough to tell its series."""


class Held(NotGivenOut):
    """The file could be given out only after a person has looked at it."""
