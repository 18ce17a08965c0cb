"""What can go wrong in the catalogue, and how it is answered over HTTP."""

from __future__ import annotations

from theatrum.catalog.errors import CatalogError

from hub.signin import HubUnreachableError, NotSignedInError


class NoSuchImageError(CatalogError):
    """The image is absent, or not the asker's to see: both are answered alike."""


class ImageGoneError(CatalogError):
    """The image is registered, but its file cannot be read."""


class BadNameError(CatalogError):
    """A name cannot be used for a collection or an image."""


class BadCaseError(CatalogError):
    """What was sent is no teaching case; nothing of it is kept."""


STATUS: dict[type[Exception], tuple[int, str]] = {
    HubUnreachableError: (503, "The hub is restarting: try again in a minute."),
    NotSignedInError: (403, "Sign in at the hub, or send a hub token."),
    NoSuchImageError: (404, "Check the image's name, or ask who owns it for access."),
    BadCaseError: (422, "Change the case as the detail says, and send it again."),
    ImageGoneError: (410, "Tell whoever keeps the slides that this file is gone."),
}
