"""What a running node says to its caller, and hears from it.

A node takes a `Context` as an argument and, between two pieces of work, tells how far
it is and looks whether it is still wanted. It never needs one: in a notebook the
argument is left out. A context holds two plain functions, so any caller (a progress
bar, a database row, a message to another machine) fits behind it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from theatrum.node.errors import Cancelled


def _silent(_fraction: float, _text: str) -> None:
    """Tell nobody."""


def _never() -> bool:
    """Nobody ever cancels."""
    return False


class Context:
    """One run, as its node sees it.

    Parameters
    ----------
    on_progress
        Called with the share done, 0 to 1 and never falling, and a short text without
        patient data. It is called as often as the node does something: whoever sends
        it further throttles it.
    is_cancelled
        Asked at every step; True once the run is not wanted any more.
    folder
        Where the node writes files: empty and its own. Whoever runs the node takes
        over what is named in the outputs and clears the rest away; without one, a
        temporary folder is made when the first file is written.

    Both functions are called in the thread that the node runs in.
    """

    def __init__(
        self,
        on_progress: Callable[[float, str], None] = _silent,
        is_cancelled: Callable[[], bool] = _never,
        folder: Path | None = None,
    ) -> None:
        self._on_progress = on_progress
        self._is_cancelled = is_cancelled
        self._done = 0.0
        self._folder = folder

    def path(self, name: str) -> Path:
        """Return where to write a file of this name, without folders in it."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="theatrum-node-"))
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / Path(name).name

    def check(self) -> None:
        """Raise Cancelled if the run is not wanted any more."""
        if self._is_cancelled():
            raise Cancelled("The run was cancelled.")

    def progress(self, fraction: float, text: str = "") -> None:
        """Tell the share done, 0 to 1, and what is being done; checks as well."""
        self.check()
        self._done = max(self._done, min(1.0, max(0.0, fraction)))
        self._on_progress(self._done, text)

    def part(self, start: float, stop: float) -> Context:
        """Return a context whose 0 to 1 is `start` to `stop` of this one."""

        def on_progress(fraction: float, text: str) -> None:
            self._done = max(self._done, start + fraction * (stop - start))
            self._on_progress(self._done, text)

        return Context(on_progress, self._is_cancelled, self._folder)
