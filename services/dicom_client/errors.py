"""What can go wrong in the segmentation client: one tree, and one table to HTTP status.

What an engine or a peer does wrong decides what becomes of a job: a `Transient` error
is tried again later, `Unauthorized` waits for an operator, `UnknownTask` means that
the server lost the job, and the rest ends it. `code` is a short word for logs, pages
and statistics; it never holds anything of a patient.
"""

from __future__ import annotations


class DicomClientError(Exception):
    """Base of all errors of this service."""

    code = "error"


class BadRequest(DicomClientError):
    """What was sent makes no sense; nothing was changed."""

    code = "request"


class TooLarge(BadRequest):
    """What was sent weighs more than the settings allow."""

    code = "too-large"


class NoRoom(DicomClientError):
    """The disk or the quota is full."""

    code = "disk"


class NoSuchThing(DicomClientError):
    """There is no such series, job, template or rule, or it may not be seen."""

    code = "unknown"


class NotAllowed(DicomClientError):
    """The person's groups do not give this right."""

    code = "not-allowed"


class WrongState(DicomClientError):
    """The series or job is in a state in which this cannot be done."""

    code = "state"


class NotPackable(DicomClientError):
    """A series stays inside: it cannot be de-identified, or would tell a name.

    `code` is the reason's short word; doing it again changes nothing.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class LocalEngineFailed(DicomClientError):
    """A local engine gave no result; `code` says why: crash, memory, time-limit, ..."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class EngineError(DicomClientError):
    """The segmentation engine did not do what was asked."""

    code = "engine"


class Transient(EngineError):
    """It may work later: no connection, a time-out, 408, 425, 429, 5xx."""

    code = "unreachable"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unanswered(Transient):
    """The server took a package and gave no sense: nobody knows whether it has it."""

    code = "upload-unknown"


class Unauthorized(EngineError):
    """The server refuses the token, and it could not be renewed."""

    code = "token"


class UnknownTask(EngineError):
    """The server does not know the task (any more)."""

    code = "lost"


class NotReady(EngineError):
    """The result is not there yet."""

    code = "not-ready"


class Refused(EngineError):
    """The server refuses what was sent; sending it again does not help."""

    code = "refused"


class ServerFailed(EngineError):
    """The server says that the segmentation failed."""

    code = "server-failed"


class BadDownload(EngineError):
    """What was downloaded is not what the server said it would be."""

    code = "checksum"


class PeerError(DicomClientError):
    """A peer (a DICOMweb server) did not do what was asked; `code` says why."""

    code = "peer"

    def __init__(self, message: str, code: str = "peer") -> None:
        super().__init__(message)
        self.code = code


STATUS: dict[type[Exception], tuple[int, str]] = {
    TooLarge: (413, "Send less at once, as the detail says."),
    NoRoom: (507, "Make room on the server, then send it again."),
    BadRequest: (400, "Change the request as the detail says."),
    NotAllowed: (403, "Ask an administrator of the client for the right."),
    NoSuchThing: (404, "Look at the list for what there is."),
    WrongState: (409, "Look at the state again: it may have changed meanwhile."),
    NotPackable: (422, "Look at the images and at the template, as the detail says."),
    LocalEngineFailed: (
        500,
        "Look at the template's engine and its parameters, or raise its limits.",
    ),
    EngineError: (
        502,
        "Look at the segmentation server: the detail says what it said.",
    ),
    PeerError: (502, "Look at the peer: the detail says what it said."),
}
"""Which HTTP status, with which advice, answers each class (RFC 9457)."""
