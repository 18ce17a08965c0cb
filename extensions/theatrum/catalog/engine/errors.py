"""What can go wrong with running things, a branch of the catalogue's tree."""

from __future__ import annotations

from theatrum.catalog.errors import CatalogError


class EngineError(CatalogError):
    """Base of what the engine raises."""


class BadAddress(EngineError, ValueError):
    """An engine's address cannot be understood; the text says which can."""


class NoCluster(EngineError):
    """The cluster behind an address is not there, or its program is not installed.

    `passing` says whether asking once more may help.
    """

    def __init__(self, text: str, *, passing: bool = True) -> None:
        super().__init__(text)
        self.passing = passing


class WorkerDied(EngineError):
    """The process that ran a node ended without an answer: often out of memory."""


class BatchStopped(EngineError):
    """So many items failed that the rest was not begun."""


class BadBatch(EngineError, ValueError):
    """A batch cannot be begun as it was asked for; the text lists all reasons."""
