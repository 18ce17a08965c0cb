"""What can go wrong at the IA-API service: one tree, and one table to HTTP status.

Two branches: what is wrong with a request to us, and what came back (or did not)
from the pathology server. The second decides what becomes of a job: a `Transient`
error is tried again, `Unauthorized` waits for a fresh token, `Gone` means that a
person removed the slide or the result, `Conflict` that somebody changed the result
meanwhile, and `Permanent` ends the job.
"""

from __future__ import annotations

import errno


class IaApiError(Exception):
    """Base of all errors of this service."""


class BadInvocation(IaApiError):
    """The body of an invocation cannot be understood; nothing was started."""


class TooLarge(IaApiError):
    """The body of a request is larger than the service takes."""


class NotAllowed(IaApiError):
    """The caller, or the callback address that it names, is not on the list."""


class NoSuchApp(IaApiError):
    """There is no app at this path, or it may not be seen."""


class NoSuchJob(IaApiError):
    """There is no such job, or it may not be seen."""


class Busy(IaApiError):
    """The queue is full, or too many requests came; come again later."""

    retry_after_s = 10.0


class VersionTooOld(IaApiError):
    """The pathology server speaks an older API than this app can work with."""


class CallbackError(IaApiError):
    """The pathology server did not do what was asked.

    `code` is a short word for logs, pages and the failed result: never patient data.
    """

    code = "callback"


class Transient(CallbackError):
    """It may work later: no connection, a time-out, 408, 425, 429, 5xx."""

    code = "unreachable"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unauthorized(CallbackError):
    """The token has run out (401 or 403): wait for a new one."""

    code = "token"


class Gone(CallbackError):
    """The slide or the result is no longer there (404)."""

    code = "gone"


class Conflict(CallbackError):
    """The result was changed since it was read (409, 412, sometimes 400)."""

    code = "conflict"


class Permanent(CallbackError):
    """It will not work at the next try either; the job ends here."""

    code = "refused"


class DownloadError(CallbackError):
    """The slide's files cannot be taken; trying again does not help."""

    code = "download"


class HostileName(DownloadError):
    """A file name of the download names no file in the job's folder."""

    code = "file-name"


class TooManyBytes(DownloadError):
    """The slide is larger than a job may take."""

    code = "too-large"


class DiskFull(Transient):
    """There is not enough room for the slide; it is tried again later."""

    code = "disk"


def is_disk_full(err: OSError) -> bool:
    """Whether an error of the file system says that there is no room, or no quota."""
    return err.errno in {errno.ENOSPC, errno.EDQUOT}


class Truncated(Transient):
    """The answer ended before its end; what came is thrown away."""

    code = "truncated"


STATUS: dict[type[Exception], tuple[int, str]] = {
    BadInvocation: (400, "Change the request as the detail says."),
    TooLarge: (413, "Send less: the detail says how much is taken."),
    NotAllowed: (403, "Ask the administrator to add the address to the lists."),
    NoSuchApp: (404, "Look at apps.json for the apps that there are."),
    NoSuchJob: (404, "Look at the list of jobs for those that there are."),
    Busy: (503, "Come again after the seconds that Retry-After names."),
    VersionTooOld: (409, "Ask for an app that works with the server's version."),
    CallbackError: (502, "Look at the pathology server: the detail says what it said."),
}
"""Which HTTP status, with which advice, answers each class (RFC 9457)."""
