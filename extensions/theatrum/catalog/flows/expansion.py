"""Which runs a flow needs, item by item: what is ready, what waits, what is skipped.

An item's state is the runs that it has, by *place*: a step's key, or `key#3` where the
step runs once for each of a list. It is read from the catalogue when the item is begun,
so a batch that is gone on with goes on where it was, in any process.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from theatrum.catalog.engine.discarding import discard, swept
from theatrum.catalog.engine.ledger import FINAL, GOOD, Ledger, Wanted
from theatrum.catalog.engine.plans import Item, refs_of
from theatrum.catalog.engine.work import Given, Ref, Source
from theatrum.catalog.flows.graph import Edge, Flow, Step
from theatrum.catalog.flows.keeping import late, makers, temporary
from theatrum.catalog.flows.standing import stand_in
from theatrum.node import Node

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
ALL = "all items"
"""The item key of steps that run once for the batch."""
_Runs = dict[str, tuple[str, str, int]]


@dataclass
class _State:
    """What is known of one item."""

    item: Item
    first: tuple[Ref, ...]
    runs: _Runs = field(default_factory=dict)
    """By place: run, state, attempt; a state of "" is a run that is under way."""
    again: set[str] = field(default_factory=set)
    """Places that are done anew, since what they gave was not kept."""


@dataclass
class FlowPlan:
    """A flow on each item.

    Attributes
    ----------
    steps
        Nodes by the keys of the steps.
    fixed
        Of the flow's inputs those that are the same for all items.
    anew
        Steps that are done even where an earlier run did the same.
    """

    flow: Flow
    steps: Mapping[str, Node[..., Any]]
    fixed: Mapping[str, Source] = field(default_factory=dict)
    anew: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self._items: dict[str, _State] = {}
        self._known: Mapping[Any, Any] | None = None
        self._by_item: dict[str, _Runs] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_items": {}, "_known": None, "_by_item": {}}

    @functools.cached_property
    def _late(self) -> frozenset[str]:
        """Steps whose arrays go when the steps over all items are done."""
        return late(self.flow)

    @functools.cached_property
    def _early(self) -> frozenset[str]:
        """Steps whose arrays go when their item is done."""
        return temporary(self.flow) - self._late

    def _sorted(self, known: Mapping[Any, Any]) -> dict[str, _Runs]:
        """The runs of before by item; sorted once, for there may be very many."""
        if self._known is not known:
            self._known, self._by_item = known, {}
            for (item_key, place), run in known.items():
                self._by_item.setdefault(item_key, {})[place] = run
        return self._by_item

    @property
    def nodes(self) -> Sequence[Node[..., Any]]:
        """See `Planner`."""
        return tuple(self.steps.values())

    # Planner

    def finished(self, item: Item, known: Mapping[Any, Any]) -> bool:
        """Whether all steps of an item are at their end."""
        mine = self._sorted(known).get(item.key, {})
        if not mine:
            return False
        if any(state not in FINAL for _, state, _ in mine.values()):
            return False
        bare = {place.partition("#")[0] for place in mine}
        bad = any(state not in GOOD for _, state, _ in mine.values())
        wanted = {one.key for one in self.flow.steps if one.over == "item"}
        return bad or wanted <= bare

    def begin(
        self, ledger: Ledger, items: Sequence[Item], known: Mapping[Any, Any]
    ) -> list[Wanted]:
        """See `Planner`."""
        refs = refs_of(ledger.backend, [key for one in items for key in one.ids])
        by_item = self._sorted(known)
        wanted = []
        for item in items:
            first = tuple(refs[key] for key in item.ids if key in refs)
            state = _State(item, first, dict(by_item.get(item.key, {})))
            self._items[item.key] = state
            wanted += self._ready(ledger, state)
        return wanted

    def then(self, ledger: Ledger, wanted: Wanted, state: str) -> list[Wanted]:
        """See `Planner`."""
        item = self._items.get(wanted.item_key)
        if item is None:
            return []
        item.runs[wanted.node_key] = (wanted.run_id, state, wanted.attempt)
        ready = self._ready(ledger, item)
        self._forget(item)
        if self._early and all(one in GOOD for _, one, _ in item.runs.values()):
            discard(ledger, self._early, item.item.key)
        return ready

    def _forget(self, item: _State) -> None:
        """Drop an item of which nothing is under way: a batch may have very many."""
        if all(state for _, state, _ in item.runs.values()):
            self._items.pop(item.item.key, None)

    def restore(self, ledger: Ledger, wanted: Wanted) -> list[Wanted]:
        """See `Planner`: the steps that gave it are done again, as far back as it is
        needed, and it is begun behind them."""
        item = self._items[wanted.item_key]
        place = wanted.node_key
        if wanted.run_id:
            item.runs[place] = (wanted.run_id, "queued", wanted.attempt - 1)
        else:
            item.runs.pop(place, None)
        for edge in self.flow.into(place.partition("#")[0]):
            for maker in makers(self.flow, edge.source):
                for one, (run_id, state, attempt) in tuple(item.runs.items()):
                    mine = one.partition("#")[0] == maker and state in GOOD
                    if mine and ledger.is_discarded(run_id):
                        item.runs[one] = (run_id, "queued", attempt)
                        item.again.add(one)
        return self._ready(ledger, item)

    def close(self, ledger: Ledger) -> None:
        """See `Planner`: what was not kept of any item goes."""
        if self._early or self._late:
            discard(ledger, self._early | self._late)
            swept(ledger)

    def missing(self, wanted: Wanted) -> list[Wanted]:
        """See `Planner`: what follows on a step that gave nothing is not begun."""
        item = self._items.get(wanted.item_key)
        if item is None:
            return []
        item.runs[wanted.node_key] = (wanted.run_id, "failed", wanted.attempt)
        key, number, _ = wanted.node_key.partition("#")
        del number
        skipped = []
        for follower in sorted(self.flow.after(key)):
            step = self.flow.step(follower)
            if follower in item.runs or step.over != "item":
                continue
            item.runs[follower] = ("", "skipped", 1)
            skipped.append(
                Wanted(
                    item.item.key,
                    self._node(step),
                    step.params,
                    {},
                    node_key=follower,
                )
            )
        self._forget(item)
        return skipped

    def at_end(self, ledger: Ledger) -> list[Wanted]:
        """See `Planner`: the steps over all items, and what follows on them."""
        if all(one.over == "item" for one in self.flow.steps):
            return []
        known = ledger.open_runs()
        state = _State(Item(ALL, ()), ())
        runs = dict(self._sorted(known))
        state.runs = dict(runs.pop(ALL, {}))
        self._others = runs
        self._items[ALL] = state
        return self._ready(ledger, state)

    # What is ready

    def _ready(self, ledger: Ledger, state: _State) -> list[Wanted]:
        """Return the runs of an item that can begin now."""
        scope = "items" if state.item.key == ALL else "item"
        wanted: list[Wanted] = []
        for step in self.flow.steps:
            if step.over != scope:
                continue
            for place, inputs in self._places(ledger, state, step):
                run_id, now, attempt = state.runs.get(place, ("", None, 0))
                if now in FINAL or now == "":
                    continue
                if now == "waiting":
                    continue  # for a person, or for somebody's program
                state.runs[place] = (run_id, "", attempt)
                wanted.append(
                    Wanted(
                        state.item.key,
                        self._node(step),
                        _params(step),
                        inputs,
                        node_key=place,
                        run_id=run_id,
                        attempt=attempt + 1,
                        waits=step.kind if step.kind != "node" else "",
                        anew=step.key in self.anew or place in state.again,
                    )
                )
        return wanted

    def _places(
        self, ledger: Ledger, state: _State, step: Step
    ) -> list[tuple[str, dict[str, Source | tuple[Source, ...]]]]:
        """Return the places of a step whose inputs are all there; [] if not yet."""
        if step.when is not None:
            allowed = self._allowed(ledger, state, step)
            if allowed is not True:
                return []
        node = self._node(step)
        single: dict[str, list[Source]] = {}
        whole: dict[str, tuple[Source, ...]] = {}
        for edge in self.flow.into(step.key):
            found = self._sources(ledger, state, edge)
            if found is None:
                return []
            many = step.kind == "node" and node.inputs[edge.to_port].many
            if many and not found:
                return []  # no item gave one
            if many:
                whole[edge.to_port] = (*whole.get(edge.to_port, ()), *found)
            else:
                single[edge.to_port] = list(found)
        lengths = {len(found) for found in single.values() if len(found) != 1}
        if 0 in lengths:
            return []  # a list without members: there is nothing to do
        if len(lengths) > 1:
            raise ValueError(f"{step.key} is given lists of different lengths")
        count = lengths.pop() if lengths else 1
        places = []
        for at in range(count):
            inputs: dict[str, Source | tuple[Source, ...]] = dict(whole)
            for port, found in single.items():
                inputs[port] = found[at] if len(found) > 1 else found[0]
            places.append((step.key if count == 1 else f"{step.key}#{at}", inputs))
        return places

    def _sources(
        self, ledger: Ledger, state: _State, edge: Edge
    ) -> Sequence[Source] | None:
        """Return what an edge carries for an item; None while it is not there."""
        if not edge.step:
            if edge.port in self.fixed:
                return (self.fixed[edge.port],)
            return state.first
        step = self.flow.step(edge.step)
        if state.item.key == ALL and step.over == "item":
            return self._of_all(ledger, edge)
        return self._of_item(ledger, state, edge)

    def _of_all(self, ledger: Ledger, edge: Edge) -> Sequence[Source]:
        """Return what all items gave, in their order; failed ones gave nothing."""
        found: list[Source] = []
        for key in sorted(self._others):
            other = _State(Item(key, ()), (), self._others[key])
            found += self._of_item(ledger, other, edge) or ()
        return found

    def _of_item(
        self, ledger: Ledger, state: _State, edge: Edge
    ) -> Sequence[Source] | None:
        step = self.flow.step(edge.step)
        runs = [
            (place, run)
            for place, run in state.runs.items()
            if place.partition("#")[0] == step.key
        ]
        if not runs or any(run[1] not in GOOD for _, run in runs):
            return None
        if len(runs) < self._expected(ledger, state, step):
            return None
        if step.kind == "review":
            before = [
                one for one in self.flow.into(step.key) if one.to_port == edge.port
            ]
            return self._sources(ledger, state, before[0]) if before else None
        found: list[Source] = []
        for _, run in sorted(runs, key=lambda one: _number(one[0])):
            found += ledger.outputs(run[0]).get(edge.port, [])
        return found

    def _expected(self, ledger: Ledger, state: _State, step: Step) -> int:
        """How many runs a step has: those of its longest list."""
        if step.over == "items" or step.kind == "review":
            return 1
        try:
            return len(self._places(ledger, state, step))
        except ValueError:
            return 1

    def _allowed(self, ledger: Ledger, state: _State, step: Step) -> bool | None:
        assert step.when is not None  # noqa: S101  (asked by the caller; for mypy)
        source, comparison, value = step.when
        found = self._sources(ledger, state, Edge(source, f"{step.key}.when"))
        if not found:
            return None
        first = found[0]
        told = first.value if isinstance(first, Given) else None
        return told is not None and _COMPARE[comparison](told, value)

    def _node(self, step: Step) -> Node[..., Any]:
        if step.kind == "node":
            return self.steps[step.key]
        return stand_in(step)


def _params(step: Step) -> dict[str, Any]:
    if step.kind == "external":
        return {**step.params, "served": step.node, "gives": dict(step.gives)}
    return dict(step.params)


def _number(place: str) -> int:
    return int(place.partition("#")[2] or 0)
