"""What a batch does, kept in its folder so that any later process can go on with it.

`items.jsonl` has a line for each item: its key and the ids of its images, as the query
found them when the batch began; what the batch itself makes is never among them.
`plan.pkl` holds the node or flow, its parameters and how failures are taken.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.engine.keys import ref_of_image
from theatrum.catalog.engine.ledger import Ledger, Wanted
from theatrum.catalog.engine.work import Ref, Source
from theatrum.node import Node

if TYPE_CHECKING:
    from theatrum.catalog.local import LocalBackend

OnError = Literal["continue", "stop", "threshold"]


@dataclass(frozen=True)
class Rules:
    """How a batch takes what goes wrong, and what its runs may use.

    Attributes
    ----------
    on_error
        `continue` does all other items; `stop` begins no more after the first failure;
        `threshold` once more than a share of the ended ones failed.
    threshold
        That share, 0 to 1; looked at from 20 ended ones on.
    retries
        So many more times is tried what may pass by itself.
    isolate
        Each run in a process of its own, which can be killed: for code that may hang.
    timeout_s
        After so many seconds a run counts as stuck; 0 never.
    refresh
        Do all anew, whatever was done before.
    window
        Runs that wait for a worker or are worked on, for each worker.
    """

    on_error: OnError = "continue"
    threshold: float = 0.1
    retries: int = 2
    isolate: bool = False
    timeout_s: float = 0.0
    refresh: bool = False
    window: int = 4


@dataclass(frozen=True)
class Item:
    """One unit of a batch: an image, or a group of them."""

    key: str
    ids: tuple[str, ...]


class Planner(Protocol):
    """Which runs an item needs, and which follow on those that ended."""

    @property
    def nodes(self) -> Sequence[Node[..., Any]]:
        """All that may be run, to be refused together before anything begins."""

    def begin(
        self, ledger: Ledger, items: Sequence[Item], known: Mapping[Any, Any]
    ) -> list[Wanted]:
        """The first runs of items; `known` are runs of before by (item, place)."""

    def then(self, ledger: Ledger, wanted: Wanted, state: str) -> list[Wanted]:
        """The runs that follow on one that ended, or was found done, in `state`."""

    def at_end(self, ledger: Ledger) -> list[Wanted]:
        """The runs that follow on all items together."""

    def missing(self, wanted: Wanted) -> list[Wanted]:
        """The runs that are not begun because this one gave nothing."""

    def restore(self, ledger: Ledger, wanted: Wanted) -> list[Wanted]:
        """The runs to do once more, since what they gave a run was not kept."""

    def close(self, ledger: Ledger) -> None:
        """What is to be done once the batch has come to its end."""


@dataclass
class OneNode:
    """A node on each item.

    Attributes
    ----------
    port
        The input that the item goes to.
    fixed
        The other inputs, the same for all.
    """

    node: Node[..., Any]
    params: Mapping[str, Any]
    port: str
    fixed: Mapping[str, Source | tuple[Source, ...]] = field(default_factory=dict)
    kind: str = ""

    @property
    def nodes(self) -> Sequence[Node[..., Any]]:
        """See `Planner`."""
        return (self.node,)

    def begin(
        self, ledger: Ledger, items: Sequence[Item], known: Mapping[Any, Any]
    ) -> list[Wanted]:
        """See `Planner`."""
        refs = refs_of(ledger.backend, [key for one in items for key in one.ids])
        many = self.node.inputs[self.port].many
        wanted = []
        for item in items:
            run_id, _, attempt = known.get((item.key, ""), ("", "", 0))
            sources = tuple(refs[key] for key in item.ids if key in refs)
            wanted.append(
                Wanted(
                    item.key,
                    self.node,
                    self.params,
                    {**self.fixed, self.port: sources if many else sources[0]}
                    if sources
                    else dict(self.fixed),
                    run_id=run_id,
                    attempt=attempt + 1,
                    kind=self.kind,
                )
            )
        return wanted

    def then(self, ledger: Ledger, wanted: Wanted, state: str) -> list[Wanted]:
        """Nothing follows."""
        del ledger, wanted, state
        return []

    def at_end(self, ledger: Ledger) -> list[Wanted]:
        """Nothing follows."""
        del ledger
        return []

    def missing(self, wanted: Wanted) -> list[Wanted]:
        """Nothing waits for it."""
        del wanted
        return []

    def restore(self, ledger: Ledger, wanted: Wanted) -> list[Wanted]:
        """A query finds no image whose file was not kept."""
        del ledger, wanted
        return []

    def close(self, ledger: Ledger) -> None:
        """Nothing is left to do."""
        del ledger


def one_node(
    node: Node[..., Any], params: Mapping[str, Any], fixed: Mapping[str, Any], kind: str
) -> OneNode:
    """Return the plan of a node on each item; raises BadBatch with all problems."""
    problems = []
    whole = dict(params)
    try:
        # With all defaults: what is recorded shall not change its meaning with them.
        whole = node.checked_parameters(params)
    except ValueError as error:
        problems.append(str(error).rstrip("."))
    free = [
        name
        for name, port in node.inputs.items()
        if name not in fixed and port.kind in ("array", "image", "volume")
    ]
    needed = [name for name in free if not node.inputs[name].optional]
    if not free:
        problems.append(f"{node.name} has no input for an image")
    others = [
        name
        for name, port in node.inputs.items()
        if not port.optional
        and name not in fixed
        and name != (needed or free or [""])[0]
    ]
    problems += [f"the input {name!r} is missing: give it by name" for name in others]
    problems += [
        f"{node.name} has no input {name!r}"
        for name in fixed
        if name not in node.inputs
    ]
    if problems:
        raise BadBatch("; ".join(problems) + ".")
    return OneNode(node, whole, (needed or free)[0], dict(fixed), kind)


def refs_of(backend: LocalBackend, ids: Sequence[str]) -> dict[str, Ref]:
    """Return images as sources, by id; those that are gone are left out."""
    from theatrum.catalog.query.spec import Q, Spec

    found: dict[str, Ref] = {}
    for at in range(0, len(ids), 400):
        where = Q(id__in=tuple(ids[at : at + 400]))
        for row in backend.rows(Spec("images", (where,))):
            found[row["id"]] = ref_of_image(row)
    return found


def save(folder: Path, planner: Planner, rules: Rules, items: Iterable[Item]) -> int:
    """Write a plan to the disk; returns how many items there are."""
    import cloudpickle

    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    with (folder / "items.part").open("w", encoding="utf-8") as stream:
        for item in items:
            stream.write(json.dumps([item.key, list(item.ids)]) + "\n")
            count += 1
        stream.flush()
        os.fsync(stream.fileno())
    (folder / "items.part").rename(folder / "items.jsonl")
    with (folder / "plan.part").open("wb") as raw:
        raw.write(cloudpickle.dumps((planner, rules)))
        raw.flush()
        os.fsync(raw.fileno())
    (folder / "plan.part").rename(folder / "plan.pkl")
    return count


def load(folder: Path) -> tuple[Planner, Rules]:
    """Read a plan; raises BadBatch where there is none."""
    try:
        raw = (folder / "plan.pkl").read_bytes()
    except FileNotFoundError as error:
        raise BadBatch(
            "The plan of this batch is gone: begin it anew; what was done is cached."
        ) from error
    # Our own file, in a folder that only its owner writes to.
    planner, rules = pickle.loads(raw)  # noqa: S301
    return planner, rules


def items_of(folder: Path) -> Iterator[Item]:
    """Yield the items of a batch, as they were when it began."""
    with (folder / "items.jsonl").open(encoding="utf-8") as stream:
        for line in stream:
            key, ids = json.loads(line)
            yield Item(key, tuple(ids))
