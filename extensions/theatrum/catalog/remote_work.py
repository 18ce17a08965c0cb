"""Steps that one does for a catalogue behind a service.

A step of a flow that waits for a program is taken by
`flows.external.serve(far.backend, name, do)`: its inputs are read, and what it gives is
sent, over HTTP. Batches of such a catalogue are `engine/ordering.py`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from theatrum.catalog.errors import BadRecord
from theatrum.catalog.facts import in_millimetres
from theatrum.catalog.flows.errors import LeaseLost
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.remote import RemoteBackend as RemoteBackend
from theatrum.catalog.remote import _zipped
from theatrum.node import Line, Polygon, Table


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
                self.backend.ask(
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
        return self.backend.json("POST", route, conflict=LeaseLost, json=body)


def lease(
    backend: RemoteBackend, served: str, holder: str, seconds: float
) -> RemoteLease | None:
    """Take the oldest step that waits under a name; see `flows.external.lease`."""
    worker = holder[-60:]
    said = {"served": served, "worker": worker, "seconds": max(seconds, 5.0)}
    answer = backend.ask("POST", "leases", json=said)
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
