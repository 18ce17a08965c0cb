"""Work on a catalogue behind a service: batches that it does, steps done for it.

    far = catalog.connect("https://hub/services/catalog", token=TOKEN)
    batch = far.images.filter(modality="MR").map(project, how="max").wait()
    batch.results                        # a query, like any other

The service does the batch, on its own engine and with nodes that ship. A step of a flow
that waits for a program is taken by `flows.external.serve(far.backend, name, do)`: its
inputs are read, and what it gives is sent, over HTTP.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.errors import BadRecord
from theatrum.catalog.facts import in_millimetres
from theatrum.catalog.flows.errors import LeaseLost
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.remote import RemoteBackend as RemoteBackend
from theatrum.catalog.remote import _zipped
from theatrum.node import Line, Node, Polygon, Table

if TYPE_CHECKING:
    from theatrum.catalog.flows.graph import Flow
    from theatrum.catalog.image import CatalogImage
    from theatrum.catalog.query.lazy import Query

LOOK_S: Final = 1.0
"""Between looks at a batch that one waits for."""
ENDED: Final = frozenset({"succeeded", "failed", "cancelled", "waiting"})
"""States in which a batch does nothing by itself; of these one waits for people."""
SHIPPED: Final = "theatrum.nodes."
_ORDER: Final = frozenset({"by", "project", "name", "on_error", "retries", "refresh"})
_HERE: Final = frozenset({"engine", "mode", "isolate", "timeout_s", "window", "start"})
"""Words of a batch that is done here: the service has its own."""


@dataclass
class RemoteBatch:
    """A batch that the service does; the handle may be thrown away meanwhile."""

    backend: RemoteBackend
    id: str

    @property
    def state(self) -> str:
        """queued, running, waiting (for people), succeeded, failed or cancelled."""
        return str(self._row["state"])

    @property
    def reason(self) -> str:
        """Why it waits, or failed; else ""."""
        return str(self._row.get("reason") or "")

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        found = self.runs.facets("state")["state"]
        return {str(state): count for state, count in found.items()}

    def wait(self, timeout: float | None = None) -> RemoteBatch:
        """Wait until it ended, or waits for people; raises TimeoutError."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.state not in ENDED:
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"The batch is not done: {self.counts}.")
            time.sleep(LOOK_S)
        return self

    def cancel(self) -> None:
        """Stop it: running nodes are told; what ended stays."""
        self._post("cancel")

    def retry(self) -> RemoteBatch:
        """Do once more what failed, was cancelled or skipped."""
        self._post("retry")
        return self

    @property
    def runs(self) -> Query[Any]:
        """Its runs, as a query."""
        return self._query(Spec("runs", (Q(batch_id=self.id),)))

    @property
    def results(self) -> Query[CatalogImage]:
        """The images that it made."""
        return self._query(Spec("images", (Q(run__batch_id=self.id),)))

    # Any here: JSON
    @property
    def failures(self) -> list[dict[str, Any]]:
        """Of each run that failed its item, its place in the flow, and why."""
        return [
            {
                "item": run.item_key,
                "node": run.node_key,
                "run": run.id,
                "attempt": run.attempt,
                **(run.error or {}),
            }
            for run in self.runs.filter(state="failed").order_by("item_key")
        ]

    @property
    def reviews(self) -> list[dict[str, Any]]:
        """What waits for a person."""
        found: list[dict[str, Any]] = self.backend._json(
            "GET", f"batches/{quote(self.id)}/reviews"
        )["items"]
        return found

    def review(self, run_id: str, *, approve: bool, comment: str = "") -> None:
        """Let an item pass, or not; the batch goes on with those that passed."""
        said = {"approve": approve, "comment": comment}
        self.backend._json("POST", f"runs/{quote(run_id)}/review", json=said)

    @property
    def _row(self) -> dict[str, Any]:
        row: dict[str, Any] = self.backend._json("GET", f"batches/{quote(self.id)}")
        return row

    def _post(self, what: str) -> None:
        self.backend._json("POST", f"batches/{quote(self.id)}/{what}")

    def _query(self, spec: Spec) -> Query[Any]:
        from theatrum.catalog.query.lazy import Query
        from theatrum.catalog.rows import maker

        return Query(self.backend, spec, maker(spec.of))

    def __repr__(self) -> str:
        return f"<batch {self.id} {self.state}: done by the service>"


# Any here and below: a node's parameters, JSON
def map_query(query: Query[Any], node: Any, given: Mapping[str, Any]) -> RemoteBatch:
    """Order a node of the service's palette over a query; see `Query.map`."""
    said = _order(query, given) | {"node": _name(node)}
    return _ordered(query, "batches", said)


def run_flow(
    query: Query[Any], flow: Flow | Mapping[str, Any], given: Mapping[str, Any]
) -> RemoteBatch:
    """Keep a flow with the service, and order it over a query; see `Query.apply`."""
    from theatrum.catalog.flows.graph import Flow

    said = _order(query, given)
    if not said.get("project"):
        raise BadBatch("The service keeps the flow: say in which project, as project=.")
    graph = flow.to_json() if isinstance(flow, Flow) else dict(flow)
    backend = _backend(query)
    kept = backend._json(
        "POST", "flows", json={"project": said["project"], "graph": graph}
    )
    return _ordered(query, f"flows/{quote(kept['id'])}/run", said)


def _order(query: Query[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    ours = sorted(_HERE & given.keys())
    if ours:
        raise BadBatch(
            f"{ours[0]} is the service's own: it does the batch on its engine. To work "
            "on yours, connect to the catalogue's home."
        )
    params = {
        name: value
        for name, value in given.items()
        if name not in _ORDER | {"parameters"}
    } | dict(given.get("parameters") or {})
    return {
        "query": query.to_json(),
        "params": params,
        **{name: given[name] for name in sorted(_ORDER & given.keys())},
    }


def _ordered(query: Query[Any], route: str, said: Mapping[str, Any]) -> RemoteBatch:
    backend = _backend(query)
    try:
        body = json.dumps(said).encode()
    except TypeError as err:
        raise BadBatch(
            "A parameter cannot travel as JSON: the service takes numbers, texts and "
            "lists of them."
        ) from err
    headers = {"Content-Type": "application/json"}
    row = backend._json("POST", route, content=body, headers=headers)
    return RemoteBatch(backend, str(row["id"]))


def _backend(query: Query[Any]) -> RemoteBackend:
    backend = query._backend
    if not isinstance(backend, RemoteBackend):
        raise BadBatch("This catalogue is no service's.")
    return backend


def _name(node: Any) -> str:
    if isinstance(node, str):
        return node
    if isinstance(node, Node) and (node.address or "").startswith(SHIPPED):
        return str(node.address).rpartition(":")[2]
    raise BadBatch(
        "The service does nodes that ship (theatrum.nodes.catalog). Code of your own "
        "runs in your notebook: take the arrays of the query, and save what you make."
    )


@dataclass
class RemoteLease:
    """One step of a flow that this program does now; see `flows.external.Lease`."""

    backend: RemoteBackend
    run_id: str
    worker: str
    batch_id: str
    item: str
    step: str
    gives: Mapping[str, str]
    until: float
    ports: Mapping[str, str] = field(default_factory=dict)
    """Of each input the id of its image."""

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What goes in, by port: arrays, not yet read."""
        found = {}
        for port, key in self.ports.items():
            (row,) = self.backend.rows(Spec("images", (Q(id=key),)))
            found[port] = self.backend.array(row, 0)
        return found

    def renew(self, seconds: float = 30.0) -> None:
        """Keep it for so many more seconds; raises LeaseLost."""
        said = self._post("heartbeat", {"seconds": max(seconds, 5.0)})
        self.until = _moment(said["until"])

    def finish(self, **outputs: Any) -> None:
        """Hand results in, by the names of the step's ports; raises LeaseLost."""
        plain = {}
        for name, value in outputs.items():
            if self.gives.get(name) == "array":
                self._send(name, value)
            else:
                plain[name] = _said(name, value)
        self._post("complete", {"outputs": plain})

    def fail(self, error: BaseException) -> None:
        """Tell that the step gave nothing, and why."""
        self._post("fail", {"reason": f"{type(error).__name__}: {error}"[:2000]})

    def _send(self, port: str, array: Any) -> None:
        from theatrum.catalog.zarr_store import write_image

        with tempfile.TemporaryDirectory(prefix="theatrum-step-") as folder:
            group, package = Path(folder, "image.ome.zarr"), Path(folder, "image.zip")
            write_image(group, in_millimetres(array))
            _zipped(group, package)
            with package.open("rb") as file:
                self.backend._ask(
                    "PUT",
                    f"{self._route}/outputs/{quote(port)}",
                    conflict=LeaseLost,
                    params={"worker": self.worker},
                    content=file,
                )

    @property
    def _route(self) -> str:
        return f"leases/{quote(self.run_id)}"

    def _post(self, what: str, said: Mapping[str, Any]) -> Any:
        body = {"worker": self.worker, **said}
        route = f"{self._route}/{what}"
        return self.backend._json("POST", route, conflict=LeaseLost, json=body)


def lease(
    backend: RemoteBackend, served: str, holder: str, seconds: float
) -> RemoteLease | None:
    """Take the oldest step that waits under a name; see `flows.external.lease`."""
    worker = holder[-60:]
    said = {"served": served, "worker": worker, "seconds": max(seconds, 5.0)}
    answer = backend._ask("POST", "leases", json=said)
    if not answer.content:
        return None
    work = answer.json()
    return RemoteLease(
        backend,
        work["run"],
        worker,
        work["batch"],
        work["item"],
        work["step"],
        work["gives"],
        _moment(work["until"]),
        {port: one["id"] for port, one in work["inputs"].items()},
    )


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _said(name: str, value: Any) -> Any:
    """An output as JSON; raises BadRecord for what cannot travel so."""
    if isinstance(value, Line | Polygon):
        return value.to_geojson()
    if isinstance(value, Table):
        columns = {one: list(column) for one, column in value.columns.items()}
        return {"columns": columns, "units": dict(value.units)}
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadRecord(
            f"{name} is a {type(value).__name__}, which cannot be handed in over HTTP"
        )
    return value
