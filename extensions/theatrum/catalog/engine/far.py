"""A batch of a catalogue behind a service: the same handle, over HTTP.

The service's worker does it, or this notebook's own engine (`lending.py`); its runs
are rows of the service either way, so that any other notebook sees the same. Looks are
conditional (`If-None-Match`): one at which nothing changed costs next to nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.engine.ledger import FINAL, GOOD
from theatrum.catalog.query.spec import Q, Spec

if TYPE_CHECKING:
    from theatrum.catalog.engine.lending import Lending
    from theatrum.catalog.image import CatalogImage
    from theatrum.catalog.query.lazy import Query
    from theatrum.catalog.remote import RemoteBackend

FRESH_S: Final = 0.4
"""So long what was seen of a batch is not asked for again."""
LOOK_S: Final = 0.5
"""Between looks at a batch that one waits for."""
GOING: Final = frozenset({"queued", "running"})
MOST_AGAIN: Final = 5000
"""Items that are named in an order; of more, the query is asked anew."""


class RemoteBatch:
    """Many runs under one order; the handle may be thrown away while it works."""

    def __init__(
        self, backend: RemoteBackend, id: str, lending: Lending | None = None
    ) -> None:
        self.backend = backend
        self.id = id
        self._lending = lending
        self._tag = ""
        # Any: a row as JSON
        self._seen: dict[str, Any] = {}
        self._at = 0.0
        self._counted: tuple[float, dict[str, int]] = (0.0, {})
        self._lock = threading.Lock()
        self._total = 0
        row = self._row(now=True)  # raises NotFound at once
        self._total = int((row.get("counts") or {}).get("items", 0))

    # Working

    def wait(self, timeout: float | None = None) -> RemoteBatch:
        """Wait until it ended, or waits for people; raises TimeoutError, and what this
        notebook's engine raised."""
        end = None if timeout is None else time.monotonic() + timeout
        pause = threading.Event()
        while self._goes_on():
            if end is not None and time.monotonic() > end:
                raise TimeoutError(f"The batch is not done: {self.counts}.")
            pause.wait(LOOK_S)
        if self._lending is not None and self._lending.error is not None:
            raise self._lending.error
        return self

    def _goes_on(self) -> bool:
        state = self._row(now=True)["state"]
        # What waits for programs waits for this one's engine.
        return state in GOING or (state == "waiting" and self._lends)

    def cancel(self) -> None:
        """Stop it: running nodes are told, those of their own process killed."""
        self._post("cancel")
        if self._lending is not None:
            self._lending.stop()

    kill = cancel

    def retry(self) -> RemoteBatch:
        """Do once more what failed, was cancelled or skipped."""
        self._post("retry")
        return self.resume()

    def resume(self) -> RemoteBatch:
        """Go on: a service's batch does by itself, here the engine is begun anew."""
        if self._lending is not None:
            self._lending.start(self)
        return self

    # Any: parameters of the step
    def rerun(self, step: str, **given: Any) -> RemoteBatch:
        """Do a flow's batch again from a step on, perhaps with other parameters."""
        from theatrum.catalog.engine import ordering
        from theatrum.catalog.flows.graph import Flow

        row = self._row(now=True)
        if "flow" not in row["params"]:
            raise BadBatch("Only a flow's batch has steps to go on from.")
        flow, nodes = Flow.from_json(row["params"]["flow"]), {}
        engine = None
        if self._lending is not None and self._lending.flow is not None:
            flow, nodes = self._lending.flow, self._lending.nodes
            engine = self._lending.engine
        again = sorted({step, *flow.after(step)})
        flow = flow.with_params(step, **given) if given else flow
        project = self.backend.rows(Spec("projects", (Q(id=row["project_id"]),)))
        return ordering.order_flow(
            self._query(self._items(row)),
            flow,
            nodes=nodes,
            engine=engine,
            project=project[0]["name"],
            name=f"{flow.title or flow.name} from {step}",
            anew=again,
        )

    def _items(self, row: Mapping[str, Any]) -> Spec:
        """The images that it was done on, as far as these can be named."""
        from theatrum.catalog.query.spec import spec_from_json

        spec = spec_from_json(row["query"])
        where = (Q(batch_id=self.id),)
        asked = Spec("runs", where, values=("item_key",), distinct=True)
        keys = [one["item_key"] for one in self.backend.each(asked)]
        named = Spec("images", (Q(id__in=tuple(keys)),))
        if 0 < len(keys) <= MOST_AGAIN and self.backend.count(named) == len(keys):
            return named
        return spec

    # People

    @property
    def reviews(self) -> list[dict[str, Any]]:
        """What waits for a person."""
        found: list[dict[str, Any]] = self.backend.json(
            "GET", f"{self._route}/reviews"
        )["items"]
        return found

    def review(self, run_id: str, *, approve: bool, comment: str = "") -> None:
        """Let an item pass, or not; the batch goes on with those that passed."""
        said = {"approve": approve, "comment": comment}
        self.backend.json("POST", f"runs/{quote(run_id)}/review", json=said)
        self._forget()

    # Looking

    @property
    def state(self) -> str:
        """queued, running, waiting (for people), succeeded, failed or cancelled."""
        return str(self._row()["state"])

    @property
    def reason(self) -> str:
        """Why it waits, or failed; else ""."""
        return str(self._row().get("reason") or "")

    @property
    def total(self) -> int:
        """How many items it has."""
        # The row tells it until the batch ended, and then how its runs did.
        told = (self._row().get("counts") or {}).get("items")
        if told is None and not self._total:
            told = self.runs.values("item_key").distinct().count()
        self._total = int(told or self._total)
        return self._total

    @property
    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        at, counts = self._counted
        if time.monotonic() - at > FRESH_S:
            found = self.runs.facets("state")["state"]
            counts = {str(state): count for state, count in found.items()}
            self._counted = (time.monotonic(), counts)
        return dict(counts)

    @property
    def running(self) -> bool:
        """Whether anybody works on it."""
        return self.state in GOING or self._lends

    @property
    def progress(self) -> float:
        """The share of the items that ended, 0 to 1."""
        counts = self.counts
        ended = sum(count for state, count in counts.items() if state in FINAL)
        return min(1.0, ended / max(self.total, sum(counts.values()), 1))

    @property
    def live(self) -> dict[str, tuple[float, str]]:
        """Of the runs that this notebook does: how far each is, and what it does."""
        return self._lending.live if self._lending is not None else {}

    @property
    def elapsed_s(self) -> float:
        """The seconds that it took, or takes until now."""
        row = self._row()
        begun, ended = row.get("started_at"), row.get("ended_at")
        if not begun:
            return 0.0
        end = datetime.fromisoformat(ended) if ended else datetime.now(UTC)
        return (end - datetime.fromisoformat(begun)).total_seconds()

    @property
    def runs(self) -> Query[Any]:
        """Its runs, as a query."""
        return self._query(Spec("runs", (Q(batch_id=self.id),)))

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
    def results(self) -> Query[CatalogImage]:
        """The images that it made, or that an earlier run made for it."""
        found = tuple(self._origins().values())
        mine = Q(run__batch_id=self.id)
        where = mine | Q(run_id__in=found) if found else mine
        return self._query(Spec("images", (where,)))

    def _origins(self) -> dict[str, str]:
        """Of what was done before: by its run here the run that did it."""
        asked = self.runs.filter(state="cached").values("id", "metrics")
        return {one["id"]: str(one["metrics"]["cached_from"]) for one in asked}

    def numbers(self) -> list[dict[str, Any]]:
        """Of each run its item and the numbers that it gave, for a data frame."""
        origins = self._origins()
        found = {}
        wanted = sorted(set(origins.values()))
        for at in range(0, len(wanted), 400):
            where = Q(id__in=tuple(wanted[at : at + 400]))
            for one in self._query(Spec("runs", (where,), values=("id", "metrics"))):
                found[one["id"]] = one["metrics"]
        names = ("id", "item_key", "node_key", "metrics")
        good = self.runs.filter(state__in=tuple(GOOD)).order_by("item_key")
        return [
            {
                "item": one["item_key"],
                "node": one["node_key"],
                "run": one["id"],
                **found.get(origins.get(one["id"], ""), one["metrics"]).get(
                    "numbers", {}
                ),
            }
            for one in good.values(*names)
        ]

    # HTTP

    @property
    def _lends(self) -> bool:
        return self._lending is not None and self._lending.is_alive

    @property
    def _route(self) -> str:
        return f"batches/{quote(self.id)}"

    def _row(self, *, now: bool = False) -> dict[str, Any]:
        with self._lock:
            if now or time.monotonic() - self._at > FRESH_S:
                headers = {"If-None-Match": self._tag} if self._tag else {}
                answer = self.backend.ask("GET", self._route, headers=headers)
                if answer.status_code != 304:
                    self._seen = answer.json()
                    self._tag = answer.headers.get("ETag", "")
                self._at = time.monotonic()
            return self._seen

    def _post(self, what: str) -> None:
        self.backend.json("POST", f"{self._route}/{what}", conflict=BadBatch)
        self._forget()

    def _forget(self) -> None:
        self._at, self._counted = 0.0, (0.0, {})

    def _query(self, spec: Spec) -> Query[Any]:
        from theatrum.catalog.query.lazy import Query
        from theatrum.catalog.rows import maker

        return Query(self.backend, spec, maker(spec.of))

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        why = f" ({reason})" if (reason := self.reason) else ""
        return f"<batch {self.id} {self.state}: {counts or 'nothing begun'}{why}>"

    def _repr_mimebundle_(self, **_: Any) -> Any:
        from theatrum.catalog.engine.progress import shown

        return shown(self)
