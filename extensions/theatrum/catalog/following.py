"""How far long work with a service is: a bar in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[str, int, "int | None"], None]
"""Told the phase, what is done, and of how much; None where nobody knows."""


@contextmanager
def followed(unit: str) -> Iterator[Tell]:
    """Show what is told, a line for each phase, until the block ends.

    `unit`: `bytes` for sizes as people read them, else things that are counted; of
    the phase `sent` always bytes.
    """
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    column = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    lines: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        column,
        TimeRemainingColumn(),
        transient=True,
    ) as shown:

        def tell(phase: str, done: int, of: int | None) -> None:
            if phase not in lines:
                lines[phase] = shown.add_task(phase, total=of)
            shown.update(lines[phase], completed=done, total=of)

        yield tell
