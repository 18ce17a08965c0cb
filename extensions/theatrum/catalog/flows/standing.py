"""What stands in a run's row for a step that no code of ours does.

A review hands on what a person let pass; an external step is done by whoever serves it.
Both have a row with a definition like any other run, so that lineage shows them.
"""

from __future__ import annotations

from typing import Any

from theatrum.catalog.flows.graph import Step
from theatrum.node import Node, node


@node(name="review", version="1.0.0", kind="gate", pure=False)
def review() -> bool:
    """A person looked, and let it pass or not."""
    raise RuntimeError("A review is a person's: answer it with batch.review().")


@node(name="external", version="1.0.0", kind="external", pure=False)
def external() -> bool:
    """Somebody's notebook or program does it: `theatrum.catalog.flows.external`."""
    raise RuntimeError("This step waits for who serves it.")


def stand_in(step: Step) -> Node[..., Any]:
    """Return the node of a step of another kind than `node`."""
    return review if step.kind == "review" else external
