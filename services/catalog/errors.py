"""What can go wrong in the catalogue, and how it is answered over HTTP."""

from __future__ import annotations

from theatrum.catalog import errors
from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.errors import CatalogError
from theatrum.catalog.flows.errors import LeaseLost
from theatrum.node import NodeError

from hub.signin import HubUnreachableError, NotSignedInError


class NoSuchImageError(CatalogError):
    """The image is absent, or not the asker's to see: both are answered alike."""


class ImageGoneError(CatalogError):
    """The image is registered, but its file cannot be read."""


class BadNameError(CatalogError):
    """A name cannot be used for a collection or an image."""


class BadCaseError(CatalogError):
    """What was sent is no teaching case; nothing of it is kept."""


class ConflictError(CatalogError):
    """What is there already is in the way."""


class OutdatedError(CatalogError):
    """The asker changes a row as it no longer is."""


class TooLargeError(CatalogError):
    """What is sent is larger than is taken, or than was announced."""


class SourceRefusedError(CatalogError):
    """An address that the administrator does not allow images to be taken from."""


class TooManyRequestsError(CatalogError):
    """Somebody asks too often."""

    def __init__(self, after_s: float) -> None:
        super().__init__(f"you ask too often: try again after {after_s:.1f} s")
        self.after_s = after_s


STATUS: dict[type[Exception], tuple[int, str]] = {
    HubUnreachableError: (503, "The hub is restarting: try again in a minute."),
    NotSignedInError: (403, "Sign in at the hub, or send a hub token."),
    NoSuchImageError: (404, "Check the image's name, or ask who owns it for access."),
    BadNameError: (422, "Choose another name, as the detail says."),
    BadCaseError: (422, "Change the case as the detail says, and send it again."),
    ImageGoneError: (410, "Tell whoever keeps the slides that this file is gone."),
    ConflictError: (409, "Look at what is there, and choose another name."),
    OutdatedError: (412, "Load it anew, and change it then."),
    TooLargeError: (413, "Send less, as the detail says."),
    SourceRefusedError: (422, "Name an address that the administrator allows."),
    TooManyRequestsError: (429, "Ask less often: Retry-After says when."),
    errors.NotFound: (404, "Check its id, or ask who owns it for access."),
    errors.NotAllowed: (403, "Ask a maintainer of the project for a higher role."),
    errors.BadQuery: (422, "Change the question as the detail says."),
    errors.BadRecord: (422, "Change what you send as the detail says."),
    BadBatch: (409, "Look at the batch, and do as the detail says."),
    LeaseLost: (409, "Take other work: this is not yours any more."),
    NodeError: (422, "Change the parameters as the detail says."),
    errors.BadArray: (422, "Ask for another part, as the detail says."),
    errors.SeveralFound: (409, "Narrow the question."),
    errors.Gone: (410, "Tell whoever keeps the images that this file is gone."),
    errors.NotOpened: (422, "This image has no array that can be shown this way."),
    errors.NotConnected: (503, "Try again in a minute."),
    CatalogError: (422, "Change the request as the detail says."),
}
"""Each error's status and what to do; of classes in one line the narrowest counts."""
