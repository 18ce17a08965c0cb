"""The processes that look at what comes in: one for arrays, one for the viewer."""

from __future__ import annotations

from types import TracebackType

from hub.home import Home
from theatrum.catalog.ingest import look
from tile_server.probing import Prober, ProbeSettings
from tile_server.readers.imports import IMPORTS


class Workers:
    """The processes that look at files; who takes things in often keeps them.

    A context manager; for one thread at a time.
    """

    def __init__(self, home: Home, limits: look.Limits | None = None) -> None:
        imports = home.cache / "tiles" / IMPORTS
        self.looker = look.Looker(limits)
        self.prober = Prober(ProbeSettings(workers=1, imports=imports))
        # Both start while the files are found.
        self.looker.warm_up()
        self.prober.warm_up()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.looker.close()
        self.prober.close()
