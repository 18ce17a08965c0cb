"""Single runs, stopped and done again, and steps that a program outside does."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import xarray as xr
from theatrum.catalog import connect, remote_work
from theatrum.catalog.errors import BadRecord, CatalogError
from theatrum.catalog.flows import Builder
from theatrum.catalog.flows.errors import LeaseLost
from theatrum.catalog.flows.external import serve
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Run
from theatrum.catalog.zarr_store import write_image
from theatrum.nodes.catalog import project

from tests.services.catalog.running import Site, until

pytestmark = pytest.mark.usefixtures("scans")
GOOD = {"of": "images", "where": [
    {"field": "project", "value": "work"}, {"field": "kind", "value": "original"},
    {"field": "name__lt", "value": "scan-2"},
]}  # fmt: skip
BAD = {"of": "images", "where": [{"field": "name", "value": "scan-3"}]}


def _runs(wes: httpx.Client, batch: str, **more: str) -> list[dict[str, Any]]:
    words = {"batch_id": batch, "sort": "item_key,node_key", **more}
    items: list[dict[str, Any]] = wes.get("runs", params=words).json()["items"]
    return items


def _flow(wes: httpx.Client, name: str, gives: dict[str, str]) -> str:
    """A flow of wes's whose first step a program outside does."""
    flow = Builder(name)
    image = flow.input()
    drawn = flow.external(name, gives=gives, image=image)
    if "array" in gives.values():
        flow.add(project, image=drawn.result)
    said = {"project": "work", "graph": flow.build().to_json()}
    answer = wes.post("flows", json=said)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _ordered(wes: httpx.Client, flow: str) -> str:
    batch = wes.post(f"flows/{flow}/run", json={"query": GOOD}).json()["id"]
    until(lambda: wes.get(f"batches/{batch}").json(), "waiting")
    return str(batch)


def _zipped(tmp_path: Path, array: xr.DataArray) -> bytes:
    write_image(tmp_path / "group", array)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for file in sorted((tmp_path / "group").rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(tmp_path / "group").as_posix())
    return out.getvalue()


def test_a_program_outside_does_a_step_and_the_flow_goes_on(
    site: Site, wes: httpx.Client, working: None, tmp_path: Path
) -> None:
    batch = _ordered(wes, _flow(wes, "double", {"result": "array"}))
    claim = {"served": "double", "worker": "desk"}
    first = wes.post("leases", json=claim)
    assert first.status_code == 200, first.text
    work = first.json()
    assert (work["batch"], work["step"]) == (batch, "double")
    other = wes.post("leases", json=claim | {"worker": "chair"}).json()
    assert other["run"] != work["run"]
    assert wes.post("leases", json=claim).status_code == 204
    # Whose it is not cannot renew it, nor end it.
    theft = {"worker": "chair"}
    address = f"leases/{work['run']}"
    assert wes.post(f"{address}/heartbeat", json=theft).status_code == 409
    assert wes.post(f"{address}/complete", json=theft).status_code == 409
    beat = wes.post(f"{address}/heartbeat", json={"worker": "desk", "seconds": 600})
    assert beat.json()["until"] > work["until"]
    # What goes in is read by its address, and what comes out is sent as a zip.
    far = connect(site.url, token="wes")
    source = far.images[work["inputs"]["image"]["id"]].array
    group = _zipped(tmp_path, source * 2)
    mine = {"params": {"worker": "desk"}}
    put = f"{address}/outputs/result"
    for body in (b"no zip", b""):
        assert wes.put(put, content=body, **mine).status_code == 422
    assert wes.put(put, content=group, params=theft).status_code == 409
    assert wes.put(f"{address}/outputs/other", content=group, **mine).status_code == 422
    for outputs in ({"other": 1}, {"result": 1}, {}):
        said = {"worker": "desk", "outputs": outputs}
        assert wes.post(f"{address}/complete", json=said).status_code == 422, outputs
    for _ in range(2):
        assert wes.put(put, content=group, **mine).status_code == 204
    done = wes.post(f"{address}/complete", json={"worker": "desk"})
    assert done.status_code == 200, done.text
    assert done.json()["state"] == "succeeded"
    assert wes.post(f"{address}/heartbeat", json={"worker": "desk"}).status_code == 409
    failed = wes.post(
        f"leases/{other['run']}/fail", json={"worker": "chair", "reason": "too dark"}
    )
    assert failed.json()["error"]["message"] == "too dark"
    until(lambda: wes.get(f"batches/{batch}").json(), "succeeded")
    states = {run["state"] for run in _runs(wes, batch, node_key="project")}
    assert states == {"succeeded"}
    made = far.images.filter(run=work["run"]).one()
    assert np.array_equal(made.array, source * 2)
    assert made.run.requested_by == "wes"


def test_a_lease_that_ran_out_is_another_ones(
    site: Site, wes: httpx.Client, working: None
) -> None:
    gives = {"axon": "line", "count": "number", "word": "text", "cells": "table"}
    batch = _ordered(wes, _flow(wes, "draw", gives))
    work = wes.post("leases", json={"served": "draw", "worker": "old"}).json()
    with recording(site.app.state.service.database, "wes") as book:
        row = book.get(Run, work["run"])
        book.change(row, metrics={**row.metrics, "lease_until": 1.0})
    again = wes.post("leases", json={"served": "draw", "worker": "new"}).json()
    assert again["run"] == work["run"]
    outputs = {
        "axon": [[1, 1], [4, 2]],
        "count": 7,
        "word": "clear",
        "cells": {"columns": {"area": [1.5, 2.5]}, "units": {"area": "mm2"}},
    }
    address = f"leases/{work['run']}/complete"
    said = {"outputs": outputs}
    assert wes.post(address, json={**said, "worker": "old"}).status_code == 409
    for name, wrong in (
        ("axon", [[1, 1]]), ("axon", "x"), ("count", True), ("count", "7"),
        ("word", 7), ("cells", {"columns": {"a": [1], "b": []}}), ("cells", []),
    ):  # fmt: skip
        bad = {"outputs": outputs | {name: wrong}, "worker": "new"}
        assert wes.post(address, json=bad).status_code == 422, (name, wrong)
    assert wes.post(address, json={**said, "worker": "new"}).status_code == 200
    found = wes.get("measurements", params={"run": work["run"]}).json()["items"]
    told = {one["name"]: one["text"] or one["value"] for one in found}
    assert told == {"count": 7, "word": "clear"}
    (drawn,) = wes.get("rois").json()["items"]
    assert drawn["geometry"]["coordinates"] == [[1, 1], [4, 2]]
    assert wes.get("tables", params={"run": work["run"]}).json()["items"]
    # What was never taken is cancelled, and the batch comes to its end.
    (left,) = _runs(wes, batch, state="waiting")
    assert wes.post(f"runs/{left['id']}/cancel").status_code == 202
    until(lambda: wes.get(f"batches/{batch}").json(), "succeeded")
    assert wes.post("leases", json={"served": "draw"}).status_code == 204


def test_who_only_reads_is_given_no_work(
    wes: httpx.Client, dan: httpx.Client, working: None
) -> None:
    batch = _ordered(wes, _flow(wes, "secretly", {"count": "number"}))
    assert dan.post("leases", json={"served": "secretly"}).status_code == 204
    (run, _) = _runs(wes, batch)
    for route in ("heartbeat", "complete", "fail"):
        said = {"reason": "x"} if route == "fail" else {}
        answer = dan.post(f"leases/{run['id']}/{route}", json=said)
        assert answer.status_code in (403, 422), answer.text
    for route in ("cancel", "retry"):
        assert dan.post(f"runs/{run['id']}/{route}").status_code == 403
    assert wes.post(f"batches/{batch}/cancel").status_code == 202


def test_a_run_that_failed_is_done_once_more_by_itself(
    wes: httpx.Client, working: None
) -> None:
    order = {"node": "histogram", "query": BAD}
    batch = wes.post("batches", json=order).json()["id"]
    until(lambda: wes.get(f"batches/{batch}").json(), "succeeded")
    (failed,) = _runs(wes, batch)
    assert (failed["state"], failed["attempt"]) == ("failed", 1)
    assert wes.post(f"runs/{failed['id']}/cancel").status_code == 409
    assert wes.post(f"runs/{failed['id']}/retry").status_code == 202
    again = until(lambda: wes.get(f"runs/{failed['id']}").json(), "failed")
    until(lambda: wes.get(f"batches/{batch}").json(), "succeeded")
    (again,) = _runs(wes, batch)
    assert (again["id"], again["attempt"]) == (failed["id"], 2)


def test_what_happens_during_a_run_is_told_as_it_happens(
    site: Site, wes: httpx.Client, working: None
) -> None:
    batch = _ordered(wes, _flow(wes, "looked-at", {"count": "number"}))
    (run, other) = _runs(wes, batch)
    address = f"runs/{run['id']}/events"
    listed = wes.get(address).json()["items"]
    headers = {"Accept": "text/event-stream"}
    told: list[dict[str, Any]] = []
    with (
        site.client("wes") as second,
        wes.stream("GET", address, headers=headers) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line[6:]))
                if len(told) == len(listed):
                    ended = second.post(f"runs/{run['id']}/cancel")
                    assert ended.status_code == 202, ended.text
    assert told[: len(listed)] == listed
    assert told[-1] == {"state": "cancelled"}
    assert told[-2]["message"] == "cancelled"
    # Who comes again is told what they missed.
    headers["Last-Event-ID"] = str(listed[-1]["seq"])
    with wes.stream("GET", address, headers=headers) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert [json.loads(line[6:]) for line in lines] == told[len(listed) :]
    assert wes.post(f"runs/{other['id']}/retry").status_code == 409
    assert wes.post(f"batches/{batch}/cancel").status_code == 202


def test_a_notebook_far_away_serves_steps_and_orders_batches(
    site: Site, wes: httpx.Client, working: None
) -> None:
    far = connect(site.url, token="wes")
    good = far.images.filter(project="work", kind="original", name__lt="scan-2")
    flow = Builder("measured-afar")
    image = flow.input()
    flow.add(
        project,
        image=flow.external(
            "measure-afar", gives={"result": "array", "top": "number"}, image=image
        ).result,
    )
    batch = good.apply(flow.build(), project="work").wait(60)
    assert batch.state == "waiting"
    assert batch.counts == {"waiting": 2}

    def measure(work: Any) -> dict[str, Any]:
        if work.inputs["image"].name == "scan-1":
            raise ValueError("not this one")
        array = work.inputs["image"]
        return {"result": array + 1, "top": float(array.max())}

    assert serve(far.backend, "measure-afar", measure) == 1
    until(lambda: {"state": batch.state}, "succeeded")
    assert [one["message"] for one in batch.failures] == ["ValueError: not this one"]
    source = far.images["work/scan-0"].array
    steps = batch.results.filter(run__node_key="measure-afar")
    assert np.array_equal(steps.one().array, source + 1)
    # A lease that went to another one is told as what it is.
    far.images.filter(name="scan-0", project="work").apply(
        flow.build(), project="work", refresh=True
    ).wait(60)
    work = remote_work.lease(far.backend, "measure-afar", "here", 30.0)
    assert work is not None
    lost = replace(work, worker="elsewhere")
    for act in (lost.renew, lambda: lost.finish(top=1.0)):
        with pytest.raises(LeaseLost):
            act()
    with pytest.raises(BadRecord):
        work.finish(top=[1, 2], result=source)
    work.fail(ValueError("enough"))


def test_a_batch_is_ordered_far_away_like_one_here(site: Site, working: None) -> None:
    far = connect(site.url, token="wes")
    all_four = far.images.filter(project="work", kind="original")
    batch = all_four.map(project, how="min", name="Lowest").wait(60)
    assert batch.counts == {"failed": 1, "succeeded": 3}
    assert batch.results.count() == 3
    assert batch.runs.first().params["how"] == "min"
    batch.retry().wait(60)
    assert batch.runs.filter(state="failed").one().attempt == 2
    for wrong, what in (
        ({"hwo": "min"}, "did you mean how"),
        ({"mode": "deep"}, "the catalogue's folder"),
        ({"how": object()}, "how"),
    ):
        with pytest.raises(CatalogError, match=what):
            all_four.map(project, **wrong)
