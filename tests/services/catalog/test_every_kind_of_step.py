"""A flow with a step of every kind, ordered by a notebook and done by the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import nbformat
import numpy as np
import pytest
from theatrum.catalog import connect
from theatrum.catalog.engine.line import BY_SERVICE
from theatrum.catalog.flows import Builder, Flow, run_flow
from theatrum.catalog.flows.external import serve
from theatrum.catalog.flows.recipes import bids_app
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Batch
from theatrum.node import File
from theatrum.nodes.catalog import project, run_bids_app, run_notebook

from tests.extensions.nodes.catalog.runtimes import double
from tests.services.catalog.running import Site, until

pytestmark = pytest.mark.usefixtures("scans")


def every_kind(container: str) -> Flow:
    """An app in a container, a person, a program outside, a notebook, a node."""
    flow = Builder("every-kind", keep="outputs")
    image = flow.input("image")
    note = flow.input("note", "file")
    app = flow.add(run_bids_app, images=image, container=container)
    fit = flow.review(title="Did the app work?", image=app.images)
    drawn = flow.external("by-hand", gives={"result": "array"}, image=fit)
    told = flow.add(run_notebook, notebook=note, image=drawn, parameters={"add": "2"})
    flow.output("report", told.notebook)
    flow.output("flat", flow.add(project, image=drawn))
    return flow.build()


def notebook(folder: Path) -> File:
    book = nbformat.v4.new_notebook()
    first = nbformat.v4.new_code_cell("add = 0\nimage = ''")
    first.metadata["tags"] = ["parameters"]
    told = "import nibabel\nprint('top', nibabel.load(image).get_fdata().max() + add)"
    book.cells = [first, nbformat.v4.new_code_cell(told)]
    path = folder / "note.ipynb"
    nbformat.write(book, path)
    return File(path, "application/x-ipynb+json")


@pytest.mark.long
def test_a_flow_with_a_step_of_every_kind_is_done_by_the_worker(
    site: Site,
    wes: httpx.Client,
    working: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    docker = double(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    catalog = connect(site.home.root, user="wes")
    scans = catalog.images.filter(project__name="work", name__in=["scan-1", "scan-2"])
    batch = run_flow(
        scans, every_kind(docker.bids), note=notebook(tmp_path), start=False
    )
    with recording(catalog.backend.database, "wes") as book:
        row = book.get(Batch, batch.id)
        book.change(row, engine={**row.engine, "by": BY_SERVICE})
    address = f"batches/{batch.id}"
    until(lambda: wes.get(address).json(), "waiting")
    first, second = wes.get(f"{address}/reviews").json()["items"]
    # A person lets one pass over HTTP, and the other from a notebook.
    answer = wes.post(f"runs/{first['run']}/review", json={"approve": True})
    assert answer.status_code == 200, answer.text
    batch.review(second["run"], approve=True, comment="fit")

    def drawn(work: Any) -> dict[str, Any]:
        return {"result": work.inputs["image"] * 10}

    def done() -> dict[str, Any]:
        serve(catalog.backend, "by-hand", drawn, holder="desk")
        state: dict[str, Any] = wes.get(address).json()
        return state

    until(done, "succeeded")
    told = wes.get(f"{address}/matrix").json()
    assert set(told["steps"]) == {
        *("run-bids-app", "review", "by-hand", "run-notebook", "project")
    }
    states = {
        cell["state"] for item in told["items"] for cell in item["steps"].values()
    }
    assert states == {"succeeded"}
    flat = {one.run.item_key: one for one in batch.results}
    assert len(flat) == 2
    for scan in scans:
        assert np.array_equal(flat[scan.id].array, scan.array.max("z") * 10)
        reports = catalog.assets.filter(run__item_key=scan.id, role="report")
        texts = [Path(one.uri).read_text() for one in reports]
        top = float(scan.array.max()) * 10 + 2
        assert any(f"top {top}" in text for text in texts)
        assert any("participant --participant-label 01" in text for text in texts)
        # The lineage reaches the scan over what was not kept.
        lineage = wes.get(f"images/{flat[scan.id].id}/lineage").json()
        assert scan.id in {one["id"] for one in lineage["things"]}
        assert {one["requested_by"] for one in lineage["runs"]} == {"wes"}


def test_the_template_of_a_bids_app_is_filled_and_kept(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = double(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    catalog = connect(site.home.root, user="wes")
    scan = catalog.images.filter(project__name="work", name="scan-1")
    flow = bids_app()
    assert Flow.from_json(flow.to_json()) == flow
    batch = run_flow(scan, flow, container=docker.bids, engine="sync").wait(60)
    assert batch.counts == {"succeeded": 2}
    kept = catalog.assets.filter(run__batch=batch.id, media_type="application/x-bids")
    assert (Path(kept.one().uri) / "dataset_description.json").is_file()
