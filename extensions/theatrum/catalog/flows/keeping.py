"""Which results of a flow stay: all, those it is for, or those of steps that are named.

What no other step takes is a result and always stays, and so do numbers and files: what
goes are arrays in between, once all of an item is done.
"""

from __future__ import annotations

from theatrum.catalog.flows.graph import Edge, Flow


def temporary(flow: Flow) -> frozenset[str]:
    """The steps whose arrays go."""
    if flow.keep == "all":
        return frozenset()
    named = set() if isinstance(flow.keep, str) else set(flow.keep)
    for source in flow.outputs.values():
        named |= makers(flow, source)
    for key in tuple(named):
        named |= _passed_on(flow, key)
    taken = {maker for edge in flow.edges for maker in makers(flow, edge.source)}
    return frozenset(
        one.key
        for one in flow.steps
        if one.kind != "review" and one.key in taken and one.key not in named
    )


def late(flow: Flow) -> frozenset[str]:
    """Of those the ones that steps over all items take: they go when these are done."""
    over = {one.key for one in flow.steps if one.over == "items"}
    needed = {
        maker
        for edge in flow.edges
        if edge.to_step in over
        for maker in makers(flow, edge.source)
    }
    return temporary(flow) & needed


def makers(flow: Flow, source: str) -> set[str]:
    """The step that an edge's value is made by: a review hands on what it was given."""
    edge = Edge(source, "")
    if not edge.step or all(one.key != edge.step for one in flow.steps):
        return set()
    if flow.step(edge.step).kind != "review":
        return {edge.step}
    return {
        maker
        for one in flow.into(edge.step)
        if one.to_port == edge.port
        for maker in makers(flow, one.source)
    }


def _passed_on(flow: Flow, key: str) -> set[str]:
    """For a review that is named: what it was given."""
    if all(one.key != key for one in flow.steps) or flow.step(key).kind != "review":
        return set()
    return {maker for one in flow.into(key) for maker in makers(flow, one.source)}
