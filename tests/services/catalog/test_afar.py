"""A notebook of the hub, whose catalogue is a service: analyses, exports, uploads."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.distributed
import httpx
import nibabel
import numpy as np
import pytest
from theatrum.catalog import connect
from theatrum.catalog.connection import Catalog
from theatrum.catalog.engine import open_batch
from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.engine.progress import bar, sentence
from theatrum.catalog.errors import BadArray, CatalogError, NotConnected
from theatrum.catalog.flows import Builder
from theatrum.catalog.ingest import sending
from theatrum.catalog.remote import RemoteBackend
from theatrum.node import Array, Context, NodeError, node
from theatrum.nodes.catalog import deconvolve, gauss, histogram, project

from hub.settings import load
from services.catalog import intake
from tests.services.catalog.running import Site

pytestmark = pytest.mark.usefixtures("scans")


@pytest.fixture
def far(site: Site) -> Catalog:
    """The catalogue as a notebook of wes's has it."""
    return connect(site.url, token="wes")


@pytest.fixture
def taking_in(site: Site) -> Iterator[None]:
    """The worker that takes in what is sent."""
    settings = load({"THEATRUM_HOME": str(site.home.root)})
    stop = threading.Event()
    thread = threading.Thread(target=intake.take_in_orders, args=(settings, stop))
    thread.start()
    yield
    stop.set()
    thread.join(60)


def good(far: Catalog) -> Any:
    """The three scans that are scans."""
    return far.images.filter(project="work", kind="original", name__lt="scan-3")


@node(name="negative", version="1.0.0")
def negative(image: Array, factor: float = 1.0) -> Array:
    """Turn an image's values round."""
    return -factor * image


@node(name="never-ending", version="1.0.0")
def never_ending(image: Array, context: Context | None = None) -> Array:
    """Go on until somebody says stop."""
    assert context is not None
    pause = threading.Event()
    while not pause.wait(0.02):
        context.check()
    return image


def test_the_first_example_of_the_documentation_runs_in_the_hub(
    far: Catalog, working: None
) -> None:
    stacks = good(far)
    batch = stacks.map(project, how="max", along="z")
    batch.wait(60)
    assert batch.state == "succeeded"
    assert batch.counts in ({"succeeded": 3}, {"cached": 3})
    assert (batch.failures, batch.progress, batch.running) == ([], 1.0, False)
    assert batch.total == 3
    assert sorted(int(one.array.max()) for one in batch.results) == [10, 11, 12]
    assert {one.project.name for one in batch.results} == {"work"}
    assert "3 of 3 done" in sentence(batch)
    assert batch.id in repr(batch)
    assert bar(batch).children[0].children[0].bar_style == "success"
    # The same order is found done, and its results as well.
    again = stacks.map(project, how="max", along="z").wait(60)
    assert again.counts == {"cached": 3}
    assert {one.id for one in again.results} == {one.id for one in batch.results}
    told = stacks.map(histogram, bins=4, refresh=True).wait(60).numbers()
    assert len(told) == 3
    assert open_batch(far.backend, batch.id).counts == batch.counts


def test_a_function_of_the_notebook_runs_in_the_notebooks_own_engine(
    far: Catalog, working: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = good(far).map(negative, factor=2.0, engine="threads").wait(120)
    assert (batch.state, batch.counts) == ("succeeded", {"succeeded": 3})
    assert sorted(int(one.array.min()) for one in batch.results) == [-24, -22, -20]
    run = batch.results.first().run
    assert run.requested_by == "wes"
    assert run.params["node"] == "negative@1.0.0"
    assert run.params["params"] == {"factor": 2.0}
    assert "Turn an image's values round" in run.params["source"]
    lineage = batch.results.first().lineage
    assert any(kind == "image" for kind, _ in lineage.things)
    # What is no node at all, on no engine that is named.
    monkeypatch.setenv("THEATRUM_ENGINE", "threads")
    with pytest.warns(UserWarning, match="is no node"):
        plain = good(far).map(lambda image: image.max("z") + 1)
    plain.wait(120)
    assert plain.counts == {"succeeded": 3}
    assert {one.array.ndim for one in plain.results} == {2}


def test_a_node_is_done_on_a_scheduler_of_ones_own(far: Catalog, working: None) -> None:
    with (
        dask.distributed.LocalCluster(
            n_workers=1, processes=False, dashboard_address=None
        ) as cluster,
        dask.distributed.Client(cluster) as client,
    ):
        from theatrum.catalog.engine import Engine

        batch = good(far).map(project, how="mean", engine=Engine(client)).wait(120)
    assert batch.counts == {"succeeded": 3}
    assert batch.results.first().run.params["node"].startswith("project@")


def test_what_fails_in_the_notebook_is_told_and_can_be_done_once_more(
    far: Catalog, working: None
) -> None:
    failing = {"scan-1"}

    @node(name="picky", version="1.0.0")
    def picky(image: Array) -> Array:
        if image.name in failing:
            raise NodeError("not this one")
        return image + 1

    batch = good(far).map(picky, engine="threads").wait(120)
    assert batch.counts == {"succeeded": 2, "failed": 1}
    (failure,) = batch.failures
    assert "not this one" in failure["message"]
    failing.clear()
    batch.retry().wait(120)
    assert batch.counts == {"succeeded": 3}


def test_a_batch_of_the_notebooks_engine_is_cancelled(
    far: Catalog, working: None
) -> None:
    batch = good(far).map(never_ending, engine="threads")
    pause = threading.Event()
    for _ in range(600):
        if batch.counts.get("waiting") == 3:
            break
        pause.wait(0.1)
    assert batch.running
    with pytest.raises(TimeoutError):
        batch.wait(0.01)
    batch.cancel()
    batch.wait(60)
    assert batch.state == "cancelled"
    assert batch.counts == {"cancelled": 3}


def test_a_service_that_is_away_for_a_moment_costs_no_item(
    far: Catalog, working: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = RemoteBackend.ask
    cut: list[str] = []

    def cutting(self: RemoteBackend, method: str, route: str, **more: Any) -> Any:
        what = route.rpartition("/")[2]
        if what in ("leases", "complete") and cut.count(what) < 2:
            cut.append(what)
            raise NotConnected("cut")
        return ask(self, method, route, **more)

    monkeypatch.setattr(RemoteBackend, "ask", cutting)
    batch = good(far).map(negative, engine="threads").wait(120)
    assert sorted(cut) == ["complete", "complete", "leases", "leases"]
    assert batch.counts == {"succeeded": 3}


def test_a_flow_is_parted_between_service_and_notebook(
    far: Catalog, working: None
) -> None:
    flow = Builder("mixed")
    image = flow.input()
    smooth = flow.add(gauss, image=image, sigma=flow.parameter("sigma", 1.0))
    turned = flow.add(negative, image=smooth, factor=3.0)
    flow.output("flat", flow.add(project, image=turned, how="min"))
    mixed = flow.build()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THEATRUM_ENGINE", "threads")
        batch = good(far).apply(mixed, sigma=0.5).wait(120)
        assert batch.state == "succeeded"
        assert batch.counts == {"succeeded": 9}
        flat = batch.results.filter(run__node_key="project")
        assert all(float(one.array.max()) <= 0 for one in flat)
        again = batch.rerun("project", how="max").wait(120)
    assert again.runs.filter(node_key="project", state="succeeded").count() == 3
    assert again.total == 3


def test_other_images_go_into_a_batch_by_name(far: Catalog, working: None) -> None:
    first = far.images["work/scan-0"]
    batch = good(far).map(deconvolve, psf=first, rounds=1, refresh=True).wait(60)
    assert batch.counts == {"succeeded": 3}
    for one in batch.results:
        assert ("image", first.id) in one.lineage.things
    with pytest.raises(BadBatch, match="cannot travel"):
        good(far).map(deconvolve, psf=np.zeros((2, 2)))


def test_what_cannot_be_done_far_away_says_what_to_do(far: Catalog) -> None:
    @node(name="together", version="1.0.0")
    def together(images: list[Array]) -> Array:
        return images[0]

    with pytest.raises(BadBatch, match=r"query\.to_bag"):
        good(far).map(together, engine="threads")
    with pytest.raises(BadBatch, match="finds subjects"):
        far.subjects.map(project)
    with pytest.raises(BadBatch, match="start"):
        good(far).map(project, start=False)


# What leaves, and comes in


def test_an_export_is_fetched_from_where_the_line_was_cut(
    far: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = far.export(good(far), tmp_path / "whole.zip", what="originals")
    with zipfile.ZipFile(whole) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    assert len([name for name in names if name.endswith(".nii")]) == 3
    with pytest.raises(BadArray):
        far.export(good(far), whole)
    read = httpx.Response.iter_bytes
    cut: list[int] = []

    def cutting(answer: httpx.Response, size: int | None = None) -> Iterator[bytes]:
        for number, block in enumerate(read(answer, 100)):
            if number == 5 and len(cut) < 3:
                cut.append(number)
                raise httpx.ReadError("cut")
            yield block

    monkeypatch.setattr(httpx.Response, "iter_bytes", cutting)
    # A part of a folder is unpacked once it is whole.
    folder = far.export(good(far), tmp_path / "folder", what="originals")
    assert len(cut) == 3
    for name in names:
        with zipfile.ZipFile(whole) as archive:
            assert (folder / name).read_bytes() == archive.read(name)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "whole.zip"]


def test_files_are_sent_and_taken_in_from_where_the_line_was_cut(
    far: Catalog, taking_in: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sent"
    folder.mkdir()
    for number in range(2):
        values = np.random.default_rng(number).integers(0, 99, (6, 7, 8), np.int16)
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / f"{number}.nii")
    (folder / "notes.txt").write_text("no image")
    ask = RemoteBackend.ask
    parts: list[int] = []

    def cutting(self: RemoteBackend, method: str, route: str, **more: Any) -> Any:
        if method == "PATCH":
            parts.append(int(more["headers"]["Upload-Offset"]))
            if len(parts) == 2:
                raise NotConnected("cut")
        return ask(self, method, route, **more)

    monkeypatch.setattr(sending, "PART", 500)
    monkeypatch.setattr(RemoteBackend, "ask", cutting)
    monkeypatch.setattr(sending, "PATIENCE", 1)
    with pytest.raises(NotConnected):
        far.ingest(folder, project="work")
    monkeypatch.setattr(sending, "PATIENCE", 8)
    (begun,) = far.backend.json("GET", "uploads")["items"]
    said = {"project": "work", "deidentify": "", "fields": {}, "inbox": False}
    known = sending._begun(far.backend, begun["sha256"], said)
    assert known is not None
    assert known["id"] == begun["id"]
    for other in ({"deidentify": "basic"}, {"fields": {"name": "x"}}):
        assert sending._begun(far.backend, begun["sha256"], said | other) is None
    report = far.ingest(folder, project="work")
    assert parts[1] == parts[2] > 0
    assert report.counts["taken"] == 2
    assert {one.split("/")[0] for one in report.images} == {"work"}
    assert report.refused[0].reason
    image = far.images[report.images[0]]
    assert image.array.shape == (8, 7, 6)
    again = far.ingest(folder / "0.nii", project="work", experiment__name="Pilot")
    assert again.counts["known"] == 1
    with pytest.raises(CatalogError, match="not there"):
        far.ingest(tmp_path / "nothing", project="work")
    with pytest.raises(CatalogError, match="no field"):
        far.ingest(folder / "1.nii", project="work", colour="x")
