"""Runs that shall be, and those that have a row: what planner and driver pass on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from theatrum.catalog.engine.work import Source, Task
from theatrum.node import Node


@dataclass(frozen=True)
class Wanted:
    """One run that shall be: which node on what, for which item, where in a flow."""

    item_key: str
    node: Node[..., Any]
    params: Mapping[str, Any]
    inputs: Mapping[str, Source | tuple[Source, ...]]
    node_key: str = ""
    parent: str | None = None
    run_id: str = ""
    attempt: int = 1
    kind: str = ""
    waits: str = ""
    """For whom it waits, in place of a worker: `review`, `external`."""
    anew: bool = False
    """It is done even where an earlier run did the same."""


@dataclass(frozen=True)
class Begun:
    """A run that has a row: its task, or what an earlier run's outputs are."""

    wanted: Wanted
    task: Task
    cached: bool = False
    waiting: bool = False
    lacking: bool = False
    """It has no row: what it takes was not kept, and has to be made again first."""
