"""What can go wrong between a notebook and an image, as one tree.

A service answers a refusal with a problem document (RFC 9457): its `title` says what
to do, its `detail` what happened. `refusal` turns one into the class of the table
below, so that a notebook shows the service's own words.
"""

from __future__ import annotations

from collections.abc import Mapping


class ImageError(Exception):
    """An image cannot be had. `title` is the short form, `detail` the rest."""

    title = "This image cannot be shown"

    def __init__(self, detail: str, *, title: str | None = None) -> None:
        self.title = title or type(self).title
        self.detail = detail
        super().__init__(detail)

    def __str__(self) -> str:
        return f"{self.title}. {self.detail}" if self.detail else f"{self.title}."


class NoSuchImage(ImageError):
    """No image has this name, or its collection is not open to you."""

    title = "There is no such image for you"


class NotAllowed(ImageError):
    """The service refused the kernel's token or the image's address."""

    title = "Sign in again"


class Expired(NotAllowed):
    """The address of the tiles has expired; asking again gives a new one."""

    title = "The address of this image has expired"


class FileMissing(ImageError):
    """The image is known, but its file is gone."""

    title = "The file of this image is missing"


class Replaced(ImageError):
    """The file of the image is another one than when the image was opened."""

    title = "This image has been replaced since it was opened"


class Unreadable(ImageError):
    """The file is no image that can be read."""

    title = "This file cannot be read as an image"


class BadRegion(ImageError, ValueError):
    """The region asked for is empty, outside, or larger than the service gives."""

    title = "This region cannot be read"


class BadMarks(ImageError, ValueError):
    """The value given for marks is not a collection of points and polygons."""

    title = "These marks cannot be drawn"


class Unreachable(ImageError):
    """No service answers."""

    title = "The image service does not answer"


BY_STATUS: Mapping[int, type[ImageError]] = {
    400: BadRegion,
    401: NotAllowed,
    403: NotAllowed,
    404: NoSuchImage,
    410: FileMissing,
    413: BadRegion,
    415: Unreadable,
    422: Unreadable,
}
"""Which error a refused request becomes; any other status is `ImageError`."""


def refusal(status: int, problem: Mapping[str, object]) -> ImageError:
    """Return the error for a service's refusal, in the service's own words."""
    error = BY_STATUS.get(status, ImageError)
    title = problem.get("title")
    detail = problem.get("detail")
    return error(
        detail if isinstance(detail, str) else f"The service answered {status}.",
        title=title.rstrip(".") if isinstance(title, str) else None,
    )
