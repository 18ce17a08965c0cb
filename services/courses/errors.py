"""What can go wrong with assignments, and how it is answered over HTTP."""

from __future__ import annotations

from hub.signin import HubUnreachableError, NotSignedInError


class CoursesError(Exception):
    """Base of all errors of the courses service."""


class NotFoundError(CoursesError):
    """Absent, or not the asker's to see: both are answered alike."""


class BadNameError(CoursesError):
    """A name cannot be used for a course, an assignment or a person."""


class BadPackageError(CoursesError):
    """The files sent are no usable package; nothing was stored."""


class ReleasedAlreadyError(CoursesError):
    """An assignment of this name has been released; it is not replaced unasked."""


STATUS: dict[type[Exception], tuple[int, str]] = {
    HubUnreachableError: (503, "The hub is restarting: try again in a minute."),
    NotSignedInError: (403, "Sign in at the hub, or send a hub token."),
    NotFoundError: (404, "Check the names, or ask the teacher for access."),
    BadNameError: (400, "Use small letters, digits, hyphens and underscores."),
    BadPackageError: (422, "Send the files again as the detail says."),
    ReleasedAlreadyError: (409, "Release with force to replace it."),
}
